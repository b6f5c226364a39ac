//! A server that does what the code it is sent says, over TCP on a free port of the loopback.
//!
//! The first word of the code is the script; everything else is answered in full:
//!
//! | code | what happens |
//! | --- | --- |
//! | `refuse ...` | INVALID_ARGUMENT for the field `code` |
//! | `busy MS ...` | RESOURCE_EXHAUSTED, retry after MS; the second try is answered |
//! | `busy-always ...` | RESOURCE_EXHAUSTED, at once again, every time |
//! | `break ...` | the stream breaks after the second word; the second try is answered |
//! | `waver ...` | the same, and the second try says something else |
//! | `drain ...` | UNAVAILABLE as from a server that shuts down; the second try is answered |
//! | `vanish ...` | the stream ends, as if all were done; the second try is answered |
//! | `die ...` | the stream breaks, every time |
//! | `hold ...` | one word, and then nothing until it is cancelled |

mod play;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use code_explainer_client::proto::admin_service_server::{AdminService, AdminServiceServer};
use code_explainer_client::proto::explain_service_server::{ExplainService, ExplainServiceServer};
use code_explainer_client::proto::model_service_server::{ModelService, ModelServiceServer};
use code_explainer_client::proto::*;
use code_explainer_client::{Client, Retry};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Server as Transport;
use tonic::{Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt};

/// What the server has seen.
#[derive(Default)]
pub(crate) struct Seen {
    /// Items that a stream waits for before it answers the first one.
    pub(crate) gather: AtomicUsize,
    /// Wait between two rounds of events; zero in tests.
    pub(crate) pace: Mutex<Duration>,
    pub(crate) streams: AtomicUsize,
    /// Streams that the client half-closed and the server answered to the end.
    pub(crate) ended_well: AtomicUsize,
    /// Most items in flight on a stream.
    pub(crate) most_in_flight: AtomicUsize,
    pub(crate) cancelled: Mutex<Vec<String>>,
    /// Names of the corpus, in the order in which they came.
    pub(crate) documents: Mutex<Vec<String>>,
    /// Every item, with the time that it came.
    pub(crate) items: Mutex<Vec<(ExplainRequest, Instant)>>,
    tries: Mutex<HashMap<String, u32>>,
    /// Streams that were open and are no more.
    pub(crate) closed: watch::Sender<usize>,
}

impl Seen {
    /// Counts a try of this code and says which it is, from 1.
    fn count(&self, item: &ExplainRequest) -> u32 {
        self.items
            .lock()
            .unwrap()
            .push((item.clone(), Instant::now()));
        let mut tries = self.tries.lock().unwrap();
        let count = tries.entry(item.code.clone()).or_default();
        *count += 1;
        *count
    }

    /// The codes that came, in their order.
    pub(crate) fn codes(&self) -> Vec<String> {
        self.items
            .lock()
            .unwrap()
            .iter()
            .map(|(item, _)| item.code.clone())
            .collect()
    }
}

/// A server that runs until it is dropped.
pub(crate) struct Server {
    pub(crate) address: String,
    pub(crate) seen: Arc<Seen>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_on("127.0.0.1:0").await
    }

    pub(crate) async fn start_on(address: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Seen::default());
        let script = Script(seen.clone());
        let server = Transport::builder()
            .add_service(ExplainServiceServer::new(script.clone()))
            .add_service(ModelServiceServer::new(script.clone()))
            .add_service(AdminServiceServer::new(script))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let task = tokio::spawn(async move { server.await.unwrap() });
        Self {
            address,
            seen,
            task,
        }
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.address).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An address where nobody listens.
pub(crate) async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// Tries without waiting, but for what the server asks.
pub(crate) fn at_once() -> Retry {
    Retry {
        first_delay: Duration::ZERO,
        ..Retry::default()
    }
}

/// What the server answers to the code: each word is a delta.
pub(crate) fn answer(code: &str) -> String {
    play::words(code, 0).concat()
}

#[derive(Clone)]
pub(crate) struct Script(Arc<Seen>);

