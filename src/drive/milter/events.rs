//! Handlers for the milter events of a session.

use std::ffi::{CStr, CString};
use std::net::IpAddr;
use std::str::from_utf8;
use std::sync::Arc;

use indymilter::{
    ActionError, Actions, Context, ContextActions as _, EomActions, EomContext, ProtoOpts, SetErrorReply, SmtpReply,
    Status,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::config::{MtaService, Side};
use crate::drive::app_state::AppState;
use crate::drive::evaluate::Evaluator;
use crate::drive::limited;
use crate::drive::message_tally::MessageTally;
use crate::envelope::address::{Address, ReversePath, strip_source_route};
use crate::envelope::rules::{
    BAD_RECIPIENT, BAD_SENDER, Caller, Candidate, ContentVerdict, HARVEST, OutboundAction, Refusal, RefusalReason,
};
use crate::envelope::tag::batv;
use crate::wire::message::{Direction, Finished};
use crate::wire::milter::{Change, MilterMessage, MtaAnswer};

/// The macros that the MTA has to send by MAIL.
pub(super) const MACROS: &str = "i {auth_authen} {client_addr} {client_name} {daemon_name} {mail_addr}";

/// The macros that the MTA has to send by RCPT: its own answer to the recipient.
pub(super) const RCPT_MACROS: &str = "{rcpt_mailer} {rcpt_host} {rcpt_addr}";

/// State that all connections of a listener share.
#[derive(Clone)]
pub(super) struct MilterContext {
    pub app: Arc<AppState>,
    pub mta_service: Arc<MtaService>,
    /// The number of open messages.
    pub open: watch::Sender<usize>,
    /// The signal that the daemon stops.
    pub drain: CancellationToken,
}

/// One connection of an MTA, which carries the events of one SMTP session.
pub(super) struct Client {
    evaluator: Evaluator,
    common: MilterContext,
    /// The options and actions that were negotiated.
    options: ProtoOpts,
    actions: Actions,
    open: Option<Open>,
}

/// A message before its end.
struct Open {
    message: MilterMessage,
    tally: MessageTally,
    count: watch::Sender<usize>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.count.send_modify(|open| *open = open.saturating_sub(1));
    }
}

impl Client {
    pub(super) fn new(common: MilterContext, options: ProtoOpts, actions: Actions) -> Self {
        Self {
            evaluator: Evaluator::of_one_client(Arc::clone(&common.app), None),
            common,
            options,
            actions,
            open: None,
        }
    }

    fn begin(&mut self, message: MilterMessage) {
        let count = &self.common.open;
        count.send_modify(|open| *open += 1);
        self.open = Some(Open { message, tally: MessageTally::default(), count: count.clone() });
    }

    /// The status to continue: no reply if the MTA does not wait for one.
    fn go_on(&self, silent: ProtoOpts) -> Status {
        if self.options.contains(silent) { Status::Noreply } else { Status::Continue }
    }

    /// The direction of a message. `None`: the MTA does not send enough macros to tell.
    fn direction(&self, mail: &Mail) -> Option<Direction> {
        let leaves = match self.common.mta_service.side {
            Side::Outbound => true,
            Side::Inbound => false,
            Side::Auto if !mail.user && !mail.says_who => return None,
            Side::Auto => {
                let named = self.common.mta_service.outbound_daemons.iter().any(|name| name.as_bytes() == mail.daemon);
                // Many such ports accept bounces to local mailboxes from everybody.
                let named = named && mail.sender != Some(ReversePath::Null);
                mail.user || named || self.is_one_of_us(mail)
            }
        };
        Some(if leaves { Direction::Outbound } else { Direction::Inbound })
    }

    /// Whether mail of this client is outbound because of its address, or because a program on the MTA's machine sends
    /// it.
    fn is_one_of_us(&self, mail: &Mail) -> bool {
        let known = |client| self.common.mta_service.outbound_clients.contains(client);
        self.evaluator.client.map_or(mail.local, known)
    }
}

