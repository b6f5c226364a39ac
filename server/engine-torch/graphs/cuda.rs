//! CUDA graphs, through the C functions of `shim.cpp`.

use std::ffi::{CStr, c_char, c_int};
use std::marker::PhantomData;
use std::ptr::NonNull;

use code_explainer_engine::EngineError;
use tch::Tensor;

use super::Graph;
use crate::error::Result;

#[repr(C)]
struct RawGraph {
    _private: [u8; 0],
}

#[repr(C)]
struct RawStreamGuard {
    _private: [u8; 0],
}

unsafe extern "C" {
    fn ce_error_free(error: *mut c_char);
    fn ce_pool_new(pool: *mut u64) -> *mut c_char;
    fn ce_graph_new(device: c_int, graph: *mut *mut RawGraph) -> *mut c_char;
    fn ce_graph_free(graph: *mut RawGraph);
    fn ce_stream_enter(graph: *mut RawGraph, guard: *mut *mut RawStreamGuard) -> *mut c_char;
    fn ce_stream_leave(guard: *mut RawStreamGuard);
    fn ce_synchronize() -> *mut c_char;
    fn ce_capture_begin(graph: *mut RawGraph, pool: *const u64) -> *mut c_char;
    fn ce_capture_end(graph: *mut RawGraph) -> *mut c_char;
    fn ce_replay(graph: *mut RawGraph) -> *mut c_char;
}

/// What the shim gave back: null, or a message of its own.
fn check(error: *mut c_char) -> Result<()> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: a message that is not null is a string of the shim's, which nobody else has, and is read before it is freed.
    let message = unsafe {
        let message = CStr::from_ptr(error).to_string_lossy().into_owned();
        ce_error_free(error);
        message
    };
    Err(tch::TchError::Torch(message).into())
}

/// A pool of device memory that graphs share. They may, because they never run at once and what one gives is read before the
/// next runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MemoryPool {
    device: usize,
    id: [u64; 2],
}

impl MemoryPool {
    /// A pool on a CUDA device.
    ///
    /// # Errors
    /// [`EngineError::Torch`] if CUDA does not give one.
    pub(crate) fn new(device: usize) -> Result<Self> {
        let mut id = [0; 2];
        // SAFETY: the shim writes two numbers.
        check(unsafe { ce_pool_new(id.as_mut_ptr()) })?;
        Ok(Self { device, id })
    }
}

/// A recorded graph and the tensor that each replay writes.
#[derive(Debug)]
pub(crate) struct CudaGraph {
    raw: Raw,
    output: Tensor,
}

#[derive(Debug)]
struct Raw(NonNull<RawGraph>);

// SAFETY: a graph is not bound to the thread that made it, and is reached through one owner only.
unsafe impl Send for Raw {}

impl Drop for Raw {
    fn drop(&mut self) {
        // SAFETY: the shim made it, and it is freed once.
        unsafe { ce_graph_free(self.0.as_ptr()) }
    }
}

impl Raw {
    fn new(device: usize) -> Result<Self> {
        let device = c_int::try_from(device).unwrap_or(c_int::MAX);
        let mut raw = std::ptr::null_mut();
        // SAFETY: the shim writes one pointer.
        check(unsafe { ce_graph_new(device, &mut raw) })?;
        NonNull::new(raw)
            .map(Self)
            .ok_or_else(|| EngineError::Broken("CUDA gave no graph").into())
    }

    /// Makes the graph's stream this thread's own until the guard is dropped.
    fn enter(&self) -> Result<StreamGuard> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: the graph lives; the shim writes one pointer.
        check(unsafe { ce_stream_enter(self.0.as_ptr(), &mut raw) })?;
        Ok(StreamGuard {
            raw,
            _stays_on_its_thread: PhantomData,
        })
    }

    /// Records what `work` launches, instead of running it.
    fn record(&self, pool: &MemoryPool, work: &dyn Fn() -> Result<Tensor>) -> Result<Tensor> {
        // SAFETY: the graph lives; the pool's id is two numbers.
        check(unsafe { ce_capture_begin(self.0.as_ptr(), pool.id.as_ptr()) })?;
        let output = work();
        // SAFETY: the graph lives. A capture is ended whatever came of the work.
        let ended = check(unsafe { ce_capture_end(self.0.as_ptr()) });
        let output = output?;
        ended?;
        Ok(output)
    }
}

struct StreamGuard {
    raw: *mut RawStreamGuard,
    /// The current stream is the thread's.
    _stays_on_its_thread: PhantomData<*const ()>,
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        // SAFETY: the shim made it, on this thread, and it is freed once.
        unsafe { ce_stream_leave(self.raw) }
    }
}

fn synchronize() -> Result<()> {
    // SAFETY: it takes nothing.
    check(unsafe { ce_synchronize() })
}

impl Graph for CudaGraph {
    type Pool = MemoryPool;

    fn capture(pool: &MemoryPool, work: &dyn Fn() -> Result<Tensor>) -> Result<Self> {
        let raw = Raw::new(pool.device)?;
        let stream = raw.enter()?;
        // libraries set themselves up in their first call, which cannot be recorded.
        drop(work()?);
        synchronize()?;
        let output = raw.record(pool, work)?;
        drop(stream);
        Ok(Self { raw, output })
    }

    fn replay(&self, _: &dyn Fn() -> Result<Tensor>) -> Result<Tensor> {
        // SAFETY: the graph lives, and its static tensors with it: their owner has both.
        check(unsafe { ce_replay(self.raw.0.as_ptr()) })?;
        Ok(self.output.shallow_clone())
    }
}
