//! What an administrator is told, and how.

use crate::envelope::rules::RampHold;
use crate::envelope::time::Timestamp;
use crate::state::time_format::rfc3339;

/// Something that an administrator is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Notice {
    /// The ramp of a domain ends within a day, if nothing holds it.
    RampEnds(String, Timestamp),
    /// The ramp of a domain is held, because a host sends its mail unsigned.
    RampHeld(String, RampHold),
    /// A domain is enforced from now on.
    Enforced(String),
    /// A surge of false bounces to a domain has begun.
    SurgeBegan(String),
    /// It has ended.
    SurgeEnded(String),
    /// Tags are guessed.
    Guessing,
    /// The key ring cannot be read.
    RingBad,
    /// A next hop cannot be reached for some time.
    NextHopDown(String),
    /// The certificate of a listener expires soon.
    CertificateDue(String, Timestamp),
    /// The signing key should be rotated soon.
    KeyDue(Timestamp),
    /// The state file cannot be written.
    StateUnwritable,
}

impl Notice {
    /// The word for programs.
    pub(super) fn event(&self) -> &'static str {
        match self {
            Self::RampEnds(..) => "ramp-ends",
            Self::RampHeld(..) => "ramp-held",
            Self::Enforced(_) => "enforced",
            Self::SurgeBegan(_) => "surge-began",
            Self::SurgeEnded(_) => "surge-ended",
            Self::Guessing => "guessing",
            Self::RingBad => "ring-bad",
            Self::NextHopDown(_) => "next-hop-down",
            Self::CertificateDue(..) => "certificate-due",
            Self::KeyDue(_) => "key-due",
            Self::StateUnwritable => "state-unwritable",
        }
    }

    /// What it is about: a domain, a next hop or a listener.
    pub(super) fn about(&self) -> &str {
        match self {
            Self::RampEnds(name, _)
            | Self::RampHeld(name, _)
            | Self::Enforced(name)
            | Self::SurgeBegan(name)
            | Self::SurgeEnded(name)
            | Self::NextHopDown(name)
            | Self::CertificateDue(name, _) => name,
            Self::Guessing | Self::RingBad | Self::KeyDue(_) | Self::StateUnwritable => "",
        }
    }

    /// Notices with the same key are about the same thing.
    pub(super) fn key(&self) -> String {
        format!("{} {}", self.event(), self.about())
    }

    /// One line.
    pub(super) fn title(&self) -> String {
        let day = |at: &Timestamp| rfc3339(*at).split('T').next().unwrap_or_default().to_owned();
        match self {
            Self::RampEnds(name, at) => format!("{name} will be enforced from {}", rfc3339(*at)),
            Self::RampHeld(name, hold) => format!("the ramp of {name} is held: {} sends unsigned", hold.host),
            Self::Enforced(name) => format!("{name} is enforced: false bounces are refused"),
            Self::SurgeBegan(name) => format!("a surge of false bounces to {name} has begun"),
            Self::SurgeEnded(name) => format!("the surge of false bounces to {name} has ended"),
            Self::Guessing => "guesses at tags have exceeded guesses_per_minute".to_owned(),
            Self::RingBad => "the key ring cannot be read".to_owned(),
            Self::NextHopDown(hop) => format!("the next hop {hop} is down"),
            Self::CertificateDue(listener, at) => format!("the certificate of {listener} expires on {}", day(at)),
            Self::KeyDue(at) => format!("the signing key should be rotated by {}", day(at)),
            Self::StateUnwritable => "the state file cannot be written".to_owned(),
        }
    }

    /// What it means, and what to do.
    pub(super) fn text(&self) -> String {
        match self {
            Self::RampEnds(name, _) => format!(
                "From then on, false bounces to {name} are refused; until now they were only marked. Nothing has to be done. What \
                 would have been refused: countersign status. To wait: countersign ramp observe {name}"
            ),
            Self::RampHeld(name, hold) => format!(
                "Bounces have returned {} that {} has sent for {name} without Countersign (last {}). If {name} were enforced, \
                 such bounces would be lost. Send this host's mail through Countersign, or exempt its senders. Three days \
                 after the last such bounce the ramp goes on. If you do not need these bounces: countersign ramp enforce {name}",
                if hold.messages == 1 { "1 message".to_owned() } else { format!("{} messages", hold.messages) },
                hold.host,
                rfc3339(hold.last),
            ),
            Self::Enforced(name) => format!(
                "False bounces to {name} now get the configured action. What is refused, and why: countersign status, countersign \
                 trace ADDRESS. If that is wrong: countersign observe 24h"
            ),
            Self::SurgeBegan(name) => format!(
                "Far more messages with the null sender than usual come to {name}. During the surge, most without a tag, replies \
                 included, are deferred at RCPT. Bounces to a valid tag are delivered. Nothing has to be done."
            ),
            Self::SurgeEnded(name) => {
                format!("Messages without a sender to {name} are as many as usual again. Nothing has to be done.")
            }
            Self::Guessing => "More wrong tags were tried than inbound.guesses_per_minute allows. Bounces to tagged addresses from \
                that client network (or through that map) are deferred for a while, unless they carry evidence. countersign \
                status shows the chance that a guess was valid. If it is too high: countersign keys rotate"
                .to_owned(),
            Self::RingBad => "The file has an error. The last good ring stays in use until the daemon stops, and a restart would \
                fail. What is wrong: countersign check"
                .to_owned(),
            Self::NextHopDown(hop) => format!(
                "{hop} could not be reached for 5 minutes. Unless the listener has another next hop, its mail is deferred. Check \
                 that the mail server is running and listens there."
            ),
            Self::CertificateDue(listener, _) => format!(
                "Renew the certificate of {listener}. The daemon reads new files by itself; it needs no restart."
            ),
            Self::KeyDue(_) => "It has then signed for a year. Old tags stay valid: countersign keys rotate".to_owned(),
            Self::StateUnwritable => "Check whether the disk is full or read-only. Mail continues. Until the file can be written, long \
                senders of forwarded mail get no new alias (srs.long), and a restart loses the counters."
                .to_owned(),
        }
    }
}
