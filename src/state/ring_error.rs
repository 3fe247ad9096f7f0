//! Errors of a key ring file.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::ownership::{self, Wanted};
use crate::envelope::keyring::{ChangeError, RingError};

/// An error in a ring file: its place, and how to correct it.
#[derive(Debug)]
pub struct RingFileError {
    /// The ring file.
    pub path: PathBuf,
    /// The line, counted from 1, if it is known.
    pub line: Option<usize>,
    /// The error, and how to correct it.
    pub problem: Problem,
}

/// The kind of an error in a ring file.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The file does not exist.
    #[error(
        "there is no key ring; is the name right? If it was lost, restore your copy: a new one, made by `countersign keys init`, verifies no mail that was signed before"
    )]
    Missing,
    /// The file exists already.
    #[error("there is a key ring already; it was left as it is")]
    Exists,
    /// Other users can read the secrets.
    #[error("mode {mode:04o} lets others read the secrets; run: chmod 600 {path}")]
    Open {
        /// The permission bits.
        mode: u32,
        /// The path of the file, for the command in the message.
        path: String,
    },
    /// Other users can replace the file.
    #[error(
        "every user may write into the folder {folder}, and so put another key ring in its place; run: chmod o-w {folder}"
    )]
    OpenFolder {
        /// The path of the folder, for the command in the message.
        folder: String,
    },
    /// The file belongs to another user, in a folder where every user may write.
    #[error(
        "it belongs to the user with the id {uid}, in a folder where every user may write; move it to a folder of its own"
    )]
    Foreign {
        /// The user id of the owner.
        uid: u32,
    },
    /// The operating system lets this user not read the file, or not write in its folder; says why.
    #[error("{0}")]
    Refused(String),
    /// An error of the operating system.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The file is not of the form of a key ring.
    #[error("{0}")]
    Syntax(String),
    /// The keys do not make a valid ring.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The change is not possible.
    #[error(transparent)]
    Change(#[from] ChangeError),
}

impl Problem {
    /// An error of the operating system at `path`: with owner, asker and remedy, if it is one of rights.
    pub(super) fn refused(path: &Path, wanted: Wanted, error: io::Error) -> Self {
        ownership::refused(path, wanted, &error).map_or(Self::Io(error), Self::Refused)
    }
}

impl fmt::Display for RingFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Problem::Refused(text) = &self.problem
            && let Some(rest) = text.strip_prefix(&format!("{} ", self.path.display()))
        {
            return write!(f, "{}: it {rest}", self.path.display());
        }
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.path.display(), self.problem),
            None => write!(f, "{}: {}", self.path.display(), self.problem),
        }
    }
}

impl std::error::Error for RingFileError {}

/// Adds the path to an error.
pub(super) fn at<T>(path: &Path, result: Result<T, impl Into<Problem>>) -> Result<T, RingFileError> {
    result.map_err(|problem| RingFileError { path: path.to_owned(), line: None, problem: problem.into() })
}
