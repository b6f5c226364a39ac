//! Bad clients in their hundreds, good ones among them: every good item ends right, exactly once, and nothing is left.
//!
//! `CODE_EXPLAINER_SOAK_SECONDS` makes it go on for that long (`make soak`), and holds the process's memory to what it was
//! from its second minute on.

use std::time::{Duration, Instant};

use code_explainer_client::proto::explain_service_client::ExplainServiceClient;
use code_explainer_client::proto::explain_stream_request::Request as Wish;
use code_explainer_client::proto::{Cancel, Have, Open, Order};
use code_explainer_client::{Client, ExplainOptions, Item, Retry, Window};
use futures::StreamExt;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

use crate::common::random::Random;
use crate::common::server::TestServer;
use crate::common::stream::{TestStream, item};

const BAD_STREAMS: usize = 200;
const GOOD_CLIENTS: usize = 20;
const GOOD_ITEMS: usize = 20;
const FLAGS: [&str; 14] = [
    "--cache-size",
    "64",
    "--queue-items",
    "4096",
    "--stream-items",
    "32",
    "--slow-reader-timeout",
    "300ms",
    "--resume-ttl",
    "200ms",
    "--resume-sessions",
    "32",
    "--max-stream-age",
    "700ms",
];

#[tokio::test(flavor = "multi_thread")]
async fn good_clients_notice_nothing_of_bad_ones_and_nothing_leaks() {
    // As the server's program does.
    code_explainer_host::memory::keep_few_pools();
    let soak = std::env::var("CODE_EXPLAINER_SOAK_SECONDS").ok();
    let soak = soak.map(|s| Duration::from_secs(s.parse().expect("seconds")));
    let (server, _) = TestServer::fake(&FLAGS).await;
    let (quiet, _) = TestServer::fake(&["--cache-size", "0"]).await;
    let wanted = ask_all(&quiet.uri()).await;
    let (began, mut rounds, mut settled) = (Instant::now(), 0, None);
    let idle = tasks();
    loop {
        round(&server, rounds, &wanted).await;
        rounds += 1;
        nothing_is_left(&server).await;
        let ran = began.elapsed();
        let memory = resident();
        if soak.is_some_and(|soak| ran >= (soak / 5).min(Duration::from_secs(60)))
            && settled.is_none()
        {
            settled = Some(memory);
        }
        println!(
            "round {rounds}: {:.0} s, {} MiB, {} tasks",
            ran.as_secs_f64(),
            memory >> 20,
            tasks()
        );
        if soak.is_none_or(|soak| ran > soak) {
            break;
        }
    }
    if let Some(settled) = settled {
        let (now, most) = (resident(), settled + settled / 20 + (16 << 20));
        assert!(
            now <= most,
            "{} MiB grew to {} MiB",
            settled >> 20,
            now >> 20
        );
    }
    let left = until_tasks(idle).await;
    assert!(left <= idle, "{left} tasks where there were {idle}");
}

/// One round: all the bad ones, and the good ones among them.
async fn round(server: &TestServer, round: u64, wanted: &[String]) {
    let mut bad = JoinSet::new();
    let uri = server.uri();
    for i in 0..BAD_STREAMS {
        let (uri, random) = (uri.clone(), Random(round << 32 | i as u64));
        bad.spawn(async move { misbehave(&uri, i, random).await });
    }
    let mut good = JoinSet::new();
    for _ in 0..GOOD_CLIENTS {
        let uri = uri.clone();
        good.spawn(async move { ask_all(&uri).await });
    }
    while let Some(answers) = good.join_next().await {
        assert_eq!(
            answers.expect("it ends"),
            wanted,
            "every item, once, and right"
        );
    }
    while let Some(ended) = bad.join_next().await {
        ended.expect("it does its worst");
    }
}

fn good_items() -> impl Iterator<Item = Item> {
    (0..GOOD_ITEMS).map(|i| {
        let options = ExplainOptions {
            max_new_tokens: Some(24),
            ignore_eos: true,
            ..ExplainOptions::default()
        };
        Item::new(format!("good = {i}")).with_options(options)
    })
}

async fn ask_all(uri: &str) -> Vec<String> {
    let client = Client::connect(uri).expect("an address");
    let window = Window {
        size: Some(8),
        retry: Retry {
            tries: 20,
            ..Retry::default()
        },
        ..Window::default()
    };
    let answers = client.explain_all(futures::stream::iter(good_items()), window);
    let answers = answers.answers().await.expect("the server is there");
    (answers.into_iter())
        .map(|answer| answer.unwrap_or_else(|error| panic!("{error:?}")).text)
        .collect()
}

