//! One message as a milter sees it: what its recipients have in common, what is read of it, and the changes at its end.
//!
//! A library implements the protocol. A milter can do less than a proxy: one message has one sender.

use crate::envelope::address::{Address, ReversePath};
use crate::envelope::bounce::{Findings, Scanner};
use crate::envelope::rules::{
    ContentCheck, ContentVerdict, Disposition, Inbound, MARK, Outbound, OutboundAction, Refusal, RefusalReason,
    ResultHeader,
};
use crate::wire::message::{Direction, Handling, RecipientGroup};
use crate::wire::smtp::outgoing_header::HeadReader;
use crate::wire::smtp::reply::is_unknown_user;

/// The refusal of a recipient that would need another message than the others.
pub(crate) const OWN_TRANSACTION: Refusal = Refusal {
    code: 452,
    status: "4.5.3",
    text: "this recipient needs a transaction of its own, send it again",
    reason: RefusalReason::OwnTransaction,
};
const TOO_MANY: Refusal = Refusal {
    code: 452,
    status: "4.5.3",
    text: "too many recipients, send the message to the rest in another transaction",
    reason: RefusalReason::Recipients,
};
const TOO_MANY_HEADERS: Refusal = Refusal {
    code: 550,
    status: "5.6.0",
    text: "too many Countersign headers that are not ours",
    reason: RefusalReason::Headers,
};
/// The most forged headers in a message. More of them are not there by mistake.
const MAX_FORGED: usize = 50;
const OURS: &[u8] = b"countersign-";

/// A change that the MTA has to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// Change the envelope sender; its parameters stay (SMFIR_CHGFROM).
    Sender {
        /// The new address, without angle brackets.
        path: String,
    },
    /// Add a recipient (SMFIR_ADDRCPT).
    AddRecipient {
        /// The new address, without angle brackets.
        path: String,
        /// Its parameters as in RCPT, separated by spaces.
        params: String,
    },
    /// Remove a recipient (SMFIR_DELRCPT).
    DeleteRecipient {
        /// The address as it was received, without angle brackets.
        path: String,
    },
    /// Add a header after all others (SMFIR_ADDHEADER).
    AppendHeader {
        /// The field name.
        name: String,
        /// The field body.
        value: String,
    },
    /// Insert a header before all others (SMFIR_INSHEADER).
    InsertHeader {
        /// The field name.
        name: String,
        /// The field body.
        value: String,
    },
    /// Remove a header (SMFIR_CHGHEADER).
    DeleteHeader {
        /// The field name.
        name: String,
        /// Its position among the headers of this name, from 1.
        index: i32,
    },
}

/// What the MTA itself answers to a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MtaAnswer {
    /// It takes the recipient, if the milter does.
    Takes,
    /// It refuses the recipient as an unknown user.
    Unknown,
    /// It refuses the recipient for another reason.
    Refuses,
}

impl MtaAnswer {
    /// Reads the macros `{rcpt_mailer}` and `{rcpt_host}` of RCPT: a recipient that the MTA refuses has the mailer `error`,
    /// and its enhanced status code as the host (Postfix, smtpd_milter.c; Sendmail, `$#error`).
    pub(crate) fn of_macros(mailer: &[u8], host: &[u8]) -> Self {
        let is_unknown = |status: &str| status.starts_with("5.") && is_unknown_user(&format!("550 {status}"));
        let unknown = || std::str::from_utf8(host).is_ok_and(is_unknown);
        match mailer {
            b"error" if unknown() => Self::Unknown,
            b"error" => Self::Refuses,
            _ => Self::Takes,
        }
    }
}

/// One message, from MAIL to its end.
#[derive(Debug)]
pub(crate) struct MilterMessage {
    direction: Direction,
    sender: ReversePath,
    signed: Option<String>,
    evidence: bool,
    /// What all recipients so far have in common; `None`: there are none yet.
    class: Option<RecipientGroup>,
    count: u32,
    /// How many of them would rather have the sender unchanged.
    staying: u32,
    /// Why an outbound message is inspected, and the recipient that decides.
    inspected: Option<(ContentCheck, Address)>,
    /// Recipients that are changed or removed, or may be.
    recipients: Vec<MilterRecipient>,
    head: HeadReader,
    forged: Vec<(String, i32)>,
    scanner: Option<Scanner>,
    in_body: bool,
}

#[derive(Debug)]
struct MilterRecipient {
    path: String,
    params: String,
    to: Option<String>,
}

