//! The kind of sender of a message, by what the message says itself: a mail system, another program, or a person.

use super::decode::fold;

/// The kind of sender of a message, from a person to the most certain mail system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Author {
    #[default]
    Person,
    /// Perhaps a program.
    Machine,
    /// A sender whose display name is that of a mail system.
    NamedSystem,
    /// A sender whose address is that of a mail system.
    System,
}

/// Parts of the local parts of mail systems.
const SYSTEMS: &str = "postmaster; post_master; post-master; post.master; maildeliver; mail-deliver; mail_deliver; mail.deliver; \
    double-bounce; microsoftexchange; mailsystem; system administrator";
/// Parts of the display names of mail systems.
const NAMES: &str = "mail deliver; delivery subsystem; delivery system; delivery service; delivery agent; mailer-daemon; mailer daemon; \
    postmaster; system administrator; systemadministrator; mail system; mail-system; mailsystem; mail subsystem; mail administrator; \
    email system; internet mail; smtp server; mail server; mailserver; mail gateway; microsoft outlook";
/// Parts of the local parts of other programs.
const MACHINES: &str = "mail; smtp; admin; noreply; no-reply; no_reply; donotreply; do-not-reply; system; gateway; virus; bounce; returned; \
    notif; server; mta; root; imss; robot; autoresp; delivery; listserv; sympa; majordomo; mailman; owner";
/// Parts of display names that do not belong to a person.
const ROLES: &str = "mail; system; server; smtp; delivery; postmaster; admin; gateway; virus; daemon; filter; exchange; notif; automat; \
    support; internet; service; noreply; security; report";

fn has(text: &str, words: &str) -> bool {
    words.split("; ").any(|word| text.contains(word))
}

impl Author {
    /// By the From header, and whether the Return-Path is the null sender.
    pub(super) fn of(from: Option<&str>, null_return_path: Option<bool>) -> Self {
        let Some(from) = from.map(fold) else {
            return if null_return_path == Some(true) { Self::System } else { Self::Person };
        };
        let (name, address) = name_and_address(&from);
        if address.is_empty() {
            return Self::System;
        }
        let local = address.split(['@', '\\']).next().unwrap_or_default().trim_matches('"');
        // "daemon" alone is not enough: `bugzilla-daemon` is not a mail system.
        let mailer = local.contains("daemon") && (local.contains("mail") || matches!(local, "daemon" | "mdaemon"));
        let system = mailer || local == "ndr" || has(local, SYSTEMS);
        let named = has(name, NAMES);
        // A postmaster with a display name may be a person who writes a letter. Bounces have the null sender, and a
        // display name outside ASCII may be a word for a mail system that is not listed here.
        let by_hand = null_return_path != Some(true) && name.is_ascii() && local.contains("master");
        let personal = by_hand && !name.is_empty() && !named && !is_role(name, local);
        if system && !personal {
            Self::System
        } else if named {
            Self::NamedSystem
        } else if system || is_gateway(local) || has(local, MACHINES) || is_role(name, local) {
            Self::Machine
        } else {
            Self::Person
        }
    }
}

/// Display name and address of `Name <address>` or `address (Name)`.
fn name_and_address(from: &str) -> (&str, &str) {
    let (name, address) = match (from.rfind('<'), from.find('(')) {
        (Some(at), _) => (from.get(..at), from.get(at + 1..)),
        (None, Some(at)) => (from.get(at..), from.get(..at)),
        (None, None) => (None, Some(from)),
    };
    (
        name.unwrap_or_default().trim_matches([' ', '"', '\'', '(', ')']),
        address.unwrap_or_default().trim_matches([' ', '<', '>', '"', '\'']),
    )
}

/// Whether a local part is that of a gateway, such as `inetgw1`.
fn is_gateway(local: &str) -> bool {
    local.trim_end_matches(|c: char| c.is_ascii_digit()).ends_with("gw")
}

/// Whether a display name is that of a role or a program.
fn is_role(name: &str, local: &str) -> bool {
    let bare = |text: &str| text.replace([' ', '-', '_', '.'], "");
    let says_the_same = bare(name) == bare(local) && ["postmaster", "bounce"].contains(&bare(local).as_str());
    says_the_same || name.contains('@') || has(name, ROLES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_who() {
        for (from, null, author) in [
            ("MAILER-DAEMON@x.example (Mail Delivery System)", None, Author::System),
            ("Postmaster <>", None, Author::System),
            ("Rita <postmaster@x.example>", None, Author::Machine),
            ("Rita <postmaster@x.example>", Some(true), Author::System),
            ("P\u{f3}stkerfi <postmaster@x.example>", None, Author::Machine),
            ("\u{30e1}\u{30fc}\u{30eb} <postmaster@x.example>", None, Author::System),
            ("Mail Delivery Subsystem <kim@x.example>", None, Author::NamedSystem),
            ("bugzilla-daemon@x.example", None, Author::Person),
            ("inetgw1@x.example", None, Author::Machine),
            ("logwatch@x.example", None, Author::Person),
            ("Bob <bob@x.example>", Some(true), Author::Person),
        ] {
            assert_eq!(Author::of(Some(from), null), author, "{from}");
        }
        assert_eq!(Author::of(None, Some(true)), Author::System);
        assert_eq!(Author::of(None, None), Author::Person);
    }
}
