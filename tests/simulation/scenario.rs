//! A world from its beginning to its end: servers, clients, a storm of all that can go wrong, and the calm after it, in
//! which everybody gets what is theirs and nothing is left.

use std::sync::atomic::Ordering;
use std::time::Duration;

use code_explainer::config::Config;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::net::{Net, Trouble};
use crate::node::{Life, Settings, operate};
use crate::trace::note;
use crate::world::{below, between, milliseconds, once_in};
use crate::{batch, raw, single};

/// After the storm: for all items to be answered, with every delay that a client or the network can have.
const CALM: Duration = Duration::from_secs(900);
/// For connections that the network has swallowed to be noticed, and for what is kept for lost ones to be let go of.
const SETTLING: Duration = Duration::from_secs(120);

/// Lives through the world.
pub(crate) async fn run(base: &Config) {
    let settings = Settings::draw(base);
    let net = Net::default();
    let (mut operators, done) = (JoinSet::new(), CancellationToken::new());
    for server in 0..if once_in(3) { 2 } else { 1 } {
        operators.spawn(operate(
            format!("server-{server}"),
            net.clone(),
            settings.clone(),
            done.clone(),
        ));
    }
    let mut clients = JoinSet::new();
    let names: Vec<String> = (0..between(2, 5)).map(|n| format!("client-{n}")).collect();
    for name in &names {
        net.add_client(name);
        let (name, net, settings) = (name.clone(), net.clone(), settings.clone());
        match below(5) {
            0 | 1 => clients.spawn(batch::run(name, net, settings.tenants.token(true))),
            2 | 3 => clients.spawn(raw::run(name, net, settings)),
            _ => clients.spawn(single::run(name, net, settings)),
        };
    }
    // A third of the worlds see no storm at all: what is not allowed there is not allowed anywhere.
    if !once_in(3) {
        storm(&net, &names, &settings).await;
    }
    note!("the storm is over");
    settings.storm.store(false, Ordering::Relaxed);
    let until = Instant::now() + CALM;
    while let Ok(Some(ended)) = tokio::time::timeout_at(until, clients.join_next()).await {
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    }
    let waiting = clients.len();
    assert!(waiting == 0, "{waiting} clients still wait for something");
    note!("all clients are gone");
    done.cancel();
    let mut lives: Vec<Life> = Vec::new();
    while let Some(life) = operators.join_next().await {
        lives.push(life.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())));
    }
    for life in &lives {
        life.becomes_empty(SETTLING).await;
    }
    for life in lives {
        life.terminate(&net).await;
    }
    no_tasks_are_left().await;
}

async fn storm(net: &Net, clients: &[String], settings: &Settings) {
    let until = Instant::now() + milliseconds(1000, 15_000);
    while Instant::now() < until {
        sleep(milliseconds(10, 1500)).await;
        if once_in(4) {
            settings.tenants.shake(&settings.config);
        }
        let client = &clients[below(clients.len() as u64) as usize];
        let trouble = match below(4) {
            0 | 1 => Trouble::Held(milliseconds(10, 3000)),
            2 => Trouble::Broken,
            _ => Trouble::Swallowed(milliseconds(100, 4000)),
        };
        note!("{client}: {trouble:?}");
        net.trouble(client, trouble);
    }
    settings.tenants.know(&settings.config, true);
}

/// Everything that was begun has ended.
async fn no_tasks_are_left() {
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let ended = async {
        while tasks() > 0 {
            sleep(Duration::from_secs(1)).await;
        }
    };
    let _ = timeout(SETTLING, ended).await;
    assert_eq!(tasks(), 0, "tasks are left");
}
