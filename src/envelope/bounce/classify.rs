//! Weighs the features of a message.
//!
//! The structure of a report is decisive. A notice without one is recognised by signs of four kinds: its sender, its
//! subject, its words, and the original that it returns. One kind is never enough, because people write about bounces
//! and shops write about deliveries.

use super::author::Author;
use super::dsn::DsnAction;
use super::features::Seen;
use super::findings::{Findings, MessageKind};
use super::original::Returned;
use super::phrases::{Sense, senses};
use super::wording::{Text, counts_messages};

/// Minimum number of points of a notice.
const ENOUGH: i32 = 6;

/// Classifies a message.
pub(super) fn classify(seen: &Seen) -> Findings {
    let status = if seen.status.is_empty() { &seen.inner_status } else { &seen.status };
    let (kind, reasons) = kind(seen);
    let doubtful = kind == MessageKind::TextBounce && returns_nothing(seen);
    let recipients =
        if kind.is_ndr() || kind == MessageKind::DsnSuccess { status.recipients().to_vec() } else { Vec::new() };
    Findings {
        kind,
        doubtful,
        reasons,
        header: seen.heads.shown.clone(),
        recipients,
        returned: seen.returned.clone(),
        trace: seen.trace.trace(),
        inbound_mark: seen.heads.inbound_mark,
    }
}

/// Whether a notice gives no hint of the message that it is about: no original, no header block, no address of a failed
/// recipient.
fn returns_nothing(seen: &Seen) -> bool {
    let text = Text::of(seen);
    let shows = seen.attached || text.returned || seen.returned != Returned::default();
    let names = text.listed || text.stranger || seen.heads.names_failed || !seen.inner_status.is_empty();
    !shows && !names
}

fn kind(seen: &Seen) -> (MessageKind, Vec<&'static str>) {
    let report = seen.report.as_deref().unwrap_or_default();
    let signs = Signs::of(seen);
    // A status part in a message that is not declared as a report may have been attached by a person.
    let declared = report.ends_with(b"delivery-status");
    let is_status = seen.has_status && (declared || seen.is_report || signs.points > 0);
    // A message that reports a failure is a bounce, whatever else it contains: a sender can put anything into the
    // original.
    if is_status && seen.status.worst().is_some_and(|worst| worst > DsnAction::Delivered) {
        return by_status(seen, &signs);
    }
    // Exchange wraps any message into a journal report, for auditors.
    if seen.heads.journal {
        return (MessageKind::Report, vec!["journal report"]);
    }
    if seen.has_feedback || report == b"feedback-report" {
        return (MessageKind::Arf, vec!["feedback report"]);
    }
    if report == b"tlsrpt" || report == b"tls" || seen.has_tls_report {
        return (MessageKind::Report, vec!["TLS report"]);
    }
    if seen.has_dmarc_report || signs.dmarc_subject {
        return (MessageKind::Report, vec!["DMARC report"]);
    }
    if signs.complaint {
        return (MessageKind::Arf, vec!["subject of a complaint"]);
    }
    if is_status || (declared && !seen.has_disposition) {
        return by_status(seen, &signs);
    }
    if seen.has_disposition || report == b"disposition-notification" {
        return (MessageKind::Mdn, vec!["disposition notification"]);
    }
    if seen.has_calendar || seen.heads.calendar {
        return (MessageKind::Calendar, vec!["calendar part"]);
    }
    if signs.is_notice() {
        return (notice(seen, &signs), signs.reasons);
    }
    if signs.success && signs.is_system() {
        return (MessageKind::DsnSuccess, vec!["from a mail system", "words of success"]);
    }
    if signs.answers {
        return (MessageKind::AutoReply, signs.answer_reasons);
    }
    (MessageKind::Ordinary, Vec::new())
}

/// The kind of a notice: a report without readable status, or words only.
fn notice(seen: &Seen, signs: &Signs) -> MessageKind {
    // The status fields of a message inside are about another original, and decide nothing here.
    match seen.is_report {
        true if signs.delay && !signs.failure => MessageKind::DsnDelayed,
        true => MessageKind::DsnFailed,
        false => MessageKind::TextBounce,
    }
}

fn by_status(seen: &Seen, signs: &Signs) -> (MessageKind, Vec<&'static str>) {
    match seen.status.worst() {
        Some(DsnAction::Failed) => (MessageKind::DsnFailed, vec!["delivery status", "action failed"]),
        Some(DsnAction::Delayed) => (MessageKind::DsnDelayed, vec!["delivery status", "action delayed"]),
        Some(DsnAction::Delivered) => (MessageKind::DsnSuccess, vec!["delivery status", "action delivered"]),
        // The status part is missing or not readable, so the words decide.
        None if signs.success && !signs.failure => {
            (MessageKind::DsnSuccess, vec!["delivery status", "words of success"])
        }
        None if signs.delay => (MessageKind::DsnDelayed, vec!["delivery status", "words of delay"]),
        None => (MessageKind::DsnFailed, vec!["delivery status", "no action"]),
    }
}

