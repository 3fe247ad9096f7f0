//! Decisions in words, for `trace`, `demo` and the status page.

/// What was done, and why.
pub(crate) fn in_words(event: &str, found: &str, action: &str, reason: &str) -> String {
    let why = match reason {
        "valid" => "the tag is valid",
        "forged" => "the tag was not made here",
        "expired" => "the tag has expired",
        "future" => "the tag is dated in the future",
        "unknown-key" => "the tag names a key that is not in the ring",
        "untagged-ndr" => "a bounce without a tag",
        "daemon-ndr" => "a bounce without a tag, from MAILER-DAEMON",
        "text-ndr" => "a bounce in words, without a tag",
        "doubtful-ndr" => "a notice in words that shows nothing of its original",
        "overflow" => "a bounce to an address that is too long to be signed",
        "guessing" => "too many bad tags from this network",
        "replayed" => "too many bounces to this tag",
        "surge" => "a surge of false bounces",
        "own-sender" => "a sender of ours from outside, without a tag",
        "relaying-denied" => "not a domain of ours",
        "candidate" => "no tag, so the content decides",
        "evidence" => "the original was sent by this site",
        "no-bounce" => "it is no bounce",
        "not-a-bounce" => "it is no bounce",
        "harvest" => "too many unknown recipients were tried from this network",
        "unknown-recipient" => "the recipient does not exist",
        "recipient-undecided" => "whether the recipient exists cannot be found out now",
        "no-mailbox" => "the SRS domain has no such mailbox",
        "srs-sender" => "an SRS address takes bounces only",
        "srs-no-bounce" => "neither a bounce nor another report, to an SRS address",
        "unknown-alias" => "the alias in the tag is not stored here",
        "own-bounce" => "a bounce of this site, which sends none",
        "own-bounce-unverified" => "a bounce of this site to a sender who may be forged",
        "own-bounce-limit" => "more bounces of this site than an hour may have",
        "exempt-recipient" => "the recipient is exempt",
        "leaves-unsigned" => "mail of this recipient leaves unsigned",
        other => other,
    };
    let did = match action {
        "deliver" => "delivered",
        "mark" => "delivered with a mark",
        "reject" => "refused",
        "defer" => "deferred",
        "discard" => "discarded",
        "quarantine" => "quarantined",
        "rescue" => "delivered, rescued by evidence",
        "content" => "inspected",
        other => other,
    };
    if event == "content" { format!("{did}: {why} ({found})") } else { format!("{did}: {why}") }
}

/// Reasons for a refusal, in the groups that charts show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReasonGroup {
    /// A bounce to an address without a tag.
    NoTag,
    /// A tag that was not made here, or guessed.
    Forged,
    /// A tag whose day is over, or not yet there.
    Expired,
    /// A recipient that does not exist, or a search for those that do.
    UnknownUser,
    /// All others.
    Other,
}

impl ReasonGroup {
    /// All groups, in the order of charts and tables.
    pub(crate) const ALL: [Self; 5] = [Self::NoTag, Self::Forged, Self::Expired, Self::UnknownUser, Self::Other];

    /// The group of a reason.
    pub(crate) fn of(reason: &str) -> Self {
        match reason {
            "untagged-ndr" | "daemon-ndr" | "text-ndr" | "doubtful-ndr" | "overflow" | "surge" => Self::NoTag,
            "forged" | "guessing" | "unknown-key" | "unknown-alias" => Self::Forged,
            "expired" | "future" => Self::Expired,
            "unknown-recipient" | "harvest" | "no-mailbox" | "recipient-undecided" => Self::UnknownUser,
            _ => Self::Other,
        }
    }

    /// Its name, for people.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::NoTag => "no tag",
            Self::Forged => "forged tag",
            Self::Expired => "expired tag",
            Self::UnknownUser => "unknown user",
            Self::Other => "other",
        }
    }
}

/// What a reason means, and what an administrator may do if the message should have come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Explanation {
    /// What it means.
    pub meaning: &'static str,
    /// What to do if the message was genuine; empty: nothing.
    pub if_genuine: &'static str,
}

