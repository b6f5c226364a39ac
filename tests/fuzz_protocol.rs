//! Whatever comes over the wire: it is answered or refused, nothing panics, and nothing stays behind.
//!
//! `CODE_EXPLAINER_FUZZ_SECONDS` makes each of these run for so long, and watch the process's memory.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use code_explainer::api::inference::Wanted;
use code_explainer::proto;
use code_explainer::request::{RequestLimits, ValidRequest};
use code_explainer_code::redact::redact;
use code_explainer_host::memory::resident_bytes;
use prost::Message;
use proto::inference::ModelInferRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic::Code;
use tonic::codegen::http::uri::PathAndQuery;

use crate::common::random::{Random, fuzz_time};
use crate::common::server::TestServer;
use crate::common::stream::{TestStream, item};
use crate::common::wire::{MEANT, RawCodec, conversation, explain, infer, streamed};

/// Without `CODE_EXPLAINER_FUZZ_SECONDS`: together a minute.
const SLICE: Duration = Duration::from_secs(15);
/// Streams and connections under way at once.
const AT_ONCE: usize = 8;
/// What the allocator may keep.
const SLACK_BYTES: u64 = 96 << 20;

/// A run: until its time is up.
struct Run {
    name: &'static str,
    until: Instant,
    /// Memory at the start, where nothing else runs in this process.
    memory: Option<u64>,
    panics: usize,
}

/// Panics of the server's code and its libraries; tests and the fake engine have their own.
static PANICS: AtomicUsize = AtomicUsize::new(0);

impl Run {
    fn start(name: &'static str) -> Self {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                let file = panic.location().map_or("", |at| at.file());
                let meant = file.starts_with("tests/") || file.ends_with("engine/fake.rs");
                PANICS.fetch_add(usize::from(!meant), Ordering::SeqCst);
                before(panic);
            }));
        });
        let time = fuzz_time();
        Self {
            name,
            until: Instant::now() + time.unwrap_or(SLICE),
            memory: time.map(|_| resident_bytes()),
            panics: PANICS.load(Ordering::SeqCst),
        }
    }

    fn goes_on(&self) -> bool {
        Instant::now() < self.until
    }

    fn end(self, inputs: u64, accepted: u64) {
        println!("{}: {inputs} inputs, {accepted} of them taken", self.name);
        assert!(
            inputs > 0 && accepted > 0 && accepted < inputs,
            "both ways are tried"
        );
        assert_eq!(PANICS.load(Ordering::SeqCst), self.panics, "a panic");
        if let Some(before) = self.memory {
            let now = resident_bytes();
            assert!(
                now < before + SLACK_BYTES,
                "memory grew from {before} to {now}"
            );
        }
    }
}

/// Those of `server()`.
const LIMITS: RequestLimits = RequestLimits {
    code_bytes: 65536,
    max_new_tokens: 8,
    default_max_new_tokens: 4,
};

#[test]
fn fuzz_messages_are_read_or_refused() {
    let run = Run::start("decoders");
    let mut random = Random(1);
    let (mut inputs, mut accepted) = (0, 0);
    while run.goes_on() {
        // The clock is looked at rarely: it costs as much as an input.
        for _ in 0..256 {
            inputs += 1;
            if inputs % 2 == 0 {
                let mut bytes = streamed(&mut random).encode_to_vec();
                random.mutate(&mut bytes, MEANT);
                let Ok(message) = proto::ExplainStreamRequest::decode(&*bytes) else {
                    continue;
                };
                let Some(proto::explain_stream_request::Request::Explain(wish)) = message.request
                else {
                    continue;
                };
                // Secrets are looked for in whatever is taken.
                let valid = ValidRequest::new(wish, &LIMITS);
                accepted += u64::from(valid.is_ok_and(|valid| redact(&valid.code).is_none()));
            } else {
                let mut bytes = infer(&mut random).encode_to_vec();
                random.mutate(&mut bytes, MEANT);
                let Ok(message) = ModelInferRequest::decode(&*bytes) else {
                    continue;
                };
                let Ok(wanted) = Wanted::new(message) else {
                    continue;
                };
                accepted += u64::from(ValidRequest::new(wanted.item, &LIMITS).is_ok());
            }
        }
    }
    run.end(inputs, accepted);
}

async fn server() -> TestServer {
    // Streams that nobody comes back to are not waited for long.
    let flags = "--max-new-tokens 8 --default-max-new-tokens 4 --resume-ttl 1s";
    TestServer::fake(&flags.split(' ').collect::<Vec<_>>())
        .await
        .0
}

