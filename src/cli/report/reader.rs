//! What gets the lines of logs.

use crate::mail_log::line::Lines;

/// Gets what is read.
pub(super) trait Reader {
    /// Whole lines. `meanwhile` reads on, and is called once.
    fn batch(&mut self, text: &[u8], lines: &mut Lines, meanwhile: &mut dyn FnMut());
    /// A line of an entry of the journal. `seconds`: since 1970, in UTC.
    fn entry(&mut self, seconds: i64, host: &[u8], identifier: &[u8], text: &[u8], lines: &mut Lines);
}
