//! What a store can do, whatever it keeps its values in.

/// A store of keys and values.
pub(crate) trait Store: Send + Sync {
    /// Calls `each` with every key and value of a table, in the order of the keys.
    ///
    /// # Errors
    /// The store cannot be read.
    fn scan(&self, table: Table, each: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), StoreError>;

    /// As [`scan`](Self::scan) in descending order, until `each` returns `false`.
    ///
    /// # Errors
    /// The store cannot be read.
    fn scan_back(&self, table: Table, each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), StoreError>;

    /// The value of a key.
    ///
    /// # Errors
    /// The store cannot be read.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Removes keys that are less than `bound`, the least first, at most `most`.
    ///
    /// # Errors
    /// The store cannot be written.
    fn remove_before(&self, table: Table, bound: &[u8], most: usize) -> Result<Removed, StoreError>;

    /// Whether the store is as large as it may be, so that only what is needed should be added.
    fn is_full(&self) -> bool;

    /// Makes all of these changes, or none of them. They are on disk when this returns.
    ///
    /// # Errors
    /// The store cannot be written.
    fn commit(&self, changes: &[Change]) -> Result<(), StoreError>;
}

/// What was removed from a store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Removed {
    /// The number of keys.
    pub keys: usize,
    /// The octets of keys and values.
    pub octets: usize,
}

/// The tables of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Table {
    /// What was seen of ramps, by domain.
    Ramp,
    /// Recent decisions, by number.
    Decision,
    /// Addresses of long senders, by alias.
    Alias,
    /// Recipients and bounces of tags, by the hash of the tag.
    Replay,
    /// What became of mail, by hour.
    History,
    /// When recipients were known, by the hash of server and address.
    Recipient,
    /// Settings of the running daemon that are not in its config, by name.
    Daemon,
}

impl Table {
    pub(super) const ALL: [Self; 7] =
        [Self::Ramp, Self::Decision, Self::Alias, Self::Replay, Self::History, Self::Recipient, Self::Daemon];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ramp => "ramp",
            Self::Decision => "decision",
            Self::Alias => "alias",
            Self::Replay => "replay",
            Self::History => "history",
            Self::Recipient => "recipient",
            Self::Daemon => "daemon",
        }
    }
}

/// One change of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    /// The table.
    pub table: Table,
    /// The key.
    pub key: Vec<u8>,
    /// The new value; `None`: the key is removed.
    pub value: Option<Vec<u8>>,
}

/// Why a store could not do what it was asked for, in words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct StoreError(pub String);

/// How a store was found when it was opened.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// With what an earlier process has left.
    Old,
    /// There was none, and it was made.
    New,
    /// It was damaged, and has been moved to this file name. The new one is empty.
    Damaged(String),
    /// It cannot be used, for this reason: memory takes its place until the next start.
    Unusable(String),
    /// The config asks for memory.
    InMemory,
}
