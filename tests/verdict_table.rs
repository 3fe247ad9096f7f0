//! The table of cases in `cases/verdicts.toml`, run through the pure rules and through real SMTP sessions.

use std::collections::BTreeMap;
use std::path::Path;

use crate::common::cases::{Came, Inbound, config_text, content, expected, fill, fits, now, table};
use crate::common::{Client, Daemon, Sink, folder, run_ok};
use countersign::config::Config;
use countersign::envelope::abuse::Memory;
use countersign::envelope::address::{Address, ReversePath, strip_source_route};
use countersign::envelope::bounce;
use countersign::envelope::keyring::Keyring;
use countersign::envelope::rules::{Candidate, ContentVerdict, Disposition, OutboundAction, Rules};
use countersign::envelope::time::Timestamp;
use countersign::state::ring_file;

/// The outcome of a case by the rules.
fn by_rules(case: &Inbound, ring: &Keyring, now: Timestamp) -> Came {
    let config = Config::parse(Path::new("case.toml"), &config_text(&case.config, "")).unwrap();
    let rules = Rules::new(&config.policy, ring, now);
    let client = Some("127.0.0.1".parse().unwrap());
    let sender = ReversePath::parse(&fill(&case.sender, ring, now)).unwrap();
    let filled = fill(&case.to_address, ring, now);
    let recipient = Address::parse(strip_source_route(&filled)).unwrap();
    let mut memory = Memory::default();
    let (delivery, check) = match rules.inbound(&mut memory, client, &sender, &recipient).disposition {
        Disposition::Refuse(refusal) => return Came { rcpt: refusal.code, data: None, to: None, mark: None },
        Disposition::Discard => return Came { rcpt: 250, data: Some(250), to: None, mark: None },
        Disposition::Deliver(delivery) => (delivery, None),
        Disposition::Inspect(delivery, check) => (delivery, Some(check)),
    };
    let to = delivery.to;
    let came =
        |to: Option<&Address>, code, mark| Came { rcpt: 250, data: Some(code), to: to.map(ToString::to_string), mark };
    let mark = delivery.mark.map(|mark| mark.reason.to_string());
    let Some(check) = check else { return came(Some(&to), 250, mark) };
    let mut scanner = bounce::Scanner::of_data();
    scanner.push(content(&case.content, ring, now).as_bytes());
    scanner.finish();
    let asked = Candidate { client, check, recipient: &to, complete: true };
    match rules.content(&mut memory, asked, &scanner.found()) {
        ContentVerdict::Deliver | ContentVerdict::Rescue(_) => came(Some(&to), 250, mark),
        ContentVerdict::Later => panic!("{}: all of it was there", case.name),
        ContentVerdict::Mark(mark) => came(Some(&to), 250, Some(mark.reason.to_string())),
        ContentVerdict::Quarantine(to, mark) => came(Some(&to), 250, Some(mark.reason.to_string())),
        ContentVerdict::Discard(_) => came(None, 250, None),
        ContentVerdict::Refuse(refusal) => came(None, refusal.code, None),
    }
}

/// A daemon for each config in the table, and one sink behind all of them.
struct Daemons {
    folder: tempfile::TempDir,
    sink: Sink,
    running: BTreeMap<String, Daemon>,
}

impl Daemons {
    fn new() -> Self {
        let folder = folder();
        run_ok(folder.path(), &["keys", "init"]);
        Self { folder, sink: Sink::start(), running: BTreeMap::new() }
    }

    fn ring(&self) -> Keyring {
        ring_file::load(&self.folder.path().join("keys/ring.toml")).unwrap()
    }

    /// The ports of the outbound and inbound listeners.
    fn ports(&mut self, config: &str) -> (u16, u16) {
        let (folder, port) = (self.folder.path(), self.sink.port);
        let daemon = self.running.entry(config.to_owned()).or_insert_with(|| {
            let listener = |role: &str| {
                format!("[[listener]]\nrole = \"{role}\"\nlisten = \"127.0.0.1:0\"\nnext_hop = \"127.0.0.1:{port}\"\n")
            };
            let text = config_text(config, &format!("{}{}", listener("outbound"), listener("inbound")));
            Daemon::start(folder, &text)
        });
        (daemon.ports[0], daemon.ports[1])
    }

