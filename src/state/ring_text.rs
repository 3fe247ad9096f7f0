//! The key ring as text, in TOML.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::Path;

use data_encoding::BASE64;
use serde::de::{self, Deserialize, Deserializer, Visitor};
use zeroize::Zeroizing;

use super::ring_error::{Problem, RingFileError, at};
use super::time_format::{Moment, rfc3339};
use crate::envelope::keyring::{
    Algorithm, Key, KeyId, KeyState, Keyring, Purpose, RampDecision, RampNote, Secret, SrsLimits,
};

/// Parses the text of a ring; `path` is for error messages.
///
/// # Errors
/// The text is not a key ring.
pub fn parse(path: &Path, text: &str) -> Result<Keyring, RingFileError> {
    let raw: RawRing = toml::from_str(text).map_err(|error| RingFileError {
        path: path.to_owned(),
        line: error.span().and_then(|span| text.get(..span.start)).map(|head| head.matches('\n').count() + 1),
        problem: Problem::Syntax(error.message().trim_end().to_owned()),
    })?;
    let keys = raw.key.into_iter().map(RawKey::build).collect();
    let since = raw.signing_since.into_iter().map(|(domain, at)| (domain, at.0)).collect();
    let ramps = raw.ramp.into_iter().map(|(domain, note)| (domain, note.build())).collect();
    at(path, Keyring::new(keys, since).map(|ring| ring.with_ramps(ramps)))
}

/// Whether the text of a ring includes the secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrets {
    /// With secrets, as in the ring file.
    Revealed,
    /// Without secrets, for display.
    Hidden,
}

/// The text of a ring file.
#[must_use]
pub fn to_text(ring: &Keyring, secrets: Secrets) -> Zeroizing<String> {
    // The capacity is large enough, so that no buffer with secrets is left in memory when the text grows.
    let mut text = Zeroizing::new(String::with_capacity(512 + ring.keys().len() * 1024 + secret_room(ring)));
    text.push_str("# Key ring of countersign. Change it with `countersign keys`, never by hand while a daemon runs.\n");
    if secrets == Secrets::Hidden {
        text.push_str("# The secrets are left out: this text is no key ring. `--reveal-secrets` shows them.\n");
    }
    for key in ring.keys() {
        write_key(&mut text, key, secrets);
    }
    if !ring.signing_since().is_empty() {
        text.push_str("\n[signing_since]\n");
        for (domain, since) in ring.signing_since() {
            let _ = writeln!(text, "\"{domain}\" = {}", rfc3339(*since));
        }
    }
    for (domain, note) in ring.ramps() {
        write_ramp(&mut text, domain, *note);
    }
    text
}

fn write_ramp(text: &mut String, domain: &str, note: RampNote) {
    let _ = writeln!(text, "\n[ramp.\"{domain}\"]");
    if let Some(at) = note.enforced {
        let _ = writeln!(text, "enforced = {}", rfc3339(at));
    }
    if let Some(decision) = note.decision {
        let _ = writeln!(text, "decision = \"{}\"", <&str>::from(decision));
    }
    if note.by_hand {
        text.push_str("by_hand = true\n");
    }
    if note.counted {
        text.push_str("counted = true\n");
    }
}

fn secret_room(ring: &Keyring) -> usize {
    ring.keys().iter().map(|k| BASE64.encode_len(k.secret.expose().len())).sum()
}