#[tonic::async_trait]
impl ExplainService for Script {
    type ExplainStream = ReceiverStream<Result<ExplainResponse, Status>>;
    type ExplainStreamStream = ReceiverStream<Result<ExplainStreamResponse, Status>>;

    async fn explain(
        &self,
        request: Request<ExplainRequest>,
    ) -> Result<Response<Self::ExplainStream>, Status> {
        let item = request.into_inner();
        self.0.count(&item);
        if item.code.starts_with("refuse") {
            let details = ErrorDetails::with_bad_request_violation("code", "it says refuse");
            return Err(Status::with_error_details(
                tonic::Code::InvalidArgument,
                "the code is refused",
                details,
            ));
        }
        if item.code.starts_with("busy") {
            let details = ErrorDetails::with_retry_info(Some(Duration::from_millis(1500)));
            return Err(Status::with_error_details(
                tonic::Code::ResourceExhausted,
                "the queue is full",
                details,
            ));
        }
        let (events, received) = mpsc::channel(16);
        tokio::spawn(play::single(item, events));
        Ok(Response::new(ReceiverStream::new(received)))
    }

    async fn explain_stream(
        &self,
        request: Request<Streaming<ExplainStreamRequest>>,
    ) -> Result<Response<Self::ExplainStreamStream>, Status> {
        self.0.streams.fetch_add(1, Relaxed);
        let (events, received) = mpsc::channel(16);
        tokio::spawn(play::stream(self.0.clone(), request.into_inner(), events));
        Ok(Response::new(ReceiverStream::new(received)))
    }

    /// A text's vector has its length in it.
    async fn embed(
        &self,
        request: Request<EmbedRequest>,
    ) -> Result<Response<EmbedResponse>, Status> {
        let texts = request.into_inner().texts;
        let embeddings = texts.iter().map(|text| Embedding {
            values: vec![text.len() as f32],
            ..Default::default()
        });
        Ok(Response::new(EmbedResponse {
            embeddings: embeddings.collect(),
            model: "scripted".into(),
            dimensions: 1,
        }))
    }
}

#[tonic::async_trait]
impl ModelService for Script {
    async fn get_model(
        &self,
        _: Request<GetModelRequest>,
    ) -> Result<Response<GetModelResponse>, Status> {
        Ok(Response::new(GetModelResponse {
            name: "scripted".into(),
            architecture: "llama".into(),
            parameters: 134_515_008,
            context_length: 2048,
            precision: "fp32".into(),
            device: "cpu".into(),
            limits: Some(Limits {
                max_code_bytes: 1000,
                stream_items: 4,
                ..Default::default()
            }),
            ..Default::default()
        }))
    }
}

#[tonic::async_trait]
impl AdminService for Script {
    type WarmCacheStream = ReceiverStream<Result<WarmCacheResponse, Status>>;

    async fn get_cache_stats(
        &self,
        _: Request<GetCacheStatsRequest>,
    ) -> Result<Response<GetCacheStatsResponse>, Status> {
        Ok(Response::new(GetCacheStatsResponse {
            levels: vec![CacheLevelStats {
                store: CacheStore::Memory.into(),
                entries: Some(1247),
                max_entries: Some(10_000),
                bytes: Some(3_400_000),
                hits: 873,
                misses: 127,
                hit_rate: 0.873,
                mean_access_us: Some(0.91),
                p99_access_us: Some(12.3),
                evictions: vec![CacheEvictions {
                    cause: "expired".into(),
                    count: 12,
                }],
                ..Default::default()
            }],
            policy: "adaptive".into(),
            policy_in_force: "lfu".into(),
        }))
    }

    /// Says in the place of a number what it was asked: 100 for a language, 10 for a strategy, 1 for a tenant.
    async fn clear_cache(
        &self,
        request: Request<ClearCacheRequest>,
    ) -> Result<Response<ClearCacheResponse>, Status> {
        let request = request.into_inner();
        let entries = 100 * u64::from(request.language == "c*")
            + 10 * u64::from(request.strategy == "vanilla")
            + u64::from(request.tenant.as_deref() == Some("team"));
        let level = |store| ClearedLevel {
            store,
            entries,
            error: String::new(),
        };
        let levels = request.stores.into_iter().map(level).collect();
        Ok(Response::new(ClearCacheResponse { levels }))
    }

