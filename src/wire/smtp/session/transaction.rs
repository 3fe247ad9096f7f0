//! Senders and recipients: MAIL and RCPT, the verdicts on them, and the commands sent to the next hop.

use super::body::{ChunkedMessage, DataBody, Message, accepted};
use super::mail::{Asked, AskedMail, AskedRcpt, AtHop, Recipient, SenderAtHop, Transaction};
use super::queue::{ClientCommand, Item, ProxyCommand};
use super::{Event, Session};
use crate::envelope::address::{Address, ReversePath, strip_source_route};
use crate::envelope::rules::{
    ContentCheck, Delivery, Disposition, Inbound, Outbound, OutboundAction, Refusal, RefusalReason, ResultHeader, Route,
};
use crate::wire::message::{Direction, NextHopChoice};
use crate::wire::message::{Handling, RecipientGroup};
use crate::wire::smtp::command::Path;
use crate::wire::smtp::replies::{
    GO_ON, MESSAGE_TOO_LONG, NEED_BDAT, NEED_MAIL, NEED_RCPT, NESTED_MAIL, NO_AUTH_PARAMETER, NO_BINARYMIME,
    NO_RECIPIENTS, NO_REQUIRETLS, NO_ROOM, OWN_TRANSACTION, RECIPIENT_OK, TOO_MANY_RECIPIENTS, TOO_MANY_REFUSED,
    TOO_MANY_UNKNOWN,
};

/// The most recipients of a session that are put off because its network has found out about too many unknown ones.
const MAX_PUT_OFF: u32 = 20;

impl Session {
    pub(super) fn mail(&mut self, line: &[u8], path: &Path<'_>) -> bool {
        if self.mail.transaction().is_some() {
            self.mistake(NESTED_MAIL);
            return true;
        }
        if std::mem::take(&mut self.client.forwarded_is_used) {
            self.forget_forwarded();
        }
        if self.hop.target != NextHopChoice::Main {
            // The last transaction used another next hop. The reply to this MAIL must come from the next hop for all
            // mail.
            return self.change_target(NextHopChoice::Main);
        }
        if self.must_introduce_again() {
            return self.change_target(self.hop.target);
        }
        let sender = match ReversePath::parse(path.path) {
            Ok(sender) => sender,
            Err(error) => {
                self.bad(501, "5.1.7", &format!("bad sender address: {error}"));
                return true;
            }
        };
        let binary = path.values("BODY").any(|v| v.eq_ignore_ascii_case("BINARYMIME"));
        if binary && !self.hop.facts.offer.binarymime {
            self.mistake(NO_BINARYMIME);
            return true;
        }
        if path.has_param("REQUIRETLS") && !self.may_require_tls() {
            self.mistake(NO_REQUIRETLS);
            return true;
        }
        let limit = self.settings.limits.message;
        if limit > 0 && path.values("SIZE").any(|size| size.parse::<u64>().is_ok_and(|size| size > limit)) {
            self.out.events.push_back(Event::Limit("message"));
            self.say(MESSAGE_TOO_LONG);
            return true;
        }
        let Some(params) = self.mail_params(path) else {
            self.mistake(NO_AUTH_PARAMETER);
            return true;
        };
        let line = if params == path.params { line.to_vec() } else { mail_line(path.path, &params).into_bytes() };
        let path = path.path.to_owned();
        match self.settings.direction {
            Direction::Inbound => self.begin(&line, sender, path, params, None),
            Direction::Outbound => {
                self.mail.ask_about_sender(AskedMail { line, sender, path, params });
                self.out.events.push_back(Event::Ask);
            }
        }
        true
    }

    /// The parameters for the next hop, or `None` if the client may not use AUTH=. Only a trusted or authenticated
    /// client may say who submitted a message (RFC 4954 section 5).
    fn mail_params(&self, path: &Path<'_>) -> Option<String> {
        if !path.has_param("AUTH") || self.settings.trusted || self.client.authenticated {
            return Some(path.params.to_owned());
        }
        if !self.hop.facts.offer.auth {
            return None;
        }
        let word = |word: &str| {
            let is_auth = word.split_once('=').map_or(word, |(key, _)| key).eq_ignore_ascii_case("AUTH");
            if is_auth { " AUTH=<>".to_owned() } else { format!(" {word}") }
        };
        Some(path.params.split_ascii_whitespace().map(word).collect())
    }

