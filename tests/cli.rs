//! The command line, as used by scripts and people.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use crate::common::skip::skip;
use crate::common::{PROGRAM, alone, can_run, countersign, folder, run, run_ok};
use serde_json::{Value, json};

const NOW: &str = "2026-11-22T12:00:00Z";

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_life_of_a_key() {
    let folder = folder();
    let at = |time: &'static str, arguments: &[&'static str]| {
        let mut all = vec!["keys", arguments[0], "--at", time];
        all.extend(&arguments[1..]);
        run(folder.path(), &all)
    };
    let ok = |time: &'static str, arguments: &[&'static str]| {
        let output = at(time, arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    ok(NOW, &["init"]);
    assert_eq!(at(NOW, &["init"]).status.code(), Some(2), "a ring is never overwritten");
    ok(NOW, &["add"]);
    ok("2026-11-23T12:00:00Z", &["promote", "2"]);
    let list = json_lines(&ok("2026-11-23T12:00:00Z", &["list", "--json"]));
    assert_eq!(
        list[0],
        json!({"id": "1", "state": "verifying", "algorithm": "hmac-sha256", "purpose": "all",
               "created": NOW, "needed_until": "2026-12-15T00:00:00Z"})
    );
    assert_eq!((&list[1]["state"], &list[1]["needed_until"]), (&json!("signing"), &Value::Null));
    let refused = at("2026-12-14T23:59:59Z", &["retire", "1"]);
    assert_eq!(refused.status.code(), Some(1), "too early is no error");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("needed until 2026-12-15"));
    ok("2026-12-15T00:00:00Z", &["retire", "1"]);
    assert!(ok("2026-12-15T00:00:00Z", &["list"]).contains("no more: prune it"));
    assert!(ok("2026-12-15T00:00:00Z", &["prune"]).contains("Removed: 1"));
    ok("2026-12-15T00:00:00Z", &["ramp-start", "Our.Example"]);
    let export = ok("2026-12-15T00:00:00Z", &["export"]);
    assert!(export.contains("\"our.example\" = 2026-12-15T00:00:00Z") && !export.contains("secret = "), "{export}");
    assert!(ok("2026-12-15T00:00:00Z", &["export", "--reveal-secrets"]).contains("secret = \""));
    let leaked = at("2026-12-15T00:00:00Z", &["retire", "2", "--force"]);
    assert!(String::from_utf8_lossy(&leaked.stderr).contains("keys rotate"), "a key that signs has no end");
}

#[test]
fn json_says_what_the_rules_say() {
    let folder = folder();
    run_ok(folder.path(), &["keys", "init", "--at", NOW]);
    let site = ["--at", NOW, "--local", "our.example", "--srs-domain", "srs.our.example", "--json"];
    let sign = run(
        folder.path(),
        &[&["sign"], site.as_slice(), &["ann@our.example", "bob@else.example", "<>", "x y"]].concat(),
    );
    assert_eq!(sign.status.code(), Some(1));
    let lines = json_lines(std::str::from_utf8(&sign.stdout).unwrap());
    let what: Vec<_> = lines.iter().map(|l| l["action"].as_str().unwrap()).collect();
    assert_eq!(what, ["sign", "rewrite", "pass", "reject"]);
    assert_eq!(
        lines[3],
        json!({"address": "x y", "action": "reject", "result": null, "reason": "malformed",
        "note": "a blank is not allowed here in an address; quote the local part or leave it out"})
    );
    let (tag, srs) = (lines[0]["result"].as_str().unwrap(), lines[1]["result"].as_str().unwrap());
    let verify = run(
        folder.path(),
        &[
            &["verify"],
            site.as_slice(),
            &[tag, srs, "ann@our.example", "prvs=ann@our.example", "SRS0=x@srs.our.example"],
        ]
        .concat(),
    );
    assert_eq!(verify.status.code(), Some(1));
    let lines = json_lines(std::str::from_utf8(&verify.stdout).unwrap());
    assert_eq!(
        lines[0],
        json!({"address": tag, "verdict": "valid", "scheme": "batv", "result": "ann@our.example", "key": "1",
               "action": "deliver", "would": null, "mark": null, "note": "key 1, signed 2026-11-22, good through 2026-11-29"})
    );
    assert_eq!((&lines[1]["scheme"], &lines[1]["result"]), (&json!("srs0"), &json!("bob@else.example")));
    assert_eq!((&lines[2]["verdict"], &lines[2]["action"]), (&json!("untagged"), &json!("content")));
    assert_eq!((&lines[3]["verdict"], &lines[3]["action"]), (&json!("untagged"), &json!("content")));
    assert_eq!((&lines[4]["verdict"], &lines[4]["action"]), (&json!("malformed"), &json!("reject")));
    let later = run_ok(folder.path(), &["verify", "--local", "our.example", "--at", "2026-11-29T23:59:59Z", tag]);
    assert!(
        later.contains("valid")
            && later.contains("key 1")
            && later.contains("signed 2026-11-22")
            && later.contains("good through 2026-11-29"),
        "{later}"
    );
    let over = run(folder.path(), &["explain", "--at", "2026-11-30T00:00:00Z", tag]);
    assert_eq!(over.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&over.stdout).contains("expired: its time is over"));
}