/// Explains the reason of a decision.
pub(crate) fn explained(reason: &str) -> Explanation {
    let (meaning, if_genuine) = match reason {
        "untagged-ndr" | "daemon-ndr" | "text-ndr" => (
            "Mail of this domain leaves with a signed sender, so a genuine bounce comes back to a signed address. This one came \
             to the plain address: its original was not signed by this site.",
            "Its original left through a host that does not sign. Compare the Received lines above with your hosts: send mail \
             of that host through Countersign, or add its senders to outbound.exempt_senders. Until then: `countersign ramp \
             observe DOMAIN`.",
        ),
        "doubtful-ndr" => (
            "It reads like a bounce and shows nothing of the message that it is about, so it cannot be told whether that was \
             yours.",
            "Decide with inbound.actions.doubtful-ndr what becomes of such notices.",
        ),
        "forged" => (
            "The address has the form of a signed address, and its hash was not made by any key of the ring. Somebody has \
             made it up, or changed a copied address.",
            "Is the ring the same on all your hosts? `countersign keys list` on each of them shows it.",
        ),
        "expired" => (
            "The tag is genuine, and too old. Bounces arrive within a few days; spammers keep addresses for longer.",
            "If genuine bounces come late, batv.lifetime must be longer than the mail server keeps mail in its queue.",
        ),
        "future" => (
            "The tag is genuine, and dated in the future. The clock of this host or of the one that signed is wrong.",
            "Compare the clocks of your hosts: `timedatectl`.",
        ),
        "unknown-key" => (
            "The tag names a key that is not in the ring of this host.",
            "Copy the ring to this host, and run `countersign reload`.",
        ),
        "guessing" => (
            "This network has sent many tags that were not made here. For a while, its tags are not verified.",
            "A server that relays for you belongs into inbound.trusted_relays.",
        ),
        "replayed" => (
            "This signed address has received more bounces than its mail had recipients. Somebody may have copied it.",
            "A message to a large list outside may cause this: see inbound.replay.",
        ),
        "surge" => (
            "This domain receives far more bounces than usual, so those without a tag are deferred at RCPT.",
            "Wait: genuine servers try again.",
        ),
        "own-sender" => (
            "The sender is in a domain of yours. The mail came from outside, and the sender has no tag.",
            "Send mail of that service through Countersign, or add its senders to inbound.exempt_senders.",
        ),
        "relaying-denied" => (
            "The recipient is in no domain of yours, so this would have been relaying.",
            "A domain of yours belongs into domains.local or domains.relay.",
        ),
        "harvest" => (
            "This network has asked for many recipients that do not exist. For up to an hour it gets the same reply for all of \
             them.",
            "A server that relays for you belongs into inbound.trusted_relays.",
        ),
        "unknown-recipient" | "no-mailbox" => ("There is no such mailbox.", ""),
        "recipient-undecided" => (
            "The server that knows the recipients gave no answer, so the message was deferred.",
            "See that the server in inbound.recipients answers.",
        ),
        "srs-no-bounce" | "srs-sender" => {
            ("This is the return address of forwarded mail, and takes bounces and reports only.", "")
        }
        "unknown-alias" => (
            "The tag is genuine, and the sender that it stands for is not stored here: another host has made the alias, or \
             the state file was lost.",
            "",
        ),
        "own-bounce" | "own-bounce-unverified" | "own-bounce-limit" => (
            "Your own mail server made this bounce. It was not sent, because the sender of its original may be forged.",
            "See outbound.ndr in the config.",
        ),
        "overflow" => (
            "The address is too long to be signed, so a bounce to it needs evidence, and this one had none.",
            "Decide with inbound.actions.overflow what becomes of such bounces.",
        ),
        "valid" => ("The address was signed by this site, and its tag has not expired.", ""),
        "evidence" => {
            ("It came without a tag, and the original that it returns carries an evidence header of this site.", "")
        }
        "no-bounce" | "not-a-bounce" => {
            ("It does not say that mail was not delivered. It is a reply, a receipt, a report or ordinary mail.", "")
        }
        _ => ("", ""),
    };
    Explanation { meaning, if_genuine }
}

/// The kind of a message, or the verdict on a tag, as people say it.
pub(crate) fn found_in_words(found: &str) -> &str {
    match found {
        "dsn-failed" => "a delivery report: failed",
        "dsn-delayed" => "a delivery report: delayed",
        "dsn-success" => "a delivery report: delivered",
        "text-bounce" => "a notice in words that mail was not delivered",
        "mdn" => "a receipt",
        "auto-reply" => "an automatic reply",
        "calendar" => "an invitation",
        "arf" => "a complaint",
        "report" => "a report about a domain",
        "ordinary" => "an ordinary message",
        "valid" => "a valid tag",
        "forged" => "a tag that was not made here",
        "expired" => "an expired tag",
        "future" => "a tag of a day to come",
        "unknown-key" => "a tag of an unknown key",
        "untagged" => "no tag",
        "not-looked-at" => "a tag that was not looked at",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::bounce::MessageKind;
    use crate::envelope::site_policy::FailureReason;

    #[test]
    fn each_reason_of_the_config_is_explained() {
        for reason in FailureReason::ALL {
            let explained = explained(reason.name());
            assert!(!explained.meaning.is_empty() && !explained.if_genuine.is_empty(), "{}", reason.name());
            assert_ne!(ReasonGroup::of(reason.name()), ReasonGroup::Other, "{}", reason.name());
            let words = in_words("recipient", "", "reject", reason.name());
            assert_ne!(words, format!("refused: {}", reason.name()));
        }
    }

    #[test]
    fn each_kind_has_words() {
        for kind in MessageKind::ALL {
            assert_ne!(found_in_words(kind.name()), kind.name());
        }
    }
}
