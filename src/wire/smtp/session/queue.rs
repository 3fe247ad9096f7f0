//! The queue of commands in flight, which keeps replies in order.
//!
//! There is one entry for each command that the client, or this machine, has sent. The next hop answers in order;
//! replies of this program wait for their turn.

use std::collections::VecDeque;

/// The most entries; while the queue is full, the client is not read.
const MAX: usize = 100;

/// One entry: a reply that is awaited or due.
#[derive(Debug)]
pub(super) enum Item {
    /// A reply of the next hop, which is sent to the client.
    Forwarded(ClientCommand),
    /// A reply of this program, which is sent when it is at the front.
    Local(Vec<u8>),
    /// A reply of the next hop to this machine, which is not sent to the client.
    Swallowed(ProxyCommand),
}

/// A command of the client.
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

/// A command of this machine.
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
    /// The RCPT for the quarantine mailbox.
    Rcpt,
    LateData,
    Chunk {
        transaction: u64,
    },
}

#[derive(Debug)]
struct QueueEntry {
    item: Item,
    /// The command, until a next hop without PIPELINING has answered the ones before it.
    unsent: Option<Vec<u8>>,
}

/// The commands in flight, oldest first.
#[derive(Debug, Default)]
pub(super) struct Queue(VecDeque<QueueEntry>);

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.0.len() >= MAX
    }

    /// Whether a reply of the next hop is awaited.
    pub(super) fn is_waiting(&self) -> bool {
        self.0.iter().any(|entry| !matches!(entry.item, Item::Local(_)))
    }

    /// Whether the client waits for the next hop's reply to DATA.
    pub(super) fn has_data(&self) -> bool {
        self.0.iter().any(|entry| matches!(entry.item, Item::Forwarded(ClientCommand::Data)))
    }

    pub(super) fn push(&mut self, item: Item) {
        self.0.push_back(QueueEntry { item, unsent: None });
    }

    /// Adds an entry whose command is sent after earlier commands are answered.
    pub(super) fn push_unsent(&mut self, item: Item, command: Vec<u8>) {
        self.0.push_back(QueueEntry { item, unsent: Some(command) });
    }

    /// Takes the first entry if it is a reply of this program.
    pub(super) fn take_local(&mut self) -> Option<Vec<u8>> {
        match self.0.front() {
            Some(QueueEntry { item: Item::Local(_), .. }) => match self.0.pop_front() {
                Some(QueueEntry { item: Item::Local(text), .. }) => Some(text),
                _ => None,
            },
            _ => None,
        }
    }

    /// Takes the entry that a reply of the next hop answers; `None` if the reply is unsolicited.
    pub(super) fn answered(&mut self) -> Option<Item> {
        self.0.pop_front().map(|entry| entry.item)
    }

    /// Takes the next unsent command, if it can be sent now.
    pub(super) fn next_unsent(&mut self) -> Option<Vec<u8>> {
        self.0.iter_mut().find(|entry| !matches!(entry.item, Item::Local(_)))?.unsent.take()
    }
}
