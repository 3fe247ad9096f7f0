//! Buffers lent and returned. A session that waits holds none; one thread's sessions share a few large ones.

use std::cell::RefCell;

/// The size of a buffer for reading, in octets: what a socket gives at once, and no more.
pub(super) const READ: usize = 64 << 10;
/// So many empty output buffers are kept per thread.
const SPARE: usize = 8;
/// Larger ones are given back to the allocator.
const MAX_SPARE: usize = 256 << 10;

thread_local! {
    static READ_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ]);
    static SPARES: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
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
        let buffer = std::mem::take(buffer);
        SPARES.with(|spares| {
            if let Ok(mut spares) = spares.try_borrow_mut()
                && spares.len() < SPARE
                && buffer.capacity() <= MAX_SPARE
            {
                spares.push(buffer);
            }
        });
    }
}
