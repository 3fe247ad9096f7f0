//! Buffers lent and returned. A session that waits holds none; what one worker's sessions read large messages with is
//! shared.
//!
//! A session whose next hop does not take what it has read keeps that: at most [`SMALL_READ`] octets, or [`READ`] for
//! the few that have one of the worker's large buffers.

use std::cell::{Cell, RefCell};

/// The size of a buffer for reading, in octets: what a socket gives at once, and no more.
pub(super) const READ: usize = 64 << 10;
/// How much of a message is read at a time without a large buffer.
pub(super) const SMALL_READ: usize = 16 << 10;
/// So many large output buffers there are per worker.
const LARGE: usize = 8;
/// So many empty small ones are kept per worker.
const SPARE: usize = 8;
/// Larger ones are given back to the allocator: a session may keep one for long.
const MAX_SPARE: usize = SMALL_READ + (4 << 10);

thread_local! {
    static READ_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ]);
    static SPARES: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static LARGE_SPARES: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static LARGE_LENT: Cell<usize> = const { Cell::new(0) };
}

/// Lends the thread's read buffer for one call. `work` must not wait.
pub(super) fn with_read_buffer<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    READ_BUFFER.with(|buffer| match buffer.try_borrow_mut() {
        Ok(mut buffer) => work(&mut buffer),
        // Only if `work` came here again, which it does not.
        Err(_) => work(&mut vec![0; READ]),
    })
}

/// Gives an output buffer room, if it has none.
pub(super) fn lend(buffer: &mut Vec<u8>) {
    if buffer.capacity() == 0
        && let Some(spare) = SPARES.with(|spares| spares.try_borrow_mut().ok()?.pop())
    {
        *buffer = spare;
    }
}

/// Takes an empty output buffer back.
pub(super) fn give_back(buffer: &mut Vec<u8>) {
    if buffer.is_empty() && buffer.capacity() > 0 {
        keep(&SPARES, std::mem::take(buffer), SPARE, MAX_SPARE);
    }
}

/// One of the worker's large buffers. It must be given back by whoever has it, on the same thread.
#[derive(Debug)]
pub(super) struct Large;

impl Large {
    /// Puts a large buffer in the place of an empty one; `None`: all are in use.
    pub(super) fn lend(buffer: &mut Vec<u8>) -> Option<Self> {
        let lent = LARGE_LENT.get();
        if lent >= LARGE {
            return None;
        }
        LARGE_LENT.set(lent + 1);
        give_back(buffer);
        let spare = LARGE_SPARES.with(|spares| spares.try_borrow_mut().ok()?.pop());
        *buffer = spare.unwrap_or_else(|| Vec::with_capacity(READ + MAX_SPARE));
        Some(Self)
    }

    /// Takes it back, now that it is empty.
    pub(super) fn give_back(self, buffer: &mut Vec<u8>) {
        keep(&LARGE_SPARES, std::mem::take(buffer), LARGE, 4 * READ);
    }
}

impl Drop for Large {
    fn drop(&mut self) {
        LARGE_LENT.set(LARGE_LENT.get().saturating_sub(1));
    }
}

fn keep(spares: &'static std::thread::LocalKey<RefCell<Vec<Vec<u8>>>>, buffer: Vec<u8>, most: usize, largest: usize) {
    spares.with(|spares| {
        if let Ok(mut spares) = spares.try_borrow_mut()
            && spares.len() < most
            && buffer.capacity() <= largest
        {
            spares.push(buffer);
        }
    });
}
