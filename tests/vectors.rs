//! Recorded answers of peers: a sample of each file, through the command line. `cargo run --release --example vectors
//! -- FILE…` runs all of them through the library.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::skip::skip_for_good;
use crate::common::{folder, run, run_ok};
use serde_json::Value;

/// The files, and the names of their programs on the command line.
const FILES: [(&str, &str); 8] = [
    ("exim-prvs.json", "exim"),
    ("batv-tools.json", "batv-tools"),
    ("mail-srs.json", "mail-srs"),
    ("pysrs.json", "pysrs"),
    ("libsrs2.json", "libsrs2"),
    ("postsrsd1.json", "postsrsd1"),
    ("postsrsd2.json", "postsrsd"),
    ("exim-srs.json", "exim-srs"),
];

/// Cases of the bare function that the rules decide differently: they do not sign an address that is signed already,
/// too long, or in the alias domain, and they know the local domains.
const OTHER_RULES: [&str; 12] = [
    "tagged",
    "long",
    "round_trip_long",
    "quoted",
    "round_trip_quoted",
    "bad",
    "same_domain",
    "same_domain_case",
    "alias_is_address",
    "local_domain",
    "foreign_or_broken",
    "wrong_secret",
];

fn vectors() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/vectors");
    if path.is_dir() {
        return Some(path);
    }
    skip_for_good("the recorded answers of peers", &format!("{} is not here", path.display()));
    None
}

#[test]
fn the_command_line_gives_what_peers_gave() {
    let Some(path) = vectors() else { return };
    for (file, program) in FILES {
        let file: Value = serde_json::from_str(&fs::read_to_string(path.join(file)).unwrap()).unwrap();
        let fit = file["vectors"].as_array().unwrap().iter().filter(|v| {
            let op = v["op"].as_str().unwrap();
            let domain = v["input"].as_str().unwrap().rsplit_once('@').map_or("", |(_, d)| d);
            matches!(op, "sign" | "verify" | "forward" | "reverse")
                && !OTHER_RULES.contains(&v["group"].as_str().unwrap())
                && !domain.starts_with('[')
                && (op == "reverse" || !domain.is_empty())
                && v["mail_from"].is_null()
        });
        let mut tried = 0;
        for vector in fit.step_by(9) {
            one(program, vector);
            tried += 1;
        }
        assert!(tried > 8, "{program}: only {tried} cases");
    }
}

fn one(program: &str, vector: &Value) {
    let (op, input, want) = (vector["op"].as_str().unwrap(), vector["input"].as_str().unwrap(), &vector["want"]);
    let want = if vector["want_fold"].is_null() { want } else { &vector["want_fold"] };
    let folder = folder();
    let secrets: Vec<&str> = match vector["key"].as_str() {
        Some(key) => vec![key],
        None => vector["secrets"].as_array().unwrap().iter().map(|s| s.as_str().unwrap()).collect(),
    };
    fs::write(folder.path().join("secret"), secrets.join("\n") + "\n").unwrap();
    let digit = vector["key_number"].as_u64().unwrap_or(0);
    // Own keys begin with the digit 1, so an imported key with that digit has to wait until that key is gone.
    if digit == 1 {
        run_ok(folder.path(), &["keys", "init", "--at", "0"]);
        run_ok(folder.path(), &["keys", "rotate", "--at", "0"]);
        run_ok(folder.path(), &["keys", "retire", "--force", "1", "--at", "0"]);
        run_ok(folder.path(), &["keys", "prune", "1", "--at", "9999999"]);
    }
    let (at, digit) = (vector["time"].to_string(), digit.to_string());
    let mut import = vec!["keys", "import", "--from", program, "--sign", "--force", "--at", "0", "secret"];
    if vector["key"].is_string() {
        import.extend(["--id", &digit]);
    }
    run_ok(folder.path(), &import);
    let input =
        if program == "exim-srs" && op == "reverse" { format!("{input}@fwd.example") } else { input.to_owned() };
    let domain = input.rsplit_once('@').map_or("fwd.example", |(_, d)| d);
    let alias = vector["alias"].as_str().unwrap_or(domain);
    let params = &vector["params"];
    let mut owned: Vec<String> = Vec::new();
    match op {
        "sign" | "verify" => owned.extend(["--local".into(), domain.into()]),
        _ => owned.extend(["--srs-domain".into(), alias.into()]),
    }
    for (name, switch) in [
        ("sep", "--srs-separator"),
        ("hashlen", "--srs-hash-length"),
        ("hashmin", "--srs-hash-min"),
        ("maxage", "--srs-max-age"),
    ] {
        let value = &params[name];
        if !value.is_null() {
            owned.extend([format!("{switch}={}", value.as_str().map_or(value.to_string(), str::to_owned))]);
        }
    }
    if params["always"] == true {
        owned.push("--always-rewrite".into());
    }
    let command = if matches!(op, "sign" | "forward") { "sign" } else { "verify" };
    let mut arguments = vec![command, "--json", "--at", &at];
    arguments.extend(owned.iter().map(String::as_str));
    arguments.extend(["--", &input]);
    let output = run(folder.path(), &arguments);
    let found: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}: {}", vector["id"], String::from_utf8_lossy(&output.stderr)));
    let id = format!("{} {arguments:?}: {found}, want {want}", vector["id"]);
    match (command, want["output"].as_str()) {
        ("sign", Some(output)) => assert_eq!(found["result"], output, "{id}"),
        // Addresses that the bare function cannot rewrite are wrapped by the rules with the own key.
        ("sign", None) => assert!(found["result"].is_string() || found["action"] == "reject", "{id}"),
        (_, Some(output)) => {
            assert_eq!((&found["result"], &found["verdict"]), (&output.into(), &"valid".into()), "{id}");
        }
        // The ring also has an own key, so an address that no peer could read has a wrong hash, or is an ordinary
        // address.
        (_, None) => {
            assert_ne!(found["verdict"], "valid", "{id}");
            let verdict = want["verdict"].as_str().unwrap();
            if matches!(verdict, "expired" | "future" | "forged") {
                let unknown =
                    verdict == "forged" && matches!(found["verdict"].as_str(), Some("unknown-key" | "expired"));
                assert!(found["verdict"] == verdict || unknown, "{id}");
            }
        }
    }
}
