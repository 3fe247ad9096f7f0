//! What a finding means, and what to change, by mail server.

use super::finding::{Outcome, Test};

/// A mail server program, as far as its greeting shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Software {
    Countersign,
    Postfix,
    Exim,
    Sendmail,
    OpenSmtpd,
    Exchange,
}

impl Software {
    /// The name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Countersign => "with Countersign",
            Self::Postfix => "Postfix",
            Self::Exim => "Exim",
            Self::Sendmail => "Sendmail",
            Self::OpenSmtpd => "OpenSMTPD",
            Self::Exchange => "Exchange",
        }
    }

    /// The program that greets so; `None`: it does not say.
    pub(crate) fn of_greeting(greeting: &str) -> Option<Self> {
        let greeting = greeting.to_ascii_lowercase();
        let says = [
            ("postfix", Self::Postfix),
            ("exim", Self::Exim),
            ("sendmail", Self::Sendmail),
            ("opensmtpd", Self::OpenSmtpd),
            ("microsoft", Self::Exchange),
        ];
        says.into_iter().find(|(word, _)| greeting.contains(word)).map(|(_, software)| software)
    }
}

/// What a finding means.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Advice {
    /// The consequence, in a sentence.
    pub meaning: &'static str,
    changes: &'static [(Software, &'static str)],
}

impl Advice {
    /// What to change: in this mail server, and with Countersign. If the mail server is not known, all of them.
    pub(crate) fn changes(&self, server: Option<Software>) -> impl Iterator<Item = (&'static str, &'static str)> {
        let fits = move |it: Software| it != Countersign && server.is_none_or(|server| it == server);
        let of_server = self.changes.iter().filter(move |(software, _)| fits(*software));
        let of_ours = self.changes.iter().filter(|(software, _)| *software == Countersign);
        of_server.chain(of_ours).map(|(software, text)| (software.name(), *text))
    }
}

use Software::{Countersign, Exchange, Exim, OpenSmtpd, Postfix, Sendmail};

/// What to do about a finding.
pub(crate) fn advice(test: Test, outcome: Outcome) -> Advice {
    match test {
        Test::UnknownUser | Test::LateBounce => unknown_users(outcome),
        Test::ReplyText => REPLY_TEXT,
        Test::Vrfy => VRFY,
        Test::Expn => EXPN,
        Test::TagForged
        | Test::TagExpired
        | Test::TagFuture
        | Test::TagWrapped
        | Test::TagSpliced
        | Test::TagOtherDomain => BAD_TAG,
        Test::TagLowerCase => LOWER_CASE,
        Test::TagReplayed => REPLAYED,
        Test::GenuineBounce => GENUINE,
        Test::UntaggedDsn | Test::TextBounce => FALSE_BOUNCES,
        Test::Vacation | Test::Receipt | Test::Calendar | Test::DmarcReport => WANTED_MAIL,
        Test::RelayPlain
        | Test::RelayNullSender
        | Test::RelayOwnSender
        | Test::RelayPercent
        | Test::RelayBang
        | Test::RelayQuoted
        | Test::RelaySourceRoute
        | Test::RelayLiteral
        | Test::RelayNoDomain => RELAY,
        Test::Srs0Forged | Test::Srs1Forged => SRS,
        Test::SmuggleLfLf
        | Test::SmuggleLfCrlf
        | Test::SmuggleCrCr
        | Test::SmuggleCrCrlf
        | Test::SmuggleCrlfCr
        | Test::SmuggleCrlfLf
        | Test::SmuggleNulDot
        | Test::SmuggleDotNul
        | Test::SmuggleLfCr => SMUGGLING,
        Test::StarttlsInjection => STARTTLS,
        Test::Xclient => XCLIENT,
        Test::Xforward => XFORWARD,
        Test::ProxyHeader => PROXY_HEADER,
        Test::MxUnknownUser => MX_UNKNOWN,
        Test::MxTags => MX_TAGS,
        Test::HarvestSession => HARVEST_SESSION,
        Test::HarvestSessions => HARVEST_SESSIONS,
        Test::ReplyTime => REPLY_TIME,
    }
}

