//! Aliases that lead to addresses elsewhere, at a site without SRS.

use std::fs;
use std::path::Path;

use crate::cli::check::mta::finding::Finding::{self, Careful};
use crate::cli::mta::lists::tables_of;
use crate::cli::mta::postfix::Postfix;
use crate::config::Config;
use crate::envelope::printable::printable;

/// More entries of a table, or home folders, than are looked at.
const MOST: usize = 100_000;

/// Finds aliases, virtual aliases and `.forward` files that lead out, if foreign senders are not rewritten.
pub(super) fn forwards(config: &Config, postfix: &Postfix, found: &mut Vec<Finding>) {
    if !config.policy.domains.srs.is_empty() {
        return;
    }
    let mut out = Vec::new();
    for setting in ["virtual_alias_maps", "alias_maps"] {
        for table in tables_of(postfix.get(setting)) {
            for (name, target) in postfix.entries(table).unwrap_or_default().into_iter().take(MOST) {
                out.extend(leads_out(config, postfix, &target).map(|to| (name.clone(), to, setting)));
            }
        }
    }
    if postfix.get("forward_path").contains("$home") {
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        for (name, text) in forward_files(&users) {
            out.extend(leads_out(config, postfix, &text).map(|to| (name.clone(), to, ".forward")));
        }
    }
    let Some((name, to, place)) = out.first() else { return };
    let more = match out.len() - 1 {
        0 => String::new(),
        n => format!(", and {n} more"),
    };
    found.push(Careful(format!(
        "{} is forwarded to {} ({place}{more}), with the foreign sender as it is: other servers refuse such mail because of SPF. \
         domains.srs_domain = \"srs.our.example\", and a method that sees where mail leaves (docs/mta/postfix.md#srs)",
        printable(name),
        printable(to)
    )));
}

/// The first address of a target that is not in a domain of this site.
fn leads_out(config: &Config, postfix: &Postfix, target: &str) -> Option<String> {
    let domains = &config.policy.domains;
    let lists = ["mydestination", "virtual_mailbox_domains", "virtual_alias_domains", "relay_domains"];
    let is_ours = |domain: &str| {
        let listed =
            |list: &&str| postfix.get(list).split([' ', ',', '\t']).any(|word| word.eq_ignore_ascii_case(domain));
        domains.is_local(domain) || domains.relay.contains(domain) || lists.iter().any(listed)
    };
    // A command is one word, in quotes.
    let parts = target.split('"').enumerate().filter(|(n, part)| n % 2 == 0 || !part.trim_start().starts_with('|'));
    let target: String = parts.map(|(_, part)| part).collect();
    let words = target.split([',', ' ', '\t', '\n']).map(|word| word.trim_matches(['"', '<', '>', '\\']));
    // Commands, files and lists of other files are no addresses.
    let mut addresses = words.filter(|word| !word.starts_with(['|', '/', ':', '#']) && !word.contains('='));
    let foreign =
        |word: &&str| word.rsplit_once('@').is_some_and(|(_, domain)| domain.contains('.') && !is_ours(domain));
    addresses.find(foreign).map(str::to_owned)
}

/// The `.forward` files of the users in a text of the form of passwd(5).
fn forward_files(users: &str) -> Vec<(String, String)> {
    let homes = users.lines().take(MOST).filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        Some(((*fields.first()?).to_owned(), Path::new(*fields.get(5)?).join(".forward")))
    });
    homes.filter_map(|(name, path)| Some((name, fs::read_to_string(path).ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forward_files_are_found_by_home_folder() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("ann");
        fs::create_dir(&home).unwrap();
        fs::write(home.join(".forward"), "carol@third.example\n").unwrap();
        let users = format!("root:x:0:0:root:/nowhere:/bin/sh\nann:x:1000:1000::{}:/bin/sh\nbroken\n", home.display());
        assert_eq!(forward_files(&users), [("ann".to_owned(), "carol@third.example\n".to_owned())]);
    }
}
