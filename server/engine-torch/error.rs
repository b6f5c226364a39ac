//! What becomes of an exception in libtorch.

use code_explainer_engine::EngineError;
use code_explainer_weights::WeightsError;
use tch::TchError;

/// Inside of this crate, where most calls can fail in libtorch and some fail by themselves. Beyond it, both are an
/// [`EngineError`].
#[derive(Debug)]
pub(crate) enum Error {
    /// In libtorch.
    Torch(TchError),
    /// Elsewhere.
    Engine(EngineError),
}

/// What can fail inside of this crate.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// The words by which libtorch's allocators say that memory is short: CUDA's, the CPU's, and the operating system's.
const OUT_OF_MEMORY: [&str; 4] = [
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
];

impl From<TchError> for Error {
    fn from(error: TchError) -> Self {
        Self::Torch(error)
    }
}

impl From<EngineError> for Error {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

impl From<WeightsError> for Error {
    fn from(error: WeightsError) -> Self {
        Self::Engine(error.into())
    }
}

impl From<Error> for EngineError {
    fn from(error: Error) -> Self {
        match error {
            Error::Engine(error) => error,
            Error::Torch(error) => engine_error(error),
        }
    }
}

/// What an exception in libtorch is to others.
pub(crate) fn engine_error(error: TchError) -> EngineError {
    let message = match error {
        TchError::Torch(message) => message,
        other => other.to_string(),
    };
    // What follows the first line is a C++ stack trace, where libtorch was built to give one.
    let line = message.lines().next().unwrap_or_default().trim().to_owned();
    let lower = line.to_lowercase();
    if OUT_OF_MEMORY.iter().any(|words| lower.contains(words)) {
        return EngineError::OutOfMemory(line);
    }
    EngineError::Torch(line)
}
