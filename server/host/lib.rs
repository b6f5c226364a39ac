//! What work runs on, which every other crate may know.
//!
//! - [`memory`]: how much there is, and how much of it the process has. [`cpu`]: how much CPU time a computation over a
//!   client's text may take.
//! - [`machine`]: threads; or, in a simulation, the one thread of everything else. [`fair_semaphore`]: who may compute next.
//! - [`share`]: what tenants share of something bounded. [`log_limit`]: lines of the log that come now and then.

pub mod cpu;
pub mod fair_semaphore;
pub mod log_limit;
pub mod machine;
pub mod memory;
pub mod share;