impl MilterMessage {
    /// An outbound message, with the decision about its sender.
    #[must_use]
    pub(crate) fn outbound(sender: ReversePath, outbound: &Outbound) -> Self {
        let signed = outbound.signed().map(|signed| signed.address().to_string());
        Self { signed, evidence: outbound.evidence, ..Self::new(Direction::Outbound, sender) }
    }

    /// An inbound message.
    #[must_use]
    pub(crate) fn inbound(sender: ReversePath) -> Self {
        Self::new(Direction::Inbound, sender)
    }

    fn new(direction: Direction, sender: ReversePath) -> Self {
        Self {
            direction,
            sender,
            signed: None,
            evidence: false,
            class: None,
            count: 0,
            staying: 0,
            inspected: None,
            recipients: Vec::new(),
            head: HeadReader::of_chunks(),
            forged: Vec::new(),
            scanner: None,
            in_body: false,
        }
    }

    /// The direction of the message.
    #[must_use]
    pub(crate) fn direction(&self) -> Direction {
        self.direction
    }

    /// The envelope sender as it was received.
    #[must_use]
    pub(crate) fn sender(&self) -> &ReversePath {
        &self.sender
    }

    /// The signed sender, if there is one.
    #[must_use]
    pub(crate) fn signed(&self) -> Option<&str> {
        let stays = self.staying > 0 && self.staying == self.count;
        self.signed.as_deref().filter(|_| !stays)
    }

    /// Whether the message gets an evidence header.
    #[must_use]
    pub(crate) fn wants_evidence(&self) -> bool {
        self.evidence
    }

    /// The number of recipients.
    #[must_use]
    pub(crate) fn recipients(&self) -> u32 {
        self.count
    }

    /// Has the content of an outbound message inspected, for the recipient that was added last. With several, the first
    /// decides: mail of the MTA itself cannot be sent again in parts.
    pub(crate) fn inspect_outbound(&mut self, check: ContentCheck, path: &str, params: &str, recipient: Address) {
        self.recipients.push(MilterRecipient { path: path.to_owned(), params: params.to_owned(), to: None });
        self.inspected.get_or_insert((check, recipient));
    }

    /// Adds a recipient of outbound mail. `outbound` is the decision about the sender for this recipient; `None`: the
    /// recipient makes no difference. The first recipient decides.
    ///
    /// # Errors
    /// The recipient needs another sender than the first one, or its sender is rejected, or an earlier recipient is
    /// discarded, marked or inspected.
    pub(crate) fn add_outbound(&mut self, outbound: Option<&Outbound>) -> Result<(), Refusal> {
        if self.class.as_ref().is_some_and(|others| !others.is_like(&RecipientGroup::default())) {
            return Err(OWN_TRANSACTION);
        }
        if outbound.is_some_and(Outbound::yields) {
            self.staying += 1;
        } else if let Some(outbound) = outbound {
            let signed = match &outbound.action {
                OutboundAction::Reject(refusal) => return Err(refusal.clone()),
                OutboundAction::Pass => None,
                OutboundAction::Sign(signed) | OutboundAction::Rewrite(signed) => Some(signed.address().to_string()),
            };
            let is_first = self.count == self.staying;
            if !is_first && signed.is_some() != self.signed.is_some() {
                return Err(OWN_TRANSACTION);
            }
            if is_first {
                (self.signed, self.evidence) = (signed, outbound.evidence);
            }
        }
        self.class = Some(RecipientGroup::default());
        self.count += 1;
        Ok(())
    }

    /// Adds a recipient with the decision of the inbound rules about it. `path` and `params` are as received; `most` is
    /// the largest number of recipients that may be changed.
    ///
    /// # Errors
    /// The rules refuse the recipient, it cannot share the message with earlier ones, or too many would have to be
    /// changed.
    pub(crate) fn add_inbound(
        &mut self,
        path: &str,
        params: &str,
        inbound: &Inbound,
        most: usize,
    ) -> Result<(), Refusal> {
        let (handling, delivery) = match &inbound.disposition {
            Disposition::Refuse(refusal) => return Err(refusal.clone()),
            Disposition::Deliver(delivery) => (Handling::Deliver, Some(delivery)),
            Disposition::Inspect(delivery, check) => (Handling::Inspect(*check), Some(delivery)),
            Disposition::Discard => (Handling::Discard, None),
        };
        let class = RecipientGroup {
            handling,
            candidate: handling.check().and(delivery).map(|delivery| delivery.to.clone()),
            mark: delivery.and_then(|delivery| delivery.mark),
            target: Default::default(),
        };
        if self.class.as_ref().is_some_and(|others| !others.is_like(&class)) {
            return Err(OWN_TRANSACTION);
        }
        let changed = delivery.filter(|delivery| delivery.to.as_str() != path).map(|delivery| delivery.to.to_string());
        if changed.is_some() || handling != Handling::Deliver {
            if self.recipients.len() >= most {
                return Err(TOO_MANY);
            }
            self.recipients.push(MilterRecipient { path: path.to_owned(), params: params.to_owned(), to: changed });
        }
        self.class = Some(class);
        self.count += 1;
        Ok(())
    }