fn write_key(text: &mut String, key: &Key, secrets: Secrets) {
    let _ = writeln!(text, "\n[[key]]\nid = \"{}\"\nalgorithm = \"{}\"", key.id, key.algorithm.name());
    let _ = writeln!(text, "state = \"{}\"", key.state.name());
    if secrets == Secrets::Revealed {
        text.push_str("secret = \"");
        BASE64.encode_append(key.secret.expose(), text);
        text.push_str("\"\n");
    }
    let _ = writeln!(text, "created = {}", rfc3339(key.created));
    if let Some(at) = key.signed_from {
        let _ = writeln!(text, "signed_from = {}", rfc3339(at));
    }
    if let Some(at) = key.signed_until {
        let _ = writeln!(text, "signed_until = {}", rfc3339(at));
    }
    if key.algorithm.purpose() != Purpose::Srs {
        let _ = writeln!(text, "longest_lifetime = {}", key.longest_lifetime);
    }
    match key.algorithm.purpose() {
        Purpose::All => {
            let _ =
                writeln!(text, "longest_srs_lifetime = {}\nshort_tags = {}", key.longest_srs_lifetime, key.short_tags);
        }
        Purpose::Batv => {}
        Purpose::Srs => {
            let SrsLimits { hash_length, hash_min, max_age } = key.srs;
            let _ = writeln!(text, "hash_length = {hash_length}\nhash_min = {hash_min}\nmax_age = {max_age}");
        }
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRing {
    #[serde(default)]
    key: Vec<RawKey>,
    #[serde(default)]
    signing_since: BTreeMap<String, Moment>,
    #[serde(default)]
    ramp: BTreeMap<String, RawRamp>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRamp {
    enforced: Option<Moment>,
    decision: Option<Decision>,
    #[serde(default)]
    by_hand: bool,
    #[serde(default)]
    counted: bool,
}

impl RawRamp {
    fn build(self) -> RampNote {
        RampNote {
            enforced: self.enforced.map(|at| at.0),
            decision: self.decision.map(|decision| decision.0),
            by_hand: self.by_hand,
            counted: self.counted,
        }
    }
}

struct Decision(RampDecision);

impl<'de> Deserialize<'de> for Decision {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let decision = text
            .parse()
            .map_err(|_| de::Error::custom(format!("`{text}` is not a decision: write \"enforce\" or \"observe\"")))?;
        Ok(Self(decision))
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawKey {
    id: Id,
    algorithm: Named<Algorithm>,
    state: Named<KeyState>,
    secret: Base64,
    created: Moment,
    signed_from: Option<Moment>,
    signed_until: Option<Moment>,
    longest_lifetime: Option<u16>,
    longest_srs_lifetime: Option<u16>,
    short_tags: Option<bool>,
    hash_length: Option<u8>,
    hash_min: Option<u8>,
    max_age: Option<u16>,
}

impl RawKey {
    fn build(self) -> Key {
        let peer = self.algorithm.0.srs_limits();
        Key {
            id: self.id.0,
            algorithm: self.algorithm.0,
            state: self.state.0,
            secret: self.secret.0,
            created: self.created.0,
            signed_from: self.signed_from.map(|m| m.0),
            signed_until: self.signed_until.map(|m| m.0),
            longest_lifetime: self.longest_lifetime.unwrap_or(7),
            longest_srs_lifetime: self.longest_srs_lifetime.unwrap_or(21),
            short_tags: self.short_tags.unwrap_or(true),
            srs: SrsLimits {
                hash_length: self.hash_length.unwrap_or(peer.hash_length),
                hash_min: self.hash_min.unwrap_or(peer.hash_min),
                max_age: self.max_age.unwrap_or(peer.max_age),
            },
        }
    }
}

struct Id(KeyId);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let id = KeyId::parse(&text);
        id.map(Self)
            .ok_or_else(|| de::Error::custom(format!("`{text}` is no key id: one digit, or a name like postsrsd-1")))
    }
}

/// A value of the ring file with a fixed set of words.
struct Named<T>(T);

macro_rules! named {
    ($type:ty) => {
        impl<'de> Deserialize<'de> for Named<$type> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                <$type>::from_name(&text).map(Self).ok_or_else(|| {
                    let known: Vec<&str> = <$type>::ALL.iter().map(|v| v.name()).collect();
                    de::Error::custom(format!("`{text}` is none of: {}", known.join(", ")))
                })
            }
        }
    };
}

named!(Algorithm);
named!(KeyState);

/// A secret, decoded into memory that is wiped later, and never shown in an error.
struct Base64(Secret);

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Decode;
        impl Visitor<'_> for Decode {
            type Value = Base64;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a secret in base64")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Base64, E> {
                let octets = BASE64.decode(text.as_bytes());
                octets.map(|o| Base64(Secret::new(Zeroizing::new(o)))).map_err(|_| E::custom("the secret is no base64"))
            }
        }
        deserializer.deserialize_str(Decode)
    }
}
