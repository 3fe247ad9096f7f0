//! State that outlives the process: the key ring, in a file of its own.

pub(crate) mod ownership;
pub(crate) mod recipient_file;
mod ring_error;
pub mod ring_file;
pub mod ring_text;
pub(crate) mod store;
pub mod time_format;

pub use self::ring_error::{Problem, RingFileError};
