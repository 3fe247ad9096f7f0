//! Where in Exim's files the lines of a recipe belong.

use std::path::PathBuf;

use anyhow::{Result, bail};

use super::block::Block;

/// A place in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// The beginning of the main section, for macros.
    Top,
    /// In this ACL, before the recipient is verified.
    BeforeVerify(String),
    /// Before all routers.
    Routers,
    /// In this transport, which sends to the world.
    Transport(String),
    /// In this transport, if there is one.
    OtherTransport(String),
}

impl Place {
    /// The place for people.
    fn words(&self) -> String {
        match self {
            Self::Top => "at the beginning".to_owned(),
            Self::BeforeVerify(acl) => format!("in the ACL {acl}, before `verify = recipient`"),
            Self::Routers => "before all routers".to_owned(),
            Self::Transport(name) | Self::OtherTransport(name) => format!("in the transport {name}"),
        }
    }

    /// The line before which it is, counted from 0.
    fn line(&self, text: &str) -> Option<usize> {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        match self {
            Self::Top => Some(0),
            Self::BeforeVerify(acl) => {
                let start = lines.iter().position(|line| line.strip_suffix(':') == Some(acl))?;
                before_verify(&lines, start + 1)
            }
            Self::Routers => lines.iter().position(|line| *line == "begin routers").map(|at| at + 1),
            Self::Transport(name) | Self::OtherTransport(name) => {
                let start = lines.iter().position(|line| line.strip_suffix(':') == Some(name))?;
                let driver = |line: &&str| line.replace(' ', "") == "driver=smtp";
                let rest = lines.iter().skip(start + 1).take_while(|line| !is_name(line));
                rest.clone().position(driver).map(|at| start + 1 + at + 1)
            }
        }
    }
}

/// The name of an ACL, router or transport on its own line, or a new section.
fn is_name(line: &str) -> bool {
    let name = line.strip_suffix(':').unwrap_or_default();
    let is_word = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
    is_word || line.starts_with("begin ")
}

/// The verbs that begin a statement of an ACL.
const VERBS: [&str; 8] = ["accept", "defer", "deny", "discard", "drop", "require", "warn", "acl"];

/// The first line of the statement that verifies the recipient.
fn before_verify(lines: &[&str], start: usize) -> Option<usize> {
    let is_verb = |line: &str| VERBS.contains(&line.split([' ', '\t']).next().unwrap_or_default());
    let mut verb = None;
    for (at, line) in lines.iter().enumerate().skip(start).take_while(|(_, line)| !is_name(line)) {
        if line.starts_with('#') {
            continue;
        }
        if is_verb(line) {
            verb = Some((at, line.starts_with("require")));
        }
        let words = line.replace(' ', "");
        if let Some((at, true)) = verb
            && words.ends_with("verify=recipient")
            && !words.contains("!verify")
        {
            return Some(at);
        }
    }
    None
}

/// Finds the file and the line of each piece.
///
/// # Errors
/// There is no such place.
pub(super) fn find(texts: &[(PathBuf, String)], pieces: &[(Place, String)]) -> Result<Vec<(PathBuf, Vec<Block>)>> {
    let mut found: Vec<(PathBuf, Vec<Block>)> = Vec::new();
    for (place, text) in pieces {
        let at = texts.iter().find_map(|(path, file)| Some((path, place.line(file)?)));
        let Some((path, line)) = at else {
            if matches!(place, Place::OtherTransport(_)) {
                continue;
            }
            bail!(
                "Exim's configuration has no place {}: put the lines of docs/mta/exim.md#by-the-map in by hand",
                place.words()
            );
        };
        let block = Block { place: place.words(), line, text: text.clone() };
        match found.iter_mut().find(|(known, _)| known == path) {
            Some((_, blocks)) => blocks.push(block),
            None => found.push((path.clone(), vec![block])),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "\
domainlist local_domains = our.example
acl_smtp_rcpt = check
begin acl
check:
  accept  hosts = :
  # require verify = recipient is below
  deny
    !verify = recipient
  require message = relaying denied
          domains = +local_domains
  require
    verify = recipient
  accept
other:
  require verify = recipient
begin routers
world:
  driver = dnslookup
begin transports
local:
  driver = appendfile
remote_smtp:
  # comment
  driver = smtp
  hosts = x
";

    #[test]
    fn places_are_found() {
        let line = |place: Place| place.line(CONFIG).and_then(|at| CONFIG.lines().nth(at));
        assert_eq!(Place::BeforeVerify("check".into()).line(CONFIG), Some(10));
        assert_eq!(line(Place::BeforeVerify("other".into())), Some("  require verify = recipient"));
        assert_eq!(line(Place::Routers), Some("world:"));
        assert_eq!(line(Place::Transport("remote_smtp".into())), Some("  hosts = x"));
        assert_eq!(line(Place::Top), Some("domainlist local_domains = our.example"));
        for none in
            [Place::BeforeVerify("nothing".into()), Place::Transport("local".into()), Place::Transport("x".into())]
        {
            assert_eq!(none.line(CONFIG), None, "{none:?}");
        }
    }

    #[test]
    fn a_piece_without_a_place_is_an_error() {
        let texts = [(PathBuf::from("a"), "x = 1\n".to_owned()), (PathBuf::from("b"), CONFIG.to_owned())];
        let found = find(
            &texts,
            &[(Place::Top, "t".into()), (Place::Routers, "r".into()), (Place::OtherTransport("x".into()), "o".into())],
        );
        let found = found.unwrap();
        assert_eq!(
            found.iter().map(|(path, blocks)| (path.to_str().unwrap(), blocks.len())).collect::<Vec<_>>(),
            [("a", 1), ("b", 1)]
        );
        let error = find(&texts, &[(Place::Transport("x".into()), "o".into())]).unwrap_err().to_string();
        assert!(error.starts_with("Exim's configuration has no place in the transport x:"), "{error}");
    }
}