#[test]
fn the_age_of_srs_addresses_may_be_longer_than_promised_and_never_shorter() {
    let folder = folder();
    run_ok(folder.path(), &["keys", "init"]);
    let site = ["--local", "our.example", "--srs-domain", "srs.our.example"];
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let today = now.to_string();
    let signed = [&["sign", "--at", &today][..], &site, &["--bare", "bob@else.example"]].concat();
    let signed = run_ok(folder.path(), &signed);
    let is_good = |days: u64, more: &[&str]| {
        let then = (now + days * 86_400).to_string();
        let arguments = [&["verify", "--at", &then][..], &site, more, &[&signed]].concat();
        run(folder.path(), &arguments).status.success()
    };
    // The age of 21 days was fixed when the key was made.
    assert!(is_good(21, &[]) && !is_good(22, &[]));
    assert!(is_good(21, &["--srs-max-age", "5"]) && !is_good(22, &["--srs-max-age", "5"]));
    assert!(is_good(60, &["--srs-max-age", "60"]) && !is_good(61, &["--srs-max-age", "60"]));
    let help = run_ok(folder.path(), &["verify", "--help"]);
    let text = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("for an own key, at least the lifetime set when the key was created"), "{help}");
}

#[test]
fn a_stream_of_addresses_is_answered_line_by_line_in_constant_memory() {
    let folder = folder();
    run_ok(folder.path(), &["keys", "init"]);
    let mut child = countersign()
        .current_dir(folder.path())
        .args(["sign", "--local", "our.example"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        for n in 0..20_000 {
            writeln!(input, "user{n}@our.example").unwrap();
        }
    });
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    for n in 0..10_000 {
        assert!(lines.next().unwrap().unwrap().ends_with(&format!("=user{n}@our.example")));
    }
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap().trim().trim_end_matches(" kB");
    assert!(peak.parse::<u32>().unwrap() < 30_000, "{peak} kB");
    assert_eq!(lines.count(), 10_000);
    writer.join().unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn secrets_of_other_programs_are_taken_over() {
    // Addresses that these programs made with these secrets, in spellings that relays may return.
    let cases = [
        ("exim", "shared-key-one", "2026-01-26T00:00:00Z", "PRVS=0486e24cbd=bob@example.com", "bob@example.com"),
        (
            "batv-tools",
            "0123456789abcdef",
            "2027-06-24T00:00:00Z",
            "prvs=0000C63F1E=bob@example.com",
            "bob@example.com",
        ),
        (
            "mail-srs",
            "shared-key-one",
            "2027-07-01T00:00:00Z",
            "SRS0=EE+b=QI=example.com=x123@fwd.example",
            "x123@example.com",
        ),
        (
            "postsrsd1",
            "shared-key-one",
            "2025-08-07T00:00:00Z",
            "srs0=iick=2m=example.ie=o'neil@fwd.example",
            "o'neil@example.ie",
        ),
        (
            "postsrsd",
            "shared-key-one",
            "2025-12-28T00:00:00Z",
            "SRS0=eikheOm_=7C=example.net=news-letter@fwd.example",
            "news-letter@example.net",
        ),
        (
            "pysrs",
            "shared-key-one",
            "2027-07-01T00:00:00Z",
            "SRS0+EE+b=QI=example.com=x123@fwd.example",
            "x123@example.com",
        ),
        (
            "libsrs2",
            "shared-key-one",
            "2027-07-01T00:00:00Z",
            "SRS0=ee+B=qi=example.com=x123@fwd.example",
            "x123@example.com",
        ),
        (
            "exim-srs",
            "shared-key-one",
            "2025-07-31T00:00:00Z",
            "SRS0=ba94=2m=example.com=bob@fwd.example",
            "bob@example.com",
        ),
    ];
    for (program, secret, at, address, want) in cases {
        let folder = folder();
        fs::write(folder.path().join("secret"), format!("{secret}\n")).unwrap();
        run_ok(folder.path(), &["keys", "import", "--from", program, "--sign", "secret"]);
        let arguments =
            ["verify", "--json", "--local", "example.com", "--srs-domain", "fwd.example", "--at", at, address];
        let output = run(folder.path(), &arguments);
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        if want.is_empty() {
            assert_eq!(found["verdict"], "forged", "{program}: {found}");
        } else {
            assert_eq!(
                (found["verdict"].as_str(), found["result"].as_str()),
                (Some("valid"), Some(want)),
                "{program}: {found}"
            );
        }
    }
    // New mail is signed as by the other program.
    let folder = folder();
    fs::write(folder.path().join("secret"), "0123456789abcdef\n").unwrap();
    run_ok(folder.path(), &["keys", "import", "--from", "exim", "--id", "0", "--sign", "secret"]);
    let signed =
        run_ok(folder.path(), &["sign", "--local", "example.com", "--at", "2027-06-24T00:00:00Z", "bob@example.com"]);
    assert_eq!(signed, "prvs=0000c63f1e=bob@example.com\n");
}

#[test]
fn mistakes_are_told_with_what_would_be_right() {
    let folder = folder();
    for (arguments, want) in [
        (&["sign", "ann@our.example"][..], "--local our.example"),
        (&["sign", "--local", "our.example", "ann@our.example"], "keys/ring.toml: there is no key ring"),
        (&["keys", "rotate"], "there is no key ring; is the name right? If it was lost, restore your copy"),
        (&["serve"], "name one with -c FILE"),
        (&["check", "-c", "nowhere.toml"], "nowhere.toml: cannot be read"),
        (&["verify", "--at", "yesterday", "x@y.example"], "2026-11-22T12:00:00Z"),
        (&["keys", "import", "--from", "sendmail", "x"], "possible values"),
    ] {
        let output = run(folder.path(), arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(error.contains(want), "{arguments:?}: {error}");
    }
    run_ok(folder.path(), &["keys", "init"]);
    let bad = run(folder.path(), &["verify", "--local", "our.example", "not an address", "\u{7f}@x"]);
    assert_eq!(bad.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&bad.stdout).lines().count(), 2, "each still gets its line");
    let ring = folder.path().join("keys/ring.toml");
    let text = fs::read_to_string(&ring).unwrap().replace("state = \"signing\"", "state = \"singing\"");
    fs::write(&ring, text).unwrap();
    let output = run(folder.path(), &["keys", "list"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("ring.toml:6: `singing` is none of: next, signing"));
}

#[test]
fn a_mail_server_that_runs_it_gets_a_bare_answer() {
    let folder = folder();
    run_ok(folder.path(), &["keys", "init"]);
    fs::write(
        folder.path().join("countersign.toml"),
        "domains.local = [\"our.example\"]\ninbound.mode = \"enforce\"\noutbound.overflow = \"reject\"\n",
    )
    .unwrap();
    let ask = |arguments: &[&str]| {
        let output = run(folder.path(), arguments);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let signed = ask(&["sign", "--bare", "--", "-ann@our.example"]).1;
    assert!(signed.starts_with("prvs=1") && signed.ends_with("=-ann@our.example"), "{signed:?}");
    assert_eq!(ask(&["verify", "--bare", "--", &signed]), (Some(0), "-ann@our.example".into()));
    for null in ["", "<>"] {
        assert_eq!(ask(&["sign", "--bare", "--", null]), (Some(0), String::new()));
    }
    let long = format!("{}@our.example", "x".repeat(60));
    assert_eq!(ask(&["sign", "--bare", "--", &long]), (Some(1), String::new()));
    assert_eq!(ask(&["verify", "--bare", "--", &signed.replace("=-ann", "=-bea")]), (Some(1), String::new()));
    let other_key = signed.replacen("prvs=1", "prvs=7", 1);
    assert_eq!(ask(&["verify", "--bare", "--", &other_key]), (Some(75), String::new()));
    assert_eq!(ask(&["verify", "--bare", "--", "ann@our.example"]), (Some(0), "ann@our.example".into()));
    assert_eq!(ask(&["verify", "--bare"]).0, Some(2));
    assert_eq!(ask(&["verify", "--bare", "--ring", "nowhere", "--", &signed]), (Some(2), String::new()));
}

#[test]
fn init_prints_the_recipe_and_overwrites_nothing() {
    use countersign::recipes::Mta;
    for (mta, method, srs) in Mta::ALL
        .into_iter()
        .flat_map(|mta| mta.built_methods().into_iter().map(move |method| (mta, method, method != "proxy")))
    {
        let folder = folder();
        let mut arguments = vec!["init", "--domain", "site.test", "--domain", "other.test", "--mta", mta.name()];
        if method != mta.built_methods()[0] {
            arguments.extend(["--method", method]);
        }
        if srs {
            arguments.extend(["--srs-domain", "back.test"]);
        }
        let said = run_ok(folder.path(), &arguments);
        let place = folder.path().canonicalize().unwrap().display().to_string();
        for piece in mta.recipe(method, srs) {
            // A table in the recipe has one entry for each domain.
            let text = piece.text.replace(
                "{our.example = smtp:[127.0.0.1]:10227}",
                "{site.test = smtp:[127.0.0.1]:10227}, {other.test = smtp:[127.0.0.1]:10227}",
            );
            let text = text.replace(
                "{our.example = smtp:[127.0.0.1]:25}",
                "{site.test = smtp:[127.0.0.1]:25}, {other.test = smtp:[127.0.0.1]:25}",
            );
            let text = text.replace("srs.our.example", "back.test").replace("our.example", "site.test");
            let text = text.replace("/etc/countersign/", &format!("{place}/"));
            if piece.file == "countersign.toml" {
                let written = fs::read_to_string(folder.path().join("countersign.toml")).unwrap();
                let all = text.replace("[\"site.test\"]", "[\"site.test\", \"other.test\"]");
                assert_eq!(written.split_once('\n').unwrap().1, all, "{mta} {method}");
            } else {
                assert!(said.contains(text.trim_end()), "{mta} {method}: {}\n{said}", piece.file);
            }
        }
        let checked = run(folder.path(), &["check"]);
        let words = String::from_utf8_lossy(&checked.stdout).into_owned();
        if checked.status.success() {
            let sees = method != "maps" && method != "map";
            assert_eq!(words.contains("untagged-ndr"), sees, "{mta} {method}: {words}");
            assert_eq!(words.contains("during a surge put off at RCPT"), method == "maps", "{mta} {method}: {words}");
        }
        // The config is valid except for the certificates, and a second run changes nothing.
        let checked = run(folder.path(), &["check"]);
        let error = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert!(checked.status.success() || error.contains("/etc/ssl/mail/"), "{mta} {method}: {error}");
        // What only a person knows is said by `init`, too.
        assert_eq!(!checked.status.success(), said.contains("What only you know, in ./countersign.toml:"), "{said}");
        let (config, ring) = (folder.path().join("countersign.toml"), folder.path().join("keys/ring.toml"));
        let before = [fs::read(&config).unwrap(), fs::read(&ring).unwrap()];
        assert_eq!(run(folder.path(), &arguments).status.code(), Some(2));
        assert_eq!([fs::read(&config).unwrap(), fs::read(&ring).unwrap()], before);
    }
    let folder = folder();
    let wrong = run(folder.path(), &["init", "--domain", "our.example", "--mta", "postfix", "--method", "tunnel"]);
    // The earlier name of the option.
    let old = run(folder.path(), &["init", "--domain", "our.example", "--mta", "postfix", "--way", "tunnel"]);
    assert_eq!(wrong.stderr, old.stderr);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("proxy, edge, maps"));
    assert!(!folder.path().join("countersign.toml").exists());
}

#[test]
fn root_changes_a_ring_and_leaves_it_to_its_owner() {
    use std::os::unix::fs::{MetadataExt as _, chown};
    let folder = folder();
    run_ok(folder.path(), &["keys", "init"]);
    let ring = folder.path().join("keys/ring.toml");
    if chown(&ring, Some(65_534), Some(65_534)).is_err() {
        skip("the owner of a ring", "only root can give it away");
        return;
    }
    run_ok(folder.path(), &["keys", "rotate"]);
    let metadata = fs::metadata(&ring).unwrap();
    assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o777), (65_534, 65_534, 0o600));
    // A new lock belongs to the owner, too; a link in its place is not followed, and gives no file away.
    let (lock, other) = (ring.with_extension("toml.lock"), folder.path().join("other"));
    fs::remove_file(&lock).unwrap();
    run_ok(folder.path(), &["keys", "rotate"]);
    assert_eq!(fs::metadata(&lock).unwrap().uid(), 65_534);
    fs::remove_file(&lock).unwrap();
    fs::write(&other, "").unwrap();
    std::os::unix::fs::symlink(&other, &lock).unwrap();
    assert_eq!(run(folder.path(), &["keys", "rotate"]).status.code(), Some(2));
    assert_eq!(fs::metadata(&other).unwrap().uid(), 0);
}

