//! What becomes of an exception in libtorch.

use tch::TchError;

use crate::engine::EngineError;

/// The words by which libtorch's allocators say that memory is short: CUDA's, the CPU's, and the operating system's.
const OUT_OF_MEMORY: [&str; 4] = [
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
];

impl From<TchError> for EngineError {
    fn from(error: TchError) -> Self {
        let message = match error {
            TchError::Torch(message) => message,
            other => other.to_string(),
        };
        // What follows the first line is a C++ stack trace, where libtorch was built to give one.
        let line = message.lines().next().unwrap_or_default().trim().to_owned();
        let lower = line.to_lowercase();
        if OUT_OF_MEMORY.iter().any(|words| lower.contains(words)) {
            return Self::OutOfMemory(line);
        }
        Self::Torch(line)
    }
}