/// What the MTA sends with MAIL.
struct Mail {
    /// `None`: neither this program nor the MTA can parse the address.
    sender: Option<ReversePath>,
    /// Whether the client has logged in.
    user: bool,
    /// The name of the MTA's listener.
    daemon: Vec<u8>,
    client: Option<IpAddr>,
    /// Whether the MTA sends the client's address or name.
    says_who: bool,
    /// Whether a program on the MTA's machine sends the mail, without a client. For an address that it does not know,
    /// an MTA sends `unknown`.
    local: bool,
}

impl Mail {
    fn read(context: &Context<Client>, arguments: &[CString]) -> Self {
        let said = |name: &CStr| context.macros.get(name).map(CStr::to_bytes).unwrap_or_default();
        let text = |name: &CStr| from_utf8(said(name)).unwrap_or_default();
        let (path, _) = path_and_params(arguments);
        let parsed = |path: &str| ReversePath::parse(path.strip_suffix('.').unwrap_or(path)).ok();
        // The MTA can interpret `<ann>` and `<ann%our.example>` better; the null sender is unambiguous.
        let resolved =
            || Some(text(c"{mail_addr}")).filter(|address| !address.is_empty()).and_then(|a| parsed(bare(a)));
        let address = text(c"{client_addr}");
        // Sendmail writes IPv6 addresses with this prefix.
        let address = address.strip_prefix("IPv6:").unwrap_or(address);
        Self {
            sender: path.as_deref().and_then(parsed).or_else(resolved),
            user: !said(c"{auth_authen}").is_empty(),
            daemon: said(c"{daemon_name}").to_vec(),
            says_who: !address.is_empty() || !said(c"{client_name}").is_empty(),
            client: address.parse().ok().map(|ip: IpAddr| ip.to_canonical()),
            local: said(c"{client_name}").eq_ignore_ascii_case(b"localhost"),
        }
    }
}

/// MAIL. It ends any earlier message: after an accept, the MTA sends no abort.
pub(super) async fn mail(context: &mut Context<Client>, arguments: &[CString]) -> Status {
    let mail = Mail::read(context, arguments);
    let Some(client) = &mut context.data else { return Status::Tempfail };
    client.open = None;
    if client.common.drain.is_cancelled() {
        // The client sends the message again when the next process listens.
        return Status::Tempfail;
    }
    client.evaluator.client = mail.client;
    let Some(direction) = client.direction(&mail) else {
        limited!(
            error,
            session = %client.evaluator.id,
            listen = %client.common.mta_service.listen,
            macros = MACROS,
            "this MTA does not say who the client is, so mail that leaves cannot be told from mail that comes in, and all is put off: \
             let it send these macros with MAIL (milter_mail_macros of Postfix), or give each direction a listener with its own role"
        );
        return Status::Tempfail;
    };
    client.evaluator.is_spared =
        mail.user || client.is_one_of_us(&mail) || mail.client.is_none_or(|it| it.is_loopback());
    let Some(sender) = mail.sender else {
        // Only the MTA can parse the address. Own programs may use such addresses, but strangers may not.
        if direction == Direction::Inbound {
            return refuse(&mut context.reply, &BAD_SENDER);
        }
        warn!(
            session = %client.evaluator.id,
            client = client.evaluator.who(),
            "mail is not signed because its sender address cannot be parsed"
        );
        return accept_or_go_on(client);
    };
    if direction == Direction::Inbound {
        // The MTA refuses unknown recipients whatever a milter answers to RCPT. So that known ones cannot be told from
        // them, the whole message is put off.
        if client.evaluator.is_harvest_limited() {
            client.evaluator.count_put_off();
            return refuse(&mut context.reply, &HARVEST);
        }
        client.begin(MilterMessage::inbound(sender));
        return Status::Continue;
    }
    if let Some(work) = client.evaluator.prepare_sender(&sender) {
        let prepared = work.await;
        client.evaluator.is_prepared(prepared);
    }
    let outbound = client.evaluator.sender(&sender);
    if let OutboundAction::Reject(refusal) = &outbound.action {
        return refuse(&mut context.reply, refusal);
    }
    // The message needs no change. Where mail may also be inbound, recipients are inspected for tags.
    let inspects = sender == ReversePath::Null && client.evaluator.app.config().policy.outbound.ndr.is_active();
    let is_untouched = outbound.action == OutboundAction::Pass && !outbound.evidence && !inspects;
    if is_untouched && client.common.mta_service.side == Side::Outbound {
        return Status::Accept;
    }
    client.begin(MilterMessage::outbound(sender, &outbound));
    Status::Continue
}