/// The server does what it did before, and nothing of what came is left in it.
async fn as_before(server: &TestServer) {
    let mut stream = TestStream::open(server).await;
    let mut good = item("good", "x = 1");
    good.max_new_tokens = 4;
    stream.explain(good).await;
    assert!(stream.collect(1).await["good"].done.is_some());
    drop(stream);
    for gauge in [
        "code_explainer_streams_open",
        "code_explainer_queue_depth",
        "code_explainer_running_sequences",
        "code_explainer_kv_blocks{state=\"used\"}",
        "code_explainer_connections_open{protocol=\"grpc\"}",
    ] {
        server.until_metric(gauge, 0.0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fuzz_frames_of_http2() {
    let server = server().await;
    let run = Run::start("frames");
    let mut random = Random(2);
    let (mut inputs, mut answered) = (0, 0);
    let mut open = JoinSet::new();
    while run.goes_on() {
        while open.len() >= AT_ONCE {
            answered += open
                .join_next()
                .await
                .map_or(0, |read| u64::from(read.expect("no panic")));
        }
        inputs += 1;
        let (bytes, address) = (conversation(&mut random), server.grpc);
        open.spawn(async move {
            let mut connection = TcpStream::connect(address).await.expect("it listens");
            // It may have hung up already, as is its right.
            let _ = connection.write_all(&bytes).await;
            let _ = connection.shutdown().await;
            let mut read = Vec::new();
            let closed = connection.read_to_end(&mut read);
            let closed = tokio::time::timeout(Duration::from_secs(30), closed).await;
            assert!(closed.is_ok(), "a client that is gone holds its connection");
            // A frame of headers says that some call was answered.
            let mut rest = &read[..];
            while let [a, b, c, kind, ..] = rest {
                if *kind == 1 {
                    return true;
                }
                let length = 9 + u32::from_be_bytes([0, *a, *b, *c]) as usize;
                rest = rest.get(length..).unwrap_or_default();
            }
            false
        });
    }
    while let Some(read) = open.join_next().await {
        answered += u64::from(read.expect("no panic"));
    }
    as_before(&server).await;
    run.end(inputs, answered);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fuzz_messages_on_streams() {
    let server = server().await;
    let channel = Arc::new(server.channel().await);
    let run = Run::start("streams");
    let mut random = Random(3);
    let (mut inputs, mut answered) = (0, 0);
    let mut open = JoinSet::new();
    while run.goes_on() {
        while open.len() >= AT_ONCE {
            answered += open
                .join_next()
                .await
                .map_or(0, |read| read.expect("no panic"));
        }
        let inference = random.below(2) == 0;
        let path = match inference {
            true => "/inference.GRPCInferenceService/ModelStreamInfer",
            false => "/codeexplainer.v1.ExplainService/ExplainStream",
        };
        let messages: Vec<Vec<u8>> = (0..1 + random.below(6))
            .map(|_| {
                let mut bytes = match inference {
                    true => infer(&mut random).encode_to_vec(),
                    false => streamed(&mut random).encode_to_vec(),
                };
                if random.below(3) > 0 {
                    random.mutate(&mut bytes, MEANT);
                }
                bytes
            })
            .collect();
        inputs += messages.len() as u64;
        let (leave_early, channel) = (random.below(4) == 0, channel.as_ref().clone());
        open.spawn(async move {
            let mut grpc = tonic::client::Grpc::new(channel);
            grpc.ready().await.expect("connected");
            let request = tonic::Request::new(tokio_stream::iter(messages));
            let path = PathAndQuery::from_static(path);
            let mut read = 0;
            let Ok(responses) = grpc.streaming(request, path, RawCodec).await else {
                return read;
            };
            let mut responses = responses.into_inner();
            while let Ok(Some(_)) = responses.message().await {
                read = 1;
                if leave_early {
                    break;
                }
            }
            read
        });
    }
    while let Some(read) = open.join_next().await {
        answered += read.expect("no panic");
    }
    drop(channel);
    as_before(&server).await;
    run.end(inputs, answered);
}

/// What a call of these bytes may end with.
fn expected(bytes: &[u8], inference: bool) -> Vec<Code> {
    let item = if inference {
        let Ok(message) = ModelInferRequest::decode(bytes) else {
            return vec![Code::InvalidArgument];
        };
        match Wanted::new(message) {
            Ok(wanted) => wanted.item,
            Err(error) => return vec![error.code()],
        }
    } else {
        let Ok(item) = proto::ExplainRequest::decode(bytes) else {
            return vec![Code::InvalidArgument];
        };
        item
    };
    let (timed, only) = (
        item.timeout.is_some(),
        item.cache_mode == proto::CacheMode::Only as i32,
    );
    match ValidRequest::new(item, &LIMITS) {
        Err(error) => vec![error.code()],
        Ok(_) => {
            let mut codes = vec![Code::Ok];
            codes.extend(timed.then_some(Code::DeadlineExceeded));
            codes.extend(only.then_some(Code::NotFound));
            codes
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fuzz_calls_end_with_the_status_that_they_should() {
    let server = server().await;
    let channel = server.channel().await;
    let run = Run::start("calls");
    let mut random = Random(4);
    let (mut inputs, mut answered) = (0, 0);
    while run.goes_on() {
        inputs += 1;
        let inference = random.below(2) == 0;
        let mut bytes = match inference {
            true => infer(&mut random).encode_to_vec(),
            false => explain(&mut random).encode_to_vec(),
        };
        if random.below(3) > 0 {
            random.mutate(&mut bytes, MEANT);
        }
        let path = PathAndQuery::from_static(match inference {
            true => "/inference.GRPCInferenceService/ModelInfer",
            false => "/codeexplainer.v1.ExplainService/Explain",
        });
        let codes = expected(&bytes, inference);
        let mut grpc = tonic::client::Grpc::new(channel.clone());
        grpc.ready().await.expect("connected");
        let request = tonic::Request::new(bytes.clone());
        let read = async {
            let mut responses = grpc
                .server_streaming(request, path, RawCodec)
                .await?
                .into_inner();
            while responses.message().await?.is_some() {}
            Ok::<_, tonic::Status>(())
        };
        let status = read.await.err();
        let code = status.as_ref().map_or(Code::Ok, tonic::Status::code);
        assert!(
            codes.contains(&code),
            "{status:?}, expected {codes:?}: {bytes:02x?}"
        );
        answered += u64::from(code == Code::Ok);
    }
    drop(channel);
    as_before(&server).await;
    run.end(inputs, answered);
}