fn unknown_users(outcome: Outcome) -> Advice {
    let meaning = match outcome {
        Outcome::Failed => {
            "Anybody can have this server send spam to anybody, as a bounce to a forged sender (reverse NDR)."
        }
        _ => {
            "Names that nobody has are accepted. Either a catch-all takes them, and with them all spam to made-up names, or \
             they bounce later, to forged senders."
        }
    };
    Advice { meaning, changes: UNKNOWN_USERS }
}

const UNKNOWN_USERS: &[(Software, &str)] = &[
    (Countersign, "inbound.recipients = \"ask:HOST:25\", with the server that has the mailboxes, or \"file:PATH\""),
    (
        Postfix,
        "relay_recipient_maps for relay_domains; local_recipient_maps not empty; remove @domain from virtual_alias_maps \
         and virtual_mailbox_maps; smtpd_reject_unlisted_recipient = yes",
    ),
    (Exim, "in acl_smtp_rcpt: require verify = recipient, with /callout for domains that are passed on"),
    (
        Sendmail,
        "remove LUSER_RELAY, and @domain from virtusertable; for relayed domains, a milter that asks the next server",
    ),
    (OpenSmtpd, "match … for domain … rcpt-to <users>; remove @ and @domain from virtual tables"),
    (Exchange, "Set-RecipientFilterConfig -RecipientValidationEnabled $true"),
];

const REPLY_TEXT: Advice = Advice {
    meaning: "The refusal names the table in which the user was not found, so strangers learn how the server is built.",
    changes: &[(Postfix, "show_user_unknown_table_name = no")],
};

const VRFY: Advice = Advice {
    meaning: "VRFY tells which users exist. Limits for recipients do not apply to it.",
    changes: &[
        (Postfix, "disable_vrfy_command = yes"),
        (Exim, "remove acl_smtp_vrfy"),
        (Sendmail, "define(`confPRIVACY_FLAGS', `goaway')"),
    ],
};

const EXPN: Advice = Advice {
    meaning: "EXPN shows the members of lists and the targets of aliases.",
    changes: &[(Exim, "remove acl_smtp_expn"), (Sendmail, "define(`confPRIVACY_FLAGS', `goaway')")],
};

const BAD_TAG: Advice = Advice {
    meaning: "A bounce to a return address that was not made here, or is not valid now, is accepted.",
    changes: &[
        (Countersign, "countersign check: is it in the way of every recipient? Is the domain in domains.local?"),
        (Postfix, "remove the catch-all that accepts prvs=…@domain"),
        (Exim, "remove the catch-all, and check ${prvscheck…} before the recipient is accepted"),
    ],
};

const LOWER_CASE: Advice = Advice {
    meaning: "Some mail servers change the letter case of a return address. Their genuine bounces are refused.",
    changes: &[
        (Countersign, "countersign keys list: imported keys of other programs compare letter case"),
        (Exim, "${prvscheck…} compares letter case: sign and check ${lc:…}"),
    ],
};

const REPLAYED: Advice = Advice {
    meaning: "Anybody who has seen a signed return address can send any number of false bounces to it until it expires.",
    changes: &[(Countersign, "inbound.replay = \"limit\", the default")],
};

const GENUINE: Advice = Advice {
    meaning: "Bounces of your users' own mail are refused, or cannot be told from false ones because the mail leaves unsigned.",
    changes: &[(
        Countersign,
        "unsigned: its outbound listener, map or milter must be in the way. Refused: countersign verify ADDRESS says why; \
         all hosts need the same ring",
    )],
};

const FALSE_BOUNCES: Advice = Advice {
    meaning: "False bounces reach your users: bounces of mail that they never sent.",
    changes: &[(
        Countersign,
        "it refuses them once it is in the way of inbound and outbound mail; countersign status says whether it only observes",
    )],
};