/// The status for a message that is left as it is.
fn accept_or_go_on(client: &Client) -> Status {
    if client.common.mta_service.side == Side::Outbound { Status::Accept } else { Status::Continue }
}

/// RCPT.
pub(super) async fn rcpt(context: &mut Context<Client>, arguments: &[CString]) -> Status {
    let said = |name: &CStr| context.macros.get(name).map(CStr::to_bytes).unwrap_or_default();
    let mta = MtaAnswer::of_macros(said(c"{rcpt_mailer}"), said(c"{rcpt_host}"));
    let Some(client) = &mut context.data else { return Status::Tempfail };
    let silent = client.go_on(ProtoOpts::NOREPLY_RCPT);
    let Some(open) = &mut client.open else { return silent };
    if mta != MtaAnswer::Takes {
        if open.message.direction() == Direction::Inbound && mta == MtaAnswer::Unknown {
            client.evaluator.count_unknown();
        }
        return silent;
    }
    let (path, params) = path_and_params(arguments);
    let recipient = path.as_deref().and_then(|path| Address::parse(strip_source_route(path)).ok());
    let (evaluator, message) = (&mut client.evaluator, &mut open.message);
    let leaves = message.direction() == Direction::Outbound;
    let (Some(path), Some(recipient)) = (path.clone(), recipient) else {
        // `postmaster` without a domain is always valid. Other addresses that only the MTA can parse might be any local
        // user, with or without a tag, so they are refused to strangers.
        let known = leaves || path.is_some_and(|path| path.eq_ignore_ascii_case("postmaster"));
        return match if known { message.add_outbound(None) } else { Err(BAD_RECIPIENT) } {
            Ok(()) => silent,
            Err(refusal) => refuse(&mut context.reply, &refusal),
        };
    };
    let sender = message.sender().clone();
    // A tag of this site is removed from mail between local users, too: no mailbox has a tagged name.
    let tagged = client.common.mta_service.side == Side::Auto && is_tagged(evaluator, &recipient);
    let taken = if leaves && !tagged {
        let taken = message.add_outbound(evaluator.sender_for(&sender, &recipient).as_ref());
        if let (Ok(()), Some(check)) = (&taken, evaluator.outbound_check(&sender, &recipient)) {
            message.inspect_outbound(check, strip_source_route(&path), &params, recipient);
        }
        taken
    } else {
        if let Some(work) = evaluator.prepare_recipient(Caller::Milter, &recipient) {
            let prepared = work.await;
            evaluator.is_prepared(prepared);
        }
        let (inbound, reservation) = evaluator.recipient(Caller::Milter, &sender, &recipient);
        let most = usize::try_from(evaluator.app.config().limits.recipients).unwrap_or(usize::MAX);
        // MTAs drop the source route, and know the recipient without it.
        let taken = message.add_inbound(strip_source_route(&path), &params, &inbound, most);
        if let (Ok(()), Some(delivery)) = (&taken, inbound.disposition.delivery()) {
            let observed = delivery.mark.is_some_and(|mark| mark.observed);
            open.tally.add(reservation, observed.then_some(&delivery.to));
        }
        taken
    };
    match taken {
        Ok(()) => silent,
        Err(refusal) => {
            if matches!(refusal.reason, RefusalReason::OwnTransaction | RefusalReason::Recipients) {
                let (action, reason) = ("defer", refusal.reason.name());
                info!(
                    session = %evaluator.id,
                    client = evaluator.who(),
                    event = "recipient",
                    to = evaluator.asked(),
                    action,
                    reason
                );
            }
            refuse(&mut context.reply, &refusal)
        }
    }
}

