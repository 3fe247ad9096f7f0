//! Weighs what was seen of a message.
//!
//! The structure of a report decides by itself. Without one, a notice is known by signs of four sorts: who says it, its
//! subject, its words, and the original that it returns. One sort is never enough: people talk about bounces, and shops
//! about deliveries.

use super::returned::{plain_field, unquoted};
use super::seen::Seen;
use super::status::Action;
use super::words::{Sense, senses};
use super::{Found, Kind};

/// Points that make a notice.
const ENOUGH: i32 = 6;
/// The lines in which a server says what it has to say.
const LINES: usize = 120;

/// Says what a message is.
pub(super) fn judge(seen: &Seen) -> Found {
    let status = if seen.status.is_empty() { &seen.inner_status } else { &seen.status };
    let (kind, reasons) = kind(seen);
    let recipients = if kind.is_ndr() || kind == Kind::DsnSuccess { status.recipients().to_vec() } else { Vec::new() };
    Found { kind, reasons, recipients, returned: seen.returned.clone() }
}

fn kind(seen: &Seen) -> (Kind, Vec<&'static str>) {
    let report = seen.report.as_deref().unwrap_or_default();
    let signs = Signs::of(seen);
    // A status part in a message that is declared as nothing of the kind may be one that a person has attached.
    let declared = report.ends_with(b"delivery-status");
    let is_status = seen.has_status && (declared || signs.points > 0);
    // What says that mail has failed is a bounce, whatever else stands in it: the original is somebody else's to write.
    if is_status && seen.status.worst().is_some_and(|worst| worst > Action::Delivered) {
        return by_status(seen, &signs);
    }
    if seen.has_feedback || report == b"feedback-report" {
        return (Kind::Arf, vec!["feedback report"]);
    }
    if report == b"tlsrpt" || report == b"tls" || seen.has_tls_report {
        return (Kind::Report, vec!["TLS report"]);
    }
    if seen.has_dmarc_report || signs.dmarc_subject {
        return (Kind::Report, vec!["DMARC report"]);
    }
    if signs.complaint {
        return (Kind::Arf, vec!["subject of a complaint"]);
    }
    if is_status || (declared && !seen.has_disposition) {
        return by_status(seen, &signs);
    }
    if seen.has_disposition || report == b"disposition-notification" {
        return (Kind::Mdn, vec!["disposition notification"]);
    }
    if seen.has_calendar || seen.heads.calendar {
        return (Kind::Calendar, vec!["calendar part"]);
    }
    if signs.is_notice() {
        return (notice(seen, &signs), signs.reasons);
    }
    if signs.success && signs.daemon >= 2 {
        return (Kind::DsnSuccess, vec!["from a mail system", "words of success"]);
    }
    if signs.answers {
        return (Kind::AutoReply, signs.answer_reasons);
    }
    (Kind::Ordinary, Vec::new())
}

/// Which kind of notice: a report that does not say of what, one that a gateway has passed on, or words only.
fn notice(seen: &Seen, signs: &Signs) -> Kind {
    match seen.inner_status.worst() {
        _ if seen.is_report && signs.delay && !signs.failure => Kind::DsnDelayed,
        _ if seen.is_report => Kind::DsnFailed,
        Some(Action::Failed) => Kind::DsnFailed,
        Some(Action::Delayed) => Kind::DsnDelayed,
        Some(Action::Delivered) | None => Kind::TextBounce,
    }
}

fn by_status(seen: &Seen, signs: &Signs) -> (Kind, Vec<&'static str>) {
    match seen.status.worst() {
        Some(Action::Failed) => (Kind::DsnFailed, vec!["delivery status", "action failed"]),
        Some(Action::Delayed) => (Kind::DsnDelayed, vec!["delivery status", "action delayed"]),
        Some(Action::Delivered) => (Kind::DsnSuccess, vec!["delivery status", "action delivered"]),
        // Declared, and not there or not readable: what do the words say?
        None if signs.success && !signs.failure => (Kind::DsnSuccess, vec!["delivery status", "words of success"]),
        None if signs.delay => (Kind::DsnDelayed, vec!["delivery status", "words of delay"]),
        None => (Kind::DsnFailed, vec!["delivery status", "no action"]),
    }
}