    pub(super) fn sender_answered(&mut self, outbound: &Outbound) {
        let Some(AskedMail { line, sender, path, params }) = self.mail.take_asked_sender() else { return };
        match &outbound.action {
            OutboundAction::Reject(refusal) => self.refuse(refusal),
            OutboundAction::Pass => self.begin(&line, sender, path, params, None),
            OutboundAction::Sign(signed) | OutboundAction::Rewrite(signed) => {
                let signed = signed.address().to_string();
                self.begin(&line, sender, path, params, Some(signed));
            }
        }
        if let Some(transaction) = self.mail.transaction_mut() {
            transaction.evidence = outbound.evidence;
        }
    }

    fn begin(&mut self, line: &[u8], sender: ReversePath, path: String, params: String, signed: Option<String>) {
        self.mail.transactions += 1;
        let id = self.mail.transactions;
        self.client.forwarded_is_used = self.client.forwarded.is_some();
        self.introduce();
        match &signed {
            None => self.forward(line, ClientCommand::Mail { transaction: id }),
            Some(signed) => {
                self.forward(mail_line(signed, &params).as_bytes(), ClientCommand::Mail { transaction: id });
            }
        }
        let at_hop = AtHop { signed: signed.is_some(), path: signed.unwrap_or_else(|| path.clone()) };
        let binary = Path { path: "", params: &params }.values("BODY").any(|v| v.eq_ignore_ascii_case("BINARYMIME"));
        self.mail.begin(Transaction {
            id,
            sender,
            path,
            params,
            binary,
            at_hop,
            in_effect: true,
            mail_pending: true,
            is_refused: false,
            asked: None,
            waiting: None,
            refused: None,
            outstanding: 0,
            accepted: 0,
            group: RecipientGroup::default(),
            evidence: false,
            found: None,
            message_id: None,
            message: Message::NotBegun,
            chunk_refused: None,
            ends_at: 0,
            replies_due: 0,
            worst: None,
        });
    }

    pub(super) fn rcpt(&mut self, line: &[u8], path: &Path<'_>) {
        let is_open = |transaction: &&Transaction| matches!(transaction.message, Message::NotBegun);
        let Some(transaction) = self.mail.transaction().filter(is_open) else {
            self.mistake(NEED_MAIL);
            return;
        };
        if transaction.accepted + transaction.outstanding >= self.settings.limits.recipients {
            self.out.events.push_back(Event::Limit("recipients"));
            self.say(TOO_MANY_RECIPIENTS);
            return;
        }
        if path.path.eq_ignore_ascii_case("postmaster") {
            // RFC 5321 section 4.5.1: the only recipient without a domain, which always exists.
            let (command, group) = (line.to_vec(), RecipientGroup::default());
            self.recipient(Recipient { command, group, sender: SenderAtHop::AsBefore });
            return;
        }
        let recipient = match Address::parse(strip_source_route(path.path)) {
            Ok(recipient) => recipient,
            Err(error) => {
                self.bad(501, "5.1.3", &format!("bad recipient address: {error}"));
                return;
            }
        };
        let params = path.params.to_owned();
        let unchanged =
            if path.path == recipient.as_str() { line.to_vec() } else { rcpt_line(recipient.as_str(), &params) };
        self.ask(Asked::Rcpt(AskedRcpt { recipient, params, unchanged }));
    }

