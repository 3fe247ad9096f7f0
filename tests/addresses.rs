//! Addresses and secrets in every accepted spelling: whether they are local, valid, and how they are reported.

use std::fs;
use std::path::Path;

use crate::common::{folder, run, run_ok};
use serde_json::{Value, json};

fn one_json(folder: &Path, arguments: &[&str]) -> Value {
    let output = run(folder, arguments);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {output:?}"))
}

#[test]
fn a_domain_of_ours_is_ours_in_every_spelling() {
    let folder = folder();
    run_ok(folder.path(), &["keys", "init"]);
    for (listed, sent) in [
        ("bücher.example", "BÜCHER.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "Bücher.Example"),
        ("our.example", "OUR。example"),
    ] {
        let address = format!("ann@{sent}");
        let signed = one_json(folder.path(), &["sign", "--json", "--local", listed, &address]);
        assert_eq!(signed["action"], "sign", "{listed} {sent}: {signed}");
        let tagged = signed["result"].as_str().unwrap();
        assert!(tagged.ends_with(&format!("=ann@{sent}")), "the wire keeps what was sent: {tagged}");
        // The signed address may return in any of the spellings.
        for back in [tagged.to_owned(), tagged.replace(sent, listed)] {
            let found = one_json(folder.path(), &["verify", "--json", "--local", listed, &back]);
            assert_eq!((&found["verdict"], &found["action"]), (&json!("valid"), &json!("deliver")), "{back}: {found}");
        }
        let stranger = ["verify", "--json", "--local", listed, "--mail-from", "bob@third.example", &address];
        assert_eq!(one_json(folder.path(), &stranger)["action"], "deliver", "relaying is never denied for it");
    }
    let other = one_json(folder.path(), &["sign", "--json", "--local", "bücher.example", "ann@bucher.example"]);
    assert_eq!(other["action"], "pass", "another name is another domain");
}

#[test]
fn what_is_no_address_is_not_signed() {
    let folder = folder();
    run_ok(folder.path(), &["keys", "init"]);
    for text in ["\"\"@our.example", "ann@our..example", "ann@.our.example", "bob@third..example"] {
        for command in ["sign", "verify"] {
            let site = ["--json", "--local", "our.example", "--srs-domain", "srs.our.example", text];
            let found = one_json(folder.path(), &[&[command], site.as_slice()].concat());
            assert_eq!((&found["action"], &found["result"]), (&json!("reject"), &Value::Null), "{command} {text}");
            assert!(found["note"].is_string(), "{found}");
        }
    }
}

#[test]
fn senders_in_the_srs_domain_are_rewritten_where_that_is_wanted() {
    let folder = folder();
    run_ok(folder.path(), &["keys", "init"]);
    let sign = |more: &[&str], address: &str| {
        let site = ["sign", "--json", "--local", "our.example", "--srs-domain", "srs.our.example"];
        one_json(folder.path(), &[&site, more, &[address]].concat())
    };
    assert_eq!(sign(&[], "bob@srs.our.example")["action"], "pass");
    let rewritten = sign(&["--always-rewrite"], "bob@srs.our.example");
    assert_eq!(rewritten["action"], "rewrite");
    let address = rewritten["result"].as_str().unwrap();
    assert!(address.starts_with("SRS0=") && address.ends_with("=srs.our.example=bob@srs.our.example"), "{address}");
    assert_eq!(sign(&["--always-rewrite"], address)["action"], "pass", "once, however often it leaves");
}

#[test]
fn a_secret_that_anybody_could_guess_is_not_imported() {
    let folder = folder();
    let import = |program: &str, text: &str, more: &[&str]| {
        fs::write(folder.path().join("secret"), text).unwrap();
        run(folder.path(), &[&["keys", "import", "--from", program], more, &["secret"]].concat())
    };
    for program in ["exim", "batv-tools", "postsrsd", "libsrs2"] {
        for (text, want) in [
            ("", "there is no secret in the file"),
            ("\n", "there is no secret in the file"),
            ("   \t\n", "there is no secret in the file"),
            ("\r\n", "there is no secret in the file"),
            ("short\n", "line 1: the secret is 5 octets long"),
        ] {
            let output = import(program, text, &[]);
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.code() == Some(2) && error.contains(want), "{program} {text:?}: {error}");
        }
        assert!(!folder.path().join("keys/ring.toml").exists(), "{program}: nothing was made for a mistake");
    }
    assert!(import("exim", "12345678\n", &[]).status.success());
    assert!(import("postsrsd", "short\n", &["--force"]).status.success(), "where it really is in use");
}

#[test]
fn verify_says_in_json_what_it_says_in_words() {
    let folder = folder();
    run_ok(folder.path(), &["keys", "init"]);
    let config =
        "[keys]\nring = \"keys/ring.toml\"\n[domains]\nlocal = [\"our.example\"]\n[inbound]\nmode = \"observe\"\n";
    fs::write(folder.path().join("countersign.toml"), config).unwrap();
    let forged = "prvs=1786a1b2c3=ann@our.example";
    let found = one_json(folder.path(), &["verify", "--json", "-c", "countersign.toml", forged]);
    assert_eq!((&found["action"], &found["would"]), (&json!("deliver"), &json!("reject")), "{found}");
    assert!(found["mark"].as_str().unwrap().starts_with("v=1; verdict=forged; would=reject; reason="), "{found}");
    let words = run(folder.path(), &["verify", "-c", "countersign.toml", forged]);
    let words = String::from_utf8_lossy(&words.stdout).into_owned();
    assert!(words.contains("with a mark, for it would be rejected") && words.contains(found["note"].as_str().unwrap()));
    run_ok(folder.path(), &["keys", "ramp-start", "our.example"]);
    let list = run_ok(folder.path(), &["keys", "list", "--json"]);
    let last: Value = serde_json::from_str(list.lines().last().unwrap()).unwrap();
    assert!(last["domain"] == "our.example" && last["signed_since"].is_string(), "{last}");
}

#[test]
fn a_recipient_is_found_in_folded_headers_and_in_groups() {
    let folder = folder();
    run_ok(folder.path(), &["keys", "init"]);
    let config =
        "[keys]\nring = \"keys/ring.toml\"\n[domains]\nlocal = [\"our.example\"]\n[inbound]\nmode = \"enforce\"\n";
    fs::write(folder.path().join("countersign.toml"), config).unwrap();
    let ndr = "From: Mail Delivery System <MAILER-DAEMON@third.example>\nSubject: Undelivered Mail Returned to Sender\n\
        Content-Type: multipart/report; report-type=delivery-status; boundary=b\n\n--b\n\nNot delivered.\n--b\n\
        Content-Type: message/delivery-status\n\nReporting-MTA: dns; third.example\n\nFinal-Recipient: rfc822; x@third.example\n\
        Action: failed\nStatus: 5.1.1\n\n--b--\n";
    for head in [
        "To: Ann\n <ann@our.example>\n",
        "To:\n\tann@our.example\n",
        "To: team: ann@our.example;\n",
        "To: The team:\n ann@our.example,\n bea@our.example;\n",
        "Delivered-To:\n ann@our.example\nTo: x@third.example\n",
        "Return-Path:\n <>\nTo: \"Smith, Ann\"\n <ann@our.example>\n",
    ] {
        fs::write(folder.path().join("bounce.eml"), format!("{head}{ndr}")).unwrap();
        let found = one_json(folder.path(), &["classify", "--json", "-c", "countersign.toml", "bounce.eml"]);
        assert_eq!(found["rcpt_to"], "ann@our.example", "{head}: {found}");
    }
}
