//! The negotiation with the MTA: which events it sends, and which changes it allows. Each event that is not sent, and
//! each reply that is not waited for, saves a round trip per message.

use indymilter::{Actions, IntoCString as _, MacroStage, NegotiateContext, ProtoOpts, Status};

use super::events::{Client, MACROS, MilterContext, RCPT_MACROS};
use crate::config::Side;
use crate::drive::limited;
use crate::envelope::site_policy::Policy;

/// The events and changes that are needed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub headers: bool,
    pub bodies: bool,
    actions: Actions,
    /// Options to use if the MTA offers them: events that it does not send, and replies that it does not wait for.
    options: ProtoOpts,
}

impl Wanted {
    pub(super) fn new(policy: &Policy, side: Side) -> Self {
        let evidence = policy.outbound.evidence;
        let (leaves, comes) = (side != Side::Inbound, side != Side::Outbound);
        // Bounces that leave are inspected, too, if not all of them are sent.
        let inspects = comes || policy.outbound.ndr.is_active();
        let headers = inspects || evidence;
        // Macros name the client, and give the MTA's form of an address that this program cannot parse.
        let mut actions = Actions::REQUEST_MACROS;
        actions.set(Actions::CHANGE_SENDER, leaves);
        actions.set(Actions::ADD_HEADER, headers);
        actions.set(Actions::ADD_RCPT | Actions::DELETE_RCPT | Actions::CHANGE_HEADER, inspects);
        let mut options = ProtoOpts::NO_CONNECT
            | ProtoOpts::NO_HELO
            | ProtoOpts::NO_DATA
            | ProtoOpts::NO_EOH
            | ProtoOpts::NO_UNKNOWN
            | ProtoOpts::NOREPLY_HEADER;
        options.set(ProtoOpts::NO_BODY, !inspects);
        options.set(ProtoOpts::NO_HEADER, !headers);
        // Those that the MTA refuses may be unknown.
        options.set(ProtoOpts::REJECTED_RCPT, comes);
        options.set(ProtoOpts::SKIP, inspects);
        // The sender is the same for all recipients, and would have been refused at MAIL.
        options.set(ProtoOpts::NOREPLY_RCPT, !comes && !policy.outbound.recipients_matter());
        options.set(ProtoOpts::NOREPLY_HEADER, headers && !comes);
        Self { headers, bodies: inspects, actions, options }
    }
}

/// Negotiates with the MTA, and begins the session.
pub(super) fn negotiate(
    context: &mut NegotiateContext<Client>,
    wanted: Wanted,
    actions: Actions,
    options: ProtoOpts,
    common: MilterContext,
) -> Status {
    // An MTA that cannot be asked for macros sends those that it is configured to send.
    let missing = wanted.actions - actions - Actions::REQUEST_MACROS;
    if !missing.is_empty() {
        let missing = missing.iter_names().map(|(name, _)| name).collect::<Vec<_>>().join(", ");
        limited!(
            error,
            listen = %common.mta_service.listen,
            missing,
            "the MTA does not offer the changes that are needed; its mail is not touched (Postfix 2.6 and Sendmail 8.14 offer them)"
        );
        // A negotiation has no refusal. This status ends the connection, and the MTA does what it is set to do without
        // its milter.
        return Status::Reject;
    }
    context.requested_actions = (wanted.actions | Actions::ADD_RCPT_EXT) & actions;
    context.requested_opts = wanted.options & options;
    if actions.contains(Actions::REQUEST_MACROS) {
        context.requested_macros.insert(MacroStage::Mail, MACROS.into_c_string());
        context.requested_macros.insert(MacroStage::Rcpt, RCPT_MACROS.into_c_string());
    }
    context.data = Some(Client::new(common, context.requested_opts, context.requested_actions));
    Status::Continue
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::match_lists::AddressSet;
    use crate::envelope::site_policy::OutboundPolicy;

    #[test]
    fn mail_that_leaves_costs_the_fewest_events() {
        let mut policy =
            Policy { outbound: OutboundPolicy { evidence: false, ..OutboundPolicy::default() }, ..Policy::default() };
        let none = Wanted::new(&policy, Side::Outbound);
        assert!(!none.headers && !none.bodies);
        assert_eq!(none.actions, Actions::CHANGE_SENDER | Actions::REQUEST_MACROS);
        let never = ProtoOpts::NO_CONNECT | ProtoOpts::NO_HELO | ProtoOpts::NO_DATA | ProtoOpts::NO_HEADER;
        assert!(none.options.contains(never | ProtoOpts::NO_EOH | ProtoOpts::NO_BODY | ProtoOpts::NO_UNKNOWN));
        assert!(none.options.contains(ProtoOpts::NOREPLY_RCPT) && !none.options.contains(ProtoOpts::NOREPLY_MAIL));
        policy.outbound.evidence = true;
        policy.outbound.exempt_recipients = AddressSet::from_iter(["list.example"]);
        let both = Wanted::new(&policy, Side::Outbound);
        assert!(both.headers && both.options.contains(ProtoOpts::NOREPLY_HEADER));
        assert!(!both.options.contains(ProtoOpts::NOREPLY_RCPT));
    }

    #[test]
    fn mail_that_comes_in_is_waited_for_where_it_may_be_refused() {
        for side in [Side::Inbound, Side::Auto] {
            let wanted = Wanted::new(&Policy::default(), side);
            assert!(wanted.headers && wanted.bodies);
            let answered = ProtoOpts::NOREPLY_MAIL | ProtoOpts::NOREPLY_RCPT | ProtoOpts::NOREPLY_BODY;
            assert!(!wanted.options.intersects(answered));
            assert_eq!(wanted.actions.contains(Actions::CHANGE_SENDER), side == Side::Auto);
        }
    }
}
