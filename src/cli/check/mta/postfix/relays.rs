//! Settings by which Postfix sends mail of strangers to strangers.

use crate::cli::check::mta::finding::Finding;
use crate::cli::mta::WIDEST;
use crate::cli::mta::lists::networks;
use crate::cli::mta::postfix::{MasterService, Postfix};

/// Finds open relays: networks that are trusted and hold everybody, and restrictions that permit before they refuse.
pub(super) fn relays(postfix: &Postfix, found: &mut Vec<Finding>) {
    let wide = |setting: &str| {
        let least = |net: &ipnet::IpNet| if net.addr().is_ipv4() { WIDEST.0 } else { WIDEST.1 };
        networks(setting).find(|net| net.prefix_len() < least(net))
    };
    // Strangers do not reach a port of loopback.
    let of_strangers = |service: &&MasterService| service.port().is_some() && !service.is_on_loopback();
    let services: Vec<&MasterService> = postfix.running("smtpd").filter(of_strangers).collect();
    let mut told: Vec<String> = Vec::new();
    for service in services {
        let name = &service.name;
        if let Some(network) = wide(postfix.of(service, "mynetworks")) {
            let text = format!(
                "mynetworks holds {network}, so strangers may send mail to strangers: an open relay. mynetworks = 127.0.0.0/8 [::1]/128 and \
                 your own networks"
            );
            if !told.contains(&text) {
                told.push(text);
            }
        } else if let Some(permit) = permits_everybody(restrictions(postfix, service)) {
            told.push(format!(
                "{name} permits everybody by `{permit}` before it refuses to relay: an open relay. smtpd_relay_restrictions = \
                 permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination"
            ));
        }
    }
    found.extend(told.into_iter().map(Finding::Wrong));
}

/// The restrictions that decide about relaying.
fn restrictions<'a>(postfix: &'a Postfix, service: &'a MasterService) -> &'a str {
    match postfix.of(service, "smtpd_relay_restrictions") {
        "" => postfix.of(service, "smtpd_recipient_restrictions"),
        relay => relay,
    }
}

/// A restriction that permits every client and comes before those that refuse to relay.
fn permits_everybody(restrictions: &str) -> Option<&str> {
    const REFUSE: [&str; 4] = ["reject_unauth_destination", "defer_unauth_destination", "reject", "defer"];
    let words = restrictions.split([',', ' ', '\t', '\n']).filter(|word| !word.is_empty());
    for word in words {
        let is_static = |to: &str| word.eq_ignore_ascii_case(to);
        if REFUSE.contains(&word) {
            return None;
        }
        if word == "permit" || is_static("static:ok") || is_static("static:permit") {
            return Some(word);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_permits_before_it_refuses_is_found() {
        assert_eq!(permits_everybody("permit_mynetworks, reject_unauth_destination, permit"), None);
        assert_eq!(permits_everybody("permit_mynetworks\n permit_sasl_authenticated,defer_unauth_destination"), None);
        assert_eq!(permits_everybody("permit_mynetworks, permit"), Some("permit"));
        assert_eq!(permits_everybody("check_client_access static:OK, reject_unauth_destination"), Some("static:OK"));
        assert_eq!(permits_everybody("reject"), None);
        assert_eq!(permits_everybody(""), None);
    }
}