    /// The recipient whose content decides, and why it does.
    #[must_use]
    pub(crate) fn candidate(&self) -> Option<(ContentCheck, &Address)> {
        let inspected = self.inspected.as_ref().map(|(check, recipient)| (*check, recipient));
        inspected.or_else(|| {
            let class = self.class.as_ref()?;
            class.handling.check().zip(class.candidate.as_ref())
        })
    }

    /// Whether the message is accepted and discarded.
    #[must_use]
    pub(crate) fn is_discarded(&self) -> bool {
        self.class.as_ref().is_some_and(|class| class.handling == Handling::Discard)
    }

    /// The mark that the rules have decided on at RCPT.
    #[must_use]
    pub(crate) fn mark(&self) -> Option<ResultHeader> {
        self.class.as_ref().and_then(|class| class.mark)
    }

    /// Whether the content of the message has to be read.
    fn is_read(&self) -> bool {
        self.candidate().is_some() || self.mark().is_some_and(|mark| mark.observed)
    }

    /// Adds a header, without the line end after it; folded lines end in LF or CR LF.
    ///
    /// # Errors
    /// An inbound message has more than 50 headers with our names.
    pub(crate) fn header(&mut self, name: &[u8], value: &[u8]) -> Result<(), Refusal> {
        let is_ours = name.get(..OURS.len()).is_some_and(|head| head.eq_ignore_ascii_case(OURS));
        if self.direction == Direction::Inbound && is_ours {
            if self.forged.len() >= MAX_FORGED {
                return Err(TOO_MANY_HEADERS);
            }
            let name = String::from_utf8_lossy(name).into_owned();
            let earlier = self.forged.iter().filter(|(other, _)| other.eq_ignore_ascii_case(&name)).count();
            self.forged.push((name, i32::try_from(earlier + 1).unwrap_or(i32::MAX)));
            return Ok(());
        }
        let line = [name, b": ", value, b"\r\n"].concat();
        if self.is_read() {
            self.scanner.get_or_insert_with(Scanner::of_text).push(&line);
        }
        self.head.push(&line, &mut Vec::new());
        Ok(())
    }

    /// Adds a piece of the body. Returns whether more of it is needed.
    pub(crate) fn body(&mut self, part: &[u8]) -> bool {
        if !self.is_read() {
            return false;
        }
        let scanner = self.scanner.get_or_insert_with(Scanner::of_text);
        if !std::mem::replace(&mut self.in_body, true) {
            scanner.push(b"\r\n");
        }
        scanner.push(part);
        true
    }

    /// Ends the message. Returns what was found in it, if its content had to be read.
    pub(crate) fn finish(&mut self) -> Option<Findings> {
        if !self.is_read() {
            return None;
        }
        let scanner = self.scanner.get_or_insert_with(Scanner::of_text);
        scanner.finish();
        Some(scanner.found())
    }

    /// The Message-ID, with angle brackets.
    #[must_use]
    pub(crate) fn message_id(&self) -> Option<String> {
        self.head.message_id()
    }

    /// The value of the From header.
    #[must_use]
    pub(crate) fn from(&self) -> Option<String> {
        self.head.from()
    }