fn is_tagged(evaluator: &Evaluator, recipient: &Address) -> bool {
    let domains = &evaluator.app.config().policy.domains;
    domains.srs.contains(recipient.domain())
        || (domains.is_local(recipient.domain()) && batv::strip(recipient).is_some())
}

/// A header field: a forged Countersign header is noted; Message-ID and From are kept.
pub(super) fn header(context: &mut Context<Client>, name: &CStr, value: &CStr) -> Status {
    let Some(client) = &mut context.data else { return Status::Tempfail };
    let silent = client.go_on(ProtoOpts::NOREPLY_HEADER);
    let Some(open) = &mut client.open else { return silent };
    match open.message.header(name.to_bytes(), value.to_bytes()) {
        Ok(()) => silent,
        Err(refusal) => refuse(&mut context.reply, &refusal),
    }
}

/// A piece of the body. For most messages, no more of it is needed.
pub(super) fn body(context: &mut Context<Client>, part: &[u8]) -> Status {
    let Some(client) = &mut context.data else { return Status::Tempfail };
    let wanted = client.open.as_mut().is_some_and(|open| open.message.body(part));
    if !wanted && client.options.contains(ProtoOpts::SKIP) { Status::Skip } else { Status::Continue }
}

/// The MTA has aborted the message.
pub(super) fn abort(context: &mut Context<Client>) -> Status {
    if let Some(client) = &mut context.data {
        client.open = None;
    }
    Status::Continue
}

/// The end of a message: decides what becomes of it, and sends the changes.
pub(super) async fn end_of_message(context: &mut EomContext<Client>) -> Status {
    let queue = context.macros.get(c"i").map(|id| id.to_string_lossy().into_owned());
    let Some(client) = &mut context.data else { return Status::Tempfail };
    let Some(Open { message, tally, .. }) = &mut client.open else { return Status::Continue };
    let done = decide(&client.evaluator, message, tally, queue.as_deref());
    let finished = match done {
        Done::Refused(refusal) => {
            let finished = finished(message, refusal.code, refusal.text, None);
            client.evaluator.finished(message.direction(), &finished, tally);
            client.open = None;
            return refuse(&mut context.reply, &refusal);
        }
        Done::Discarded => {
            let finished = finished(message, 250, "discarded", None);
            client.evaluator.finished(message.direction(), &finished, tally);
            client.open = None;
            return Status::Discard;
        }
        Done::Goes(changes, finished) => {
            for change in changes {
                if let Err(error) = carry_out(&context.actions, client.actions, change).await {
                    error!(session = %client.evaluator.id, %error, "the changes of a message could not be sent to the MTA; the message is deferred");
                    client.open = None;
                    return Status::Tempfail;
                }
            }
            finished
        }
    };
    client.evaluator.finished(message.direction(), &finished, tally);
    client.open = None;
    Status::Continue
}

enum Done {
    Refused(Refusal),
    Discarded,
    Goes(Vec<Change>, Finished),
}

