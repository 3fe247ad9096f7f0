//! Checks of an Exim configuration, as `exim -bP config` prints it: with includes and macros resolved.

use std::path::Path;

use anyhow::Result;

use super::dkim::over_evidence_in_exim;
use super::finding::Finding::{self, Careful, Wrong};
use crate::cli::check::rights;
use crate::cli::mta::exim::Exim;
use crate::config::{Config, Listener, Role, SendProxy};

/// All findings, in the order in which a message passes the settings.
pub(super) fn findings(config: &Config, file: &Path) -> Result<Vec<Finding>> {
    let exim = Exim::read(file)?;
    let mut found = of(config, &exim);
    found
        .extend(rights::of_mail_server(config, exim.get("exim_user").unwrap_or("Debian-exim"))?.into_iter().map(Wrong));
    Ok(found)
}

fn of(config: &Config, exim: &Exim) -> Vec<Finding> {
    let mut found = Vec::new();
    for listener in &config.listeners {
        match listener.role {
            Role::Outbound => outbound(listener, exim, &mut found),
            Role::Inbound => inbound(listener, exim, &mut found),
        }
    }
    for mta_service in config.mta_services.iter().filter(|mta_service| !exim.mentions_port_of(&mta_service.listen)) {
        let (name, listen) = (mta_service.protocol.name(), &mta_service.listen);
        found.push(Wrong(format!("nobody asks the {name} on {listen}: ${{readsocket{{inet:{listen}}}{{…}}}}")));
    }
    if config.listeners.is_empty() {
        unsigned_transports(exim, &mut found);
    }
    let by_run = exim.lines.iter().any(|line| line.contains("${run{") && line.contains(" sign "));
    if config.listeners.is_empty() && config.mta_services.is_empty() && !by_run {
        found.push(Finding::wrong(
            "nothing here asks Countersign: no ${run{… countersign sign …}}, and its config has no [[listener]]",
        ));
    }
    for next_hop in config.srs_next_hop.iter().filter(|hop| hop.is_loopback() && !exim.listens(hop)) {
        found.push(Careful(format!(
            "inbound.srs_next_hop is {next_hop}, and Exim does not listen there (local_interfaces)"
        )));
    }
    for name in config.policy.domains.srs.names().into_iter().filter(|name| !exim.mentions(name)) {
        found.push(Wrong(format!(
            "{name} is named nowhere, so bounces of forwarded mail are refused: add it to the domains that Exim takes mail for"
        )));
    }
    let local = config.policy.domains.local.names();
    for name in local.into_iter().filter(|name| !name.starts_with('.') && !exim.mentions(name)) {
        found.push(Careful(format!("{name} is in domains.local, and named nowhere in Exim's configuration")));
    }
    over_evidence_in_exim(&exim.lines, &mut found);
    let kept = config.policy.inbound.queue_lifetime;
    if let Some(days) = exim.longest_try().filter(|days| *days > kept) {
        found.push(Careful(format!(
            "Exim tries for {days} days (begin retry), and batv.queue_lifetime is {kept}: set it to {days}"
        )));
    }
    found
}

/// Transports that send to the world and do not ask for a signed sender, where others do.
fn unsigned_transports(exim: &Exim, found: &mut Vec<Finding>) {
    let signs = |options: &[&str]| options.iter().any(|it| it.starts_with("return_path") && it.contains("CS_SIGN"));
    // With macros resolved, the name of the macro is gone.
    let asks = |options: &[&str]| {
        let asks = |it: &str| it.contains("${readsocket") || it.contains("${run");
        options.iter().any(|it| it.starts_with("return_path") && asks(it))
    };
    let (signing, others): (Vec<_>, Vec<_>) =
        exim.smtp_transports().into_iter().partition(|(_, it)| signs(it) || asks(it));
    for (name, _) in others.into_iter().filter(|_| !signing.is_empty()) {
        found.push(Wrong(format!(
            "mail through the transport {name} leaves unsigned: return_path = CS_SIGN in it, too"
        )));
    }
}