#[test]
fn a_ring_that_others_could_replace_is_not_taken() {
    use std::os::unix::fs::{PermissionsExt as _, chown};
    let folder = folder();
    run_ok(folder.path(), &["keys", "init"]);
    let keys = folder.path().join("keys");
    let mode = |mode| fs::set_permissions(&keys, fs::Permissions::from_mode(mode)).unwrap();
    let refused = |arguments: &[&str], why: &str| {
        let output = run(folder.path(), arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && error.contains(why), "{arguments:?}: {error}");
    };
    mode(0o777);
    for arguments in
        [&["keys", "list"][..], &["keys", "rotate"], &["sign", "--local", "our.example", "ann@our.example"]]
    {
        refused(arguments, "every user may write into the folder");
    }
    mode(0o1777);
    run_ok(folder.path(), &["keys", "list"]);
    let ring = keys.join("ring.toml");
    if chown(&ring, Some(65_534), None).is_ok() {
        refused(&["keys", "list"], "belongs to the user with the id 65534");
        mode(0o775);
        run_ok(folder.path(), &["keys", "list"]);
    } else {
        skip("a ring of somebody else", "only root can give it away");
    }
    // In a folder that others can write to, a link is replaced as easily as a ring.
    let (open, link) = (folder.path().join("open"), folder.path().join("open/ring.toml"));
    fs::create_dir(&open).unwrap();
    std::os::unix::fs::symlink(&ring, &link).unwrap();
    run_ok(folder.path(), &["keys", "list", "--ring", "open/ring.toml"]);
    run_ok(folder.path(), &["keys", "rotate", "--ring", "open/ring.toml"]);
    assert!(!open.join("ring.toml.lock").exists(), "one ring has one lock");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    refused(&["keys", "list", "--ring", "open/ring.toml"], "every user may write into the folder");
    // A FIFO does not block the command.
    fs::remove_file(&ring).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &ring, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    refused(&["keys", "list"], "this is no key ring: not a file");
    refused(&["keys", "rotate"], "this is no key ring: not a file");
    fs::remove_file(&ring).unwrap();
    let lock = keys.join("ring.toml.lock");
    fs::remove_file(&lock).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &lock, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    refused(&["keys", "init"], "ring.toml.lock: ");
}