/// A client of its own kind, on a connection of its own.
async fn misbehave(uri: &str, kind: usize, mut random: Random) {
    let endpoint = Endpoint::from_shared(uri.to_owned()).expect("a URI");
    let endpoint = match kind % 8 {
        1 => endpoint.initial_stream_window_size(512),
        _ => endpoint,
    };
    let Ok(channel) = endpoint.connect().await else {
        return;
    };
    if kind % 8 == 3 {
        return garbage(channel, &mut random).await;
    }
    let mut stream = TestStream::open_on(ExplainServiceClient::new(channel)).await;
    if kind.is_multiple_of(3) {
        let open = Open {
            resumable: random.below(2) == 0,
            order: if random.below(2) == 0 {
                Order::InOrder
            } else {
                Order::Unspecified
            }
            .into(),
            progress_interval: prost_types::Duration::try_from(Duration::from_millis(100)).ok(),
            resume_token: if random.below(4) == 0 {
                "guess".repeat(5)
            } else {
                String::new()
            },
            have: vec![Have::default(); random.below(3)],
            expected_items: random.below(1000) as u64,
        };
        let _ = stream.try_send(Some(Wish::Open(open))).await;
    }
    let items = 1 + random.below(40);
    for i in 0..items {
        let code = format!("bad_{} = {i}", random.below(50));
        let id = match kind % 8 {
            // The same id again and again.
            2 => "same".to_owned(),
            // No id, or far too long a one.
            4 if random.below(2) == 0 => "x".repeat(random.below(600)),
            _ => i.to_string(),
        };
        let mut wanted = item(&id, &code);
        wanted.max_new_tokens = 1 + random.below(200) as i32;
        match kind % 8 {
            4 => wanted.top_p = random.below(9) as f32,
            5 => wanted.code = "y".repeat(60_000 + random.below(20_000)),
            6 => wanted.replaces = random.below(40).to_string(),
            _ => {}
        }
        if stream.try_send(Some(Wish::Explain(wanted))).await.is_err() {
            break;
        }
        if random.below(3) == 0 {
            let id = random.below(40).to_string();
            let _ = stream.try_send(Some(Wish::Cancel(Cancel { id }))).await;
        }
    }
    match kind % 8 {
        // It reads nothing, and goes in the middle or when it has been shed.
        0 => tokio::time::sleep(Duration::from_millis(random.below(200) as u64)).await,
        1 => tokio::time::sleep(Duration::from_millis(800)).await,
        // It reads some, slowly, and goes when it has had enough or there is nothing more to read.
        7 => {
            let read = async {
                for _ in 0..random.below(50) {
                    tokio::time::sleep(Duration::from_millis(random.below(5) as u64)).await;
                    if !matches!(stream.try_next().await, Some(Ok(_))) {
                        break;
                    }
                }
            };
            let _ = tokio::time::timeout(Duration::from_secs(1), read).await;
        }
        // It half-closes and reads to the end.
        _ => {
            stream.half_close();
            let read = async { while let Some(Ok(_)) = stream.try_next().await {} };
            let _ = tokio::time::timeout(Duration::from_secs(5), read).await;
        }
    }
}

/// Messages that are none.
async fn garbage(channel: Channel, random: &mut Random) {
    use tonic::codegen::http::uri::PathAndQuery;
    let mut grpc = tonic::client::Grpc::new(channel);
    if grpc.ready().await.is_err() {
        return;
    }
    let path = PathAndQuery::from_static("/codeexplainer.v1.ExplainService/ExplainStream");
    let codec = tonic_prost::ProstCodec::<prost_types::Value, prost_types::Value>::default();
    let junk: String = (0..1 + random.below(64))
        .filter_map(|_| char::from_u32(1 + random.below(0x7f) as u32))
        .collect();
    let value = prost_types::Value {
        kind: Some(prost_types::value::Kind::StringValue(junk)),
    };
    let request = tonic::Request::new(tokio_stream::iter([value]));
    if let Ok(responses) = grpc.streaming(request, path, codec).await {
        let mut responses = responses.into_inner();
        while let Some(Ok(_)) = responses.next().await {}
    }
}

/// All that an item or a stream holds has been given back.
async fn nothing_is_left(server: &TestServer) {
    for gauge in [
        "code_explainer_streams_open",
        "code_explainer_streams_detached",
        "code_explainer_items_parked",
        "code_explainer_queue_depth",
        "code_explainer_running_sequences",
        "code_explainer_kv_blocks{state=\"used\"}",
    ] {
        server.until_metric(gauge, 0.0).await;
    }
}

fn tasks() -> usize {
    tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks()
}

/// Waits until connections that are closed have been let go of.
async fn until_tasks(most: usize) -> usize {
    let ended = async {
        while tasks() > most {
            tokio::task::yield_now().await;
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(20), ended).await;
    tasks()
}

/// Bytes of memory that the process has.
fn resident() -> u64 {
    let mut system = sysinfo::System::new().expect("the system is known");
    let pid = sysinfo::get_current_pid().expect("a process");
    system.refresh_processes(sysinfo::ProcessesToUpdate::Some(&[pid]), true);
    system.process(pid).map_or(0, sysinfo::Process::memory)
}
