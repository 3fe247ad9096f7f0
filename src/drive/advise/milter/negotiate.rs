//! What the MTA is to send, and what it lets us change. Each event that is not sent, and each reply that is not waited for,
//! saves a message a round trip.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use indymilter::{Actions, IntoCString as _, MacroStage, NegotiateContext, ProtoOpts, Status};
use tracing::error;

use super::events::Client;
use crate::config::{Advisor, Side};
use crate::drive::shared::Shared;
use crate::envelope::policy::Policy;

/// Which events are wanted, and which changes needed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub connect: bool,
    pub headers: bool,
    pub bodies: bool,
    actions: Actions,
    /// Where the MTA can: events that it is not to send, and replies that it is not to wait for.
    options: ProtoOpts,
}

impl Wanted {
    pub fn new(policy: &Policy, side: Side) -> Self {
        let evidence = policy.outbound.evidence;
        let (leaves, comes) = (side != Side::Inbound, side != Side::Outbound);
        let headers = comes || evidence;
        let mut actions = Actions::empty();
        actions.set(Actions::CHANGE_SENDER, leaves);
        actions.set(Actions::ADD_HEADER, comes || evidence);
        actions.set(Actions::ADD_RCPT | Actions::DELETE_RCPT | Actions::CHANGE_HEADER, comes);
        let mut options = ProtoOpts::NO_HELO
            | ProtoOpts::NO_DATA
            | ProtoOpts::NO_EOH
            | ProtoOpts::NO_UNKNOWN
            | ProtoOpts::NOREPLY_HEADER;
        options.set(ProtoOpts::NO_CONNECT | ProtoOpts::NO_BODY, !comes);
        options.set(ProtoOpts::NO_HEADER, !headers);
        options.set(ProtoOpts::NOREPLY_CONNECT | ProtoOpts::SKIP, comes);
        options.set(ProtoOpts::NOREPLY_MAIL, !leaves);
        // The sender is the same for all of them, and has been refused at MAIL if at all.
        options.set(ProtoOpts::NOREPLY_RCPT, !comes && !policy.outbound.recipients_matter());
        options.set(ProtoOpts::NOREPLY_HEADER, headers && !comes);
        Self { connect: comes, headers, bodies: comes, actions, options }
    }
}

/// Agrees with the MTA, and begins the session.
pub(super) fn negotiate(
    context: &mut NegotiateContext<Client>,
    wanted: Wanted,
    actions: Actions,
    options: ProtoOpts,
    shared: Arc<Shared>,
    advisor: Arc<Advisor>,
    open: Arc<AtomicUsize>,
) -> Status {
    let missing = wanted.actions - actions;
    if !missing.is_empty() {
        let missing = missing.iter_names().map(|(name, _)| name).collect::<Vec<_>>().join(", ");
        error!(
            listen = %advisor.listen,
            missing,
            "this MTA does not let a milter change what has to be changed; its mail is not touched. Postfix 2.6 and Sendmail 8.14 do"
        );
        // No status for a negotiation: it ends the connection, and the MTA does what it does without its milter.
        return Status::Reject;
    }
    let optional = Actions::ADD_RCPT_EXT | Actions::REQUEST_MACROS;
    context.requested_actions = wanted.actions | (optional & actions);
    context.requested_opts = wanted.options & options;
    if context.requested_actions.contains(Actions::REQUEST_MACROS) {
        // Who the client is, also where the connection is not told of; whatever the MTA is set to send by itself.
        let macros = "i {auth_authen} {client_addr} {daemon_name}".into_c_string();
        context.requested_macros.insert(MacroStage::Mail, macros);
    }
    context.data = Some(Client::new(shared, advisor, open, context.requested_opts, context.requested_actions));
    Status::Continue
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::policy::{AddressSet, Outbound};

    #[test]
    fn mail_that_leaves_costs_the_fewest_events() {
        let mut policy = Policy { outbound: Outbound { evidence: false, ..Outbound::default() }, ..Policy::default() };
        let none = Wanted::new(&policy, Side::Outbound);
        assert!(!none.connect && !none.headers && !none.bodies);
        assert_eq!(none.actions, Actions::CHANGE_SENDER);
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
            assert!(wanted.connect && wanted.headers && wanted.bodies);
            assert!(!wanted.options.intersects(ProtoOpts::NOREPLY_RCPT | ProtoOpts::NOREPLY_BODY));
            assert_eq!(wanted.options.contains(ProtoOpts::NOREPLY_MAIL), side == Side::Inbound);
            assert_eq!(wanted.actions.contains(Actions::CHANGE_SENDER), side == Side::Auto);
        }
    }
}