#[test]
fn secrets_are_left_in_no_file_that_others_can_read() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = folder();
    run_ok(folder.path(), &["keys", "init"]);
    run_ok(folder.path(), &["keys", "export", "--reveal-secrets", "--to", "copy.toml"]);
    let copy = folder.path().join("copy.toml");
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    let ring = folder.path().join("keys/ring.toml");
    assert_eq!(fs::read(&copy).unwrap(), fs::read(&ring).unwrap());
    assert_eq!(
        run(folder.path(), &["keys", "export", "--to", "copy.toml"]).status.code(),
        Some(2),
        "never over a file"
    );
    // Files left by a killed change are removed by the next change, and by `check`; other files stay.
    let left = folder.path().join("keys/.ring.toml-new-Ab3dEf");
    let others = ["keys/.ring.toml-backup", "keys/.ring.toml-new-backup2", "keys/.ring-backup"];
    let others = others.map(|name| folder.path().join(name));
    let config = "keys.ring = \"keys/ring.toml\"\ndomains.local = [\"our.example\"]\n[[listener]]\nrole = \"outbound\"\n\
        listen = \"127.0.0.1:0\"\nnext_hop = \"127.0.0.1:26\"\n";
    fs::write(folder.path().join("countersign.toml"), config).unwrap();
    others.iter().for_each(|other| fs::write(other, "mine").unwrap());
    for arguments in [&["keys", "rotate"][..], &["check"]] {
        fs::write(&left, "secret").unwrap();
        fs::set_permissions(&left, fs::Permissions::from_mode(0o600)).unwrap();
        let said = run_ok(folder.path(), arguments);
        assert!(!left.exists() && others.iter().all(|other| other.exists()), "{arguments:?}");
        assert_eq!(said.contains("Removed a copy of the key ring"), arguments == ["check"], "{said}");
    }
}

