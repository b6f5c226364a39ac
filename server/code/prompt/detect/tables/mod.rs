//! The features of the languages that can be outlined.
//!
//! Weights are relative: 1 for what many languages have, 8 for what next to no other has. TypeScript is scored with
//! JavaScript's features and its own, C++ with those of C and its own.

pub(super) mod c;
pub(super) mod go;
pub(super) mod java;
pub(super) mod javascript;
pub(super) mod python;
pub(super) mod rust;
