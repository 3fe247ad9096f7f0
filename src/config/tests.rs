use super::*;
use crate::envelope::site_policy::InboundMode;

const SMALLEST: &str = r#"
[domains]
local = ["our.example", ".our.example"]
[keys]
ring = "keys/ring.toml"
[[listener]]
role = "outbound"
protocol = "smtp"
listen = "127.0.0.1:10025"
next_hop = "127.0.0.1:10026"
[[listener]]
role = "inbound"
protocol = "smtp"
listen = "0.0.0.0:25"
next_hop = "127.0.0.1:10027"
"#;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(Path::new("/etc/countersign/c.toml"), text).map_err(|e| e.to_string())
}

#[test]
fn the_smallest_config_has_the_documented_defaults() {
    let config = parse(SMALLEST).unwrap();
    assert_eq!(config.ring, Path::new("/etc/countersign/keys/ring.toml"));
    assert_eq!(config.policy.inbound.mode, InboundMode::Ramp);
    assert_eq!((config.policy.batv.lifetime, config.policy.srs.lifetime, config.policy.srs.hash_length), (7, 21, 6));
    assert_eq!((config.hold, config.policy.inbound.queue_lifetime), (128 << 10, 5));
    assert!(config.listeners[0].clients.is_loopback() && config.listeners[1].clients.is_empty());
    assert!(config.policy.domains.local.contains("a.our.example"));
}

/// One more listener, with `line` as its fifth line.
fn in_listener(line: &str) -> String {
    format!("[[listener]]\nrole = \"inbound\"\nlisten = \"127.0.0.1:1\"\nnext_hop = \"127.0.0.1:2\"\n{line}")
}

#[test]
fn a_listener_may_say_more() {
    let more = in_listener(
        "protocol = \"lmtp\"\ntls = \"require\"\ncertificate = \"tls/chain.pem\"\nprivate_key = \"/etc/key.pem\"\n\
         next_hop_tls = \"implicit\"\nnext_hop_name = \"mail.our.example\"\ntrusted_proxies = [\"192.0.2.0/24\"]\n\
         accept_proxy = true\nsend_proxy = \"v2\"\nby_domain = { \".b.example\" = [\"127.0.0.1:3\", \"unix:/run/b\"] }",
    );
    let more = more.replace("next_hop = \"127.0.0.1:2\"", "next_hop = [\"127.0.0.1:2\", \"192.0.2.1:24\"]");
    let config = parse(&format!("{SMALLEST}\n{more}\n[limits]\nmessage = \"10 MiB\"")).unwrap();
    let listener = &config.listeners[2];
    let certificate = listener.certificate.as_ref().unwrap();
    assert_eq!(certificate.chain, Path::new("/etc/countersign/tls/chain.pem"));
    assert_eq!(certificate.key, Path::new("/etc/key.pem"));
    assert!(listener.hop_tls.verify && listener.hop_tls.mode == TlsMode::Implicit);
    assert_eq!((listener.next_hop.len(), listener.by_domain[0].1.len()), (2, 2));
    assert!(listener.by_domain[0].0.contains("a.b.example") && listener.protocol == Protocol::Lmtp);
    assert_eq!((config.limits.message, config.limits.recipients), (10 << 20, 1000));
}

