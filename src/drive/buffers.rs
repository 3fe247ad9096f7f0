//! Buffers that are lent to sessions. A session that waits has none; the sessions of a worker share a few buffers for
//! large messages.
//!
//! If the next hop of a session accepts no more, the session keeps what it has read: at most [`SMALL_READ`] octets, or
//! [`READ`] with one of the worker's large buffers.

use std::cell::{Cell, RefCell};

/// The size of the read buffer, in octets: the most that is read from a socket at a time.
pub(super) const READ: usize = 64 << 10;
/// The most octets of a message that are read at a time without a large buffer.
pub(super) const SMALL_READ: usize = 16 << 10;
/// The number of large output buffers per worker.
const LARGE: usize = 8;
/// The number of empty small buffers that are kept per worker.
const SPARE: usize = 8;
/// The largest capacity, in octets, of a small buffer that is kept, because a session may use it for a long time.
const MAX_SPARE: usize = SMALL_READ + (4 << 10);

thread_local! {
    static READ_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ]);
    static SPARES: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static LARGE_SPARES: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static LARGE_LENT: Cell<usize> = const { Cell::new(0) };
}

/// Lends the read buffer of the thread for one call. `work` must not block.
pub(super) fn with_read_buffer<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    READ_BUFFER.with(|buffer| match buffer.try_borrow_mut() {
        Ok(mut buffer) => work(&mut buffer),
        // Reached only if `work` calls this function again, which it does not.
        Err(_) => work(&mut vec![0; READ]),
    })
}

/// Gives an output buffer without capacity a spare one, if there is one.
pub(super) fn lend(buffer: &mut Vec<u8>) {
    if buffer.capacity() == 0
        && let Some(spare) = SPARES.with(|spares| spares.try_borrow_mut().ok()?.pop())
    {
        *buffer = spare;
    }
}

/// Takes back an output buffer, if it is empty.
pub(super) fn give_back(buffer: &mut Vec<u8>) {
    if buffer.is_empty() && buffer.capacity() > 0 {
        keep(&SPARES, std::mem::take(buffer), SPARE, MAX_SPARE);
    }
}

/// The right to use one of the worker's large buffers. It must be given back on the same thread.
#[derive(Debug)]
pub(super) struct Large;

impl Large {
    /// Replaces an empty buffer with a large one. `None`: all of them are in use.
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

    /// Takes back the buffer, which must be empty.
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
