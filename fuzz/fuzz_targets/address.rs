//! Addresses and reverse-paths: a parsed one is unchanged after it is written and parsed again.
#![no_main]

use countersign::envelope::address::{Address, ReversePath, strip_source_route};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = strip_source_route(text);
    if let Ok(path) = ReversePath::parse(text) {
        let again = path.address().map_or(ReversePath::Null, |address| ReversePath::parse(address.as_str()).unwrap());
        assert_eq!(path, again);
    }
    let Ok(address) = Address::parse(text) else { return };
    assert_eq!(Address::parse(address.as_str()).as_ref(), Ok(&address));
    let content = address.content();
    if let Ok(same) = Address::from_content(&content, address.domain()) {
        assert!(same.same_mailbox(&address), "{address} {same}");
    }
});
