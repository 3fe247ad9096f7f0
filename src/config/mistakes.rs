//! Mistakes in the form of a config, in words that say what would be right.

use super::words::one_of;

/// The tables of a config, which stand above the listeners.
const TABLES: [&str; 14] = [
    "domains",
    "keys",
    "batv",
    "srs",
    "outbound",
    "inbound",
    "limits",
    "timeouts",
    "status",
    "state",
    "control",
    "notify",
    "log",
    "clock_tolerance",
];

/// Adds a hint to an error of the TOML reader: the nearest key for an unknown one, the expected form for a wrong type.
/// `text` is the config, `line` the number of the line with the error.
pub(super) fn in_our_words(message: &str, text: &str, line: Option<usize>) -> String {
    let typed = line.and_then(|n| text.lines().nth(n.checked_sub(1)?)).unwrap_or_default().trim();
    if message == "duplicate key" {
        return format!("{message}{}", begun_before(typed, text, line));
    }
    if typed.starts_with("mode") && message.contains("leading zero") {
        return format!("{message}; write it in quotes: mode = \"0660\"");
    }
    let hint = match message.rsplit_once("expected ") {
        Some((_, "u8" | "u16" | "u32" | "usize")) if message.starts_with("invalid value") => {
            "; write a number that is neither negative nor that large".to_owned()
        }
        _ if !message.starts_with("invalid type") => String::new(),
        Some((_, "a sequence")) => list(typed),
        Some((_, "u8" | "u16" | "u32" | "usize")) => "; write a number, without quotes and unit".to_owned(),
        Some((_, "a table of actions")) => {
            "; write a table: [inbound.actions], and under it forged = \"discard\"".to_owned()
        }
        Some((_, "a table")) => "; write its name in brackets on a line, and its keys on the lines below".to_owned(),
        Some((_, "a string")) => {
            "; write it in quotes, times and sizes with their unit: \"30s\", \"128 KiB\"".to_owned()
        }
        _ => String::new(),
    };
    if !hint.is_empty() {
        return format!("{message}{hint}");
    }
    let mut quoted = message.split('`').skip(1).step_by(2);
    match quoted.next().filter(|_| message.starts_with("unknown field")) {
        Some(unknown) => unknown_key(unknown, quoted),
        None => message.to_owned(),
    }
}

/// What to write in place of something that should be a list.
fn list(typed: &str) -> String {
    if typed.starts_with("[listener]") {
        return "; each listener begins with a line [[listener]], in double brackets".to_owned();
    }
    match typed.split_once('=') {
        Some((key, value)) if !value.trim().is_empty() && value.trim().len() < 80 => {
            format!("; write a list: {} = [{}]", key.trim(), value.trim())
        }
        _ => "; write a list, for example [\"our.example\"]".to_owned(),
    }
}

/// Where a table or key stands already.
fn begun_before(typed: &str, text: &str, line: Option<usize>) -> String {
    let name = typed.trim_matches(['[', ']']).split(['=', '.']).next().unwrap_or_default().trim();
    let is_of = |it: &str| {
        let it = it.trim();
        let rest = it.strip_prefix('[').unwrap_or(it).strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with([']', '.', '=', ' ']))
    };
    let first = text.lines().position(is_of).map(|n| n + 1).filter(|first| line.is_some_and(|line| *first < line));
    match first {
        Some(first) if !name.is_empty() => format!(
            "; {name} stands in line {first} already. A table is begun once: where the file has lines such as {name}.mode = …, write all of \
             its keys in that form, above the first [[listener]]"
        ),
        _ => "; a table is begun once, and a line such as inbound.mode = … begins [inbound]".to_owned(),
    }
}

fn unknown_key<'a>(unknown: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let is_in_a_listener = known.clone().any(|known| known == "next_hop");
    if is_in_a_listener && TABLES.contains(&unknown) {
        return format!(
            "`{unknown}` stands below [[listener]], so it is taken for a key of that listener; move it above the first [[listener]]"
        );
    }
    let near = known.clone().map(|known| (strsim::damerau_levenshtein(unknown, known), known)).min();
    match near {
        Some((distance, known)) if distance <= unknown.len().div_ceil(3) + 1 => {
            format!("unknown key `{unknown}`; did you mean `{known}`?")
        }
        _ => format!("unknown key `{unknown}`; there are {}", one_of(&known.collect::<Vec<_>>())),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::Config;

    #[test]
    fn mistakes_say_what_would_be_right() {
        let ours = "domains.local = [\"our.example\"]\n";
        let listener = "[[listener]]\nrole = \"outbound\"\nlisten = \"127.0.0.1:1\"\nnext_hop = \"127.0.0.1:2\"\n";
        for (text, line, says) in [
            (
                format!("{ours}[listener]\nrole = \"inbound\"\n"),
                2,
                "each listener begins with a line [[listener]], in double brackets",
            ),
            (
                format!("{listener}domains.local = [\"our.example\"]\n"),
                5,
                "`domains` stands below [[listener]], so it is taken for a key of that listener; move it above",
            ),
            (format!("{ours}{listener}clients = \"10.0.0.0/8\"\n"), 6, "write a list: clients = [\"10.0.0.0/8\"]"),
            ("domains.local = \"our.example\"\n".to_owned(), 1, "write a list: domains.local = [\"our.example\"]"),
            (
                "[domains]\nlocal = [\"our.example\"]\n[inbound]\nmode = \"observe\"\n[domains]\n".to_owned(),
                5,
                "duplicate key; domains stands in line 1 already",
            ),
            (
                format!("{ours}inbound.mode = \"observe\"\n[inbound]\nevidence = true\n"),
                3,
                "inbound stands in line 2 already",
            ),
            (format!("{ours}inbound.mod = \"observe\"\n"), 2, "unknown key `mod`; did you mean `mode`?"),
            (format!("{ours}{listener}mode = 0660\n"), 6, "write it in quotes: mode = \"0660\""),
        ] {
            let error = Config::parse(Path::new("countersign.toml"), &text).unwrap_err().to_string();
            assert!(error.contains(says) && error.starts_with(&format!("countersign.toml:{line}:")), "{text}\n{error}");
        }
    }
}
