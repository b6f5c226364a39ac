//! The attacks. Each is a function of the stage: it prepares, calls [`Stage::ready`], and goes on.

mod bodies;
mod connections;
mod embed;
mod floods;
mod parsers;
mod received;
mod rights;
mod shares;
mod unread;

use std::time::Duration;

use tokio::task::JoinSet;

use crate::campaign::Attack;
use crate::neighbour::Asks;
use crate::stage::Stage;
use crate::subject::{Door, Setup};

const MIB: u64 = 1 << 20;
/// What a server with something to do may take more than an idle one: threads' stacks, the allocator's reserves, answers.
const WORKING_MEMORY: u64 = 128 * MIB;
/// What bodies that have not ended may take beside that.
const BODIES: u64 = 64 * MIB;

/// A usual limit of open files.
const FILES: Setup = Setup {
    open_files: Some(1024),
    ..Setup::KEYS
};

/// All of them, in the order of the issue that they come from.
pub(crate) fn all() -> Vec<Attack> {
    vec![
        attack("parsers, deadlines", |s| Box::pin(parsers::deadlines(s))),
        attack("parsers, resets", |s| Box::pin(parsers::resets(s))),
        attack("received", |s| Box::pin(received::run(s))),
        Attack {
            memory: WORKING_MEMORY + BODIES,
            ..attack("unfinished bodies", |s| Box::pin(bodies::run(s)))
        },
        attack("unread cached answers", |s| Box::pin(unread::run(s))),
        Attack {
            setup: FILES,
            ..attack("silent gRPC", |s| Box::pin(connections::silent_grpc(s)))
        },
        Attack {
            setup: FILES,
            ..attack("silent HTTP", |s| Box::pin(connections::silent_http(s)))
        },
        Attack {
            setup: FILES,
            ..attack("silent, 64 addresses", |s| {
                Box::pin(connections::silent_from_many(s))
            })
        },
        Attack {
            setup: FILES,
            ..attack("key withdrawn, no files", |s| {
                Box::pin(connections::withdrawn(s))
            })
        },
        Attack {
            setup: FILES,
            ..attack("unread /metrics", |s| {
                Box::pin(connections::unread_metrics(s))
            })
        },
        Attack {
            setup: Setup {
                flags: &["--embeddings", "start"],
                ..Setup::KEYS
            },
            asks: Asks::Embedding,
            memory: 4 * WORKING_MEMORY,
            ..attack("embed flood", |s| Box::pin(embed::run(s)))
        },
        short("all resumable sessions", |s| Box::pin(shares::sessions(s))),
        Attack {
            setup: Setup {
                flags: &["--cache-size", shares::CACHE_SIZE],
                ..Setup::KEYS
            },
            ..attack("cache evicted", |s| Box::pin(shares::cached_answers(s)))
        },
        Attack {
            setup: Setup {
                door: Door::Open,
                ..Setup::KEYS
            },
            ..short("admin, forwarded", |s| Box::pin(rights::forwarded_admin(s)))
        },
        short("lowered rate, open stream", |s| {
            Box::pin(rights::lowered_rate(s))
        }),
        Attack {
            setup: Setup {
                door: Door::Certificates,
                ..Setup::KEYS
            },
            ..short("client CA taken out", |s| {
                Box::pin(rights::withdrawn_authority(s))
            })
        },
        short("continuation flood", |s| Box::pin(floods::continuations(s))),
        short("reset flood", |s| Box::pin(floods::resets(s))),
        short("ping flood", |s| Box::pin(floods::pings(s))),
    ]
}

fn attack(name: &'static str, run: crate::campaign::Run) -> Attack {
    Attack {
        name,
        setup: Setup::KEYS,
        asks: Asks::Explanation,
        time: Duration::from_secs(20),
        memory: WORKING_MEMORY,
        run,
    }
}

/// One that shows what it does in less time.
fn short(name: &'static str, run: crate::campaign::Run) -> Attack {
    Attack {
        time: Duration::from_secs(12),
        ..attack(name, run)
    }
}

/// Counts how tasks of the attack end, for as long as there are any.
async fn count(stage: &Stage, mut tasks: JoinSet<String>) {
    while let Some(ended) = tasks.join_next().await {
        stage.got(ended.unwrap_or_else(|error| error.to_string()));
    }
}
