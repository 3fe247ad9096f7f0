//! Runs files of recorded test vectors through the public API: what this crate makes and verifies with a peer's secret
//! must be what the peer makes and verifies, byte for byte.
//!
//! `cargo run --release --example vectors -- FILE…` prints each mismatch with its id, the number of unsupported cases
//! with the reason, and last `N passed, N failed`. The exit status is 1 if a case failed.

use std::process::ExitCode;

use anyhow::{Context, Result};
use countersign::envelope::address::Address;
use countersign::envelope::keyring::{Algorithm, Key, KeyId, KeyState, Secret};
use countersign::envelope::tag::batv::TagState;
use countersign::envelope::tag::{CaseFolding, Defect, Verdict, batv, srs};
use countersign::envelope::time::Timestamp;
use serde_json::Value;

#[derive(Default)]
struct Count {
    passed: usize,
    failed: usize,
    database: usize,
    informational: usize,
}

fn main() -> Result<ExitCode> {
    let mut count = Count::default();
    for file in std::env::args_os().skip(1) {
        let text = std::fs::read_to_string(&file).with_context(|| format!("{}", file.display()))?;
        let file: Value = serde_json::from_str(&text).with_context(|| format!("{}", file.display()))?;
        let peer = file["peer"].as_str().context("the file has no peer")?;
        for vector in file["vectors"].as_array().context("the file has no vectors")? {
            let id = vector["id"].as_str().unwrap_or("?");
            run(peer, vector, &mut count).with_context(|| id.to_owned())?;
        }
    }
    println!(
        "{} not supported: aliases of PostSRSd's database mode, which only its database can reverse",
        count.database
    );
    println!("{} not supported: schemes of packages whose addresses nobody else can verify", count.informational);
    println!("{} passed, {} failed", count.passed, count.failed);
    Ok(if count.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn algorithm_of(peer: &str) -> Option<Algorithm> {
    match peer {
        "exim-prvs" => Some(Algorithm::Exim),
        "postsrsd2" => Some(Algorithm::Postsrsd),
        name => Algorithm::from_name(name),
    }
}

/// The outcome of a case: an address or the name of an error, and the verdict if the operation has one.
#[derive(Debug, PartialEq)]
struct Answer {
    output: Result<String, String>,
    verdict: Option<String>,
}

fn run(peer: &str, vector: &Value, count: &mut Count) -> Result<()> {
    let Some(algorithm) = algorithm_of(peer) else {
        count.informational += 1;
        return Ok(());
    };
    if vector["op"].as_str().is_some_and(|op| op.ends_with("_db")) {
        count.database += 1;
        return Ok(());
    }
    let fold_want = if vector["want_fold"].is_null() { &vector["want"] } else { &vector["want_fold"] };
    for (name, case, want) in
        [("strict", CaseFolding::Strict, &vector["want"]), ("folding", CaseFolding::Fold, fold_want)]
    {
        let got = answer(algorithm, case, vector)?;
        let mut want = Answer {
            output: match want["output"].as_str() {
                Some(output) => Ok(output.to_owned()),
                None => Err(want["error"].as_str().unwrap_or("?").to_owned()),
            },
            verdict: want["verdict"].as_str().map(str::to_owned),
        };
        if want.verdict.is_none() && want.output.is_ok() {
            want.verdict.clone_from(&got.verdict);
        }
        if got == want {
            count.passed += 1;
        } else {
            count.failed += 1;
            println!("{} ({name}) {}: got {got:?}, want {want:?}", vector["id"], vector["input"]);
        }
    }
    Ok(())
}

fn answer(algorithm: Algorithm, case: CaseFolding, vector: &Value) -> Result<Answer> {
    let op = vector["op"].as_str().context("op")?;
    let input = vector["input"].as_str().context("input")?;
    let today = Timestamp(vector["time"].as_i64().context("time")?).day();
    let keys = keys(algorithm, vector)?;
    let key = keys.first().context("no key")?;
    let number = |value: &Value| value.as_u64().and_then(|n| u8::try_from(n).ok());
    let params = &vector["params"];
    let batv_params = batv::BatvParams {
        case,
        lifetime: vector["lifetime"].as_u64().unwrap_or(7) as u16,
        ..batv::BatvParams::default()
    };
    let srs_params = srs::SrsParams {
        separator: params["sep"].as_str().and_then(|s| s.chars().next()).unwrap_or('='),
        always_rewrite: params["always"].as_bool().unwrap_or(false),
        peer_hash_length: number(&params["hashlen"]),
        peer_hash_min: number(&params["hashmin"]),
        peer_max_age: number(&params["maxage"]).map(u16::from),
        ..srs::SrsParams::default()
    };
    let delimiter = vector["delimiter"].as_str().and_then(|d| d.chars().next()).unwrap_or('+');
    let local_domains: Vec<&str> =
        params["local_domains"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let signed = |result: Result<String, String>| Answer { output: result, verdict: None };
    let exim_srs = algorithm == Algorithm::EximSrs;

    // exim-srs does not parse addresses: an empty address stays empty, and `reverse` gets a local part only.
    if exim_srs && input.is_empty() && op == "forward" {
        return Ok(signed(Ok(String::new())));
    }
    let text = if exim_srs && op == "reverse" { format!("{input}@alias.example") } else { input.to_owned() };
    let Ok(address) = Address::parse(&text) else { return Ok(unreadable(op, input)) };
    let syntax = |_| "syntax".to_owned();
    Ok(match op {
        "sign" => signed(batv::sign(key, &batv_params, today, &address).map_err(|_| "syntax".into()).map(text_of)),
        "sign_subaddress" => signed(
            batv::sign_subaddress(key, &batv_params, today, &address, delimiter)
                .map_err(|_| "syntax".into())
                .map(text_of),
        ),
        "verify" => judged(op, &batv::verify(&keys, &batv_params, today, &address), &address),
        "verify_subaddress" => {
            let found = batv::verify_subaddress(&keys, &batv_params, today, &address, delimiter);
            let answer = |output, verdict: &str| Answer { output, verdict: Some(verdict.into()) };
            match found.map(|found| (found.outcome, found.user)) {
                Some((TagState::Valid, user)) => answer(Ok(format!("{user}@{}", address.domain())), "valid"),
                Some((TagState::Expired, _)) => answer(Err("expired".into()), "expired"),
                Some((TagState::Future, _)) => answer(Err("expired".into()), "future"),
                Some((TagState::Forged, _)) => answer(Err("bad_hash".into()), "forged"),
                None => answer(Err("not_tagged".into()), "untagged"),
            }
        }
        "forward" if local_domains.contains(&address.domain()) => signed(Err("not_rewritten".into())),
        "forward" => {
            let alias = vector["alias"].as_str().context("alias")?;
            signed(srs::forward(key, &srs_params, today, &address, alias).map_err(|_| "syntax".into()).map(
                |f| match f {
                    srs::Forwarded::Unchanged => address.to_string(),
                    srs::Forwarded::Rewritten(signed) => text_of(signed),
                },
            ))
        }
        "sign_own" => signed(srs::sign_own_pysrs(key, &srs_params, today, &address).map_err(syntax).map(text_of)),
        "reverse" => judged(
            if exim_srs { "reverse_exim" } else { op },
            &srs::verify(&keys, &srs_params, today, &address),
            &address,
        ),
        other => anyhow::bail!("unknown operation {other}"),
    })
}

fn text_of(signed: countersign::envelope::tag::Signed) -> String {
    signed.address().to_string()
}

fn keys(algorithm: Algorithm, vector: &Value) -> Result<Vec<Key>> {
    let texts: Vec<&str> = match vector["key"].as_str() {
        Some(key) => vec![key],
        None => vector["secrets"].as_array().context("secrets")?.iter().filter_map(Value::as_str).collect(),
    };
    let digit = vector["key_number"].as_u64().unwrap_or(0) as u8;
    Ok(texts
        .iter()
        .enumerate()
        .map(|(i, text)| Key {
            id: if vector["key"].is_string() { KeyId::Digit(digit) } else { KeyId::Name(format!("peer-{i}")) },
            algorithm,
            state: if i == 0 { KeyState::Signing } else { KeyState::Verifying },
            secret: Secret::new(text.as_bytes().to_vec().into()),
            created: Timestamp(0),
            signed_from: None,
            signed_until: None,
            longest_lifetime: 0,
            longest_srs_lifetime: 0,
            short_tags: true,
            srs: algorithm.srs_limits(),
        })
        .collect())
}

/// The answer for a text that is not an address; no tag function is called for it.
fn unreadable(op: &str, input: &str) -> Answer {
    let starts = |prefix: &str| input.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix));
    let like_a_tag = starts("prvs=") || starts("SRS0") || starts("SRS1");
    let verdict = |error: &str| Answer {
        output: Err(error.into()),
        verdict: Some(if like_a_tag { "malformed" } else { "untagged" }.into()),
    };
    match op {
        "verify" | "verify_subaddress" => verdict("not_tagged"),
        "reverse" => verdict("not_srs"),
        _ => Answer { output: Err("syntax".into()), verdict: None },
    }
}

fn judged(op: &str, verdict: &Verdict, address: &Address) -> Answer {
    let other_scheme = srs::looks_tagged(&address.content()) && op == "verify";
    let error = match verdict {
        Verdict::Valid(verified) => {
            return Answer { output: Ok(verified.address().to_string()), verdict: Some("valid".into()) };
        }
        Verdict::Expired(_) | Verdict::Future(_) if op.starts_with("verify") => "expired",
        Verdict::Expired(_) | Verdict::Future(_) | Verdict::Malformed(Defect::BadStamp) => "bad_time",
        // No other program makes them.
        Verdict::Alias(_) => "unknown_alias",
        // Each case has one key, whatever digit its tag names, so another digit is a wrong MAC here.
        Verdict::Forged(_) | Verdict::UnknownKey(_) => "bad_hash",
        Verdict::Malformed(Defect::Syntax | Defect::BadAddress) if op == "reverse" => "syntax",
        Verdict::Malformed(_) | Verdict::Untagged => {
            if op.starts_with("verify") {
                "not_tagged"
            } else {
                "not_srs"
            }
        }
    };
    let word = match verdict {
        Verdict::UnknownKey(_) => "forged",
        Verdict::Untagged if other_scheme => "malformed",
        verdict => verdict.name(),
    };
    Answer { output: Err(error.into()), verdict: Some(word.into()) }
}
