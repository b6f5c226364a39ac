//! A typed client of the Code Explainer server.
//!
//! In reading order:
//!
//! - [`Item`] and [`ExplainOptions`]: a snippet to explain, and how.
//! - [`Client`]: a connection that is made when it is first needed and made again when it is lost.
//! - [`TlsOptions`] and [`Token`]: how the server is known, and how it knows this client.
//! - [`Event`], [`Done`], [`Receipt`]: what comes back.
//! - [`Client::explain`]: one snippet, one call.
//! - [`Client::stream`]: many snippets in flight together on one bidirectional stream, as the
//!   contract has it: an [`ItemSender`] and an [`EventReceiver`].
//! - [`Client::explain_all`]: the same with a window, retries and reopened streams, so that each
//!   item gets one answer.
//! - [`Client::cache_stats`], [`Client::clear_cache`], [`Client::warm_cache`]: the server's caches.
//! - [`Client::embed`]: texts to vectors. [`Client::add_documents`]: what "retrieval_augmented" quotes from.
//! - [`Error`]: every failure, with its gRPC code and what may be done about it.
//! - [`proto`]: the generated messages, for those who need the wire's own types.
//!
//! # Example
//!
//! ```no_run
//! use code_explainer_client::{Client, ExplainOptions, Item, Progress, Window};
//! use futures::{StreamExt, stream};
//!
//! # async fn example() -> Result<(), code_explainer_client::Error> {
//! let client = Client::connect("127.0.0.1:50051")?;
//! println!("served: {}", client.model().await?.name);
//!
//! let options = ExplainOptions { max_new_tokens: Some(96), ..Default::default() };
//! let items = ["def f(n): return n * f(n - 1)", "fn main() {}"]
//!     .map(|code| Item::new(code).with_options(options.clone()));
//!
//! let mut answers = client.explain_all(stream::iter(items), Window::default());
//! while let Some(step) = answers.next().await {
//!     let step = step?; // the server is gone, after all tries
//!     match step.progress {
//!         Progress::Delta(delta) => println!("{}: {}", step.index, delta.text),
//!         Progress::Finished(Ok(answer)) => println!("{} is complete: {}", step.index, answer.text),
//!         Progress::Finished(Err(error)) => println!("{} failed: {error}", step.index),
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod cache;
mod call;
mod connect;
mod corpus;
mod credentials;
mod credit;
mod driver;
mod embed;
mod error;
mod event;
mod explain_all;
mod item;
mod job;
mod retry;
mod transcript;

pub use cache::{CacheClear, Warming};
pub use call::{EventReceiver, Explanation, ItemEvent, ItemSender};
pub use connect::{Client, ConnectOptions};
pub use corpus::{DocumentResult, Documents, NewDocument, Removed};
pub use credentials::{TlsOptions, Token};
pub use embed::Embeddings;
pub use error::{Error, Failure, code_from_i32, code_name};
pub use event::{Accepted, CacheLevel, Delta, Done, Event, FinishReason, Receipt, Source, Usage};
pub use explain_all::{Answer, Canceller, ExplainAll, Progress, Step, Window};
pub use item::{ExplainOptions, Item, Priority};
pub use retry::Retry;
pub use tonic::Code;

/// The model being served and the limits of the server.
pub type Model = proto::GetModelResponse;
/// What the server's caches hold and did.
pub type CacheStats = proto::GetCacheStatsResponse;
/// What the server has done since it started, and how it is.
pub type Report = proto::GetPerformanceReportResponse;

/// The contract's messages and service stubs, as generated.
pub mod proto {
    #![allow(missing_docs, unreachable_pub, clippy::all)]
    tonic::include_proto!("codeexplainer.v1");
}