const WANTED_MAIL: Advice = Advice {
    meaning: "Mail that rightly has no sender is lost: not only bounces have the null sender (RFC 5321 section 4.5.5).",
    changes: &[
        (Countersign, "leave this kind at \"deliver\" in inbound.actions"),
        (Postfix, "remove <> from tables of check_sender_access"),
        (Exim, "remove deny rules with senders = : from the ACLs"),
        (Sendmail, "remove <> from access_db"),
    ],
};

const RELAY: Advice = Advice {
    meaning: "This server sends mail of strangers to strangers: an open relay.",
    changes: &[
        (
            Postfix,
            "smtpd_relay_restrictions = permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination; mynetworks \
             no wider than your own hosts; allow_untrusted_routing = no; remove rules that permit by sender",
        ),
        (
            Exim,
            "in acl_smtp_rcpt accept only +local_domains, +relay_to_domains and hosts of your own; \
             deny local_parts = ^.*[@%!/|]",
        ),
        (
            Sendmail,
            "remove FEATURE(`promiscuous_relay'), (`relay_based_on_MX'), (`loose_relay_check') and (`relay_local_from')",
        ),
        (OpenSmtpd, "match from any for domain <yours>; for any: only match from local and match auth from any"),
        (Exchange, "remove Ms-Exch-SMTP-Accept-Any-Recipient of anonymous users from the receive connector"),
        (Countersign, "domains.local and domains.relay name your domains; they are refused at RCPT otherwise"),
    ],
};

const SRS: Advice = Advice {
    meaning: "Anybody can send mail through this server to anybody, by a made-up SRS address.",
    changes: &[
        (Countersign, "domains.srs_domain is a domain of its own, and Countersign is in the way of its mail"),
        (Postfix, "remove the catch-all of the SRS domain; the secret of its SRS daemon must not be empty"),
        (Exim, "check ${if inbound_srs…} with a secret that is not empty"),
    ],
};

const SMUGGLING: Advice = Advice {
    meaning: "A message ends at a line end that other servers pass on as text. A stranger can hide a second message in a \
              first, in anybody's name (SMTP smuggling).",
    changes: &[
        (
            Postfix,
            "smtpd_forbid_bare_newline = normalize: the default of 3.9; later releases of 3.5 to 3.8 have it (3.5.24, 3.6.14, \
             3.7.10, 3.8.5)",
        ),
        (Exim, "4.97.1 or later"),
        (
            Sendmail,
            "8.18.1 or later, and no O, G or U in srv_features; the security updates of distributions have it, too",
        ),
        (OpenSmtpd, "the current release"),
        (Countersign, "in front of the server: it refuses such messages whatever stray_newline says"),
    ],
};

const STARTTLS: Advice = Advice {
    meaning: "A command that somebody on the way adds before the handshake is executed as if it had been encrypted.",
    changes: &[(Postfix, "2.8.0 or later"), (Exim, "the current release"), (Sendmail, "8.17.2 or later")],
};

const XCLIENT: Advice = Advice {
    meaning: "A stranger can say to be any other client, so every rule about client addresses can be evaded.",
    changes: &[
        (Postfix, "smtpd_authorized_xclient_hosts: own proxies only, on a port of their own"),
        (Exim, "hosts_xclient: own proxies only"),
        (Countersign, "trusted_proxies: own proxies only"),
    ],
};

const XFORWARD: Advice = Advice {
    meaning: "A stranger can write any client into the log and into what filters are told.",
    changes: &[
        (Postfix, "smtpd_authorized_xforward_hosts: own filters only, on a port of their own"),
        (Countersign, "trusted_proxies: own proxies only"),
    ],
};

const PROXY_HEADER: Advice = Advice {
    meaning: "A stranger can say to be any other client, so every rule about client addresses can be evaded.",
    changes: &[
        (
            Postfix,
            "smtpd_upstream_proxy_protocol and postscreen_upstream_proxy_protocol only on a port that nobody but the proxy \
             reaches",
        ),
        (Exim, "hosts_proxy: own proxies only"),
        (Countersign, "trusted_proxies: own proxies only"),
    ],
};