#[test]
fn a_full_disk_leaves_the_ring_as_it_was() {
    let folder = folder();
    run_ok(folder.path(), &["keys", "init"]);
    let keys = folder.path().join("keys");
    let before = fs::read(keys.join("ring.toml")).unwrap();
    // Files cannot grow: a write fails as on a full disk.
    let output = alone(std::process::Command::new("bash"))
        .args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$0\" keys rotate", PROGRAM])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("keys/ring.toml: "), "{output:?}");
    assert_eq!(fs::read(keys.join("ring.toml")).unwrap(), before);
    let left: Vec<_> = fs::read_dir(&keys).unwrap().map(|f| f.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "only the ring and its lock: {left:?}");
    // `init` leaves no incomplete config either, and can be repeated with the existing ring.
    let init = ["init", "--domain", "our.example", "--mta", "postfix"];
    let output = alone(std::process::Command::new("bash"))
        .args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$0\" \"$@\"", PROGRAM])
        .args(init)
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(!folder.path().join("countersign.toml").exists());
    run_ok(folder.path(), &init);
    run_ok(folder.path(), &["check"]);
    assert_eq!(fs::read(keys.join("ring.toml")).unwrap(), before);
}

/// A command with another `/etc`, which has a config and a key ring at the default paths.
fn with_etc(etc: &Path, command: std::process::Command) -> std::process::Command {
    let mut outer = std::process::Command::new("unshare");
    outer.args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc && exec \"$@\""]).arg(etc);
    outer.arg(command.get_program()).args(command.get_args());
    outer
}