fn decide(evaluator: &Evaluator, message: &mut MilterMessage, tally: &mut MessageTally, queue: Option<&str>) -> Done {
    if message.is_discarded() {
        return Done::Discarded;
    }
    let found = message.finish();
    let content = message.candidate().zip(found.as_ref()).map(|((check, recipient), found)| {
        let case = Candidate { client: evaluator.client, check, recipient, complete: true };
        evaluator.content(case, found, message.message_id())
    });
    let (content, reservation) = content.unzip();
    match &content {
        Some(ContentVerdict::Refuse(refusal)) => return Done::Refused(refusal.clone()),
        Some(ContentVerdict::Discard(_)) => return Done::Discarded,
        Some(ContentVerdict::Rescue(_)) => tally.add(reservation.flatten(), None),
        Some(
            ContentVerdict::Deliver | ContentVerdict::Later | ContentVerdict::Mark(_) | ContentVerdict::Quarantine(..),
        )
        | None => {}
    }
    let evidence = message.wants_evidence().then(|| {
        let (id, from) = (message.message_id(), message.from());
        evaluator.evidence(message.sender(), id.as_deref(), from.as_deref())
    });
    let (line, nonce) = evidence.flatten().map(|header| (header.line, header.nonce)).unzip();
    if let Some(nonce) = nonce {
        tally.has_evidence(nonce);
    }
    let mark = match &content {
        Some(ContentVerdict::Mark(mark) | ContentVerdict::Quarantine(_, mark)) => Some(*mark),
        _ => message.mark(),
    };
    let found = found.filter(|_| content.is_none()).map(Box::new);
    let reply = queue.map_or_else(|| "left to the MTA".to_owned(), |id| format!("left to the MTA as {id}"));
    let finished = Finished { mark, found, ..finished(message, 250, &reply, None) };
    Done::Goes(message.changes(line.as_deref(), content.as_ref()), finished)
}

fn finished(
    message: &MilterMessage,
    code: u16,
    reply: &str,
    mark: Option<crate::envelope::rules::ResultHeader>,
) -> Finished {
    Finished {
        id: 0,
        sender: message.sender().clone(),
        signed: message.signed().map(str::to_owned),
        recipients: message.recipients(),
        code,
        reply: reply.to_owned(),
        mark,
        message_id: message.message_id(),
        found: None,
    }
}

async fn carry_out(mta: &EomActions, agreed: Actions, change: Change) -> Result<(), ActionError> {
    match change {
        // Without parameters here, Postfix and Sendmail keep those of MAIL.
        Change::Sender { path } => mta.change_sender(format!("<{path}>"), None::<String>).await,
        Change::AddRecipient { path, params } if !params.is_empty() && agreed.contains(Actions::ADD_RCPT_EXT) => {
            mta.add_recipient_ext(format!("<{path}>"), Some(params)).await
        }
        Change::AddRecipient { path, .. } => mta.add_recipient(format!("<{path}>")).await,
        Change::DeleteRecipient { path } => mta.delete_recipient(format!("<{path}>")).await,
        Change::AppendHeader { name, value } => mta.add_header(name, value).await,
        Change::InsertHeader { name, value } => mta.insert_header(0, name, value).await,
        Change::DeleteHeader { name, index } => mta.change_header(name, index, None::<String>).await,
    }
}

/// Gives the MTA the text of a refusal.
fn refuse(reply: &mut SmtpReply, refusal: &Refusal) -> Status {
    let code = refusal.code.to_string();
    // The texts are short constants. A test would find an invalid one.
    let _ = reply.set_error_reply(&code, Some(refusal.status), [refusal.text]);
    if refusal.is_temporary() { Status::Tempfail } else { Status::Reject }
}

/// A path without its angle brackets.
fn bare(path: &str) -> &str {
    let path = path.trim();
    path.strip_prefix('<').and_then(|path| path.strip_suffix('>')).unwrap_or(path)
}

/// The arguments of MAIL or RCPT: the path without its angle brackets, and the parameters, separated by spaces. `None`:
/// the path is not UTF-8.
fn path_and_params(arguments: &[CString]) -> (Option<String>, String) {
    let text = |argument: &CString| argument.to_str().ok().map(str::to_owned);
    let path = arguments.first().and_then(text).map(|path| bare(&path).to_owned());
    let params: Vec<String> = arguments.iter().skip(1).filter_map(text).collect();
    (path, params.join(" "))
}
