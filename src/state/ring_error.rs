//! What may be wrong with a key ring.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::envelope::keyring::{ChangeError, RingError};

/// What is wrong with a ring file: where, what, and what would be right.
#[derive(Debug)]
pub struct RingFileError {
    /// The ring file.
    pub path: PathBuf,
    /// The line, from 1, where it is known.
    pub line: Option<usize>,
    /// The problem, and what would be right.
    pub problem: Problem,
}

/// What is wrong with a ring file.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// There is none.
    #[error("there is no key ring; is the name right? A new one is made with: countersign keys init")]
    Missing,
    /// There is one already.
    #[error("there is a key ring already; it was left as it is")]
    Exists,
    /// Others can read the secrets.
    #[error("mode {mode:04o} lets others read the secrets; run: chmod 600 {path}")]
    Open {
        /// The permission bits.
        mode: u32,
        /// The file, for the command line.
        path: String,
    },
    /// Others can put another file in its place.
    #[error(
        "every user may write into the folder {folder}, and so put another key ring in its place; run: chmod o-w {folder}"
    )]
    OpenFolder {
        /// The folder, for the command line.
        folder: String,
    },
    /// In a folder for everybody, somebody else has put it there.
    #[error(
        "it belongs to the user with the id {uid}, in a folder where every user may write; move it to a folder of its own"
    )]
    Foreign {
        /// Whose file it is.
        uid: u32,
    },
    /// The system said no.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Not what a ring looks like.
    #[error("{0}")]
    Syntax(String),
    /// It reads well and cannot be a ring.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The change cannot be made.
    #[error(transparent)]
    Change(#[from] ChangeError),
}

impl fmt::Display for RingFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.path.display(), self.problem),
            None => write!(f, "{}: {}", self.path.display(), self.problem),
        }
    }
}

impl std::error::Error for RingFileError {}

/// Names the file.
pub(super) fn at<T>(path: &Path, result: Result<T, impl Into<Problem>>) -> Result<T, RingFileError> {
    result.map_err(|problem| RingFileError { path: path.to_owned(), line: None, problem: problem.into() })
}
