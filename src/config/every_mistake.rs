//! All mistakes of a config file. The reader stops at the first one: each is taken out of the text in turn, and the
//! rest is read again.

use std::path::Path;

use super::{Config, ConfigError};

/// More mistakes than a person wants to read at a time.
const MOST: usize = 20;

impl Config {
    /// All mistakes in `text`, the content of the file `path`, in the order of their lines, at most 20. What may only
    /// follow from another mistake is left out.
    #[must_use]
    pub fn mistakes(path: &Path, text: &str) -> Vec<ConfigError> {
        let mut lines: Vec<&str> = text.lines().collect();
        let mut found: Vec<ConfigError> = Vec::new();
        // The first lines of tables from which something was taken out.
        let mut spoilt: Vec<usize> = Vec::new();
        let is_toml = parses(&lines);
        while let Err(error) = Self::parse(path, &lines.join("\n")) {
            let Some(at) = error.line.and_then(|line| line.checked_sub(1)).filter(|at| *at < lines.len()) else {
                // Of the whole file: something that was taken out may be missing.
                if found.is_empty() {
                    found.push(error);
                }
                break;
            };
            let is_of_a_table = is_header(lines.get(at).copied().unwrap_or_default());
            if !(is_of_a_table && spoilt.contains(&at)) {
                found.push(error);
            }
            // Where the form is wrong, nothing can be said about the lines below.
            if !is_toml || found.len() >= MOST {
                break;
            }
            let header = lines.iter().take(at + 1).rposition(|line| is_header(line)).unwrap_or(0);
            spoilt.push(header);
            let taken = if is_of_a_table { table(&lines, at) } else { statement(&lines, at) };
            for line in lines.iter_mut().take(taken.1).skip(taken.0) {
                *line = "";
            }
        }
        found.sort_by_key(|error| error.line);
        found
    }
}

fn parses(lines: &[&str]) -> bool {
    lines.join("\n").parse::<toml::Table>().is_ok()
}

fn is_header(line: &str) -> bool {
    line.trim_start().starts_with('[')
}

/// The lines of the table that begins in line `at`: the first one, and the one after the last.
fn table(lines: &[&str], at: usize) -> (usize, usize) {
    let next = lines.iter().skip(at + 1).position(|line| is_header(line));
    (at, next.map_or(lines.len(), |n| at + 1 + n))
}

/// The fewest lines around line `at` without which the rest is TOML: the first one, and the one after the last.
fn statement(lines: &[&str], at: usize) -> (usize, usize) {
    const LONGEST: usize = 50;
    for length in 1..=LONGEST {
        for first in (at + 1).saturating_sub(length)..=at {
            let rest: Vec<&str> = lines
                .iter()
                .enumerate()
                .filter(|(n, _)| !(first..first + length).contains(n))
                .map(|it| *it.1)
                .collect();
            if parses(&rest) {
                return (first, first + length);
            }
        }
    }
    (at, at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(text: &str) -> Vec<Option<usize>> {
        Config::mistakes(Path::new("countersign.toml"), text).into_iter().map(|error| error.line).collect()
    }

    const LISTENER: &str = "[[listener]]\nrole = \"outbound\"\nlisten = \"127.0.0.1:1\"\nnext_hop = \"127.0.0.1:2\"\n";

    #[test]
    fn every_mistake_is_found_with_its_line() {
        let text = format!(
            "domains.local = [\n  \"our.example\",\n  \"a b\",\n]\ninbound.mod = \"observe\"\nbatv.lifetime = 0\n{LISTENER}\
             clients = \"10.0.0.0/8\"\nspeed = 1\n[[listener]]\nrole = \"inbound\"\nlisten = \"x\"\n[log]\nlevel = 3\n"
        );
        assert_eq!(lines_of(&text), [Some(1), Some(5), Some(6), Some(11), Some(12), Some(15), Some(17)]);
    }

    #[test]
    fn what_only_follows_from_another_mistake_is_not_told() {
        // Without its only entry, domains.local is empty; without its listen, the listener has none.
        assert_eq!(lines_of("domains.local = [\"a b\"]\n"), [Some(1)]);
        let listener = LISTENER.replace("127.0.0.1:1", "x");
        assert_eq!(lines_of(&format!("domains.local = [\"our.example\"]\n{listener}")), [Some(4)]);
        // Unless it is wrong by itself.
        assert_eq!(lines_of("domains.local = [\"our.example\"]\n[[listener]]\nrole = \"outbound\"\n"), [Some(2)]);
        assert_eq!(lines_of(""), [None]);
    }

    #[test]
    fn a_table_that_is_not_known_takes_its_keys_with_it() {
        let text = "domains.local = [\"our.example\"]\n[inbond]\nmode = \"observe\"\nfoo = 1\n[outbound]\nfoo = 1\n";
        assert_eq!(lines_of(text), [Some(2), Some(6)]);
        // A missing bracket of the only listener.
        let text = format!("domains.local = [\"our.example\"]\n{}", LISTENER.replace("[[listener]]", "[listener]"));
        assert_eq!(lines_of(&text), [Some(2)]);
    }

    #[test]
    fn where_the_form_is_wrong_that_is_all() {
        assert_eq!(lines_of("domains.local = [\"our.example\"\ninbound.mod = 1\n"), [Some(2)]);
        assert_eq!(lines_of("domains.local = [\"our.example\"]\n[inbound]\n[inbound]\nx = 1\n"), [Some(3)]);
        let many: String = (0..40).map(|n| format!("x{n} = 1\n")).collect();
        assert_eq!(lines_of(&format!("domains.local = [\"our.example\"]\n{many}")).len(), MOST);
        assert_eq!(lines_of(&format!("domains.local = [\"our.example\"]\n{LISTENER}")), []);
    }
}
