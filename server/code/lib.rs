//! What is known of code by itself: pure functions of a text.
//!
//! - [`prompt`]: languages, outlines, and the prompts that are made of a snippet.
//! - [`redact`]: secrets in it, made unreadable.

pub mod prompt;
pub mod redact;