    /// Accepts the verdict on a recipient's sender. `outbound`: `None` if the sender in MAIL is right; `check`: why the
    /// content is inspected.
    pub(super) fn sender_for_answered(
        &mut self,
        outbound: Option<&Outbound>,
        domain: Option<u16>,
        check: Option<ContentCheck>,
    ) {
        let Some(asked) = self.asked_recipient() else { return };
        let has_others = self.mail.transaction().is_some_and(Transaction::has_recipients);
        let outbound = outbound.filter(|outbound| !has_others || !outbound.yields());
        let sender = match outbound.map(|outbound| &outbound.action) {
            Some(OutboundAction::Reject(refusal)) => return self.refuse(refusal),
            Some(OutboundAction::Pass) => SenderAtHop::Unsigned,
            Some(OutboundAction::Sign(signed) | OutboundAction::Rewrite(signed)) => {
                SenderAtHop::Signed(signed.address().to_string())
            }
            None => SenderAtHop::AsBefore,
        };
        let target = domain.map_or(NextHopChoice::Main, NextHopChoice::Domain);
        let group = RecipientGroup {
            handling: check.map_or(Handling::Deliver, Handling::Inspect),
            candidate: check.map(|_| asked.recipient.clone()),
            target,
            mark: None,
        };
        self.recipient(Recipient { command: asked.unchanged, group, sender });
    }

    /// Takes the recipient that the rules have answered about, unless the next hop has refused its MAIL meanwhile.
    fn asked_recipient(&mut self) -> Option<AskedRcpt> {
        let Some(Asked::Rcpt(asked)) = self.mail.take_asked(|asked| matches!(asked, Asked::Rcpt(_))) else {
            return None;
        };
        if self.mail.transaction().is_some_and(|transaction| transaction.is_refused) {
            self.out.events.push_back(Event::RecipientNotSent);
            self.mistake(NEED_MAIL);
            return None;
        }
        Some(asked)
    }

    pub(super) fn recipient_answered(&mut self, inbound: &Inbound, domain: Option<u16>) {
        let Some(AskedRcpt { recipient, params, unchanged }) = self.asked_recipient() else { return };
        let (delivery, handling) = match &inbound.disposition {
            Disposition::Refuse(refusal) if self.is_one_too_many(refusal.code) => {
                self.say(TOO_MANY_REFUSED);
                return self.end_when_answered();
            }
            Disposition::Refuse(refusal) if refusal.reason == RefusalReason::Harvest => return self.put_off(refusal),
            Disposition::Refuse(refusal) => return self.refuse(refusal),
            Disposition::Discard => return self.accept_and_discard(),
            Disposition::Deliver(delivery) => (delivery, Handling::Deliver),
            Disposition::Inspect(delivery, check) => (delivery, Handling::Inspect(*check)),
        };
        let Delivery { to, route, mark } = delivery;
        let target = match route {
            Route::SrsNextHop if self.settings.has_srs_next_hop => NextHopChoice::Srs,
            Route::SrsNextHop | Route::NextHop => domain.map_or(NextHopChoice::Main, NextHopChoice::Domain),
        };
        let candidate = handling.check().map(|_| to.clone());
        let group = RecipientGroup { handling, candidate, mark: *mark, target };
        let command = if *to == recipient { unchanged } else { rcpt_line(to.as_str(), &params) };
        self.recipient(Recipient { command, group, sender: SenderAtHop::AsBefore });
    }

    /// Accepts a recipient whose message is discarded. The client is sent 250, and the next hop is not sent the
    /// recipient.
    fn accept_and_discard(&mut self) {
        let group = RecipientGroup { handling: Handling::Discard, ..RecipientGroup::default() };
        let Some(transaction) = self.mail.transaction_mut() else { return };
        if transaction.needs_another(&group, &SenderAtHop::AsBefore) {
            self.out.events.push_back(Event::OwnTransaction);
            self.say(OWN_TRANSACTION);
            return;
        }
        transaction.group = group;
        transaction.accepted += 1;
        self.say(RECIPIENT_OK);
    }

