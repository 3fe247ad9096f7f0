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
    /// In each transport that sends by SMTP.
    Transports,
}

impl Place {
    /// The place for people.
    fn words(&self) -> String {
        match self {
            Self::Top => "at the beginning".to_owned(),
            Self::BeforeVerify(acl) => format!("in the ACL {acl}, before `verify = recipient`"),
            Self::Routers => "before all routers".to_owned(),
            Self::Transports => "in each transport with driver = smtp".to_owned(),
        }
    }

    /// The lines before which it is, counted from 0.
    fn lines(&self, text: &str) -> Vec<usize> {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        match self {
            Self::Top => vec![0],
            Self::BeforeVerify(acl) => {
                let start = lines.iter().position(|line| line.strip_suffix(':') == Some(acl));
                start.and_then(|start| before_verify(&lines, start + 1)).into_iter().collect()
            }
            Self::Routers => {
                lines.iter().position(|line| *line == "begin routers").map(|at| at + 1).into_iter().collect()
            }
            Self::Transports => smtp_transports(&lines),
        }
    }
}

/// The lines after `driver = smtp`, in the blocks that send to other servers: not by LMTP, and not to this machine.
fn smtp_transports(lines: &[&str]) -> Vec<usize> {
    let bare = |line: &&str| line.replace([' ', '\t'], "");
    let starts = lines.iter().enumerate().filter(|(_, line)| is_name(line)).map(|(at, _)| at);
    let of_block = |start: usize| {
        let block: Vec<&&str> = lines.iter().skip(start + 1).take_while(|line| !is_name(line)).collect();
        let driver = block.iter().position(|line| bare(line) == "driver=smtp")?;
        let is_inside = block
            .iter()
            .any(|line| matches!(bare(line).as_str(), "protocol=lmtp" | "hosts=127.0.0.1" | "hosts=localhost"));
        (!is_inside).then_some(start + 1 + driver + 1)
    };
    starts.filter_map(of_block).collect()
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
        let places = |(path, file): &(PathBuf, String)| {
            let lines = place.lines(file);
            lines.into_iter().map(|line| (path.clone(), line)).collect::<Vec<_>>()
        };
        let mut all: Vec<(PathBuf, usize)> = texts.iter().flat_map(places).collect();
        if *place != Place::Transports {
            all.truncate(1);
        }
        if all.is_empty() {
            bail!(
                "Exim's configuration has no place {}: put the lines of docs/mta/exim.md#by-the-map in by hand",
                place.words()
            );
        }
        for (path, line) in all {
            let block = Block { place: place.words(), line, text: text.clone() };
            match found.iter_mut().find(|(known, _)| *known == path) {
                Some((_, blocks)) => blocks.push(block),
                None => found.push((path, vec![block])),
            }
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
smarthost:
  driver\t=\tsmtp
  port = 26
lmtp:
  driver = smtp
  protocol = lmtp
";

    #[test]
    fn places_are_found() {
        let lines = |place: Place| -> Vec<&str> {
            place.lines(CONFIG).into_iter().filter_map(|at| CONFIG.lines().nth(at)).collect()
        };
        assert_eq!(Place::BeforeVerify("check".into()).lines(CONFIG), [10]);
        assert_eq!(lines(Place::BeforeVerify("other".into())), ["  require verify = recipient"]);
        assert_eq!(lines(Place::Routers), ["world:"]);
        assert_eq!(lines(Place::Transports), ["  hosts = x", "  port = 26"]);
        assert_eq!(lines(Place::Top), ["domainlist local_domains = our.example"]);
        assert_eq!(lines(Place::BeforeVerify("nothing".into())), [""; 0]);
    }

    #[test]
    fn a_piece_without_a_place_is_an_error() {
        let texts = [(PathBuf::from("a"), "x = 1\n".to_owned()), (PathBuf::from("b"), CONFIG.to_owned())];
        let pieces = [(Place::Top, "t".into()), (Place::Routers, "r".into()), (Place::Transports, "s".into())];
        let found = find(&texts, &pieces).unwrap();
        let counts: Vec<_> = found.iter().map(|(path, blocks)| (path.to_str().unwrap(), blocks.len())).collect();
        assert_eq!(counts, [("a", 1), ("b", 3)]);
        let error = find(&texts[..1], &[(Place::Transports, "s".into())]).unwrap_err().to_string();
        assert!(
            error.starts_with("Exim's configuration has no place in each transport with driver = smtp:"),
            "{error}"
        );
    }
}
