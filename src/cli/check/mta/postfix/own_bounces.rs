//! What Countersign sees of Postfix's own bounces, and what it can know about them.

use crate::cli::check::mta::finding::Finding::{self, Careful, Wrong};
use crate::cli::mta::postfix::Postfix;
use crate::config::{Config, Role, ServiceProtocol, Side};
use crate::envelope::site_policy::OwnBouncePolicy;

/// Checks the settings on which `[outbound.ndr]` depends.
pub(super) fn own_bounces(config: &Config, postfix: &Postfix, found: &mut Vec<Finding>) {
    let ndr = &config.policy.outbound.ndr;
    if !ndr.is_active() {
        return;
    }
    let has_proxy = config.listeners.iter().any(|listener| listener.role == Role::Outbound);
    let mut milters = config.mta_services.iter().filter(|it| it.protocol == ServiceProtocol::Milter);
    let is_by_milter = !has_proxy && milters.any(|it| it.side != Side::Inbound);
    let shows_bounces = postfix.get("internal_mail_filter_classes").contains("bounce");
    if is_by_milter && !shows_bounces {
        found.push(Careful(
            "Postfix does not show its own bounces to the milter, so outbound.ndr does nothing about them: \
             internal_mail_filter_classes = bounce"
                .to_owned(),
        ));
    }
    if ndr.policy != OwnBouncePolicy::Verified {
        return;
    }
    let header = format!("Authentication-Results: {}; spf=pass smtp.mailfrom=example.org", ndr.authserv_id);
    let removes = |checks: &str| postfix.look_up(postfix.get(checks), &header).is_some();
    if ndr.results_below_received && !removes("header_checks") {
        found.push(Careful(format!(
            "results_below_received is set, and nothing removes Authentication-Results of {} that a sender has written, so that its \
             bounce goes to a forged sender: header_checks = regexp:{{{{/^Authentication-Results:[[:space:]]*{}/ IGNORE}}}}",
            ndr.authserv_id,
            ndr.authserv_id.replace('.', "\\.")
        )));
    }
    if is_by_milter && shows_bounces && removes("nested_header_checks") {
        found.push(Wrong(
            "nested_header_checks (the same as header_checks unless it is set) removes Authentication-Results from the originals in \
             Postfix's own bounces, before the milter sees them, so no bounce is sent: nested_header_checks ="
                .to_owned(),
        ));
    }
}
