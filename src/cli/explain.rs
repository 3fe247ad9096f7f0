//! `explain`: prints the parts of a tagged address and their meaning.

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::common_args::RingArgs;
use super::tags::{date, describe};
use crate::cli::colours::{BOLD, DIM};
use crate::envelope::address::Address;
use crate::envelope::keyring::{Key, Keyring};
use crate::envelope::site_policy::Policy;
use crate::envelope::tag::{Verdict, batv, srs};
use crate::envelope::time::{Day, SrsStamp};
use crate::state;

/// `countersign explain`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  countersign explain prvs=1786a1b2c3=ann@our.example
  countersign explain 'SRS0=2ZLPHW=PQ=else.example=bob@srs.our.example'")]
pub(super) struct Explain {
    #[command(flatten)]
    ring: RingArgs,
    /// One JSON object
    #[arg(long)]
    json: bool,
    /// The address
    address: String,
}

/// Prints the meaning of each part. `false`: the tag is not valid.
pub(super) fn run(args: &Explain) -> Result<bool> {
    let config = args.ring.config()?;
    let ring = state::ring_file::load(&args.ring.ring_path(config.as_ref()))?;
    let policy = config.map(|c| c.policy).unwrap_or_default();
    let text = args.address.trim().trim_start_matches('<').trim_end_matches('>');
    let today = args.ring.now().day();
    let address = match Address::parse(text) {
        Ok(address) => address,
        Err(error) => {
            print(args, text, &[], "malformed", &error.to_string());
            return Ok(false);
        }
    };
    let (parts, verdict) = take_apart(&address, &ring, &policy, today);
    let note = describe(&verdict, today);
    print(args, text, &parts, verdict.name(), &note);
    Ok(matches!(verdict, Verdict::Valid(_)))
}

type Part = (String, String);

fn take_apart(address: &Address, ring: &Keyring, policy: &Policy, today: Day) -> (Vec<Part>, Verdict) {
    let content = address.content();
    let part = |text: &str, meaning: String| (text.to_owned(), meaning);
    let mut parts = Vec::new();
    if let Some(prvs) = batv::Prvs::parse(&content) {
        let verdict = batv::verify(ring.keys(), &policy.batv, today, address);
        let key = ring.keys().iter().find(|k| k.id.digit() == Some(prvs.key));
        parts.push(part("prvs", "a BATV tag (Bounce Address Tag Validation): our own sender, signed".into()));
        parts.push(part(&prvs.key.to_string(), key.map_or("a key that is not in this ring".into(), describe_key)));
        let day = prvs.day.nearest(today);
        parts.push(part(&prvs.day.to_string(), format!("the last three digits of the day it expires: {}", date(day))));
        parts.push(part(prvs.hex, format!("{} bits of hash over key, day and address", prvs.hex.len() * 4)));
        parts.push(part(&format!("{}@{}", prvs.core, address.domain()), "who sent the mail".into()));
        return (parts, verdict);
    }
    let verdict = srs::verify(ring.keys(), &policy.srs, today, address);
    match srs::Srs::parse(&content) {
        Ok(Some(srs::Srs::Zero { hash, stamp, host, user })) => {
            parts
                .push(part("SRS0", "a foreign sender whose mail was forwarded through the domain behind the @".into()));
            parts.push(part(hash, "the hash over the rest".into()));
            let day = SrsStamp::parse(stamp).map(|s| date(s.nearest(today)));
            parts.push(part(stamp, day.map_or("no day stamp".into(), |day| format!("the day it was made: {day}"))));
            parts.push(part(&format!("{user}@{host}"), "who sent the mail".into()));
        }
        Ok(Some(srs::Srs::One { hash, host, rest })) => {
            parts.push(part("SRS1", "mail forwarded more than once; it points past us to the first forwarder".into()));
            parts.push(part(hash, "the hash over the rest".into()));
            parts.push(part(host, "the first forwarder".into()));
            parts.push(part(&format!("SRS0{rest}"), "the address there, which only it can check".into()));
        }
        Ok(None) | Err(_) => parts.push(part(address.as_str(), "an ordinary address".into())),
    }
    let parts = if matches!(verdict, Verdict::Untagged) && batv::looks_tagged(&content) {
        vec![part(address.as_str(), "an ordinary address: it starts with prvs=, but is no tag".into())]
    } else {
        parts
    };
    (parts, verdict)
}

fn describe_key(key: &Key) -> String {
    format!("key {}, {}, {}", key.id, key.algorithm.name(), key.state.name())
}

fn print(args: &Explain, text: &str, parts: &[Part], verdict: &str, note: &str) {
    if args.json {
        let parts: Vec<_> = parts.iter().map(|(text, meaning)| json!({"text": text, "meaning": meaning})).collect();
        anstream::println!("{}", json!({"address": text, "verdict": verdict, "why": note, "parts": parts}));
        return;
    }
    anstream::println!("{BOLD}{text}{BOLD:#}");
    let width = parts.iter().map(|(text, _)| text.chars().count()).max().unwrap_or(0).min(40);
    for (text, meaning) in parts {
        anstream::println!("  {text:width$}  {DIM}{meaning}{DIM:#}");
    }
    anstream::println!("{BOLD}{verdict}{BOLD:#}: {note}");
}
