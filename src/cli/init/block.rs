//! Lines for a mail server's file.

use serde::{Deserialize, Serialize};

/// Lines for a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Block {
    /// The place in the file, in words.
    pub place: String,
    /// Before which line it is put, counted from 0.
    pub line: usize,
    pub text: String,
}
