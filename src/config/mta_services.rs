//! Listeners for an MTA that queries instead of passing its mail through: milter, socketmap, policy service.

use toml::Spanned;

use super::choices::{Access, LocatedError, ServiceProtocol, Side};
use super::raw;
use super::words::Endpoint;
use crate::envelope::match_lists::Networks;

/// A listener for queries.
#[derive(Debug, Clone)]
pub struct MtaService {
    /// Protocol of the queries.
    pub protocol: ServiceProtocol,
    /// Direction of the mail that the MTA queries about.
    pub side: Side,
    /// The address or socket on which the mail server connects.
    pub listen: Endpoint,
    /// Networks of the MTAs that may query.
    pub clients: Networks,
    /// With `auto`: clients of the MTA whose mail is outbound. Mail of authenticated clients is always outbound.
    pub outbound_clients: Networks,
    /// With `auto`: the MTA's own listeners whose mail is outbound, by their `{daemon_name}` macro.
    pub outbound_daemons: Vec<String>,
    /// Maximum number of connections at a time, 1 or more. Each listener has a limit of its own.
    pub connections: usize,
    /// Access to the listener's socket in the file system.
    pub access: Access,
}

/// The loopback networks of IPv4 and IPv6.
pub(super) fn loopback() -> Networks {
    ["127.0.0.0/8", "::1/128"].iter().filter_map(|net| net.parse().ok()).collect()
}

/// Checks one listener for queries. `connections` and `access` have been read already.
pub(super) fn mta_service(
    raw: Spanned<raw::RawListener>,
    protocol: ServiceProtocol,
    connections: usize,
    access: Access,
) -> Result<MtaService, LocatedError> {
    let start = Some(raw.span().start);
    let raw = raw.into_inner();
    if protocol == ServiceProtocol::Milter && cfg!(not(feature = "milter")) {
        let text = "this countersign was built without milters; build it with the feature `milter`";
        return Err((start, text.into()));
    }
    if let Some(name) = proxy_setting(&raw) {
        let text = format!("{name} means nothing here: a {} answers questions and carries no mail", protocol.name());
        return Err((start, text));
    }
    let side = side(protocol, raw.role).map_err(|text| (start, text.into()))?;
    let finds_out = protocol == ServiceProtocol::Milter && side == Side::Auto;
    if !finds_out && (raw.outbound_clients.is_some() || !raw.outbound_daemons.is_empty()) {
        let text = "outbound_clients and outbound_daemons are for a milter with role = \"auto\"";
        return Err((start, text.into()));
    }
    let listen = raw.listen.ok_or_else(|| {
        let text = "this listener has no listen; write listen = \"127.0.0.1:10230\" or \"unix:/path\"";
        (start, text.into())
    })?;
    if raw.clients.is_empty() && !listen.is_loopback() {
        let text = format!(
            "the {} {listen} can be reached from outside and would sign and strip for everybody; \
             name the MTAs that may ask, for example clients = [\"192.0.2.1\"]",
            protocol.name()
        );
        return Err((start, text));
    }
    let given = |list: &[super::words::NetworkWord]| list.iter().map(|n| n.0).collect::<Networks>();
    Ok(MtaService {
        protocol,
        side,
        listen,
        clients: if raw.clients.is_empty() { loopback() } else { given(&raw.clients) },
        outbound_clients: raw.outbound_clients.as_deref().map_or_else(loopback, given),
        outbound_daemons: raw.outbound_daemons,
        connections,
        access,
    })
}

fn side(protocol: ServiceProtocol, role: Option<Side>) -> Result<Side, &'static str> {
    match (protocol, role) {
        (ServiceProtocol::Milter, Some(side)) => Ok(side),
        (ServiceProtocol::Milter, None) => Err(
            "this listener has no role; write role = \"auto\", or \"outbound\" or \"inbound\" where it sees only that",
        ),
        (ServiceProtocol::Socketmap, None | Some(Side::Auto)) => Ok(Side::Auto),
        (ServiceProtocol::Socketmap, Some(_)) => {
            Err("a socketmap has maps for both directions; write role = \"auto\", or leave it out")
        }
        (ServiceProtocol::Policy, None | Some(Side::Inbound)) => Ok(Side::Inbound),
        (ServiceProtocol::Policy, Some(_)) => {
            Err("a policy service is asked about recipients; write role = \"inbound\"")
        }
    }
}

/// The name of a setting that only proxy listeners have.
fn proxy_setting(raw: &raw::RawListener) -> Option<&'static str> {
    let given = [
        ("next_hop", raw.next_hop.is_some()),
        ("by_domain", !raw.by_domain.is_empty()),
        ("sync", raw.sync.is_some()),
        ("stray_newline", raw.stray_newline.is_some()),
        ("tls", raw.tls.is_some()),
        ("certificate", raw.certificate.is_some()),
        ("private_key", raw.private_key.is_some()),
        ("next_hop_tls", raw.next_hop_tls.is_some()),
        ("next_hop_verify", raw.next_hop_verify.is_some()),
        ("next_hop_name", raw.next_hop_name.is_some()),
        ("next_hop_ca", raw.next_hop_ca.is_some()),
        ("trusted_proxies", !raw.trusted_proxies.is_empty()),
        ("accept_proxy", raw.accept_proxy),
        ("proxy_unknown", raw.proxy_unknown.is_some()),
        ("send_proxy", raw.send_proxy.is_some()),
    ];
    given.into_iter().find(|(_, given)| *given).map(|(name, _)| name)
}