#[test]
fn no_test_reaches_the_ring_of_this_machine() {
    if !can_run(&["unshare", "mount"], "the key ring of the machine") {
        return;
    }
    let (folder, etc) = (folder(), folder());
    let site = etc.path().join("countersign");
    fs::create_dir(&site).unwrap();
    fs::write(site.join("countersign.toml"), "domains.local = [\"our.example\"]\n").unwrap();
    run_ok(&site, &["keys", "init"]);
    let ring = site.join("keys/ring.toml");
    let before = fs::read(&ring).unwrap();
    let rotate = |harness: bool| {
        let mut command = with_etc(etc.path(), {
            let mut command = countersign();
            command.args(["keys", "rotate"]);
            command
        });
        if harness {
            command = alone(command);
        } else {
            command.env_remove("COUNTERSIGN_CONFIG_PATH").env("NO_COLOR", "1");
        }
        command.current_dir(folder.path()).output().unwrap()
    };
    // As run by the tests.
    let output = rotate(true);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("keys/ring.toml: there is no key ring"), "{output:?}");
    assert_eq!(fs::read(&ring).unwrap(), before);
    // As run by people: the output names the ring that is changed.
    let output = rotate(false);
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    let note = "note: the key ring is /etc/countersign/keys/ring.toml, named by /etc/countersign/countersign.toml\n";
    assert_eq!(said, note);
    assert_ne!(fs::read(&ring).unwrap(), before);
    // There is no note if the config is in the working folder or named by `-c`, or if nothing is changed.
    for arguments in [&["keys", "rotate"][..], &["keys", "rotate", "-c", "countersign.toml"], &["keys", "list"]] {
        let output = run(&site, arguments);
        assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}: {output:?}");
    }
}

#[test]
fn the_search_for_a_config_can_be_led_elsewhere() {
    let folder = folder();
    run_ok(folder.path(), &["keys", "init"]);
    let ask = |places: &str| {
        let mut command = countersign();
        command.env("COUNTERSIGN_CONFIG_PATH", places).args(["sign", "ann@our.example"]);
        command.current_dir(folder.path()).output().unwrap()
    };
    fs::write(folder.path().join("second.toml"), "domains.local = [\"our.example\"]\n").unwrap();
    assert!(ask("first.toml:second.toml").stdout.starts_with(b"prvs="));
    for nothing in ["", "first.toml"] {
        let output = ask(nothing);
        assert!(String::from_utf8_lossy(&output.stderr).contains("which domains are yours?"), "{output:?}");
    }
}

/// The output of `check` for a config.
fn checked(config: &str) -> String {
    let folder = folder();
    run_ok(folder.path(), &["keys", "init"]);
    fs::write(folder.path().join("countersign.toml"), config).unwrap();
    let output = run(folder.path(), &["check"]);
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

#[test]
fn check_names_a_wildcard_above_the_srs_domain() {
    let config = |local: &str| checked(&format!("domains.local = {local}\ndomains.srs_domain = \"srs.our.example\"\n"));
    let warning = "domains.local has a wildcard above the SRS domain srs.our.example";
    assert!(config("[\"our.example\", \".our.example\"]").contains(warning));
    for good in ["[\"our.example\"]", "[\".our.example\", \"srs.our.example\"]"] {
        assert!(!config(good).contains(warning), "{good}");
    }
}

#[test]
fn an_alias_of_postsrsds_database_leads_nowhere() {
    let folder = folder();
    fs::write(folder.path().join("secret"), "tops3cr3t\n").unwrap();
    run_ok(folder.path(), &["keys", "import", "--from", "postsrsd", "--sign", "secret"]);
    let alias = "SRS0=bxzH=2W=1=DCJGDE6N24LCRT41A4T0G1UIF0DTKKQJ@example.com";
    let site = ["--json", "--srs-domain", "example.com", "--at", "1577836860", alias];
    let output = run(folder.path(), &[&["verify"], site.as_slice()].concat());
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&found["verdict"], &found["action"]), (&json!("malformed"), &json!("reject")));
    assert_eq!(found["result"], Value::Null);
    let why = run(folder.path(), &["explain", "--at", "1577836860", alias]);
    assert!(String::from_utf8_lossy(&why.stdout).contains("alias of PostSRSd's database"), "{why:?}");
}

#[test]
fn check_says_what_senders_of_ours_need_a_tag_for() {
    let config = |mode: &str| {
        checked(&format!(
            "domains.local = [\"our.example\"]\noutbound.mode = \"{mode}\"\ninbound.own_senders = \"tagged\"\n[[listener]]\n\
             role = \"inbound\"\nlisten = \"127.0.0.1:0\"\nnext_hop = \"127.0.0.1:26\"\n"
        ))
    };
    assert!(config("off").contains("inbound.own_senders is \"tagged\", and outbound.mode not \"sign\""));
    assert!(!config("sign").contains("own_senders"));
}

