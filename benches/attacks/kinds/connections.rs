//! Connections that say nothing, or read nothing, on a server that may have 1,024 files open.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use code_explainer_client::Code;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::stage::Stage;
use crate::subject::{ATTACKER, LEAVING};
use crate::wire;

const SILENT: usize = 1_000;
/// Enough to take the last file, too.
const MORE_THAN_FILES: usize = 1_100;
/// A connection that was closed is made anew after this.
const PAUSE: Duration = Duration::from_secs(2);
/// A key that is taken out of the file counts no longer than this, whatever else goes on: a few looks at the file.
const WITHDRAWN_WITHIN: f64 = 10.0;
/// Requests that are sent ahead on a connection, and what its kernel keeps of their answers.
const AHEAD: usize = 64;
const RECEIVE_BYTES: u32 = 4096;

pub(crate) async fn silent_grpc(stage: Stage) -> Result<()> {
    stage.ready().await;
    let server = stage.grpc();
    silent(&stage, SILENT, |_| (server, wire::ATTACKER)).await;
    Ok(())
}

pub(crate) async fn silent_http(stage: Stage) -> Result<()> {
    stage.ready().await;
    let server = stage.http();
    silent(&stage, SILENT, |_| (server, wire::ATTACKER)).await;
    Ok(())
}

/// On both listeners, of an attacker with many addresses.
pub(crate) async fn silent_from_many(stage: Stage) -> Result<()> {
    stage.ready().await;
    let servers = [stage.grpc(), stage.http()];
    silent(&stage, SILENT, |n| {
        (servers[n % 2], wire::one_of_many(n / 2))
    })
    .await;
    Ok(())
}

/// Connects so many times, and anew where a connection is closed; without an end.
async fn silent(stage: &Stage, connections: usize, of: impl Fn(usize) -> (SocketAddr, Ipv4Addr)) {
    let mut tasks = JoinSet::new();
    for (server, from) in (0..connections).map(of) {
        let stage = stage.clone();
        tasks.spawn(async move {
            loop {
                match wire::connect(server, from, None).await {
                    Ok(mut connection) => {
                        stage.got("connected");
                        // Its own greeting is read, and nothing is said to it.
                        let mut greeting = [0; 256];
                        while matches!(connection.read(&mut greeting).await, Ok(1..)) {}
                        stage.got("closed by the server");
                    }
                    Err(error) => stage.got(format!("not connected: {}", error.kind())),
                }
                sleep(PAUSE).await;
            }
        });
    }
    while tasks.join_next().await.is_some() {}
}

/// With every file taken, a key goes out of the file of identities: how long its calls are still answered.
pub(crate) async fn withdrawn(stage: Stage) -> Result<()> {
    let client = stage.client(stage.token(LEAVING))?;
    client.model().await?;
    stage.ready().await;
    let server = stage.grpc();
    let silence = silent(&stage, MORE_THAN_FILES, |_| (server, wire::ATTACKER));
    let withdrawal = async {
        sleep(Duration::from_secs(2)).await;
        let book = stage.keys().book(LEAVING, "");
        stage.files().write("book", &book);
        let began = Instant::now();
        let refused = loop {
            let answer = timeout(Duration::from_secs(5), client.model()).await;
            match answer {
                Ok(Err(error)) if error.code() == Code::Unauthenticated => break true,
                Ok(Err(_)) | Err(_) => stage.got("the withdrawn key: no answer"),
                Ok(Ok(_)) => stage.got("the withdrawn key: answered"),
            }
            if began.elapsed().as_secs_f64() > WITHDRAWN_WITHIN + 5.0 {
                break false;
            }
            sleep(Duration::from_millis(100)).await;
        };
        let what = match refused {
            true => "seconds until the key was refused",
            false => "seconds, and the key still counts",
        };
        stage.check(what, began.elapsed().as_secs_f64(), WITHDRAWN_WITHIN);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = silence => {}
        () = withdrawal => {}
    }
    Ok(())
}

/// Asks for /metrics many times ahead, on as many connections as the server has files, and reads nothing.
pub(crate) async fn unread_metrics(stage: Stage) -> Result<()> {
    let request = format!(
        "GET /metrics HTTP/1.1\r\nHost: server\r\nAuthorization: Bearer {}\r\n\r\n",
        stage.token(ATTACKER)
    );
    let requests = request.repeat(AHEAD);
    stage.ready().await;
    let mut tasks = JoinSet::new();
    for n in 0..SILENT {
        let (stage, requests) = (stage.clone(), requests.clone());
        tasks.spawn(async move {
            loop {
                let from = wire::one_of_many(n);
                match wire::connect(stage.http(), from, Some(RECEIVE_BYTES)).await {
                    Ok(mut connection) => {
                        stage.got("connected");
                        // The server may close it while there is something to send.
                        let sent = connection.write_all(requests.as_bytes()).await.is_ok();
                        if sent {
                            hung_up(&connection).await;
                        }
                        stage.got("closed by the server");
                    }
                    Err(error) => stage.got(format!("not connected: {}", error.kind())),
                }
                sleep(PAUSE).await;
            }
        });
    }
    while tasks.join_next().await.is_some() {}
    Ok(())
}

/// Waits until the server has ended the connection, without reading from it.
async fn hung_up(connection: &TcpStream) {
    loop {
        match connection.ready(Interest::READABLE | Interest::ERROR).await {
            Ok(ready) if !ready.is_read_closed() && !ready.is_error() => {}
            _ => return,
        }
        // It stays readable for as long as nothing is read.
        sleep(Duration::from_secs(1)).await;
    }
}
