//! `check --mta-config`: the recipes pass, and each error in them is reported.

use std::fs;
use std::path::Path;
use std::process::Output;

use crate::common::delivery::Agent;
use crate::common::{can_run, countersign, folder, mtas, run};
use countersign::recipes::Mta;

/// A folder with the config and the Postfix of a recipe.
struct Recipe {
    folder: tempfile::TempDir,
    config: String,
    main_cf: String,
    master_cf: String,
    out_cf: String,
}

const STOCK: &str = "cleanup unix n - n - 0 cleanup\npickup unix n - n 60 1 pickup\nqmgr unix n - n 300 1 qmgr\n";

impl Recipe {
    fn of(method: &str, srs: bool) -> Self {
        let folder = folder();
        run(folder.path(), &["keys", "init"]);
        let pieces = Mta::Postfix.recipe(method, srs);
        let text =
            |file: &str| pieces.iter().find(|piece| piece.file == file).map_or("", |piece| &piece.text).to_owned();
        let config = text("countersign.toml").replace("tls = \"may\"\n", "");
        let kept = |line: &&str| !line.starts_with("certificate") && !line.starts_with("private_key");
        let config: String = config.lines().filter(kept).map(|line| format!("{line}\n")).collect();
        let own = "compatibility_level = 3.6\nmyhostname = mail.our.example\nmydestination =\nvirtual_mailbox_domains = our.example\n\
            virtual_mailbox_maps = inline:{ {ann@our.example = ann/} }\n";
        let main_cf = own.to_owned() + &text("main.cf");
        let services = text("master.cf");
        let mut master_cf = services.clone();
        for stock in ["smtp inet n - n - - smtpd\n", "submission inet n - n - - smtpd\n"]
            .into_iter()
            .chain(STOCK.split_inclusive('\n'))
        {
            let name = |line: &str| line.split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>();
            // Port 25 itself is Countersign's.
            let gone = method == "edge" && stock.starts_with("smtp ");
            if !gone && !services.lines().any(|line| name(line) == name(stock)) {
                master_cf += stock;
            }
        }
        Self { folder, config, main_cf, master_cf, out_cf: text("postfix-out/main.cf") }
    }