#[test]
fn each_mistake_is_named_with_its_line_and_what_would_be_right() {
    let with = |extra: &str| parse(&format!("{SMALLEST}\n{extra}\n")).unwrap_err();
    let cases: &[(&str, usize, &str)] = &[
        ("[inbound]\nmod = \"observe\"", 18, "unknown key `mod`; did you mean `mode`?"),
        ("[inbound]\nmode = \"strict\"", 18, "`strict` is none of `observe`, `ramp` or `enforce`"),
        ("[inbound]\naction = \"drop\"", 18, "`drop` is none of `reject`, `discard`, `mark`, `quarantine` or `defer`"),
        ("[inbound]\nquarantine_to = \"nobody\"", 18, "inbound.quarantine_to: "),
        ("[inbound]\nreject_at = \"never\"", 18, "`never` is none of `data`, `rcpt` or `auto`"),
        ("[inbound]\nguesses_per_minute = \"3\"", 18, "expected u32; write a number, without quotes and unit"),
        ("[inbound]\nhold = \"128 kb\"", 18, "write a number and B, KiB"),
        ("[outbound]\nevidence = 1", 18, "invalid type: integer `1`, expected a boolean"),
        ("[batv]\nlifetime = 0", 18, "1 to 400 days"),
        ("[srs]\nhash_length = 2", 18, "4 to 32"),
        ("[srs]\nhash_min = 8", 18, "which is 6"),
        ("[timeouts]\nconnect = \"soon\"", 18, "write a number and s, m, h or d"),
        ("[[listener]]\nrole = \"inbound\"\nlisten = \"x\"", 19, "neither host:port"),
        ("[[listener]]\nrole = \"inbound\"\nlisten = \"127.0.0.1:1\"", 17, "has no next_hop"),
        (
            "[[listener]]\nrole = \"outbound\"\nlisten = \"0.0.0.0:1\"\nnext_hop = \"127.0.0.1:2\"",
            17,
            "would sign for everybody",
        ),
        ("[[listener]]\nprotocol = \"milter\"", 17, "no role; write role = \"auto\""),
        ("[[listener]]\nprotocol = \"milter\"\nrole = \"auto\"", 17, "no listen; write listen = "),
        ("[[listener]]\nprotocol = \"socketmap\"\nnext_hop = \"a:1\"", 17, "next_hop means nothing here"),
        ("[[listener]]\nprotocol = \"socketmap\"\nrole = \"inbound\"", 17, "write role = \"auto\", or leave it out"),
        ("[[listener]]\nprotocol = \"policy\"\nrole = \"outbound\"", 17, "write role = \"inbound\""),
        ("[[listener]]\nprotocol = \"policy\"\nlisten = \"0.0.0.0:1\"", 17, "name the MTAs that may ask"),
        (
            "[[listener]]\nprotocol = \"policy\"\nlisten = \"a:1\"\noutbound_clients = []",
            17,
            "for a milter with role = \"auto\"",
        ),
        (
            "[[listener]]\nrole = \"auto\"\nlisten = \"127.0.0.1:1\"\nnext_hop = \"a:1\"",
            17,
            "mail goes one way through a proxy",
        ),
        ("[log]\nlevel = \"warning\"", 18, "`warning` is no log level; write `off`, `error`, `warn`"),
        ("[log]\nlevel = \"\"", 18, "is no log level"),
        ("[log]\nlevel = \"warn,countersign=debgu\"", 18, "is no log level"),
        ("[limits]\nconnections = 0", 18, "at least 1"),
        ("[milter]\nlisten = \"x\"", 17, "unknown key `milter`"),
        ("[batv]\nlifetime = \"7d\"", 18, "write a number, without quotes"),
        ("[timeouts]\ncommand = 5", 18, "write it in quotes"),
        ("[outbound]\npilot = \"ann@our.example\"", 18, "write a list"),
        (
            "[[listener]]\nrole = \"inbound\"\nlisten = \"0.0.0.0:25\"\nnext_hop = \"127.0.0.1:2\"",
            17,
            "two listeners on 0.0.0.0:25",
        ),
        (
            "[[listener]]\nrole = \"inbound\"\nlisten = \"127.0.0.1:9\"\nnext_hop = \"127.0.0.1:9\"",
            17,
            "go round for ever",
        ),
        (&in_listener("tls = \"may\""), 17, "tls needs certificate"),
        (&in_listener("certificate = \"c\"\nprivate_key = \"k\""), 17, "tls = \"off\""),
        (&in_listener("tls = \"may\"\ncertificate = \"c\""), 17, "belong together"),
        (&in_listener("tls = \"yes\""), 21, "`yes` is none of `off`, `may`, `require` or `implicit`"),
        (&in_listener("next_hop_tls = \"may\"\nnext_hop_verify = true"), 17, "would go on in plain text"),
        (&in_listener("accept_proxy = true"), 17, "needs trusted_proxies"),
        (&in_listener("send_proxy = \"v3\""), 21, "`off`, `v1` or `v2`"),
        (&in_listener("by_domain = { \"b.example\" = \"systemd:x\" }"), 17, "a next hop must be host:port"),
        (&in_listener("by_domain = { \"b.example\" = [] }"), 17, "a list of next hops is empty"),
        (&in_listener("by_domain = { \"b example\" = \"127.0.0.1:3\" }"), 21, "is no domain name"),
        (&in_listener("by_domain = { \"b.example\" = \"127.0.0.1:1\" }"), 17, "go round for ever"),
        (&in_listener("").replace("127.0.0.1:1\"", "0.0.0.0:2\""), 17, "go round for ever"),
        ("[limits]\nrecipients = 9", 18, "at least 100"),
        ("[limits]\nline = 100", 18, "at least 512"),
        ("[limits]\nmessages = 3", 18, "did you mean `message`?"),
        ("[status]\nlisten = \"unix:/x\"", 18, "must be host:port"),
        ("[status]\nlisten = \"127.0.0.1:10025\"", 18, "are both 127.0.0.1:10025"),
        ("[control]\nlisten = \"127.0.0.1:9\"", 18, "must be unix:PATH"),
        ("[nonsense]", 17, "unknown key `nonsense`"),
        ("[domains]", 17, "duplicate"),
    ];
    // Without the milter feature, a milter listener has another error first.
    let known = |extra: &str| cfg!(feature = "milter") || !extra.contains("\"milter\"");
    for (extra, line, wants) in cases.iter().filter(|(extra, ..)| known(extra)) {
        let error = with(extra);
        assert!(error.starts_with(&format!("/etc/countersign/c.toml:{line}: ")), "{extra}: {error}");
        assert!(error.contains(wants), "{extra}: {error}");
    }
    assert!(parse("").unwrap_err().contains("domains.local is empty"));
    assert!(with("[inbound]\nforeign = \"pass\"").contains("would relay for strangers"));
    assert!(with("[inbound.actions]\ntext-ndr = \"quarantine\"").contains("set inbound.quarantine_to"));
    // The system chooses two ports.
    let port_0 = "domains.local = [\"our.example\"]\n[status]\nlisten = \"127.0.0.1:0\"\n\
                  [[listener]]\nrole = \"inbound\"\nlisten = \"127.0.0.1:0\"\nnext_hop = \"127.0.0.1:2\"";
    assert!(parse(port_0).is_ok());
}
