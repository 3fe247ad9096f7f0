//! `sign` and `verify`: query the rules about addresses from the arguments or from standard input.

use std::io::{self, BufRead as _, BufReader, BufWriter, IsTerminal as _, Write};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;

use super::common_args::{RuleContext, SiteArgs};
use crate::cli::colours::DIM;
use crate::envelope::abuse::Memory;
use crate::envelope::address::{Address, AddressError, MAX_ADDRESS, ReversePath};
use crate::envelope::rules::{ContentCheck, Disposition, OutboundAction, OutboundReason, ResultHeader, Rules};
use crate::envelope::tag::{Tagged, Verdict};
use crate::envelope::time::Day;
use crate::state::time_format::rfc3339;

/// `countersign sign`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  countersign sign --local our.example ann@our.example
  countersign sign --srs-domain srs.our.example bob@else.example
  countersign sign --json < senders.txt
  countersign sign --bare -- \"$sender\"                 for a mail server that runs it

Exit status: 0 none is rejected, 1 some are, 2 usage, config or key ring.")]
pub(super) struct Sign {
    #[command(flatten)]
    site: SiteArgs,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
    /// Print only the result for one address, without a line break
    #[arg(long, conflicts_with = "json")]
    bare: bool,
    /// Senders [default: one per line from standard input]
    addresses: Vec<String>,
}

/// `countersign verify`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  countersign verify --local our.example prvs=1786a1b2c3=ann@our.example
  countersign verify --json --mail-from somebody@else.example < recipients.txt
  countersign verify --bare -- \"$recipient\"            for a mail server that runs it

Exit status: 0 every mail would be delivered, 1 some are refused or their content decides, 2 usage, config or key ring.
With --bare: 0 the address is printed, 1 it is refused, 75 that cannot be said now, 2 as above.")]
pub(super) struct Verify {
    #[command(flatten)]
    site: SiteArgs,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
    /// Print only the result for one address, without a line break
    #[arg(long, conflicts_with = "json")]
    bare: bool,
    /// The envelope sender of the mail [default: the null sender]
    #[arg(long, value_name = "ADDRESS")]
    mail_from: Option<String>,
    /// Recipients [default: one per line from standard input]
    addresses: Vec<String>,
}

/// Prints what outbound does with each sender. `false`: a sender is rejected.
pub(super) fn sign(args: &Sign) -> Result<bool> {
    let site = args.site.load()?;
    one_if_bare(args.bare, &args.addresses)?;
    let is_for_a_person = io::stdout().is_terminal();
    each_address(&args.addresses, |text, out| {
        // Mail servers pass the null sender as an empty argument.
        let null = args.bare && (text.0.is_empty() || text.0 == b"<>");
        let (action, result, reason, note) = match if null { Ok(ReversePath::Null) } else { read(text) } {
            Ok(ReversePath::Null) if args.bare => ("pass", Some(String::new()), "null-sender", String::new()),
            Err(error) => ("reject", None, "malformed", error.to_string()),
            Ok(path) => {
                let outbound = site.rules().outbound(None, &path, None);
                match outbound.action {
                    OutboundAction::Sign(signed) => {
                        ("sign", Some(signed.address().to_string()), outbound.reason.name(), String::new())
                    }
                    OutboundAction::Rewrite(signed) => {
                        ("rewrite", Some(signed.address().to_string()), outbound.reason.name(), String::new())
                    }
                    OutboundAction::Pass => {
                        let why = why_unchanged(outbound.reason, &path);
                        ("pass", Some(shown(&path)), outbound.reason.name(), why)
                    }
                    OutboundAction::Reject(refusal) => {
                        ("reject", None, outbound.reason.name(), refusal.text.to_owned())
                    }
                }
            }
        };
        if args.json {
            let line = json!({"address": text.to_string_lossy(), "action": action, "result": result, "reason": reason,
                "note": Some(&note).filter(|note| result.is_none() && !note.is_empty())});
            writeln!(out, "{line}")?;
        } else {
            match &result {
                Some(result) if args.bare => write!(out, "{result}")?,
                Some(result) => {
                    writeln!(out, "{result}")?;
                    if is_for_a_person && !note.is_empty() {
                        out.flush()?;
                        anstream::eprintln!("{DIM}{note}{DIM:#}");
                    }
                }
                None => {
                    out.flush()?;
                    anstream::eprintln!("{}: {note}", text.to_string_lossy());
                }
            }
        }
        Ok(result.is_some())
    })
}