    fn by_smtp(&mut self, case: &Inbound, ring: &Keyring, now: Timestamp) -> Came {
        let (_, port) = self.ports(&case.config);
        let mut client = Client::connect(port);
        client.say("EHLO client.example");
        let code = |reply: String| reply[..3].parse::<u16>().unwrap();
        assert_eq!(code(client.say(&format!("MAIL FROM:<{}>", fill(&case.sender, ring, now)))), 250);
        let before = self.sink.all().len();
        let rcpt = code(client.say(&format!("RCPT TO:<{}>", fill(&case.to_address, ring, now))));
        if rcpt != 250 {
            return Came { rcpt, data: None, to: None, mark: None };
        }
        assert_eq!(code(client.say("DATA")), 354);
        let data = code(client.say(&format!("{}.", content(&case.content, ring, now))));
        client.say("QUIT");
        let messages = self.sink.all();
        if data != 250 {
            assert_eq!(messages.len(), before, "{}: refused and delivered", case.name);
            return Came { rcpt, data: Some(data), to: None, mark: None };
        }
        if messages.len() == before {
            // Accepted and discarded.
            return Came { rcpt, data: Some(data), to: None, mark: None };
        }
        let message = messages.last().unwrap();
        let mark = message.text.lines().next().and_then(|l| l.strip_prefix("Countersign-Result: "));
        let mark = mark.and_then(|m| m.split("reason=").nth(1)).map(str::to_owned);
        Came { rcpt, data: Some(data), to: Some(message.to.concat()), mark }
    }
}

#[test]
fn inbound_cases_hold_in_the_rules_and_over_smtp() {
    let mut daemons = Daemons::new();
    let ring = daemons.ring();
    let cases = table().inbound;
    assert!(cases.len() > 35);
    for case in cases {
        let now = now();
        let want = expected(&case, &ring, now);
        assert_eq!(by_rules(&case, &ring, now), want, "the rules: {}", case.name);
        assert_eq!(daemons.by_smtp(&case, &ring, now), want, "over SMTP: {}", case.name);
    }
}

#[test]
fn outbound_cases_hold_in_the_rules_and_over_smtp() {
    let mut daemons = Daemons::new();
    let ring = daemons.ring();
    for case in table().outbound {
        let now = now();
        let (sender, want) = (fill(&case.sender, &ring, now), fill(&case.leaves, &ring, now));
        let fits = |got: &str| fits(got, &want);
        let config = Config::parse(Path::new("case.toml"), &config_text(&case.config, "")).unwrap();
        let rules = Rules::new(&config.policy, &ring, now);
        let path = ReversePath::parse(&sender).unwrap();
        let recipient = Address::parse(&case.recipient).unwrap();
        match rules.outbound(Some("127.0.0.1".parse().unwrap()), &path, Some(&recipient)).action {
            OutboundAction::Reject(refusal) => assert_eq!(refusal.code, case.mail, "the rules: {}", case.name),
            OutboundAction::Pass => assert!(fits(&sender), "the rules pass: {}", case.name),
            OutboundAction::Sign(signed) | OutboundAction::Rewrite(signed) => {
                assert!(fits(signed.address().as_str()), "the rules: {}: {signed:?}", case.name);
            }
        }
        let (port, _) = daemons.ports(&case.config);
        let mut client = Client::connect(port);
        client.say("EHLO client.example");
        let reply = client.say(&format!("MAIL FROM:<{sender}>"));
        assert!(reply.starts_with(&case.mail.to_string()), "{}: {reply}", case.name);
        if case.mail == 250 {
            assert!(client.say(&format!("RCPT TO:<{}>", case.recipient)).starts_with("250"), "{}", case.name);
            assert!(client.say("DATA").starts_with("354"));
            assert!(client.say("x\r\n.").starts_with("250"));
            let got = daemons.sink.last().from;
            assert!(fits(&got), "over SMTP: {}: {got}", case.name);
        }
    }
}