    /// The output of `check` for the recipe.
    fn check(&self, instance: &str) -> Output {
        let base = self.folder.path();
        fs::write(base.join("countersign.toml"), &self.config).unwrap();
        for (name, main_cf, master_cf) in [
            ("ours", &self.main_cf, self.master_cf.as_str()),
            ("out", &self.out_cf, "127.0.0.1:10226 inet n - n - - smtpd\n"),
        ] {
            fs::create_dir_all(base.join(name)).unwrap();
            let file = base.join(name).join("main.cf");
            fs::write(&file, main_cf).unwrap();
            // Postfix waits until a file is a second old, because it may be incomplete.
            let old = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
            fs::File::options().write(true).open(&file).unwrap().set_modified(old).unwrap();
            fs::write(base.join(name).join("master.cf"), master_cf).unwrap();
        }
        run(base, &["check", "--mta-config", base.join(instance).to_str().unwrap()])
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

/// The file, the text to be replaced, the replacement, and the expected output, which begins with `wrong:` or
/// `careful:`.
type Spoilt = (&'static str, &'static str, &'static str, &'static str);

fn all_are_named(method: &str, srs: bool, spoilt: &[Spoilt]) {
    let good = Recipe::of(method, srs);
    let output = good.check("ours");
    assert!(output.status.success() && said(&output).contains(" fits."), "{method}: {}", said(&output));
    for (file, from, to, want) in spoilt {
        let mut bad = Recipe::of(method, srs);
        let text = match *file {
            "main" => &mut bad.main_cf,
            "master" => &mut bad.master_cf,
            "out" => &mut bad.out_cf,
            _ => &mut bad.config,
        };
        assert!(text.contains(from), "{method}: there is no `{from}` in {text}");
        *text = text.replacen(from, to, 1);
        let output = bad.check(if *file == "out" { "out" } else { "ours" });
        let said = said(&output);
        assert!(
            said.lines().any(|line| line.starts_with(&want[..5]) && line.contains(want.split_once(": ").unwrap().1)),
            "{method}, {to}: `{want}` is not in\n{said}"
        );
        let wrong = said.lines().any(|line| line.starts_with("wrong:"));
        assert!(wrong || want.starts_with("careful"), "{method}, {to}: {said}");
        assert_eq!(output.status.code(), Some(i32::from(wrong)), "{method}, {to}: {said}");
    }
}

#[test]
fn a_signer_of_the_evidence_header_is_named() {
    if !can_run(&["postconf"], "check --mta-config, DKIM") {
        return;
    }
    let mut recipe = Recipe::of("milter", false);
    recipe.main_cf = recipe.main_cf.replace(
        "\nsmtpd_milters = unix:countersign/milter",
        "\nsmtpd_milters = unix:countersign/milter, inet:127.0.0.1:8891",
    );
    let conf = recipe.folder.path().join("opendkim.conf");
    let opendkim = |more: &str| fs::write(&conf, format!("Socket inet:8891@localhost\n{more}\n")).unwrap();
    // It comes after Countersign, and leaves the header out.
    opendkim("OversignHeaders From");
    let good = recipe.check("ours");
    assert!(good.status.success() && said(&good).contains(" fits."), "{}", said(&good));
    opendkim("SignHeaders From,Subject,Countersign-Evidence");
    let bad = recipe.check("ours");
    let want =
        format!("wrong: {} has DKIM sign Countersign-Evidence, which is taken off before delivery", conf.display());
    assert!(bad.status.code() == Some(1) && said(&bad).contains(&want), "{}", said(&bad));
}

#[test]
fn aliases_that_lead_out_want_srs() {
    if !can_run(&["postconf"], "check --mta-config, forwards") {
        return;
    }
    let want = "careful: bea@our.example is forwarded to carol@third.example (virtual_alias_maps, and 1 more)";
    for (srs, is_named) in [(false, true), (true, false)] {
        let mut recipe = Recipe::of("milter", srs);
        let aliases = recipe.folder.path().join("aliases");
        fs::write(&aliases, "office: bea, \"|/bin/program a@b.example\"\nold:\tdan@elsewhere.example\n").unwrap();
        let text = format!("alias_maps = texthash:{}\n", aliases.display());
        let map = "{bea@our.example = carol@third.example}, {x@our.example = ann@our.example}, {y@our.example = ann}";
        recipe.main_cf = match srs {
            true => recipe
                .main_cf
                .replace("virtual_alias_maps = inline:{ ", &format!("virtual_alias_maps = inline:{{ {map}, ")),
            false => recipe.main_cf + &format!("virtual_alias_maps = inline:{{ {map} }}\n"),
        } + &text;
        let output = recipe.check("ours");
        assert!(output.status.success(), "{}", said(&output));
        assert_eq!(said(&output).lines().any(|line| line.starts_with(want)), is_named, "{}", said(&output));
    }
}

#[test]
fn what_is_wrong_around_the_milter() {
    if !can_run(&["postconf"], "check --mta-config, milter") {
        return;
    }
    let end = "milter_default_action = tempfail\n";
    all_are_named(
        "milter",
        true,
        &[
            (
                "main",
                "\nsmtpd_milters = unix:countersign/milter",
                "\nsmtpd_milters = inet:127.0.0.1:8891",
                "wrong: no smtpd asks the milter: smtpd_milters = unix:countersign/milter",
            ),
            // Where smtpd is in a chroot, this value stops all mail.
            (
                "main",
                "smtpd_milters = unix:countersign/milter",
                "smtpd_milters = unix:/var/spool/postfix/countersign/milter",
                "careful: smtp asks unix:/var/spool/postfix/countersign/milter, which a service in a chroot does not find, and mail then waits: smtpd_milters = unix:countersign/milter",
            ),
            (
                "master",
                "submission inet n - n - - smtpd\n",
                "submission inet n - n - - smtpd\n  -o receive_override_options=no_address_mappings,no_milters\n",
                "careful: submission does not ask the milter",
            ),
            (
                "master",
                "submission inet n - n - - smtpd\n",
                "submission inet n - n - - smtpd\n9025 inet n - n - - smtpd\n",
                "wrong: 9025 is a service of this Postfix itself (smtpd), and status.listen of Countersign",
            ),
            (
                "main",
                end,
                "milter_default_action = tempfail\nsmtpd_reject_unlisted_recipient = no\n",
                "careful: takes mail for unknown users, which is bounced to forged senders: smtpd_reject_unlisted",
            ),
            (
                "master",
                "smtp inet n - n - - smtpd\n",
                "smtp inet n - n - - smtpd\n  -o receive_override_options=no_unknown_recipient_checks\n",
                "careful: remove no_unknown_recipient_checks",
            ),
            (
                "main",
                end,
                "milter_default_action = tempfail\nlocal_recipient_maps =\nmydestination = our.example\n",
                "careful: local_recipient_maps is empty, so mail for unknown users of our.example",
            ),
            (
                "main",
                end,
                "milter_default_action = tempfail\nrelay_domains = our.example\n",
                "careful: relay_recipient_maps is empty, so mail for unknown users of our.example",
            ),
            ("main", end, "milter_default_action = tempfail\nluser_relay = ann\n", "careful: luser_relay = ann"),
            (
                "main",
                end,
                "milter_default_action = tempfail\nmynetworks = 127.0.0.0/8 0.0.0.0/0\n",
                "wrong: mynetworks holds 0.0.0.0/0, so strangers may send mail to strangers: an open relay",
            ),
            (
                "main",
                end,
                "milter_default_action = tempfail\nsmtpd_relay_restrictions = permit, reject_unauth_destination\n",
                "wrong: smtp permits everybody by `permit` before it refuses to relay: an open relay",
            ),
            (
                "main",
                "virtual_mailbox_maps = inline:{ {ann@our.example = ann/} }\n",
                "",
                "careful: virtual_mailbox_maps is empty, so mail for unknown users of our.example",
            ),
            (
                "main",
                "{ann@our.example = ann/}",
                "{@our.example = all/}",
                "careful: virtual_mailbox_maps knows every name at our.example",
            ),
            (
                "main",
                end,
                "milter_default_action = tempfail\nlocal_recipient_maps = static:all\nmydestination = our.example\n",
                "careful: local_recipient_maps knows every name at our.example",
            ),
            (
                "main",
                end,
                "milter_default_action = tempfail\nrelay_domains = our.example\n\
                 relay_recipient_maps = inline:{ {ann@our.example = x}, {@our.example = x} }\n",
                "careful: relay_recipient_maps knows every name at our.example",
            ),
            (
                "config",
                "[[listener]]",
                "[outbound.ndr]\npolicy = \"drop\"\n\n[[listener]]",
                "careful: internal_mail_filter_classes = bounce",
            ),
            (
                "config",
                "[[listener]]",
                "[outbound.ndr]\npolicy = \"verified\"\nauthserv_id = \"mx.our.example\"\nresults_below_received = true\n\
                 [[listener]]",
                "careful: header_checks = regexp:{{/^Authentication-Results:[[:space:]]*mx\\.our\\.example/ IGNORE}}",
            ),
            ("main", "= tempfail", "= accept", "wrong: milter_default_action = accept"),
            (
                "main",
                end,
                "milter_default_action = tempfail\nmilter_protocol = 2\n",
                "wrong: milter_protocol is below 6",
            ),
            ("main", "non_smtpd_milters = ", "x_milters = ", "careful: `sendmail` leaves unsigned"),
            ("main", "recipient_canonical_maps = ", "x_maps = ", "wrong: refuses tagged ones as unknown"),
            (
                "main",
                "mydestination =",
                "mydestination = $myhostname, localhost",
                "careful: mail.our.example has mailboxes here",
            ),
            ("main", ":strip", ":verify", "careful: ask `strip` beside a milter"),
            ("main", ":strip", ":stripp", "wrong: refuses tagged ones as unknown"),
            (
                "main",
                "virtual_alias_domains = $virtual_alias_maps, srs.our.example",
                "relay_domains = srs.our.example",
                "careful: relay_domains has srs.our.example, and so takes mail for all of its subdomains",
            ),
            (
                "master",
                "cleanup unix n - n - 0 cleanup\n",
                "cleanup unix n - n - 0 cleanup\n  -o non_smtpd_milters=\n",
                "careful: cleanup has non_smtpd_milters of its own",
            ),
            (
                "master",
                "cleanup unix n - n - 0 cleanup\n",
                "cleanup unix n - n - 0 cleanup\n  -o recipient_canonical_maps=\n",
                "careful: cleanup has recipient_canonical_maps of its own",
            ),
            (
                "master",
                "submission inet n - n - - smtpd\n",
                "submission inet n - n - - smtpd\n  -o smtpd_milters=\n",
                "careful: submission does not ask the milter",
            ),
            (
                "main",
                "\nsmtpd_milters = unix:countersign/milter",
                "\nsmtpd_milters = unix:countersign/milter, inet:127.0.0.1:8891",
                "careful: asks inet:127.0.0.1:8891 after Countersign",
            ),
            (
                "main",
                "recipient_canonical_classes = envelope_recipient",
                "",
                "wrong: rewrites header fields by the map, too: recipient_canonical_classes",
            ),
            (
                "main",
                end,
                "milter_default_action = tempfail\nmynetworks = 127.0.0.0/8, 10.0.0.0/8\n",
                "careful: 10.0.0.0/8 in mynetworks counts as coming in",
            ),
            (
                "main",
                end,
                "milter_default_action = tempfail\nsender_dependent_relayhost_maps = inline:{x=y}\n",
                "careful: sender_dependent_relayhost_maps is asked with the signed sender",
            ),
            (
                "main",
                "virtual_alias_domains = $virtual_alias_maps, srs.our.example",
                "",
                "wrong: Postfix takes no mail for srs.our.example",
            ),
            ("main", "domains = our.example", "domains = other.example", "careful: our.example is in domains.local"),
            (
                "main",
                end,
                "milter_default_action = tempfail\nmaximal_queue_lifetime = 2w\n",
                "careful: keeps mail for 14 days",
            ),
            (
                "master",
                "smtp inet",
                "127.0.0.1:10099 inet n - n - - smtpd\n  -o content_filter=\n  -o local_recipient_maps=\nsmtp inet",
                "careful: what a filter hands back there",
            ),
            (
                "master",
                "smtp inet n - n - - smtpd\n",
                "smtp inet n - n - - smtpd\n  -o receive_override_options=no_address_mappings\n",
                "careful: no_address_mappings",
            ),
        ],
    );
}

#[test]
fn what_is_wrong_around_the_proxies() {
    if !can_run(&["postconf"], "check --mta-config, proxies") {
        return;
    }
    let relayhost = "relayhost = [127.0.0.1]:10225\n";
    all_are_named(
        "proxy",
        true,
        &[
            ("main", relayhost, "", "wrong: mail leaves unsigned: relayhost = [127.0.0.1]:10225"),
            (
                "master",
                "submission inet",
                "127.0.0.1:10225 inet n - n - - smtpd\nsubmission inet",
                "wrong: 127.0.0.1:10225 is a service of this Postfix itself (smtpd), and a listener of Countersign",
            ),
            // As in amavis's set-up, with another port of Countersign: submission still uses this relayhost.
            ("main", relayhost, "", "wrong: mail leaves unsigned: relayhost = [127.0.0.1]:10225"),
            (
                "master",
                "submission inet",
                "127.0.0.1:10226 inet n - n - - smtpd\nsubmission inet",
                "wrong: a loop: relayhost sends everything",
            ),
            (
                "main",
                relayhost,
                "relayhost = [127.0.0.1]:10225\nsmtp_tls_security_level = encrypt\n",
                "wrong: the outbound proxy has no TLS",
            ),
            (
                "config",
                "domains.local",
                "outbound.exempt_recipients = [\"@list.example\"]\ndomains.local",
                "careful: smtp_destination_recipient_limit = 1",
            ),
            (
                "master",
                "  -o smtpd_proxy_filter=127.0.0.1:10227\n",
                "",
                "wrong: no smtpd hands its sessions to the inbound proxy: -o smtpd_proxy_filter=127.0.0.1:10227",
            ),
            ("master", "  -o smtpd_reject_unlisted_recipient=no\n", "", "wrong: smtp looks recipients up itself"),
            (
                "main",
                relayhost,
                "relayhost = [127.0.0.1]:10225\nsmtpd_proxy_options = speed_adjust\n",
                "wrong: speed_adjust",
            ),
            (
                "main",
                relayhost,
                "relayhost = [127.0.0.1]:10225\nsmtpd_recipient_restrictions = reject_unverified_recipient\n",
                "careful: smtp has reject_unverified_recipient",
            ),
            (
                "main",
                relayhost,
                "relayhost = [127.0.0.1]:10225\ncontent_filter = smtp:[127.0.0.1]:10227\n",
                "wrong: Use smtpd_proxy_filter",
            ),
            (
                "master",
                "127.0.0.1:10228 inet",
                "127.0.0.1:10098 inet",
                "careful: next_hop is 127.0.0.1:10228, and no smtpd of this instance listens there",
            ),
            (
                "master",
                "127.0.0.1:10229 inet",
                "127.0.0.1:10099 inet",
                "careful: inbound.srs_next_hop is 127.0.0.1:10229, and no smtpd",
            ),
            (
                "master",
                "  -o smtpd_proxy_filter=\n",
                "  -o smtpd_proxy_filter=127.0.0.1:10227\n",
                "wrong: a loop: 127.0.0.1:10228 hands its sessions to the proxy again",
            ),
            (
                "master",
                "  -o smtpd_client_connection_count_limit=0\n",
                "",
                "careful: takes 50 sessions from one client",
            ),
            ("main", "in_flow_delay = 0\n", "", "careful: in_flow_delay = 1s delays all mail during a flood"),
            (
                "master",
                "  -o mynetworks=\n  -o smtpd_relay_restrictions=reject_unauth_destination\n",
                "",
                "careful: for mynetworks: -o mynetworks=",
            ),
            (
                "master",
                "smtp      inet  n  -  n  -  -  smtpd",
                "smtp      inet  n  -  n  -  300  smtpd",
                "careful: 127.0.0.1:10228 has at most 100 processes, and the inbound proxy lets in 300 sessions",
            ),
            ("out", "{our.example = smtp:[127.0.0.1]:10227}, ", "", "wrong: tagged addresses in our.example"),
            (
                "out",
                "master_service_disable =",
                "master_service_disable = inet",
                "wrong: keeps this instance from listening",
            ),
            ("out", "permit_mynetworks, reject", "reject_unauth_destination", "careful: lets nobody relay"),
        ],
    );
}

#[test]
fn what_is_wrong_behind_port_25_itself() {
    if !can_run(&["postconf"], "check --mta-config, edge") {
        return;
    }
    all_are_named(
        "edge",
        false,
        &[
            (
                "master",
                "n  -  200  smtpd",
                "n  -  -  smtpd",
                "careful: 127.0.0.1:10228 has at most 100 processes, and the inbound proxy lets in 200 sessions",
            ),
            (
                "config",
                "connections = 200",
                "connections = 201",
                "careful: Write 201 before `smtpd` in its line of master.cf, or connections = 200 in the [[listener]] 0.0.0.0:25",
            ),
        ],
    );
}

#[test]
fn what_is_wrong_around_maps_and_policy() {
    if !can_run(&["postconf"], "check --mta-config, maps") {
        return;
    }
    all_are_named(
        "maps",
        false,
        &[
            (
                "main",
                "smtpd_recipient_restrictions = check_policy_service",
                "smtpd_recipient_restrictions = permit, check_policy_service",
                "wrong: stands behind a `permit`",
            ),
            (
                "main",
                "check_policy_service unix:countersign/policy",
                "reject_unauth_destination",
                "wrong: no smtpd asks the policy service",
            ),
            ("main", "access_map_reject_code = 550", "", "careful: refused bounces get 554"),
            (
                "master",
                "  -o sender_canonical_classes=envelope_sender\n",
                "",
                "wrong: signing rewrites header fields by the map, too: sender_canonical_classes = envelope_sender",
            ),
            (
                "main",
                "access_map",
                "sender_canonical_classes = envelope_sender\nsender_canonical_maps = socketmap:unix:countersign/map:sign\naccess_map",
                "careful: signs mail from outside, too",
            ),
            (
                "main",
                "recipient_canonical_maps = ",
                "x_maps = ",
                "wrong: bounces to tagged addresses are refused as unknown users",
            ),
            (
                "main",
                "socketmap:unix:countersign/map:verify",
                "tcp:localhost:10002",
                "careful: tcp:localhost:10002 in recipient_canonical_maps",
            ),
            ("master", "  -o cleanup_service_name=signing\n", "", "careful: what comes in at submission is not signed"),
            (
                "master",
                "signing unix",
                "other unix",
                "wrong: submission names the cleanup `signing`, which is not in master.cf",
            ),
            (
                "master",
                "  -o sender_canonical_maps=socketmap:unix:countersign/map:sign\n",
                "",
                "wrong: nothing is signed",
            ),
            (
                "config",
                "countersign/map",
                "countersign/other",
                "wrong: bounces to tagged addresses are refused as unknown users: recipient_canonical_maps = socketmap:unix:countersign/other:verify",
            ),
        ],
    );
}

#[test]
fn the_other_recipes_fit_too() {
    if !can_run(&["postconf"], "check --mta-config, recipes") {
        return;
    }
    for (method, srs) in [("milter", false), ("proxy", false), ("edge", false), ("edge", true), ("maps", true)] {
        let recipe = Recipe::of(method, srs);
        for instance in ["ours", "out"] {
            if instance == "ours" || !recipe.out_cf.is_empty() {
                let output = recipe.check(instance);
                assert!(said(&output).contains(" fits."), "{method}, {instance}: {}", said(&output));
            }
        }
    }
    let nowhere = run(Path::new("."), &["check", "-c", "nowhere.toml", "--mta-config", "."]);
    assert_eq!(nowhere.status.code(), Some(2));
}

/// The output of `check` for Exim with a recipe, with or without an error.
fn exim(method: &str, srs: bool, spoil: impl Fn(&mut String, &mut String)) -> (Option<i32>, String) {
    let folder = folder();
    run(folder.path(), &["keys", "init"]);
    let pieces = Mta::Exim.recipe(method, srs);
    let text = |file: &str| pieces.iter().find(|piece| piece.file == file).map_or("", |piece| &piece.text).to_owned();
    let config = text("countersign.toml").replace("tls = \"may\"\n", "");
    let kept = |line: &&str| !line.starts_with("certificate") && !line.starts_with("private_key");
    let mut config: String = config.lines().filter(kept).map(|line| format!("{line}\n")).collect();
    let piece = |name: &str| text(&format!("exim.conf/{name}"));
    let mut exim =
        mtas::exim_site_config(folder.path(), 10091, 10092, 10093, &piece, &Agent::new(folder.path(), 10092));
    spoil(&mut config, &mut exim);
    fs::write(folder.path().join("countersign.toml"), config).unwrap();
    fs::write(folder.path().join("exim.conf"), exim).unwrap();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let ours = mtas::unpacked("exim4-daemon-heavy").join("usr/sbin");
    let path = std::env::join_paths(std::iter::once(ours).chain(std::env::split_paths(&path))).unwrap();
    let mut check = countersign();
    check.current_dir(folder.path()).env("PATH", path).args(["check", "--mta-config", "."]);
    let output = check.output().unwrap();
    (output.status.code(), said(&output))
}

#[test]
fn what_is_wrong_around_exim() {
    if !mtas::can_run_all("check --mta-config, Exim") {
        return;
    }
    for (method, srs) in
        [("proxy", false), ("proxy", true), ("map", false), ("map", true), ("run", false), ("run", true)]
    {
        let (status, said) = exim(method, srs, |_, _| ());
        assert!(status == Some(0) && said.contains("Exim in . fits."), "{method}: {said}");
    }
    let spoilt: [(&str, bool, &str, &str, &str); 9] = [
        ("proxy", false, "smtp_accept_max = 300", "smtp_accept_max = 200", "careful: Exim takes 200 sessions in all"),
        ("proxy", true, "  port = 10225\n", "  port = 10035\n", "wrong: no transport sends to the outbound proxy"),
        ("proxy", true, "received_port", "acl_c_port", "wrong: a loop"),
        ("proxy", true, "hosts_proxy = ", "# ", "wrong: Exim expects none: hosts_proxy"),
        ("proxy", true, "127.0.0.1.10228 ;", "", "careful: next_hop is 127.0.0.1:10228"),
        ("proxy", true, "; 127.0.0.1.10229", "", "careful: inbound.srs_next_hop is 127.0.0.1:10229"),
        (
            "map",
            false,
            "/run/countersign/map",
            "/run/other/map",
            "wrong: nobody asks the socketmap on unix:/run/countersign/map",
        ),
        ("map", false, "F,5d,1m", "F,2w,1m", "careful: Exim tries for 14 days"),
        ("map", false, "our.example", "other.example", "careful: our.example is in domains.local"),
    ];
    for (method, srs, from, to, want) in spoilt {
        let (status, said) = exim(method, srs, |_, exim| {
            assert!(exim.contains(from), "{method}: there is no `{from}`");
            *exim = exim.replace(from, to);
        });
        let (level, text) = want.split_once(": ").unwrap();
        assert!(
            said.lines().any(|line| line.starts_with(level) && line.contains(text)),
            "{method}, {to}: `{want}` is not in\n{said}"
        );
        assert_eq!(status, Some(i32::from(level == "wrong")), "{method}, {to}: {said}");
    }
    let (_, said) = exim("proxy", false, |config, _| *config = config.replace("send_proxy = \"v2\"\n", ""));
    assert!(said.contains("Exim takes every client for 127.0.0.1"), "{said}");
}

#[test]
fn a_port_that_comes_back_from_a_filter_asks_no_milter() {
    if !can_run(&["postconf"], "check --mta-config, no_milters") {
        return;
    }
    let filtered = |options: &str| {
        let mut recipe = Recipe::of("milter", false);
        recipe.main_cf += "content_filter = smtp:[127.0.0.1]:10224\n";
        recipe.master_cf += &format!("127.0.0.1:10035 inet n - n - - smtpd\n  -o content_filter=\n{options}");
        said(&recipe.check("ours"))
    };
    let warning = "127.0.0.1:10035 asks the milter, too";
    assert!(filtered("").contains(warning));
    for quiet in ["  -o receive_override_options=no_unknown_recipient_checks,no_milters\n", "  -o smtpd_milters=\n"] {
        assert!(!filtered(quiet).contains(warning), "{quiet}");
    }
    // Another address of this machine is another place.
    let mut recipe = Recipe::of("proxy", false);
    recipe.master_cf += "192.0.2.1:10225 inet n - n - - smtpd\n";
    assert!(!said(&recipe.check("ours")).contains("is a service of this Postfix itself"));
    // An instance with a port of the second instance is not mistaken for it.
    let mut recipe = Recipe::of("proxy", false);
    recipe.main_cf = recipe.main_cf.replace("relayhost = [127.0.0.1]:10225\n", "");
    recipe.master_cf += "127.0.0.1:10226 inet n - n - - smtpd\n";
    let output = said(&recipe.check("ours"));
    assert!(output.contains("nothing goes to the outbound proxy, so mail leaves unsigned"), "{output}");
}

#[test]
fn results_that_postfix_removes_from_its_own_bounces_are_missed() {
    if !can_run(&["postconf"], "check --mta-config, nested_header_checks") {
        return;
    }
    let mut recipe = Recipe::of("milter", true);
    let ndr =
        "[outbound.ndr]\npolicy = \"verified\"\nauthserv_id = \"mx.our.example\"\nresults_below_received = true\n";
    recipe.config = recipe.config.replacen("[[listener]]", &format!("{ndr}\n[[listener]]"), 1);
    recipe.main_cf += "internal_mail_filter_classes = bounce\n\
        header_checks = regexp:{{/^Authentication-Results:[[:space:]]*mx\\.our\\.example/ IGNORE}}\n";
    let output = recipe.check("ours");
    assert!(output.status.code() == Some(1) && said(&output).contains("nested_header_checks ="), "{}", said(&output));
    assert!(!said(&output).contains("results_below_received"), "{}", said(&output));
    recipe.main_cf += "nested_header_checks =\n";
    assert!(said(&recipe.check("ours")).contains(" fits."), "{}", said(&recipe.check("ours")));
}

#[test]
fn a_catch_all_alias_is_named() {
    if !can_run(&["postconf"], "check --mta-config, aliases") {
        return;
    }
    for (table, is_named) in [
        ("inline:{ {@our.example = @else.example} }", true),
        ("inline:{ {ann@our.example = bob@else.example} }", false),
        ("regexp:{{/^(.*)@our\\.example$$/ $$1@else.example}}", true),
    ] {
        let mut recipe = Recipe::of("proxy", false);
        recipe.main_cf += &format!("virtual_alias_maps = {table}\n");
        let said = said(&recipe.check("ours"));
        assert_eq!(said.contains("virtual_alias_maps takes every name at our.example"), is_named, "{table}: {said}");
    }
}

#[test]
fn unknown_users_that_countersign_refuses_are_no_matter_of_postfix() {
    if !can_run(&["postconf"], "check --mta-config, recipients") {
        return;
    }
    let mut recipe = Recipe::of("milter", true);
    recipe.main_cf += "smtpd_reject_unlisted_recipient = no\nluser_relay = ann\n";
    assert!(said(&recipe.check("ours")).contains("inbound.recipients"));
    recipe.config = format!("inbound.recipients = \"ask:127.0.0.1:24\"\n{}", recipe.config);
    assert!(!said(&recipe.check("ours")).contains("unknown users"), "{}", said(&recipe.check("ours")));
}
