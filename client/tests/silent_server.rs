//! A server that says nothing, from the beginning or from the middle of an answer on, is not waited for without end.

use std::time::Duration;

use code_explainer_client::{Client, ConnectOptions, Error, Item, Progress, Retry, Window};
use futures::{StreamExt, stream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::command_line::{files, run};
use crate::scripted::{Server, at_once};

/// Nothing answers, so that only a bound of the program's own ends it.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_says_nothing_is_not_waited_for_for_ever() {
    let dir = files(&[("a.py", b"a")]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let accept = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            open.push(connection);
        }
    });
    let runs = [
        &["explain", "a.py"][..],
        &["batch", ".", "-o", "o"],
        &["model"],
        &["report"],
    ];
    let encrypted = address.replace("http://", "https://");
    let over_tls = run(&encrypted, dir.path(), &["model"]);
    let runs = runs.map(|args| run(&address, dir.path(), args));
    let quiet = run(&address, dir.path(), &["batch", "-q", ".", "-o", "q"]);
    let runs = futures::future::join_all(runs);
    let (over_tls, quiet, runs) = tokio::join!(over_tls, quiet, runs);
    assert!(!quiet.stderr.contains("yet"), "{}", quiet.stderr);
    // The handshake has a shorter time than what is worth a word meanwhile.
    let noted = runs.iter().map(|run| (run, true));
    for (run, noted) in noted.chain([(&over_tls, false), (&quiet, false)]) {
        assert_eq!(
            (run.code, run.stdout.as_str()),
            (Some(69), ""),
            "{}",
            run.stderr
        );
        for said in ["no connection to", "something listens there"] {
            assert!(run.stderr.contains(said), "{}", run.stderr);
        }
        assert!(
            !noted || run.stderr.contains("has not answered yet"),
            "{}",
            run.stderr
        );
    }
    accept.abort();
}

/// Hands on what comes to the server and from it until it is told to stop; from then on it says nothing.
async fn relay(server: &str) -> (String, watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let server = server.strip_prefix("http://").unwrap().to_owned();
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        let mut silent = Vec::new();
        while let Ok((mut near, _)) = listener.accept().await {
            if *stopped.borrow() {
                silent.push(near);
                continue;
            }
            let mut far = TcpStream::connect(&server).await.unwrap();
            let mut stopped = stopped.clone();
            tokio::spawn(async move {
                let stop = async move { stopped.wait_for(|stopped| *stopped).await.map(|_| ()) };
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    _ = stop => std::future::pending().await,
                }
            });
        }
    });
    (address, stop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_falls_silent_in_an_answer_is_given_up() {
    const SOON: Duration = Duration::from_millis(500);
    let server = Server::start().await;
    let (address, stop) = relay(&server.address).await;
    let options = ConnectOptions {
        connect_timeout: SOON,
        keep_alive_interval: SOON,
        keep_alive_timeout: SOON,
        ..ConnectOptions::default()
    };
    let client = Client::connect_with(&address, &options).unwrap();
    let window = Window {
        retry: Retry {
            tries: 2,
            patience: Duration::ZERO,
            ..at_once()
        },
        ..Window::default()
    };
    let items = stream::iter([Item::new("hold")]);
    let mut steps = client.explain_all(items, window);
    let (mut retried, mut end) = (false, None);
    while let Some(step) = steps.next().await {
        match step {
            Ok(step) => match step.progress {
                Progress::Delta(_) => drop(stop.send(true)),
                Progress::Retrying { .. } => retried = true,
                Progress::Finished(result) => end = result.err(),
                _ => {}
            },
            Err(error) => end = Some(error),
        }
    }
    assert!(retried, "it is told that it is tried again");
    assert!(matches!(end, Some(Error::Connection { .. })), "{end:?}");
}
