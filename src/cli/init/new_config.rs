//! The config of `init --from`: written from what the mail server says, and compared with one that is there.

use std::path::Path;

use anyhow::{Result, bail};

use super::config::Draft;
use super::files::write_new;
use super::fit::Fit;
use super::recipe::same_domain;
use super::request::Fitted;
use super::server::Server;
use crate::cli::colours::GREEN;
use crate::config::Config;

/// Whether a config that is there already has the domains of the command line.
pub(super) fn is_in_it(args: &Fitted<'_>, config: &Config) -> Result<()> {
    let (domains, path) = (&config.policy.domains, config.path.display());
    if let Some(name) = args.domains.iter().find(|name| !domains.is_local(name)) {
        bail!("{name} is not in {path}: add it to domains.local there, and run this again");
    }
    if let Some(srs) = args.srs_domain.filter(|srs| !domains.srs.contains(srs)) {
        bail!("{srs} is not in {path}: write domains.srs_domain = \"{srs}\" there, and run this again");
    }
    Ok(())
}

/// A config that was written.
pub(super) struct New {
    pub config: Config,
    pub domains: Vec<String>,
    /// Ports of the recipe that another program has, each with a free one.
    pub ports: Vec<(u16, u16)>,
}

/// Writes a config for a mail server, by the recipe of a method.
///
/// # Errors
/// The domains are not known, or the config would be wrong.
pub(super) fn write(args: &Fitted<'_>, mta: &dyn Fit, method: &str, path: &Path) -> Result<New> {
    let (from, name, server) = (args.place.display().to_string(), mta.name(), mta.facts());
    let draft = Draft { server: &server, named: args.domains, from: &from };
    let domains = draft.domains();
    if !server.unlisted.is_empty() && args.domains.is_empty() {
        let found = if domains.is_empty() { String::new() } else { format!(" (found so far: {})", domains.join(", ")) };
        bail!(
            "the domains of this {name} are in a table that cannot be listed: {}. Name each of them{found}: countersign init --from {from} \
             --domain our.example",
            server.unlisted.join("; ")
        );
    }
    let Some(first) = domains.first() else {
        bail!("this {name} has no domain of its own. Name yours: countersign init --from {from} --domain our.example");
    };
    if let Some(srs) = args.srs_domain.filter(|srs| domains.iter().any(|name| name.eq_ignore_ascii_case(srs))) {
        bail!("{}", same_domain(srs));
    }
    let (kind, _) = mta.method();
    if !kind.built_methods().contains(&method) {
        bail!("this countersign was built without milters; build it with the feature `milter`");
    }
    let recipe = kind.recipe(method, args.srs_domain.is_some());
    let recipe = recipe.into_iter().find(|piece| piece.file == "countersign.toml").map(|piece| piece.text);
    // A domain of the user may have the example's name in it.
    const SRS: &str = "\u{1}";
    let recipe = recipe
        .unwrap_or_default()
        .replace("srs.our.example", SRS)
        .replace("our.example", first)
        .replace(SRS, args.srs_domain.unwrap_or_default());
    let ports = taken_ports(&server);
    let text = with_ports(&draft.text(&mta.recipe(&recipe)), &ports);
    let config = Config::parse(path, &text)?;
    write_new(path, &text)?;
    anstream::println!("{GREEN}Wrote {}{GREEN:#}: {}.", path.display(), about(&domains, &server));
    Ok(New { config, domains, ports })
}

/// The ports that recipes name.
const PORTS: std::ops::RangeInclusive<u16> = 10225..=10231;

/// Those of them that another program has, each with a free one.
fn taken_ports(server: &Server) -> Vec<(u16, u16)> {
    let mut next = *PORTS.end();
    let mut taken = Vec::new();
    for port in PORTS {
        if server.free_port(port) != port {
            next = server.free_port(next + 1);
            taken.push((port, next));
        }
    }
    taken
}

/// A text with other ports, where they stand by themselves.
pub(super) fn with_ports(text: &str, ports: &[(u16, u16)]) -> String {
    let mut words: Vec<String> = Vec::new();
    for part in text.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let bare = part.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        let other = bare.parse().ok().and_then(|port: u16| ports.iter().find(|(known, _)| *known == port));
        words.push(other.map_or_else(|| part.to_owned(), |(_, free)| part.replace(bare, &free.to_string())));
    }
    words.concat()
}

fn about(domains: &[String], server: &Server) -> String {
    let first: Vec<&str> = domains.iter().take(5).map(String::as_str).collect();
    let more = domains.len().saturating_sub(first.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let days = server.queue_days;
    let networks = match server.networks.len() {
        0 => String::new(),
        1 => ", and of 1 network".to_owned(),
        n => format!(", and of {n} networks"),
    };
    format!("mail of {}{more}{networks}; it waits up to {days} days in the queue", first.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_replaced_where_they_stand_alone() {
        let text = with_ports("listen = \"127.0.0.1:10225\" x10225 10226:10225, 102255", &[(10225, 10232)]);
        assert_eq!(text, "listen = \"127.0.0.1:10232\" x10225 10226:10232, 102255");
    }
}