    /// The changes for the MTA, in this order, if the message is delivered. `evidence` is the line of the evidence
    /// header.
    #[must_use]
    pub(crate) fn changes(&self, evidence: Option<&str>, content: Option<&ContentVerdict>) -> Vec<Change> {
        let mut changes = Vec::new();
        if let Some(signed) = self.signed() {
            changes.push(Change::Sender { path: signed.to_owned() });
        }
        if let Some((name, value)) = evidence.and_then(|line| line.split_once(": ")) {
            changes.push(Change::AppendHeader { name: name.to_owned(), value: value.to_owned() });
        }
        // From last to first, because a deletion may renumber the headers after it.
        let forged = self.forged.iter().rev();
        changes.extend(forged.map(|(name, index)| Change::DeleteHeader { name: name.clone(), index: *index }));
        let (aside, mark) = match content {
            Some(ContentVerdict::Mark(mark)) => (None, Some(*mark)),
            Some(ContentVerdict::Quarantine(to, mark)) => (Some(to), Some(*mark)),
            _ => (None, self.mark()),
        };
        if let Some(mark) = mark {
            changes.push(Change::InsertHeader { name: MARK.to_owned(), value: mark.value() });
        }
        // Deletions come first. If the MTA's own tables map a tag to its mailbox, too, Sendmail takes an address that
        // was added earlier for a duplicate, and deletes it with the tag. A message without recipients is lost without
        // notice.
        let leaving = self.recipients.iter().filter(|recipient| aside.is_some() || recipient.to.is_some());
        changes.extend(leaving.map(|recipient| Change::DeleteRecipient { path: recipient.path.clone() }));
        match aside {
            Some(to) => changes.push(Change::AddRecipient { path: to.to_string(), params: String::new() }),
            None => changes.extend(self.recipients.iter().filter_map(|recipient| {
                let (path, params) = (recipient.to.clone()?, recipient.params.clone());
                Some(Change::AddRecipient { path, params })
            })),
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::keyring::{Algorithm, Keyring, NewKey, Secret};
    use crate::envelope::match_lists::AliasDomains;
    use crate::envelope::rules::{Delivery, InboundReason, OutboundReason};
    use crate::envelope::rules::{Route, Rules};
    use crate::envelope::site_policy::FailureReason;
    use crate::envelope::site_policy::{Policy, SiteDomains};
    use crate::envelope::tag::Verdict;
    use crate::envelope::time::Timestamp;

    fn deliver(to: &str, mark: Option<ResultHeader>, check: Option<ContentCheck>) -> Inbound {
        let delivery = Delivery { to: Address::parse(to).unwrap(), route: Route::NextHop, mark };
        let disposition = match check {
            None => Disposition::Deliver(delivery),
            Some(check) => Disposition::Inspect(delivery, check),
        };
        Inbound { verdict: Verdict::Untagged, disposition, reason: InboundReason::Valid, tag: None }
    }

    const MARKED: ResultHeader = ResultHeader {
        verdict: "forged",
        would: "reject",
        reason: RefusalReason::Site(FailureReason::Forged),
        observed: true,
    };

    fn add(path: &str, params: &str) -> Change {
        Change::AddRecipient { path: path.into(), params: params.into() }
    }
    fn delete(path: &str) -> Change {
        Change::DeleteRecipient { path: path.into() }
    }

    #[test]
    fn the_answer_of_the_mta_is_in_its_macros() {
        for (mailer, host, answer) in [
            ("error", "5.1.1", MtaAnswer::Unknown),
            ("error", "5.7.1", MtaAnswer::Refuses),
            ("error", "4.7.1", MtaAnswer::Refuses),
            ("local", "5.1.1", MtaAnswer::Takes),
            ("", "", MtaAnswer::Takes),
        ] {
            assert_eq!(MtaAnswer::of_macros(mailer.as_bytes(), host.as_bytes()), answer, "{mailer} {host}");
        }
    }

    #[test]
    fn a_recipient_is_changed_with_its_parameters() {
        let mut message = MilterMessage::inbound(ReversePath::Null);
        let valid = deliver("ann@our.example", None, None);
        message.add_inbound("prvs=1=ann@our.example", "NOTIFY=NEVER", &valid, 10).unwrap();
        message.add_inbound("bea@our.example", "", &deliver("bea@our.example", None, None), 10).unwrap();
        assert_eq!((message.recipients(), message.body(b"x")), (2, false));
        assert_eq!(
            message.changes(None, None),
            [delete("prvs=1=ann@our.example"), add("ann@our.example", "NOTIFY=NEVER")]
        );
    }

    #[test]
    fn recipients_with_different_fates_do_not_share_a_message() {
        let mut message = MilterMessage::inbound(ReversePath::Null);
        message
            .add_inbound("ann@our.example", "", &deliver("ann@our.example", None, Some(ContentCheck::NullSender)), 10)
            .unwrap();
        for other in [
            deliver("bea@our.example", None, Some(ContentCheck::NullSender)),
            deliver("ann@our.example", None, None),
            deliver("ann@our.example", Some(MARKED), Some(ContentCheck::NullSender)),
        ] {
            assert_eq!(message.add_inbound("x@our.example", "", &other, 10), Err(OWN_TRANSACTION));
        }
        assert!(
            message
                .add_inbound(
                    "ANN@our.example",
                    "",
                    &deliver("ann@OUR.example", None, Some(ContentCheck::NullSender)),
                    10
                )
                .is_ok()
        );
        assert_eq!(message.recipients(), 2);
    }

    #[test]
    fn what_is_set_aside_leaves_its_mailbox_alone() {
        let mut message = MilterMessage::inbound(ReversePath::Null);
        message
            .add_inbound("ann@our.example", "", &deliver("ann@our.example", None, Some(ContentCheck::NullSender)), 10)
            .unwrap();
        let aside = ContentVerdict::Quarantine(Address::parse("q@our.example").unwrap(), MARKED);
        let mark = Change::InsertHeader { name: MARK.into(), value: MARKED.value() };
        assert_eq!(
            message.changes(None, Some(&aside)),
            [mark.clone(), delete("ann@our.example"), add("q@our.example", "")]
        );
        assert_eq!(message.changes(None, Some(&ContentVerdict::Mark(MARKED))), [mark]);
        assert_eq!(message.changes(None, Some(&ContentVerdict::Deliver)), []);
    }

    #[test]
    fn forged_headers_go_the_last_first() {
        let mut message = MilterMessage::inbound(ReversePath::Null);
        for name in ["Countersign-Result", "Subject", "COUNTERSIGN-result", "Countersign-X"] {
            message.header(name.as_bytes(), b"v").unwrap();
        }
        let gone = |name: &str, index| Change::DeleteHeader { name: name.into(), index };
        assert_eq!(
            message.changes(None, None),
            [gone("Countersign-X", 1), gone("COUNTERSIGN-result", 2), gone("Countersign-Result", 1)]
        );
        let refused =
            (0..MAX_FORGED).map(|n| message.header(format!("Countersign-{n}").as_bytes(), b"")).find(Result::is_err);
        assert_eq!(refused, Some(Err(TOO_MANY_HEADERS)));
    }

    #[test]
    fn a_candidate_is_read_whole() {
        let mut message = MilterMessage::inbound(ReversePath::Null);
        message
            .add_inbound("ann@our.example", "", &deliver("ann@our.example", None, Some(ContentCheck::NullSender)), 10)
            .unwrap();
        message.header(b"From", b"MAILER-DAEMON@third.example").unwrap();
        message.header(b"Subject", b"failure\n notice").unwrap();
        assert!(message.body(b"I was not able to deliver "));
        assert!(message.body(b"your message.\r\n<bob@third.example>: no such user\r\n"));
        assert!(message.finish().unwrap().kind.is_ndr());
    }

    #[test]
    fn a_rewritten_sender_is_kept_where_all_recipients_are_local() {
        let stays = Outbound { action: OutboundAction::Pass, reason: OutboundReason::LocalRecipient, evidence: false };
        let secret = Secret::new(vec![7; 32].into());
        let key = NewKey { algorithm: Algorithm::HmacSha256, secret, lifetime: 7, srs_lifetime: 21, short_tags: true };
        let ring = Keyring::create(key, Timestamp(1_795_382_400)).unwrap();
        let policy = Policy {
            domains: SiteDomains { srs: AliasDomains::one("srs.our.example"), ..SiteDomains::default() },
            ..Policy::default()
        };
        let rules = Rules::new(&policy, &ring, Timestamp(1_795_382_400));
        let sender = ReversePath::parse("bob@third.example").unwrap();
        let leaves = rules.outbound(None, &sender, None);
        for (recipients, is_changed) in [
            (vec![&stays], false),
            (vec![&stays, &stays], false),
            (vec![&stays, &leaves], true),
            (vec![&leaves, &stays], true),
        ] {
            let mut message = MilterMessage::outbound(sender.clone(), &leaves);
            recipients.iter().for_each(|outbound| message.add_outbound(Some(outbound)).unwrap());
            assert_eq!(message.signed().is_some(), is_changed);
            assert_eq!(message.changes(None, None).len(), usize::from(is_changed));
        }
    }

    #[test]
    fn one_message_has_one_sender() {
        let pass = Outbound { action: OutboundAction::Pass, reason: OutboundReason::ExemptRecipient, evidence: true };
        let mut message = MilterMessage::outbound(ReversePath::Null, &pass);
        message.add_outbound(Some(&pass)).unwrap();
        message.add_outbound(None).unwrap();
        message.header(b"Message-ID", b"<1@our.example>").unwrap();
        assert_eq!(message.message_id().as_deref(), Some("<1@our.example>"));
        let line = "Countersign-Evidence: v=1; k=1";
        let header = Change::AppendHeader { name: "Countersign-Evidence".into(), value: "v=1; k=1".into() };
        assert_eq!(message.changes(Some(line), None), [header]);
    }
}