/// Signs for and against a notice.
#[derive(Debug, Default)]
struct Signs {
    points: i32,
    reasons: Vec<&'static str>,
    author: Author,
    failure: bool,
    /// Whether there is a cause, a reply code, a header that names a failed recipient, or an original with a list of
    /// recipients.
    wrong: bool,
    delay: bool,
    success: bool,
    answers: bool,
    answer_reasons: Vec<&'static str>,
    dmarc_subject: bool,
    complaint: bool,
}

impl Signs {
    fn of(seen: &Seen) -> Self {
        let mut signs = Self::default();
        let heads = &seen.heads;
        signs.author = Author::of(heads.from.as_deref(), heads.null_return_path);
        let subject = heads.subject.as_deref().unwrap_or_default().trim();
        let text = Text::of(seen);
        signs.sender();
        signs.subject(subject, seen);
        signs.body(seen, &text);
        signs.headers(seen);
        signs.against(seen, subject, &text);
        signs.automatic(seen, subject, &text);
        signs
    }

    fn is_notice(&self) -> bool {
        // Something must have failed: a mail system may also report that a person is away.
        self.points >= ENOUGH && (self.failure || self.wrong || (self.delay && self.is_system()))
    }

    fn is_system(&self) -> bool {
        self.author >= Author::NamedSystem
    }

    fn add(&mut self, points: i32, reason: &'static str) {
        self.points += points;
        self.reasons.push(reason);
    }

    fn sender(&mut self) {
        match self.author {
            Author::System => self.add(3, "from a mail system"),
            Author::NamedSystem => self.add(2, "named like a mail system"),
            Author::Machine => self.add(1, "from a machine, perhaps"),
            Author::Person => {}
        }
    }

    fn subject(&mut self, subject: &str, seen: &Seen) {
        let found = senses(subject);
        let has = |sense: Sense| found.iter().any(|(s, _)| *s == sense);
        // The subject of the original may follow these words. Its sender could write them there, so they must be near
        // the beginning.
        let dmarc = subject.find("dmarc").is_some_and(|at| at <= 12);
        let begins = subject.trim_start_matches(['[', ' ']);
        self.dmarc_subject = begins.starts_with("report domain:") && subject.contains("submitter:");
        self.complaint = begins.starts_with("complaint about message from")
            || (dmarc && (subject.contains("failure report") || subject.contains("forensic report")));
        // "Re: lunch (delivery failed)": the subject of the original, and words added by a mail system.
        let answer = is_answer(subject) && !subject.ends_with(')');
        (self.failure, self.delay, self.success) = (has(Sense::Failure), has(Sense::Delay), has(Sense::Success));
        // A mail system does not send answers, but a person who writes in its name may.
        let by_hand =
            !self.is_system() || (seen.heads.null_return_path != Some(true) && seen.heads.auto_submitted.is_none());
        match (self.failure || (self.delay && self.is_system()), answer && by_hand) {
            // A person has answered or forwarded a notice.
            (true, true) => self.add(-2, "but the subject is an answer"),
            (true, false) => self.add(3, "subject of failure"),
            (false, _) if has(Sense::Cause) => {
                self.add(1, "subject with a cause");
                self.wrong = true;
            }
            (false, _) => {}
        }
    }

    fn body(&mut self, seen: &Seen, text: &Text) {
        if text.has(Sense::Failure) || (text.has(Sense::Delay) && self.is_system()) {
            self.add(3, "words of failure");
            self.failure = true;
        }
        self.delay |= text.has(Sense::Delay);
        self.success |= text.has(Sense::Success);
        if text.has(Sense::Cause) || text.codes > 0 {
            self.add(1, "words of a cause");
            self.wrong = true;
        }
        // A message with an original and a list of failed recipients needs no words of failure.
        self.wrong |= (seen.attached || text.returned) && text.listed || seen.heads.names_failed;
        if text.listed {
            self.add(1, "a recipient listed");
        }
        let quoted = text.has(Sense::Original) || text.returned;
        if seen.attached || text.returned {
            self.add(if self.author > Author::Person { 2 } else { 1 }, "the original returned");
        } else if quoted {
            self.add(1, "words before an original");
        }
        // A notice has to name a recipient, show an original or give a cause. Reply codes count as a cause if the
        // sender is a mail system.
        let named = text.stranger || text.listed || seen.heads.names_failed;
        let shown = (text.codes > 0 && self.is_system()) || quoted || seen.attached;
        if !named && !shown && !text.is_empty {
            self.add(if !self.is_system() { -2 } else { -1 }, "but no recipient named");
        }
    }