const MX_UNKNOWN: Advice = Advice {
    meaning: "Spammers prefer such a host: what it accepts is refused by the first one, and it bounces to forged senders.",
    changes: &[
        (Countersign, "on that host, too: inbound.recipients = \"ask:HOST:25\""),
        (Postfix, "relay_recipient_maps, or reject_unverified_recipient with unverified_recipient_reject_code = 550"),
        (Exim, "require verify = recipient/callout"),
        (Sendmail, "a milter that asks the first host; or remove the host from the domain's MX records"),
    ],
};

const MX_TAGS: Advice = Advice {
    meaning: "Genuine bounces that go to that host are refused there, and lost.",
    changes: &[(Countersign, "install it there with the same ring, or remove the host from the domain's MX records")],
};

const HARVEST_SESSION: Advice = Advice {
    meaning: "A spammer finds out which users exist, at full speed.",
    changes: &[
        (Countersign, "limits.refused_recipients = 50 and limits.unknown_recipients_per_hour = 25, the defaults"),
        (Postfix, "smtpd_hard_error_limit = 20, the default"),
        (Exim, "in acl_smtp_rcpt: drop condition = ${if >{$rcpt_fail_count}{5}}"),
        (Sendmail, "define(`confBAD_RCPT_THROTTLE', `2') makes it slow"),
        (Exchange, "Set-ReceiveConnector … -MaxProtocolErrors 5 -TarpitInterval 00:00:05"),
    ],
};

const HARVEST_SESSIONS: Advice = Advice {
    meaning: "A spammer finds out which users exist: a new session gets as many answers as the one before, or known users \
              are answered in another way than unknown ones.",
    changes: &[
        (
            Countersign,
            "limits.unknown_recipients_per_hour = 25, the default; it does not count loopback, trusted_relays and \
             trusted_proxies",
        ),
        (Postfix, "smtpd_client_recipient_rate_limit = 25 (it counts known recipients, too)"),
        (Exim, EXIM_LIMIT),
        (Sendmail, "FEATURE(`ratecontrol') limits connections, not names"),
    ],
};

/// Counts unknown recipients, and defers all mail after too many. Exim counts a key once in a command, so the count is
/// looked at in another one.
const EXIM_LIMIT: &str = "in acl_smtp_mail: defer ratelimit = 25 / 1h / readonly / per_cmd / unknown-$sender_host_address; in \
                          acl_smtp_rcpt, in place of require verify = recipient: deny !verify = recipient and, below it, \
                          ratelimit = 0 / 1h / strict / per_cmd / unknown-$sender_host_address";

const REPLY_TIME: Advice = Advice {
    meaning: "The text of the replies tells nothing, but the time does: known users are answered faster or slower.",
    changes: &[(Countersign, "limits.tarpit delays replies to known and unknown users alike")],
};

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator as _;

    use super::*;

    #[test]
    fn every_finding_has_a_meaning_and_something_to_change() {
        for test in Test::iter() {
            for outcome in [Outcome::Warning, Outcome::Failed] {
                let advice = advice(test, outcome);
                assert!(advice.meaning.ends_with('.'), "{test:?}");
                assert!(advice.changes(None).count() > 0, "{test:?}");
            }
        }
    }

    #[test]
    fn only_what_concerns_the_server_is_shown() {
        let postfix = Software::of_greeting("220 mail.our.example ESMTP Postfix (Debian/GNU)");
        let names =
            |server| advice(Test::Xforward, Outcome::Failed).changes(server).map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(postfix), ["Postfix", "with Countersign"]);
        assert_eq!(names(Some(Exim)), ["with Countersign"]);
        assert_eq!(Software::of_greeting("220 mail.our.example ESMTP"), None);
    }
}
