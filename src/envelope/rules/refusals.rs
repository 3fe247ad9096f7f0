//! Replies for refused inbound mail; `docs/replies.md` explains each.

use super::{Refusal, RefusalReason};
use crate::envelope::site_policy::FailureReason;

pub(super) const RELAYING_DENIED: Refusal =
    Refusal { code: 550, status: "5.7.1", text: "relaying denied", reason: RefusalReason::RelayingDenied };
pub(super) const NO_SUCH_SRS: Refusal = Refusal {
    code: 550,
    status: "5.1.1",
    text: "no such mailbox here: this domain holds only the return addresses of forwarded mail",
    reason: RefusalReason::NoMailbox,
};
pub(super) const NO_SUCH_TAG: Refusal = Refusal {
    code: 550,
    status: "5.1.1",
    text: "no such mailbox here: this is not a return address that was made by us",
    reason: RefusalReason::Site(FailureReason::Forged),
};
/// The sender cannot be parsed, although the MTA may have accepted it.
pub const BAD_SENDER: Refusal = Refusal {
    code: 553,
    status: "5.1.7",
    text: "bad sender address: write local-part@domain",
    reason: RefusalReason::Unreadable,
};
/// The recipient cannot be parsed, although the MTA may have accepted it.
pub const BAD_RECIPIENT: Refusal = Refusal {
    code: 553,
    status: "5.1.3",
    text: "bad recipient address: write local-part@domain",
    reason: RefusalReason::Unreadable,
};
pub(super) const OWN_SENDER: Refusal = Refusal {
    code: 550,
    status: "5.7.1",
    text: "mail from this domain has a signed sender address, and this has none: send it through the mail server of the domain",
    reason: RefusalReason::OwnSender,
};
pub(super) const SRS_TAKES_BOUNCES: Refusal = Refusal {
    code: 550,
    status: "5.7.1",
    text: "this is the return address of forwarded mail; it takes bounces only",
    reason: RefusalReason::SrsSender,
};
pub(super) const SRS_NO_BOUNCE: Refusal = Refusal {
    code: 550,
    status: "5.7.1",
    text: "this is the return address of forwarded mail, and this message is neither a bounce nor any other report",
    reason: RefusalReason::SrsNoBounce,
};
pub(super) const UNKNOWN_KEY: Refusal = Refusal {
    code: 451,
    status: "4.7.5",
    text: "this return address names a key that is not known here yet, try again later",
    reason: RefusalReason::UnknownKey,
};
/// The alias may be stored on another host.
pub(super) const UNKNOWN_ALIAS: Refusal = Refusal {
    code: 451,
    status: "4.7.5",
    text: "the sender behind this return address is not known here yet, try again later",
    reason: RefusalReason::UnknownAlias,
};
pub(super) const GUESSING: Refusal = Refusal {
    code: 451,
    status: "4.7.1",
    text: "too many return addresses that we did not make have come from your network, try again later",
    reason: RefusalReason::Guessing,
};
pub(super) const TAG_USED_UP: Refusal = Refusal {
    code: 451,
    status: "4.7.1",
    text: "more bounces have come to this return address than its mail had recipients, try again later",
    reason: RefusalReason::Replayed,
};

/// The client's network has found out about too many unknown recipients. The reply is the same for all recipients.
pub const HARVEST: Refusal = Refusal {
    code: 450,
    status: "4.7.1",
    text: "too many unknown recipients from your network, try again later",
    reason: RefusalReason::Harvest,
};
pub(super) const NO_SUCH_USER: Refusal =
    Refusal { code: 550, status: "5.1.1", text: "no such user here", reason: RefusalReason::UnknownRecipient };
pub(super) const USER_UNDECIDED: Refusal = Refusal {
    code: 451,
    status: "4.4.3",
    text: "recipient cannot be verified now, try again later",
    reason: RefusalReason::RecipientUndecided,
};

pub(super) fn refusal_of(reason: FailureReason) -> Refusal {
    let text = match reason {
        FailureReason::Forged => "bounce refused: this return address was not made by us",
        FailureReason::Expired => "bounce refused: this return address has expired",
        FailureReason::Future => "bounce refused: this return address is dated in the future",
        FailureReason::UntaggedNdr
        | FailureReason::DaemonNdr
        | FailureReason::TextNdr
        | FailureReason::Overflow
        | FailureReason::DoubtfulNdr => {
            "bounce refused: every message we send carries a signed return address, and this bounce is not addressed to one"
        }
    };
    Refusal { code: 550, status: "5.7.1", text, reason: RefusalReason::Site(reason) }
}