/// What speaks for a notice, and what against it.
#[derive(Debug, Default)]
struct Signs {
    points: i32,
    reasons: Vec<&'static str>,
    /// 0: a person, 1: perhaps a machine, 2: a mail system by its name, 3: by its address.
    daemon: i32,
    failure: bool,
    /// A cause, a code or an original.
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
        signs.daemon = daemon(heads.from.as_deref(), heads.null_return_path);
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
        // Something must have gone wrong, in whatever language: a mail system may also just say who is away.
        self.points >= ENOUGH && (self.failure || self.wrong || (self.delay && self.daemon >= 2))
    }

    fn add(&mut self, points: i32, reason: &'static str) {
        self.points += points;
        self.reasons.push(reason);
    }

    fn sender(&mut self) {
        match self.daemon {
            3 => self.add(3, "from a mail system"),
            2 => self.add(2, "named like a mail system"),
            1 => self.add(1, "from a machine, perhaps"),
            _ => {}
        }
    }

    fn subject(&mut self, subject: &str, seen: &Seen) {
        let found = senses(subject);
        let has = |sense: Sense| found.iter().any(|(s, _)| *s == sense);
        // Behind these words may stand the subject of an original, which is somebody else's to write; before them not.
        let dmarc = subject.find("dmarc").is_some_and(|at| at <= 12);
        let begins = subject.trim_start_matches(['[', ' ']);
        self.dmarc_subject = begins.starts_with("report domain:") && subject.contains("submitter:");
        self.complaint = begins.starts_with("complaint about message from")
            || (dmarc && (subject.contains("failure report") || subject.contains("forensic report")));
        let answer = is_answer(subject) && !subject.ends_with(')');
        (self.failure, self.delay, self.success) = (has(Sense::Failure), has(Sense::Delay), has(Sense::Success));
        // A mail system does not answer; who writes in its name may.
        let by_hand =
            self.daemon < 2 || (seen.heads.null_return_path != Some(true) && seen.heads.auto_submitted.is_none());
        match (self.failure || (self.delay && self.daemon >= 2), answer && by_hand) {
            // A person has answered a notice, or passes it on.
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
        if text.has(Sense::Failure) || (text.has(Sense::Delay) && self.daemon >= 2) {
            self.add(3, "words of failure");
            self.failure = true;
        }
        self.delay |= text.has(Sense::Delay);
        self.success |= text.has(Sense::Success);
        if text.has(Sense::Cause) || text.codes > 0 {
            self.add(1, "words of a cause");
            self.wrong = true;
        }
        // Who returns a message and lists who did not get it needs no words.
        self.wrong |= (seen.attached || text.returned) && text.listed || seen.heads.names_failed;
        if text.listed {
            self.add(1, "a recipient listed");
        }
        let quoted = text.has(Sense::Original) || text.returned;
        if seen.attached || text.returned {
            self.add(if self.daemon > 0 { 2 } else { 1 }, "the original returned");
        } else if quoted {
            self.add(1, "words before an original");
        }
        // Who names nobody, shows nothing and gives no cause has nothing to tell.
        let named = text.stranger || text.listed || seen.heads.names_failed;
        let shown = text.codes > 0 || quoted || seen.attached;
        if !named && !shown && !text.is_empty {
            self.add(if self.daemon < 2 { -2 } else { -1 }, "but no recipient named");
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
        // What shows a code of SMTP or an original has a message to speak of.
        let shows = text.codes > 0 || text.returned || seen.attached || heads.names_failed;
        let by_address = self.daemon == 3;
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
        if heads.null_return_path != Some(true) && text.has(Sense::Person) {
            self.add(-2, "but it is written like a letter");
        }
        match (self.daemon, heads.list || heads.client) {
            (0, true) => self.add(-2, "but written by a person"),
            (1, true) => self.add(-1, "but written by a person, perhaps"),
            _ => {}
        }
        if heads.precedence.as_deref() == Some("list") && self.daemon < 2 {
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
            self.answers = self.daemon < 2 || away;
        }
        self.answers |= (automatic && (away || challenge)) || in_subject(Sense::Away) && !heads.list && !heads.client;
        self.answers |= heads.precedence.as_deref() == Some("auto_reply");
        self.answer_reasons.extend(automatic.then_some("sent automatically"));
        self.answer_reasons.extend(away.then_some("words of absence"));
        self.answer_reasons.extend(challenge.then_some("a challenge"));
        // An absence that mentions failure is one all the same, unless a mail system speaks.
        if self.answers && self.daemon < 2 && (away || challenge) && !seen.heads.names_failed {
            self.add(-4, "but it answers for a person");
        }
    }
}

/// Whether a subject is that of an answer, or of something passed on.
fn is_answer(subject: &str) -> bool {
    const PREFIXES: [&str; 16] = [
        "re:", "re[", "fw:", "fwd:", "aw:", "wg:", "sv:", "vs:", "vb:", "antw:", "tr:", "rv:", "enc:", "rif:", "odp:",
        "[fwd:",
    ];
    let bare = match (subject.strip_prefix('['), subject.find(']')) {
        // A list has put its name first.
        (Some(inner), Some(end))
            if !inner.starts_with("fwd:") && !inner.starts_with("bounce") && !inner.starts_with("postmaster") =>
        {
            return is_answer(subject.get(end + 1..).unwrap_or_default().trim_start()) || end < 40;
        }
        _ => subject,
    };
    PREFIXES.iter().any(|prefix| bare.starts_with(prefix))
}

/// What a message says of who sent it: 0 a person, 1 perhaps a machine, 2 a mail system by its name, 3 by its address.
fn daemon(from: Option<&str>, null_return_path: Option<bool>) -> i32 {
    let Some(from) = from.map(super::decode::fold) else {
        return if null_return_path == Some(true) { 3 } else { 0 };
    };
    let (name, address) = match (from.rfind('<'), from.find('(')) {
        (Some(at), _) => (from.get(..at).unwrap_or_default(), from.get(at + 1..).unwrap_or_default()),
        (None, Some(at)) => (from.get(at..).unwrap_or_default(), from.get(..at).unwrap_or_default()),
        (None, None) => ("", from.as_str()),
    };
    let (name, address) =
        (name.trim_matches([' ', '"', '\'', '(', ')']), address.trim_matches([' ', '<', '>', '"', '\'']));
    if address.is_empty() {
        return 3;
    }
    let local = address.split(['@', '\\']).next().unwrap_or_default().trim_matches('"');
    const SYSTEMS: [&str; 13] = [
        "postmaster",
        "post_master",
        "post-master",
        "post.master",
        "maildeliver",
        "mail-deliver",
        "mail_deliver",
        "mail.deliver",
        "double-bounce",
        "microsoftexchange",
        "mailsystem",
        "system administrator",
        "ndr",
    ];
    const NAMES: [&str; 23] = [
        "mail delivery",
        "mail deliver",
        "delivery subsystem",
        "delivery system",
        "delivery service",
        "delivery agent",
        "mailer-daemon",
        "mailer daemon",
        "postmaster",
        "system administrator",
        "mail system",
        "mail subsystem",
        "mail administrator",
        "email system",
        "internet mail",
        "smtp server",
        "mail server",
        "mailserver",
        "mail gateway",
        "mail-system",
        "systemadministrator",
        "microsoft outlook",
        "mailsystem",
    ];
    const MACHINES: [&str; 26] = [
        "mail",
        "smtp",
        "admin",
        "noreply",
        "no-reply",
        "no_reply",
        "donotreply",
        "do-not-reply",
        "system",
        "gateway",
        "virus",
        "bounce",
        "returned",
        "notif",
        "server",
        "mta",
        "root",
        "imss",
        "robot",
        "autoresp",
        "delivery",
        "listserv",
        "sympa",
        "majordomo",
        "mailman",
        "owner",
    ];
    // Bugzilla has a daemon, too.
    let mailer = local.contains("daemon") && (local.contains("mail") || matches!(local, "daemon" | "mdaemon"));
    let system =
        mailer || SYSTEMS.iter().any(|word| if word.len() > 3 { local.contains(word) } else { local == *word });
    let named = NAMES.iter().any(|word| name.contains(word));
    // A postmaster with a name of his own is one who writes himself.
    // Bounces of a mail system have no sender themselves, and not everybody's words for one are known here.
    let by_hand = null_return_path != Some(true) && name.is_ascii();
    let personal = by_hand && system && local.contains("master") && !name.is_empty() && !named && !is_role(name, local);
    if system && !personal {
        3
    } else if named {
        2
    } else if personal || is_gateway(local) || MACHINES.iter().any(|word| local.contains(word)) || is_role(name, local)
    {
        1
    } else {
        0
    }
}

/// `inetgw1`
fn is_gateway(local: &str) -> bool {
    local.trim_end_matches(|c: char| c.is_ascii_digit()).ends_with("gw")
}

/// Whether a display name is that of a role or a machine.
fn is_role(name: &str, local: &str) -> bool {
    const ROLES: [&str; 20] = [
        "mail",
        "system",
        "server",
        "smtp",
        "delivery",
        "postmaster",
        "admin",
        "gateway",
        "virus",
        "daemon",
        "filter",
        "exchange",
        "notif",
        "automat",
        "support",
        "internet",
        "service",
        "noreply",
        "security",
        "report",
    ];
    let bare = |text: &str| text.replace([' ', '-', '_', '.'], "");
    let same = bare(name) == bare(local) && ["postmaster", "bounce"].contains(&bare(local).as_str());
    same || name.contains('@') || ROLES.iter().any(|role| name.contains(role))
}

/// The words of a message, before what it returns.
struct Text {
    senses: Vec<Sense>,
    /// Reply codes of SMTP, or status codes of RFC 3463.
    codes: u32,
    /// A line that begins with an address, as servers list recipients.
    listed: bool,
    /// An address that the message is not for.
    stranger: bool,
    /// A header block stands in it.
    returned: bool,
    is_empty: bool,
}

impl Text {
    fn of(seen: &Seen) -> Self {
        let all = seen.text();
        let start = returned_at(&all);
        let said: Vec<&str> = all
            .iter()
            .take(start.unwrap_or(all.len()))
            .map(|line| line.trim())
            // What is quoted is what somebody else has said.
            .filter(|line| !line.is_empty() && unquoted(line.as_bytes()).len() == line.len())
            .take(LINES)
            .collect();
        let joined = said.join(" ");
        let mut senses: Vec<Sense> = senses(&joined).into_iter().map(|(sense, _)| sense).collect();
        senses.sort_by_key(|sense| *sense as u8);
        senses.dedup();
        let for_us = |address: &str| seen.heads.to.iter().any(|to| to.contains(address));
        let addresses = || said.iter().flat_map(|line| addresses(line));
        Self {
            senses,
            codes: said.iter().map(|line| codes(line)).sum(),
            listed: said.iter().any(|line| is_listed(line)),
            stranger: addresses().any(|address| !for_us(address)),
            returned: start.is_some(),
            is_empty: said.is_empty(),
        }
    }

    fn has(&self, sense: Sense) -> bool {
        self.senses.contains(&sense)
    }
}

/// The line at which a header block begins: three fields of mail, one below the other.
fn returned_at(lines: &[String]) -> Option<usize> {
    const NAMES: [&str; 16] = [
        "received",
        "from",
        "to",
        "subject",
        "date",
        "message-id",
        "return-path",
        "mime-version",
        "content-type",
        "reply-to",
        "cc",
        "sender",
        "x-mailer",
        "dkim-signature",
        "delivered-to",
        "content-transfer-encoding",
    ];
    let (mut start, mut fields) = (None, 0);
    for (at, line) in lines.iter().enumerate() {
        let bare = unquoted(line.as_bytes()).trim_ascii();
        match plain_field(bare) {
            Some((name, _)) if NAMES.iter().any(|known| name == known.as_bytes()) => {
                start = start.or(Some(at));
                fields += 1;
                if fields >= 3 && is_header_block(lines, start) {
                    return start;
                }
            }
            // Other fields, and folded lines.
            Some(_) if start.is_some() => {}
            None if start.is_some() && !bare.is_empty() && line.starts_with(' ') => {}
            _ => (start, fields) = (None, 0),
        }
    }
    None
}

/// Exchange says "To: … Subject: … Sent: …" of the original without returning it: that is no header block.
fn is_header_block(lines: &[String], start: Option<usize>) -> bool {
    let block = lines.iter().skip(start.unwrap_or_default()).take(40);
    block.take_while(|line| !line.trim().is_empty()).any(|line| {
        let bare = line.trim_start_matches([' ', '>', '|']);
        ["received:", "message-id:", "return-path:", "mime-version:", "content-type:", "from:"]
            .iter()
            .any(|name| bare.starts_with(name))
    })
}

fn addresses(line: &str) -> impl Iterator<Item = &str> {
    line.split([' ', '<', '>', '(', ')', '[', ']', '"', '\'', ',', ';', ':', '='])
        .map(|word| word.trim_matches('.'))
        .filter(|word| word.split_once('@').is_some_and(|(local, domain)| !local.is_empty() && domain.contains('.')))
}

/// `<bob@third.example>:`, `bob@third.example`, `bob@third.example: no such user`
fn is_listed(line: &str) -> bool {
    let first = line.split(' ').next().unwrap_or_default();
    let bare = first.trim_matches(['<', '>', ':', ',', '*', '"', '\'']);
    addresses(bare).next() == Some(bare)
}

/// How many codes of SMTP stand in a line: 550, 5.1.1, #5.1.1.
fn codes(line: &str) -> u32 {
    let count = line
        .split([' ', '(', ')', '[', ']', '#', ';', ':', ',', '-'])
        .filter(|word| {
            let word = word.trim_end_matches('.').as_bytes();
            match word {
                [b'4' | b'5', b'0'..=b'7', c] => c.is_ascii_digit(),
                [b'4' | b'5', b'.', rest @ ..] => {
                    let mut parts = rest.split(|&b| b == b'.');
                    let number = |part: Option<&[u8]>| {
                        part.is_some_and(|p| (1..=3).contains(&p.len()) && p.iter().all(u8::is_ascii_digit))
                    };
                    number(parts.next()) && number(parts.next()) && parts.next().is_none()
                }
                _ => false,
            }
        })
        .count();
    u32::try_from(count).unwrap_or(u32::MAX)
}
