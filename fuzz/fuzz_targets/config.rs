//! Config files: every error names the file.
#![no_main]

use std::path::Path;

use countersign::config::Config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(error) = Config::parse(Path::new("countersign.toml"), text) {
        assert!(error.to_string().starts_with("countersign.toml"), "{error}");
    }
});