    fn headers(&mut self, seen: &Seen) {
        let heads = &seen.heads;
        if heads.names_failed {
            self.add(5, "X-Failed-Recipients");
        }
        if heads.null_return_path == Some(true) && self.points > 0 {
            self.add(1, "null return path");
        }
        let automatic = heads.auto_submitted.as_deref().is_some_and(|value| value.starts_with("auto-"));
        if automatic && self.points > 0 {
            self.add(1, "sent automatically");
        }
        if heads.auto_submitted.as_deref().is_some_and(|value| value.contains("fail")) {
            self.add(2, "sent automatically, for a failure");
        }
    }

    fn against(&mut self, seen: &Seen, subject: &str, text: &Text) {
        let heads = &seen.heads;
        let in_subject = senses(subject);
        let has = |sense: Sense| text.has(sense) || in_subject.iter().any(|(s, _)| *s == sense);
        // A message with a reply code or an original is about a message.
        let shows = text.codes > 0 || text.returned || seen.attached || heads.names_failed;
        let by_address = self.author == Author::System;
        if !by_address && has(Sense::Parcel) {
            self.add(-2, "but it is about parcels or money");
        }
        if !shows && has(Sense::Lure) && !(by_address && text.stranger) {
            self.add(-3, "but it wants to be clicked on");
        }
        if !shows && has(Sense::Arrived) {
            self.add(-5, "but it is about mail to the reader");
        }
        if !shows && has(Sense::Moderated) {
            self.add(-4, "but somebody is to decide");
        }
        let returns = text.returned || seen.attached || heads.names_failed;
        if !returns && counts_messages(subject) {
            self.add(-8, "but the subject counts messages");
        } else if !returns && (has(Sense::Many) || text.counts) {
            self.add(-4, "but it speaks of several messages");
        }
        if text.has(Sense::ToReader) {
            self.add(-5, "but it is about a message to the reader");
        }
        if heads.null_return_path != Some(true) && text.has(Sense::Person) {
            self.add(-2, "but it is written like a letter");
        }
        match self.author {
            Author::Person if heads.list || heads.client => self.add(-2, "but written by a person"),
            Author::Machine if heads.list || heads.client => self.add(-1, "but written by a person, perhaps"),
            _ => {}
        }
        if heads.precedence.as_deref() == Some("list") && !self.is_system() {
            self.add(-1, "but from a mailing list");
        }
        if self.success && !self.failure {
            self.add(-6, "but words of success");
        }
        if seen.has_disposition {
            self.add(-6, "but a receipt");
        }
    }

    fn automatic(&mut self, seen: &Seen, subject: &str, text: &Text) {
        let heads = &seen.heads;
        let in_subject = |sense: Sense| senses(subject).iter().any(|(s, _)| *s == sense);
        let away = in_subject(Sense::Away) || text.has(Sense::Away);
        let challenge = in_subject(Sense::Challenge) || text.has(Sense::Challenge);
        let automatic = heads.auto_submitted.as_deref().is_some_and(|value| value.starts_with("auto-"))
            || heads.precedence.as_deref().is_some_and(|value| value.starts_with("auto"))
            || heads.answers_itself;
        if heads.answers_itself || heads.auto_submitted.as_deref().is_some_and(|v| v.starts_with("auto-replied")) {
            self.answers = !self.is_system() || away;
        }
        self.answers |= (automatic && (away || challenge)) || in_subject(Sense::Away) && !heads.list && !heads.client;
        self.answers |= heads.precedence.as_deref() == Some("auto_reply");
        self.answer_reasons.extend(automatic.then_some("sent automatically"));
        self.answer_reasons.extend(away.then_some("words of absence"));
        self.answer_reasons.extend(challenge.then_some("a challenge"));
        // An automatic reply that mentions a failure is still an automatic reply, unless it is from a mail system.
        if self.answers && !self.is_system() && (away || challenge) && !seen.heads.names_failed {
            self.add(-4, "but it answers for a person");
        }
    }
}

/// Whether a subject is that of an answer or a forwarded message.
fn is_answer(subject: &str) -> bool {
    const PREFIXES: &str = "re:; re[; fw:; fwd:; aw:; wg:; sv:; vs:; vb:; antw:; tr:; rv:; enc:; rif:; odp:; [fwd:";
    let bare = match (subject.strip_prefix('['), subject.find(']')) {
        // `[name] Re: …`: a mailing list has put its name first.
        (Some(inner), Some(end))
            if !inner.starts_with("fwd:") && !inner.starts_with("bounce") && !inner.starts_with("postmaster") =>
        {
            return is_answer(subject.get(end + 1..).unwrap_or_default().trim_start()) || end < 40;
        }
        _ => subject,
    };
    PREFIXES.split("; ").any(|prefix| bare.starts_with(prefix))
}
