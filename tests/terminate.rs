//! `kill -TERM` on the real program under load: nothing is lost, and it ends in time whatever hangs.

use std::collections::HashMap;
use std::time::Duration;

use code_explainer_client::proto::explain_service_client::ExplainServiceClient;
use code_explainer_client::proto::explain_stream_response::Event;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::common::programs::{ServerProcess, server};
use crate::common::stream::{TestStream, is_accepted, item};

const ITEMS: usize = 100;

fn start(flags: &[&str]) -> ServerProcess {
    let mut command = server(&["serve", "--listen", "127.0.0.1:0"]);
    command.args(["--http-listen", "127.0.0.1:0", "--kv-cache-tokens", "8192"]);
    command.args(flags);
    ServerProcess::start(command)
}

async fn client(process: &mut ServerProcess) -> ExplainServiceClient<Channel> {
    let address = process.address("grpc");
    process.wait_for(" ready");
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a URI");
    ExplainServiceClient::new(endpoint.connect().await.expect("it listens"))
}

/// Sends the items, and waits until the last has been accepted.
async fn load(process: &mut ServerProcess, tokens: i32) -> TestStream {
    let mut stream = TestStream::open_on(client(process).await).await;
    for i in 0..ITEMS {
        let mut wanted = item(
            &i.to_string(),
            &format!("def f{i}(x):\n    return x + {i}\n"),
        );
        wanted.max_new_tokens = tokens;
        stream.explain(wanted).await;
    }
    // Those that are accepted before it may have been answered by now, and count all the same.
    stream.wait_for(&(ITEMS - 1).to_string(), is_accepted).await;
    stream
}

/// How the items ended that had not when it was asked to stop: answered, or named as to be sent again.
async fn ends(stream: &mut TestStream) -> HashMap<String, Result<(), Code>> {
    let mut ends = HashMap::new();
    while let Some(Ok(response)) = stream.try_next().await {
        let end = match response.event {
            Some(Event::Done(_)) => Ok(()),
            Some(Event::Error(error)) => {
                assert!(error.retryable, "{error:?}");
                Err(Code::from(error.code))
            }
            _ => continue,
        };
        assert!(ends.insert(response.id, end).is_none(), "it ends once");
    }
    ends
}

#[tokio::test]
async fn a_hundred_items_in_flight_are_all_answered() {
    // However busy the machine is.
    let mut process = start(&["--shutdown-grace", "200ms", "--drain-timeout", "10m"]);
    let mut stream = load(&mut process, 24).await;
    process.signal("TERM");
    let ends = ends(&mut stream).await;
    assert!(ends.values().all(Result::is_ok), "{ends:?}");
    assert!(ends.len() > ITEMS / 2, "only {} were in flight", ends.len());
    assert_eq!(process.ended().code(), Some(0), "{:?}", process.said);
}

#[tokio::test]
async fn what_cannot_be_finished_in_time_is_named_retryable() {
    let mut process = start(&["--shutdown-grace", "0s", "--drain-timeout", "300ms"]);
    let mut stream = load(&mut process, 500).await;
    process.signal("TERM");
    let ends = ends(&mut stream).await;
    assert_eq!(ends.len(), ITEMS, "none is lost");
    assert!(
        ends.values().all(|end| *end == Err(Code::Unavailable)),
        "{ends:?}"
    );
    assert_eq!(process.ended().code(), Some(0), "{:?}", process.said);
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let mut process = start(&["--shutdown-grace", "1h"]);
    let _stream = load(&mut process, 500).await;
    process.signal("TERM");
    process.wait_for("leaving");
    // One that comes within a second is the first one once more.
    while process.is_running() {
        process.signal("TERM");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(process.ended().code(), Some(1), "{:?}", process.said);
}

#[tokio::test]
async fn a_signal_that_comes_twice_at_once_is_one() {
    let mut process = start(&["--shutdown-grace", "200ms", "--drain-timeout", "10m"]);
    let mut stream = load(&mut process, 24).await;
    process.signal_times("TERM", 3);
    let ends = ends(&mut stream).await;
    assert!(ends.values().all(Result::is_ok), "{ends:?}");
    assert_eq!(process.ended().code(), Some(0), "{:?}", process.said);
}

#[test]
fn a_signal_is_heard_while_the_model_loads() {
    let mut process = start(&[]);
    process.address("http");
    process.signal("TERM");
    assert_eq!(process.ended().code(), Some(0), "{:?}", process.said);
}