    /// Fails what is to be refused, and has had what is to be busy.
    async fn warm_cache(
        &self,
        request: Request<Streaming<WarmCacheRequest>>,
    ) -> Result<Response<Self::WarmCacheStream>, Status> {
        let mut items = request.into_inner();
        let (progress, responses) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut done = 0;
            while let Ok(Some(WarmCacheRequest { item: Some(item) })) = items.message().await {
                done += 1;
                let (outcome, error) = match item.code.split(' ').next() {
                    Some("refuse") => (WarmOutcome::Failed, "refused"),
                    Some("busy") => (WarmOutcome::Present, ""),
                    _ => (WarmOutcome::Warmed, ""),
                };
                let response = WarmCacheResponse {
                    id: item.id,
                    outcome: outcome.into(),
                    error: error.into(),
                    done,
                    received: done,
                };
                if progress.send(Ok(response)).await.is_err() {
                    break;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(responses)))
    }

    type AddDocumentsStream = ReceiverStream<Result<AddDocumentsResponse, Status>>;

    /// A document whose text says "refuse" is refused.
    async fn add_documents(
        &self,
        request: Request<Streaming<AddDocumentsRequest>>,
    ) -> Result<Response<Self::AddDocumentsStream>, Status> {
        let (results, received) = mpsc::channel(16);
        let (seen, mut documents) = (self.0.clone(), request.into_inner());
        tokio::spawn(async move {
            while let Ok(Some(document)) = documents.message().await {
                let refused = document.text.contains("refuse");
                let mut result = AddDocumentsResponse {
                    id: document.id.clone(),
                    outcome: DocumentOutcome::Added.into(),
                    passages: 2,
                    ..Default::default()
                };
                if refused {
                    result.outcome = DocumentOutcome::Refused.into();
                    result.error = "text: it says refuse".into();
                } else {
                    seen.documents.lock().unwrap().push(document.id);
                }
                let _ = results.send(Ok(result)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(received)))
    }

    /// A page has one document; its name is the token of the next.
    async fn list_documents(
        &self,
        request: Request<ListDocumentsRequest>,
    ) -> Result<Response<ListDocumentsResponse>, Status> {
        let ListDocumentsRequest {
            page_token, prefix, ..
        } = request.into_inner();
        let names = self.0.documents.lock().unwrap().clone();
        let rest: Vec<&String> = names
            .iter()
            .filter(|name| name.starts_with(&prefix) && **name > page_token)
            .collect();
        Ok(Response::new(ListDocumentsResponse {
            documents: rest.iter().take(1).map(|name| document(name)).collect(),
            next_page_token: rest
                .first()
                .filter(|_| rest.len() > 1)
                .map(|n| n.to_string())
                .unwrap_or_default(),
            total_documents: names.len() as u64,
            ..Default::default()
        }))
    }

    async fn remove_documents(
        &self,
        request: Request<RemoveDocumentsRequest>,
    ) -> Result<Response<RemoveDocumentsResponse>, Status> {
        let RemoveDocumentsRequest { ids, prefix } = request.into_inner();
        let mut names = self.0.documents.lock().unwrap();
        let before = names.len();
        names.retain(|n| !ids.contains(n) && !prefix.as_ref().is_some_and(|p| n.starts_with(p)));
        Ok(Response::new(RemoveDocumentsResponse {
            documents: (before - names.len()) as u64,
            ..Default::default()
        }))
    }

    async fn get_performance_report(
        &self,
        _: Request<GetPerformanceReportRequest>,
    ) -> Result<Response<GetPerformanceReportResponse>, Status> {
        Ok(Response::new(GetPerformanceReportResponse {
            requests: Some(RequestSection {
                total: 15_432,
                ..Default::default()
            }),
            cache: Some(CacheSection {
                memory_entries: 1247,
                hit_ratio: 0.873,
                ..Default::default()
            }),
            ..Default::default()
        }))
    }
}

fn document(name: &str) -> Document {
    Document {
        id: name.to_owned(),
        bytes: 7,
        passages: 2,
        ..Default::default()
    }
}
