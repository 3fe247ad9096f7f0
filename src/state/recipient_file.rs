//! A list of recipients as a file.

use std::fs;
use std::path::Path;

use crate::envelope::recipient_list::RecipientList;

/// The largest file that is read, in octets.
const MAX_SIZE: u64 = 256 << 20;

/// Reads a list of recipients.
///
/// # Errors
/// In words: the file cannot be read, a line of it cannot, or it names nobody. An empty list would refuse all mail, and is
/// what a program leaves that is killed while it writes.
pub(crate) fn load(path: &Path) -> Result<RecipientList, String> {
    let failed = |why: String| format!("{}: {why}", path.display());
    let size = fs::metadata(path).map_err(|error| failed(error.to_string()))?.len();
    if size > MAX_SIZE {
        return Err(failed(format!("it has {size} octets, and may have {MAX_SIZE}")));
    }
    let text = fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    let list = RecipientList::parse(&text).map_err(|error| failed(error.to_string()))?;
    if list.is_empty() {
        return Err(failed("it names nobody, so all mail would be refused".to_owned()));
    }
    Ok(list)
}