/// Prints what inbound does with each recipient. `false`: a recipient is refused, or its content decides.
pub(super) fn verify(args: &Verify) -> Result<bool> {
    let site = args.site.load()?;
    let sender = args.mail_from.as_deref().unwrap_or_default();
    let sender = ReversePath::parse(bare(sender)).with_context(|| format!("--mail-from {sender}"))?;
    one_if_bare(args.bare, &args.addresses)?;
    each_address(&args.addresses, |text, out| {
        let address = text.to_str().map_err(|_| AddressError::NotUtf8).and_then(Address::parse);
        let found = match &address {
            Ok(address) => found(&site, &sender, address),
            Err(error) => TagAnswer::malformed(&error.to_string()),
        };
        if args.bare {
            return match (&found.result, found.is_delivered) {
                (Some(result), _) => Ok(write!(out, "{result}").is_ok()),
                (None, _) if found.is_temporary => {
                    Err(TryLater(format!("{}: {}", text.to_string_lossy(), found.note)).into())
                }
                (None, _) => {
                    anstream::eprintln!("{}", found.words(&text.to_string_lossy()));
                    Ok(false)
                }
            };
        }
        if args.json {
            writeln!(out, "{}", found.json(&text.to_string_lossy()))?;
        } else {
            writeln!(out, "{}", found.words(&text.to_string_lossy()))?;
        }
        Ok(found.is_delivered)
    })
}

/// Why a sender leaves as it is, in words.
fn why_unchanged(reason: OutboundReason, sender: &ReversePath) -> String {
    let domain = sender.address().map_or("", Address::domain);
    match reason {
        OutboundReason::ForeignSender => {
            format!("unchanged: {domain} is not in domains.local, and there is no srs_domain for foreign senders")
        }
        OutboundReason::RelayDomain => format!("unchanged: {domain} is in domains.relay"),
        OutboundReason::ModeOff => "unchanged: outbound.mode is \"off\"".to_owned(),
        OutboundReason::NotInPilot => {
            "unchanged: outbound.mode is \"pilot\", and this sender is not in outbound.pilot".to_owned()
        }
        OutboundReason::ExemptSender => "unchanged: this sender is in outbound.exempt_senders".to_owned(),
        OutboundReason::SignedAlready => "unchanged: it has a valid tag already".to_owned(),
        OutboundReason::OwnSrsAddress => "unchanged: it is an SRS address of this site".to_owned(),
        OutboundReason::SameDomain => "unchanged: it is in the SRS domain already".to_owned(),
        OutboundReason::Overflow => {
            "unchanged: with a tag, the part before the @ would be longer than 64 characters (outbound.overflow)"
                .to_owned()
        }
        OutboundReason::NullSender => "unchanged: the null sender is nobody's address".to_owned(),
        // For the others, a recipient or a client is known, or the address is not unchanged.
        OutboundReason::Signed
        | OutboundReason::Forwarded
        | OutboundReason::Aliased
        | OutboundReason::ExemptClient
        | OutboundReason::ExemptRecipient
        | OutboundReason::LocalRecipient
        | OutboundReason::NoKey => String::new(),
    }
}

/// `--bare` is for mail servers, which query one address at a time.
fn one_if_bare(wanted: bool, addresses: &[String]) -> Result<()> {
    anyhow::ensure!(!wanted || addresses.len() == 1, "--bare is for one address: write it behind --");
    Ok(())
}

