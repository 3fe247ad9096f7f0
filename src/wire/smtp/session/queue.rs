//! What is in flight: the order in which a client gets its answers.
//!
//! One entry for each command that the client, or this machine, has sent. The next hop answers in order; our own
//! replies wait for their turn among its answers.

use std::collections::VecDeque;

/// The most entries; while it is full, the client is not listened to.
const MAX: usize = 100;

/// One thing that is waited for.
#[derive(Debug)]
pub(super) enum Item {
    /// The next hop's reply goes to the client.
    Forwarded(ClientCommand),
    /// Our reply; it leaves when it is at the front.
    Local(Vec<u8>),
    /// The next hop's reply is ours to read.
    Swallowed(ProxyCommand),
}

/// What the client asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientCommand {
    Greeting,
    Hello {
        extended: bool,
    },
    Mail {
        transaction: u64,
    },
    Rcpt {
        transaction: u64,
    },
    Data,
    /// A chunk that is not the last.
    Chunk {
        transaction: u64,
    },
    EndOfData,
    Auth,
    Quit,
    Other,
}

/// What this machine asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProxyCommand {
    Greeting,
    Hello,
    StartTls,
    XClient,
    XForward,
    AuthCancelled,
    Rset,
    Mail {
        transaction: u64,
    },
    /// Somebody else gets the message.
    Rcpt,
    LateData,
    Chunk {
        transaction: u64,
    },
}

#[derive(Debug)]
struct QueueEntry {
    item: Item,
    /// The command itself, while a next hop without PIPELINING has others to answer first.
    unsent: Option<Vec<u8>>,
}

/// The FIFO between the two sides.
#[derive(Debug, Default)]
pub(super) struct Queue(VecDeque<QueueEntry>);

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.0.len() >= MAX
    }

    /// Whether the next hop has something to answer.
    pub(super) fn is_waiting(&self) -> bool {
        self.0.iter().any(|entry| !matches!(entry.item, Item::Local(_)))
    }

    /// Whether the client waits for the next hop's answer to DATA.
    pub(super) fn has_data(&self) -> bool {
        self.0.iter().any(|entry| matches!(entry.item, Item::Forwarded(ClientCommand::Data)))
    }

    pub(super) fn push(&mut self, item: Item) {
        self.0.push_back(QueueEntry { item, unsent: None });
    }

    /// An entry whose command waits for the answers before it.
    pub(super) fn push_unsent(&mut self, item: Item, command: Vec<u8>) {
        self.0.push_back(QueueEntry { item, unsent: Some(command) });
    }

    /// Our replies at the front, to be written to the client.
    pub(super) fn take_local(&mut self) -> Option<Vec<u8>> {
        match self.0.front() {
            Some(QueueEntry { item: Item::Local(_), .. }) => match self.0.pop_front() {
                Some(QueueEntry { item: Item::Local(text), .. }) => Some(text),
                _ => None,
            },
            _ => None,
        }
    }

    /// What a reply of the next hop answers. `None`: nothing was asked.
    pub(super) fn answered(&mut self) -> Option<Item> {
        self.0.pop_front().map(|entry| entry.item)
    }

    /// The next command that may be sent now, if one has waited.
    pub(super) fn next_unsent(&mut self) -> Option<Vec<u8>> {
        self.0.iter_mut().find(|entry| !matches!(entry.item, Item::Local(_)))?.unsent.take()
    }
}