fn outbound(listener: &Listener, exim: &Exim, found: &mut Vec<Finding>) {
    if !exim.mentions_port_of(&listener.listen) {
        found.push(Wrong(format!(
            "no transport sends to the outbound proxy, {}, so mail leaves unsigned",
            listener.listen
        )));
    }
    let back = listener.next_hop.iter().find(|hop| hop.is_loopback() && exim.listens(hop));
    if let Some(hop) = back
        && !exim.lines.iter().any(|line| line.contains("received_port") || line.contains("interface_port"))
    {
        found.push(Wrong(format!(
            "a loop: what the outbound proxy hands back at {hop} is routed to it again. Let its router ask for \
             condition = ${{if !eq{{$received_port}}{{…}}}}"
        )));
    }
}

/// Exim's default of `smtp_accept_max`.
const SMTP_ACCEPT_MAX: usize = 20;

/// Warns if Exim accepts no more sessions than the inbound proxy: clients that only connect could occupy all of them.
fn takes_all_sessions(listener: &Listener, exim: &Exim, found: &mut Vec<Finding>) {
    let most = exim.get("smtp_accept_max").and_then(|n| n.parse().ok()).unwrap_or(SMTP_ACCEPT_MAX);
    let sessions = listener.connections;
    if most > 0 && most <= sessions {
        found.push(Careful(format!(
            "Exim takes {most} sessions in all (smtp_accept_max), and the inbound proxy lets in {sessions}: who only connects takes all of \
             them. smtp_accept_max = {}, or fewer connections in the [[listener]] {}",
            sessions + 100,
            listener.listen
        )));
    }
}

fn inbound(listener: &Listener, exim: &Exim, found: &mut Vec<Finding>) {
    if listener.next_hop.iter().any(|hop| hop.is_loopback() && exim.listens(hop)) {
        takes_all_sessions(listener, exim, found);
    }
    let hops = || listener.next_hop.iter().filter(|hop| hop.is_loopback());
    for hop in hops().filter(|hop| !exim.listens(hop)) {
        found.push(Careful(format!("next_hop is {hop}, and Exim does not listen there (local_interfaces)")));
    }
    let expects = exim.get("hosts_proxy").filter(|hosts| !hosts.is_empty());
    match (listener.send_proxy, expects) {
        (SendProxy::Off, Some(hosts)) if !hosts.contains("received_port") && hops().next().is_some() => {
            found.push(Wrong(format!(
                "hosts_proxy = {hosts}: Exim waits for a PROXY header, and the inbound proxy sends none. send_proxy = \"v2\""
            )));
        }
        (SendProxy::Off, _) => {
            found.push(Finding::careful(
                "Exim takes every client for 127.0.0.1: hosts_proxy here, and send_proxy = \"v2\" of the inbound listener",
            ));
        }
        (_, None) => {
            found.push(Finding::wrong("the inbound proxy sends a PROXY header, and Exim expects none: hosts_proxy"));
        }
        (_, Some(hosts)) if !hosts.contains("received_port") => {
            found.push(Careful(format!(
                "hosts_proxy = {hosts} holds for every port, submission too: ask for $received_port in it"
            )));
        }
        (_, Some(_)) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transport_that_does_not_sign_is_named_beside_one_that_does() {
        let config = |of_second: &str| {
            let text = format!(
                "begin transports\nremote_smtp:\ndriver = smtp\nreturn_path = ${{readsocket{{/run/countersign/map}}{{sign}}}}\n\
                 smarthost:\ndriver = smtp\n{of_second}\nlocal:\ndriver = appendfile\nmda:\ndriver = smtp\nprotocol = lmtp\nbegin retry\n"
            );
            let mut found = Vec::new();
            unsigned_transports(&Exim::of(&text), &mut found);
            found
        };
        let wrong = "mail through the transport smarthost leaves unsigned: return_path = CS_SIGN in it, too";
        assert_eq!(config("port = 26"), [Wrong(wrong.to_owned())]);
        assert_eq!(config("return_path = ${run{/usr/local/bin/countersign sign}}"), []);
        // Without any, something else says that nothing is signed.
        let mut found = Vec::new();
        unsigned_transports(&Exim::of("begin transports\na:\ndriver = smtp\n"), &mut found);
        assert_eq!(found, []);
    }
}