#[cfg(not(feature = "milter"))]
#[test]
fn init_offers_what_a_program_without_milters_can_do() {
    let folder = folder();
    let init = |more: &[&str]| run(folder.path(), &[&["init", "--domain", "our.example"], more].concat());
    for (arguments, instead) in [
        (&["--mta", "postfix", "--method", "milter"][..], "or use --method proxy or edge or maps"),
        (&["--mta", "sendmail"], "build it with the feature `milter`"),
    ] {
        let output = init(arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && error.contains("built without milters"), "{arguments:?}: {error}");
        assert!(error.contains(instead) && !error.contains("countersign.toml:"), "{error}");
        assert!(!folder.path().join("countersign.toml").exists(), "nothing was made");
    }
    let made = init(&["--mta", "postfix"]);
    assert!(made.status.success(), "{made:?}");
    assert!(fs::read_to_string(folder.path().join("countersign.toml")).unwrap().contains("next_hop"), "the proxies");
    run_ok(folder.path(), &["check"]);
}

#[test]
fn check_connects_to_next_hops_and_strict_makes_warnings_count() {
    let folder = folder();
    run_ok(folder.path(), &["keys", "init"]);
    let (there, gone) = (crate::common::NextHop::start(), crate::common::reserved_port());
    let config = |port: u16| {
        format!(
            "domains.local = [\"our.example\"]\n[[listener]]\nrole = \"inbound\"\nlisten = \"127.0.0.1:0\"\n\
             next_hop = \"127.0.0.1:{port}\"\n[inbound]\ntrusted_relays = [\"127.0.0.1\"]\n"
        )
    };
    fs::write(folder.path().join("countersign.toml"), config(there.port)).unwrap();
    let good = run_ok(folder.path(), &["check", "--connect", "--strict"]);
    assert!(good.contains("are good") && !good.contains("warning"), "{good}");
    fs::write(folder.path().join("countersign.toml"), config(gone)).unwrap();
    let warned = run_ok(folder.path(), &["check", "--connect"]);
    let line = format!("warning: the inbound next hop 127.0.0.1:{gone} does not answer: nothing listens there.");
    assert!(warned.contains(&line), "{warned}");
    assert_eq!(run(folder.path(), &["check", "--connect", "--strict"]).status.code(), Some(1));
    assert!(!run_ok(folder.path(), &["check"]).contains("does not answer"));
    let found: Value = serde_json::from_str(&run_ok(folder.path(), &["check", "--connect", "--json"])).unwrap();
    assert_eq!(found["dangers"], json!([]));
    assert!(found["warnings"][0].as_str().unwrap().contains("does not answer"), "{found}");
    // What each reason means is said to those who ask.
    let brief = run_ok(folder.path(), &["check"]);
    let full = run_ok(folder.path(), &["check", "--verbose"]);
    let done = "rejected with 550 5.7.1";
    assert!(brief.lines().count() <= 15 && brief.contains(&format!("{done}: forged, expired, future")), "{brief}");
    assert!(full.contains(&format!("forged        a bounce to a tag that is not ours: {done}")), "{full}");
}

#[test]
fn check_calls_a_dangerous_config_dangerous() {
    let folder = folder();
    run_ok(folder.path(), &["keys", "init"]);
    let config = "domains.local = [\"*.com\"]\n[[listener]]\nrole = \"outbound\"\nlisten = \"127.0.0.1:0\"\n\
                  next_hop = \"127.0.0.1:25\"\nclients = [\"0.0.0.0/0\"]\n";
    fs::write(folder.path().join("countersign.toml"), config).unwrap();
    let output = run(folder.path(), &["check"]);
    let shown = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(2), "{shown}");
    for line in
        ["countersign.toml and keys/ring.toml can be read.", "danger: domains.local has \"*.com\"", "an open relay"]
    {
        assert!(shown.contains(line), "{line}\n{shown}");
    }
    assert!(shown.contains("countersign: countersign.toml has 2 dangerous settings; see above"), "{shown}");
}