    /// Sends a recipient to the next hop. If another next hop or another MAIL is needed first, the recipient waits.
    fn recipient(&mut self, recipient: Recipient) {
        let Some(transaction) = self.mail.transaction_mut() else { return };
        if transaction.needs_another(&recipient.group, &recipient.sender) {
            self.out.events.push_back(Event::OwnTransaction);
            self.say(OWN_TRANSACTION);
            return;
        }
        let target = recipient.group.target;
        let other_sender = transaction.has_another_sender(&recipient.sender);
        let other_hop = target != self.hop.target;
        // The client is sent the next hop's reply to MAIL before another MAIL is sent.
        let is_early = (other_sender || other_hop) && (transaction.mail_pending || !self.pipeline.queue.is_empty());
        if is_early || other_hop {
            transaction.waiting = Some(Box::new(recipient));
            self.pipeline.barrier = !self.pipeline.queue.is_empty();
            if !is_early {
                self.change_target(target);
            }
            return;
        }
        let Recipient { command, group, sender } = recipient;
        if other_sender {
            self.second_mail(sender);
        }
        let Some(transaction) = self.mail.transaction_mut() else { return };
        transaction.group = group;
        transaction.outstanding += 1;
        let id = transaction.id;
        if self.settings.direction == Direction::Inbound {
            self.out.events.push_back(Event::RecipientSent);
        }
        self.forward(&command, ClientCommand::Rcpt { transaction: id });
    }

    /// Continues with a waiting recipient, if it no longer has to wait.
    pub(super) fn resume_recipient(&mut self) {
        if self.is_blocked() || !self.pipeline.queue.is_empty() {
            return;
        }
        if let Some(recipient) = self.mail.transaction_mut().and_then(|transaction| transaction.waiting.take()) {
            self.recipient(*recipient);
        }
    }

    /// Sends another MAIL for the transaction, with the parameters of the first. Its replies are not passed on.
    fn second_mail(&mut self, sender: SenderAtHop) {
        let Some(transaction) = self.mail.transaction_mut() else { return };
        // If the sender does not depend on the recipient, the last one is sent again.
        let at_hop = match sender {
            SenderAtHop::Signed(path) => AtHop { signed: true, path },
            SenderAtHop::Unsigned => AtHop { signed: false, path: transaction.path.clone() },
            SenderAtHop::AsBefore => transaction.at_hop.clone(),
        };
        // The client was sent the extensions of another next hop; parameters that this one does not offer are dropped
        // if they are not needed.
        let (offer, elsewhere) = (&self.hop.facts.offer, self.hop.target != NextHopChoice::Main);
        let lacks = |name: &str| (name == "SIZE" && !offer.size) || (name == "AUTH" && !offer.auth);
        let params = without(&transaction.params, |name| elsewhere && lacks(name));
        let line = mail_line(&at_hop.path, &params);
        let id = transaction.id;
        // RSET also makes the next hop forget XFORWARD.
        let fresh = !transaction.in_effect && transaction.refused.is_none();
        transaction.refused = None;
        (transaction.at_hop, transaction.in_effect) = (at_hop, true);
        if !fresh {
            self.send(b"RSET", Item::Swallowed(ProxyCommand::Rset));
        }
        self.introduce();
        self.send(line.as_bytes(), Item::Swallowed(ProxyCommand::Mail { transaction: id }));
    }

    pub(super) fn data(&mut self) -> bool {
        let Some(transaction) = self.mail.transaction().filter(|transaction| transaction.is_begun()) else {
            self.mistake(NEED_RCPT);
            return true;
        };
        if transaction.binary || !matches!(transaction.message, Message::NotBegun) {
            self.mistake(NEED_BDAT);
            return true;
        }
        if transaction.group.handling == Handling::Deliver {
            self.forward(b"DATA", ClientCommand::Data);
            self.pipeline.barrier = true;
            return true;
        }
        if !self.pipeline.queue.is_empty() {
            // The command is parsed again when all replies have arrived. The client must not send anything before.
            self.pipeline.barrier = true;
            self.pipeline.answer_is_awaited = true;
            return false;
        }
        if transaction.accepted == 0 {
            self.say(NO_RECIPIENTS);
            return true;
        }
        if transaction.group.handling == Handling::Discard {
            self.send(b"RSET", Item::Swallowed(ProxyCommand::Rset));
            self.begin_data(DataBody::unwanted(self.settings.limits, accepted()));
            self.say(GO_ON);
            return true;
        }
        self.ask(Asked::Hold(None));
        true
    }