/// There is no answer now; the mail server has to try again later. Exit status 75 (EX_TEMPFAIL of sysexits.h).
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct TryLater(String);

struct TagAnswer {
    verdict: &'static str,
    tagged: Option<Tagged>,
    result: Option<String>,
    action: &'static str,
    /// Whether a message is delivered whatever its content.
    is_delivered: bool,
    /// Whether the refusal is temporary.
    is_temporary: bool,
    /// The header that is added to a delivered message.
    mark: Option<ResultHeader>,
    note: String,
}

impl TagAnswer {
    fn malformed(note: &str) -> Self {
        Self {
            verdict: "malformed",
            tagged: None,
            result: None,
            action: "reject",
            is_delivered: false,
            is_temporary: false,
            mark: None,
            note: note.to_owned(),
        }
    }

    fn json(&self, address: &str) -> serde_json::Value {
        let tagged = self.tagged.as_ref();
        json!({
            "address": address,
            "verdict": self.verdict,
            "scheme": tagged.map(|t| t.scheme.name()),
            "result": self.result,
            "key": tagged.and_then(|t| t.key.as_ref()).map(ToString::to_string),
            "action": self.action,
            "would": self.mark.map(|mark| mark.would),
            "mark": self.mark.map(|mark| mark.value()),
            "note": Some(&self.note).filter(|note| !note.is_empty()),
        })
    }

    fn words(&self, address: &str) -> String {
        let what = match &self.result {
            Some(to) if self.is_delivered => format!("deliver to {to}{}", self.mark.map(marked).unwrap_or_default()),
            Some(to) => format!("the content decides whether it is delivered to {to}"),
            None => self.action.to_owned(),
        };
        format!("{address}: {}, {what} ({})", self.verdict, self.note)
    }
}

fn found(site: &RuleContext, sender: &ReversePath, address: &Address) -> TagAnswer {
    let inbound = site.rules().inbound(&mut Memory::default(), None, sender, address);
    let note = describe(&inbound.verdict, site.now.day());
    let is_untagged = inbound.verdict == Verdict::Untagged;
    let answer = TagAnswer {
        verdict: inbound.verdict.name(),
        tagged: inbound.verdict.tagged().cloned(),
        action: inbound.disposition.name(),
        note: note.clone(),
        ..TagAnswer::malformed("")
    };
    match inbound.disposition {
        // To a valid SRS address, every report is delivered.
        Disposition::Deliver(delivery) | Disposition::Inspect(delivery, ContentCheck::Srs) => TagAnswer {
            action: "deliver",
            is_delivered: true,
            result: Some(delivery.to.to_string()),
            mark: delivery.mark,
            ..answer
        },
        Disposition::Inspect(delivery, _) => TagAnswer { result: Some(delivery.to.to_string()), ..answer },
        Disposition::Discard if is_untagged => TagAnswer { note: "it would be discarded".to_owned(), ..answer },
        Disposition::Discard => TagAnswer { note: format!("it would be discarded: {note}"), ..answer },
        Disposition::Refuse(refusal) => TagAnswer {
            is_temporary: refusal.is_temporary(),
            note: if is_untagged { refusal.text.to_owned() } else { note },
            ..answer
        },
    }
}

/// The words about a header that says what would have happened.
fn marked(mark: ResultHeader) -> String {
    let done = match mark.would {
        "defer" => "deferred",
        "discard" => "discarded",
        "quarantine" => "quarantined",
        _ => "rejected",
    };
    format!(" with a mark, for it would be {done}")
}