#[test]
fn check_warns_of_tags_that_stay_on_of_missing_folders_and_of_an_srs_domain_that_is_local() {
    let folder = folder();
    run_ok(folder.path(), &["keys", "init"]);
    let check = |config: &str| {
        fs::write(folder.path().join("countersign.toml"), config).unwrap();
        run_ok(folder.path(), &["check"])
    };
    let out = "[[listener]]\nrole = \"outbound\"\nlisten = \"127.0.0.1:0\"\nnext_hop = \"127.0.0.1:25\"\n";
    let none = folder.path().join("none").display().to_string();
    let inbound = |listen: &str| {
        format!("[[listener]]\nrole = \"inbound\"\nlisten = \"{listen}\"\nnext_hop = \"127.0.0.1:25\"\n")
    };
    let (stays, missing, local) =
        ("nothing here takes the tags off again", format!("there is no folder {none} for"), "is one of domains.local");
    let ours = "domains.local = [\"our.example\"]\n";
    let warned = check(&format!("{ours}{out}"));
    assert!(warned.contains(stays) && warned.contains("[[listener]] role = \"inbound\""), "{warned}");
    let warned = check(&format!("{ours}{out}{}", inbound(&format!("unix:{none}/in"))));
    assert!(warned.contains(&missing) && warned.contains("install -d") && !warned.contains(stays), "{warned}");
    let warned = check(&format!("{ours}domains.srs_domain = \"our.example\"\n{out}{}", inbound("127.0.0.1:0")));
    assert!(warned.contains(local) && warned.contains("srs_domain = \"srs.our.example\""), "{warned}");
    let good = check(&format!("{ours}{out}{}", inbound("127.0.0.1:0")));
    assert!(!good.contains(stays) && !good.contains("there is no folder") && !good.contains(local), "{good}");
}

#[test]
fn man_pages_and_completions_know_every_command() {
    let folder = folder();
    let said = run_ok(folder.path(), &["manual", "--dir", "man"]);
    let page = |name: &str| fs::read_to_string(folder.path().join("man").join(name)).unwrap();
    let help = run_ok(folder.path(), &["--help"]);
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names: Vec<&str> = commands.filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).collect();
    let names: Vec<&str> = names.into_iter().filter(|name| !name.is_empty() && *name != "help").collect();
    assert!(names.len() > 15 && names.contains(&"init"), "{names:?}");
    for name in &names {
        let text = page(&format!("man1/countersign-{name}.1"));
        assert!(text.contains(".SH NAME") && text.contains(&format!("countersign {name}")), "{name}: {text}");
    }
    assert!(page("man1/countersign-init.1").contains("countersign init \\-\\-undo "));
    assert!(page("man1/countersign-keys-rotate.1").contains("countersign keys rotate"));
    let config = page("man5/countersign.toml.5");
    assert!(config.contains(".SH [outbound]\n") && config.contains("\\fBsrs_domain\\fR\n"), "{config}");
    assert!(said.contains(&format!("Wrote {} man pages", walk(&folder.path().join("man")))), "{said}");
    for shell in ["bash", "zsh", "fish"] {
        let text = run_ok(folder.path(), &["completions", shell]);
        assert!(names.iter().all(|name| text.contains(name)) && text.contains("from"), "{shell}");
    }
    fs::write(folder.path().join("completions"), run_ok(folder.path(), &["completions", "bash"])).unwrap();
    let parsed = std::process::Command::new("bash").arg("-n").arg(folder.path().join("completions")).status().unwrap();
    assert!(parsed.success());
}

/// The number of files below a folder.
fn walk(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { walk(&path) } else { 1 }).sum()
}

#[test]
fn a_new_ring_belongs_to_the_user_of_its_folder() {
    use std::os::unix::fs::{MetadataExt as _, chown};
    if !rustix::process::geteuid().is_root() {
        return crate::common::skip::skip_for_good("a_new_ring_belongs_to_the_user_of_its_folder", "it needs root");
    }
    let folder = folder();
    let keys = folder.path().join("keys");
    fs::create_dir(&keys).unwrap();
    chown(&keys, Some(65_534), Some(65_534)).unwrap();
    run_ok(folder.path(), &["keys", "init"]);
    for file in ["ring.toml", "ring.toml.lock"] {
        let about = fs::metadata(keys.join(file)).unwrap();
        assert_eq!((about.uid(), about.gid()), (65_534, 65_534), "{file}");
    }
    assert_eq!(fs::metadata(keys.join("ring.toml")).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn check_warns_of_an_exemption_that_has_no_effect() {
    let folder = folder();
    run_ok(folder.path(), &["keys", "init"]);
    for (mixed, warns) in [("sign", true), ("split", false)] {
        let config = format!(
            "domains.local = [\"our.example\"]\noutbound.mixed = \"{mixed}\"\noutbound.exempt_recipients = [\"lists.example\"]\n\
             [[listener]]\nrole = \"outbound\"\nlisten = \"127.0.0.1:9\"\nnext_hop = \"127.0.0.1:10\"\n"
        );
        fs::write(folder.path().join("countersign.toml"), config).unwrap();
        let said = run(folder.path(), &["check"]);
        let said = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
        assert_eq!(said.contains("outbound.exempt_recipients has no effect"), warns, "{mixed}: {said}");
    }
}
