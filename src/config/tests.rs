use super::*;
use crate::envelope::policy::InboundMode;

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
    assert_eq!(config.policy.inbound.mode, InboundMode::Observe);
    assert_eq!((config.policy.batv.lifetime, config.policy.srs.lifetime, config.policy.srs.hash_length), (7, 21, 6));
    assert_eq!((config.hold, config.queue_lifetime), (128 << 10, 5));
    assert!(config.listeners[0].clients.is_loopback() && config.listeners[1].clients.is_empty());
    assert!(config.policy.domains.local.contains("a.our.example"));
}

#[test]
fn each_mistake_is_named_with_its_line_and_what_would_be_right() {
    let with = |extra: &str| parse(&format!("{SMALLEST}\n{extra}\n")).unwrap_err();
    for (extra, line, wants) in [
        ("[inbound]\nmod = \"observe\"", 18, "unknown key `mod`; did you mean `mode`?"),
        ("[inbound]\nmode = \"ramp\"", 18, "`ramp` is not available in this version; use `observe` or `enforce`"),
        ("[inbound]\nmode = \"strict\"", 18, "`strict` is none of `observe` or `enforce`"),
        ("[inbound]\naction = \"discard\"", 18, "not available in this version"),
        ("[inbound]\nreject_at = \"auto\"", 18, "use `data` or `rcpt`"),
        ("[inbound]\nguesses_per_minute = 3", 18, "not available in this version"),
        ("[inbound]\nhold = \"128 kb\"", 18, "write a number and B, KiB"),
        ("[outbound]\nevidence = true", 18, "not available in this version"),
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
        ("[[listener]]\nprotocol = \"milter\"", 18, "`milter` is not available in this version"),
        ("[log]\nlevel = \"warning\"", 18, "`warning` is no log level; write `off`, `error`, `warn`"),
        ("[log]\nlevel = \"\"", 18, "is no log level"),
        ("[log]\nlevel = \"warn,countersign=debgu\"", 18, "is no log level"),
        ("[limits]\nconnections = 0", 18, "at least 1"),
        ("[milter]\nlisten = \"x\"", 17, "not available in this version"),
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
        ("[nonsense]", 17, "unknown key `nonsense`"),
        ("[domains]", 17, "duplicate"),
    ] {
        let error = with(extra);
        assert!(error.starts_with(&format!("/etc/countersign/c.toml:{line}: ")), "{extra}: {error}");
        assert!(error.contains(wants), "{extra}: {error}");
    }
    assert!(parse("").unwrap_err().contains("domains.local is empty"));
    assert!(with("[inbound]\nforeign = \"pass\"").contains("would relay for strangers"));
}
