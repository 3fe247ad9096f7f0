//! A list of the recipients of a site, as text: one to a line.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};

use super::address::Address;
use super::match_lists::DomainSet;

/// The recipients of a site. A million need about 20 MB, because only hashes are kept.
///
/// ```
/// use countersign::envelope::address::Address;
/// use countersign::envelope::recipient_list::RecipientList;
///
/// let list = RecipientList::parse("# all of us\nann@our.example\npostmaster@\n@list.example\n")?;
/// assert!(list.contains(&Address::parse("Ann+lists@OUR.example")?));
/// assert!(list.contains(&Address::parse("postmaster@any.example")?));
/// assert!(list.contains(&Address::parse("any@list.example")?));
/// assert!(!list.contains(&Address::parse("bob@our.example")?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct RecipientList {
    hasher: RandomState,
    /// Hashes of addresses.
    addresses: HashSet<u64>,
    /// Hashes of local parts that exist in every domain.
    everywhere: HashSet<u64>,
    /// Domains in which every local part exists.
    domains: DomainSet,
    lines: usize,
}

/// A line that names no recipient.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}; write one address, `@domain` or `local-part@` to a line")]
pub struct RecipientListError {
    /// The number of the line, from 1.
    pub line: usize,
    /// Why it cannot be read.
    pub why: String,
}

impl RecipientList {
    /// Reads a list. A line has an address, `@domain` for all of a domain, or `local-part@` for all domains. What
    /// follows after white space is ignored, as in tables of Postfix; so are empty lines and those that begin with `#`.
    ///
    /// # Errors
    /// The first line that cannot be read.
    pub fn parse(text: &str) -> Result<Self, RecipientListError> {
        let mut list = Self::default();
        for (n, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let entry = entry(line);
            if !entry.is_empty() && !entry.starts_with('#') {
                list.add(entry).map_err(|why| RecipientListError { line: n + 1, why })?;
                list.lines += 1;
            }
        }
        Ok(list)
    }

    fn add(&mut self, entry: &str) -> Result<(), String> {
        if let Some(domain) = entry.strip_prefix('@') {
            // The domain is checked with any local part.
            Address::parse(&format!("x@{domain}")).map_err(|error| error.to_string())?;
            self.domains.insert(domain);
        } else if let Some(local) = entry.strip_suffix('@') {
            let address = Address::parse(&format!("{local}@x.example")).map_err(|error| error.to_string())?;
            let hash = self.hash_of_local(&address.content());
            self.everywhere.insert(hash);
        } else {
            let address = Address::parse(entry).map_err(|error| error.to_string())?;
            let hash = self.hash_of(&address.content(), &address);
            self.addresses.insert(hash);
        }
        Ok(())
    }

    fn hash_of(&self, content: &str, address: &Address) -> u64 {
        self.hasher.hash_one((content.to_ascii_lowercase(), address.canonical_domain()))
    }

    fn hash_of_local(&self, content: &str) -> u64 {
        self.hasher.hash_one(content.to_ascii_lowercase())
    }

    /// Whether a recipient is in the list. An extension that begins with `+` may be missing there.
    #[must_use]
    pub fn contains(&self, recipient: &Address) -> bool {
        let content = recipient.content();
        let bare = content.split_once('+').map_or(&*content, |(bare, _)| bare);
        let has = |content: &str| {
            self.addresses.contains(&self.hash_of(content, recipient))
                || self.everywhere.contains(&self.hash_of_local(content))
        };
        has(&content) || has(bare) || self.domains.contains(recipient.domain())
    }

    /// The number of lines that name recipients.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lines
    }

    /// Whether no line names a recipient.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines == 0
    }
}

/// The entry of a line, without what follows it. A local part in quotes may have spaces.
fn entry(line: &str) -> &str {
    let line = line.trim();
    let end_of_quotes = line.strip_prefix('"').and_then(|rest| rest.rfind("\"@")).map_or(0, |at| at + 2);
    let rest = line.get(end_of_quotes..).unwrap_or_default();
    let end = rest.find(char::is_whitespace).map_or(line.len(), |at| end_of_quotes + at);
    line.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn has(list: &str, recipient: &str) -> bool {
        RecipientList::parse(list).unwrap().contains(&Address::parse(recipient).unwrap())
    }

    #[test]
    fn lines_are_read_as_people_and_programs_write_them() {
        let list =
            "\u{feff}# users\r\nann@our.example\r\n\r\n  Bob@our.example\tOK\n\"c d\"@our.example x\nx+y@our.example\n";
        for known in
            ["ann@our.example", "ANN@our.Example", "bob@our.example", "\"c d\"@our.example", "\"ann\"@our.example"]
        {
            assert!(has(list, known), "{known}");
        }
        for unknown in ["users@our.example", "ann@other.example", "ok@our.example", "x@our.example"] {
            assert!(!has(list, unknown), "{unknown}");
        }
        assert!(has(list, "x+y@our.example") && has(list, "ann+any+more@our.example"));
        assert_eq!(RecipientList::parse(list).unwrap().len(), 4);
        assert!(RecipientList::parse("# nobody\n").unwrap().is_empty());
    }

    #[test]
    fn a_bad_line_is_named() {
        for (list, line) in [("ann@our.example\nbob\n", 2), ("@\n", 1), ("#\n\na@b@c..d\n", 3), ("@-x..y\n", 1)] {
            let error = RecipientList::parse(list).unwrap_err();
            assert_eq!(error.line, line, "{list}");
            assert!(error.to_string().starts_with(&format!("line {line}: ")), "{error}");
        }
    }

    #[test]
    fn a_million_lines_are_few_octets_and_none_is_mistaken() {
        let text: String = (0..100_000).map(|n| format!("user{n}@our.example\n")).collect();
        let list = RecipientList::parse(&text).unwrap();
        let found = (0..200_000).filter(|n| list.contains(&Address::parse(&format!("user{n}@our.example")).unwrap()));
        assert_eq!(found.count(), 100_000);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,200}|[a-z@\" +#.\t\n]{0,60}") {
            if let Err(error) = RecipientList::parse(&text) {
                prop_assert!(error.line <= text.lines().count());
            }
        }
    }
}
