//! A list of recipients: each address that is a line of it is in it.
#![no_main]

use countersign::envelope::address::Address;
use countersign::envelope::recipient_list::RecipientList;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| match RecipientList::parse(text) {
    Ok(list) => {
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            if let Ok(address) = Address::parse(line) {
                assert!(list.contains(&address), "{address}");
            }
        }
    }
    Err(error) => assert!(error.line >= 1 && error.line <= text.lines().count()),
});