/// The verdict in words: which key, signed when, valid until when, or why the tag is not valid.
pub(super) fn describe(verdict: &Verdict, today: Day) -> String {
    let why = match verdict {
        Verdict::Untagged => return "it carries no tag of ours".into(),
        Verdict::Malformed(defect) => return defect.to_string(),
        Verdict::Valid(_) => None,
        Verdict::Alias(_) => Some(
            "its hash is valid; this command cannot look up the alias: the daemon delivers if its state file has it, and otherwise defers",
        ),
        Verdict::Expired(tagged) if tagged.expires.is_none_or(|day| day >= today) => Some("its key is retired"),
        Verdict::Expired(_) => Some("its time is over"),
        Verdict::Future(_) => Some("it is dated further ahead than this site signs: a clock may be wrong"),
        Verdict::Forged(_) => Some("its hash is not what a key of this ring makes for this address and date"),
        Verdict::UnknownKey(_) => Some("the ring has no such key: this copy of the ring may be an old one"),
    };
    let mut parts: Vec<String> = why.into_iter().map(str::to_owned).collect();
    if let Some(tagged) = verdict.tagged() {
        parts.extend(tagged.key.as_ref().map(|key| format!("key {key}")));
        parts.extend(tagged.signed_on.map(|day| format!("signed {}", date(day))));
        parts.extend(tagged.expires.map(|day| format!("good through {}", date(day))));
    }
    parts.join(", ")
}

/// A day as `2026-11-22`.
pub(super) fn date(day: Day) -> String {
    rfc3339(day.start()).split('T').next().unwrap_or_default().to_owned()
}

impl RuleContext {
    fn rules(&self) -> Rules<'_> {
        Rules::new(&self.policy, &self.ring, self.now)
    }
}

/// A line of input without its line end.
pub(super) struct InputLine<'a>(&'a [u8]);

impl InputLine<'_> {
    fn to_str(&self) -> Result<&str, std::str::Utf8Error> {
        std::str::from_utf8(self.0).map(bare)
    }

    fn to_string_lossy(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(self.0)
    }
}

/// Parses a sender. The null sender is `<>`; an empty text is an error.
fn read(text: &InputLine<'_>) -> Result<ReversePath, AddressError> {
    if text.0.is_empty() {
        return Err(AddressError::Empty);
    }
    ReversePath::parse(text.to_str().map_err(|_| AddressError::NotUtf8)?)
}

/// A sender as text. The null sender is `<>`, so that no line is empty.
fn shown(path: &ReversePath) -> String {
    path.address().map_or_else(|| "<>".to_owned(), ToString::to_string)
}

/// An address without its angle brackets, if it has any.
fn bare(text: &str) -> &str {
    text.strip_prefix('<').and_then(|t| t.strip_suffix('>')).unwrap_or(text)
}

/// Calls `one` for each address. Input is streamed: memory does not grow with it. `false`: a call has returned `false`.
fn each_address(
    arguments: &[String],
    mut one: impl FnMut(&InputLine<'_>, &mut dyn Write) -> Result<bool>,
) -> Result<bool> {
    let mut out = BufWriter::new(anstream::AutoStream::auto(io::stdout()));
    let mut all = true;
    for text in arguments {
        all &= one(&InputLine(text.as_bytes()), &mut out)?;
    }
    if arguments.is_empty() {
        let mut input = BufReader::with_capacity(64 << 10, io::stdin().lock());
        let mut line = Vec::new();
        while next_line(&mut input, &mut line)? {
            all &= one(&InputLine(line.trim_ascii()), &mut out)?;
            // A client that sends one line at a time waits for each answer.
            if input.buffer().is_empty() {
                out.flush()?;
            }
        }
    }
    out.flush()?;
    Ok(all)
}

/// Reads one line; `false` at the end of the input. Of a very long line, only enough is kept to see that it is too
/// long.
fn next_line(input: &mut BufReader<io::StdinLock<'_>>, line: &mut Vec<u8>) -> Result<bool> {
    line.clear();
    loop {
        let chunk = input.fill_buf()?;
        if chunk.is_empty() {
            return Ok(!line.is_empty());
        }
        let end = memchr::memchr(b'\n', chunk);
        let text = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or(chunk);
        let used = text.len() + usize::from(end.is_some());
        let room = (MAX_ADDRESS + 3).saturating_sub(line.len());
        line.extend(text.iter().take(room));
        input.consume(used);
        if end.is_some() {
            return Ok(true);
        }
    }
}