    /// Replaces the recipients of a buffered message by the quarantine mailbox. The message waits for the next hop's
    /// replies.
    pub(super) fn redirect(&mut self, to: &Address, mark: &ResultHeader) {
        let Some(transaction) = self.mail.transaction() else { return };
        let mail = mail_line(&transaction.at_hop.path, &transaction.params);
        let id = transaction.id;
        // In LMTP, a message gets one reply per recipient, so the mailbox is named as often as the client's recipients.
        let times = if self.settings.lmtp { transaction.accepted.max(1) } else { 1 };
        self.send(b"RSET", Item::Swallowed(ProxyCommand::Rset));
        self.introduce();
        self.send(mail.as_bytes(), Item::Swallowed(ProxyCommand::Mail { transaction: id }));
        for _ in 0..times {
            self.send(&rcpt_line(to.as_str(), ""), Item::Swallowed(ProxyCommand::Rcpt));
        }
        if let Some(transaction) = self.mail.transaction_mut() {
            transaction.asked = Some(Asked::Quarantine { mark: *mark, due: times, refused: None });
        }
    }

    /// Accepts the answer whether memory is available for the message that begins.
    pub(super) fn hold_answered(&mut self, room: bool) {
        let asked = self.mail.take_asked(|asked| matches!(asked, Asked::Hold(_)));
        let (Some(Asked::Hold(chunk)), Some(transaction)) = (asked, self.mail.transaction()) else { return };
        let (limits, check) = (self.settings.limits, transaction.group.handling.check());
        match chunk {
            None if room => {
                let strips = self.settings.strips_content && check == Some(ContentCheck::OwnBounce);
                self.begin_data(DataBody::held(limits, check, strips));
                self.say(GO_ON);
            }
            None => self.say(NO_ROOM),
            Some(chunk) if room => {
                self.begin_chunks(ChunkedMessage::held_for(limits, transaction.binary, check), chunk);
            }
            Some(chunk) => {
                let recipients = if chunk.last { transaction.accepted } else { 1 };
                self.swallow(chunk.octets, NO_ROOM.reply(), recipients);
                self.fail_transaction();
            }
        }
    }

    /// Counts a permanently refused recipient. Returns whether the client is to be disconnected for too many of them in
    /// a row.
    pub(super) fn is_one_too_many(&mut self, code: u16) -> bool {
        if code < 500 || self.settings.direction == Direction::Outbound {
            return false;
        }
        self.client.refused_recipients = self.client.refused_recipients.saturating_add(1);
        let limit = self.settings.limits.refused_recipients;
        let too_many = limit > 0 && self.client.refused_recipients > limit && !self.is_ending();
        if too_many {
            self.out.events.push_back(Event::Limit("refused_recipients"));
        }
        too_many
    }

    /// Refuses a recipient of a network that has found out about too many unknown ones. After some, the session ends.
    fn put_off(&mut self, refusal: &Refusal) {
        self.client.put_off = self.client.put_off.saturating_add(1);
        if self.client.put_off <= MAX_PUT_OFF {
            return self.refuse(refusal);
        }
        self.out.events.push_back(Event::Limit("unknown_recipients_per_hour"));
        self.say(TOO_MANY_UNKNOWN);
        self.end_when_answered();
    }

    fn refuse(&mut self, refusal: &Refusal) {
        self.reply(refusal.code, refusal.status, refusal.text);
    }
}

/// The parameters without those that `dropped` selects.
fn without(params: &str, dropped: impl Fn(&str) -> bool) -> String {
    let name = |word: &str| word.split_once('=').map_or(word, |(name, _)| name).to_ascii_uppercase();
    params.split_ascii_whitespace().filter(|word| !dropped(&name(word))).map(|word| format!(" {word}")).collect()
}

fn mail_line(path: &str, params: &str) -> String {
    format!("MAIL FROM:<{path}>{params}")
}

fn rcpt_line(path: &str, params: &str) -> Vec<u8> {
    format!("RCPT TO:<{path}>{params}").into_bytes()
}
