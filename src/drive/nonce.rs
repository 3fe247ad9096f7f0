//! Random octets that need not be secret, which are requested from the system in batches.

use std::cell::RefCell;

/// Octets per batch.
const STORE: usize = 1000;

struct Store {
    octets: [u8; STORE],
    left: usize,
}

thread_local! {
    static OCTETS: RefCell<Store> = const { RefCell::new(Store { octets: [0; STORE], left: 0 }) };
}

/// Ten random octets, which no other call gets.
///
/// # Errors
/// The system has no random octets.
pub(crate) fn nonce() -> Result<[u8; 10], getrandom::Error> {
    OCTETS.with_borrow_mut(|store| {
        let mut nonce = [0; 10];
        if store.left < nonce.len() {
            getrandom::fill(&mut store.octets)?;
            store.left = STORE;
        }
        store.left -= nonce.len();
        let octets = store.octets.get(store.left..).unwrap_or_default();
        nonce.iter_mut().zip(octets).for_each(|(to, from)| *to = *from);
        Ok(nonce)
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_nonce_comes_twice() {
        let all: std::collections::HashSet<_> = (0..1000).map(|_| super::nonce().unwrap()).collect();
        assert_eq!(all.len(), 1000);
    }
}
