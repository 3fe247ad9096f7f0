//! Listeners: each `[[listener]]` of the config, checked.

use std::path::Path;

use toml::Spanned;

use super::choices::{
    Access, Certificate, HopTls, ListenerProtocol, LocatedError, Protocol, ProxyUnknown, Role, SendProxy,
    ServiceProtocol, Side, StrayNewline, SyncMode, TlsMode,
};
use super::mta_services::{self, MtaService};
use super::raw;
use super::words::Endpoint;
use crate::envelope::match_lists::{DomainSet, Networks, most_specific_first};

/// A proxy listener.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Direction of its mail.
    pub role: Role,
    /// Mail protocol, the same for clients and next hops.
    pub protocol: Protocol,
    /// The address or socket on which clients connect.
    pub listen: Endpoint,
    /// The mail server behind it: the first of these that can be reached is used.
    pub next_hop: Vec<Endpoint>,
    /// Other next hops, for recipients in these domains.
    pub by_domain: Vec<(DomainSet, Vec<Endpoint>)>,
    /// Networks that may connect; empty: everyone (inbound only).
    pub clients: Networks,
    /// Treatment of clients that send without waiting for a reply.
    pub sync: SyncMode,
    /// Treatment of bare CR and bare LF.
    pub stray_newline: StrayNewline,
    /// TLS for clients.
    pub tls: TlsMode,
    /// The certificate for TLS; `None` if TLS is off.
    pub certificate: Option<Certificate>,
    /// TLS towards the next hops.
    pub hop_tls: HopTls,
    /// Clients that may say on whose behalf they connect: by PROXY header, XCLIENT, XFORWARD or `AUTH=`.
    pub trusted_proxies: Networks,
    /// Whether connections of `trusted_proxies` begin with a PROXY header.
    pub accept_proxy: bool,
    /// Treatment of a PROXY header that does not name a client.
    pub proxy_unknown: ProxyUnknown,
    /// The PROXY header that next hops are sent.
    pub send_proxy: SendProxy,
    /// Maximum number of sessions at a time, 1 or more. Each listener has a limit of its own.
    pub connections: usize,
    /// Access to the listener's socket in the file system.
    pub access: Access,
}

impl Listener {
    /// Whether any client may connect: no networks are configured.
    #[must_use]
    pub fn is_open_to_strangers(&self) -> bool {
        self.clients.is_empty()
    }
}

/// Keeps what belongs to a socket that stays open while the config changes: its permissions, the kind of protocol, and
/// all of a milter, which runs in a library. A listener with another address is another listener.
pub(super) fn keep_sockets(
    old: &[Listener],
    new: &mut Vec<Listener>,
    old_services: &[MtaService],
    new_services: &mut Vec<MtaService>,
) {
    let (old_kinds, new_kinds) = (kinds(old, old_services), kinds(new, new_services));
    let has_other_kind =
        |kinds: &[(Endpoint, bool)], listen: &Endpoint, is_proxy: bool| kinds.contains(&(listen.clone(), !is_proxy));
    // Where the kind of protocol has changed, the old listener stays.
    new.retain(|it| !has_other_kind(&old_kinds, &it.listen, true));
    new_services.retain(|it| !has_other_kind(&old_kinds, &it.listen, false));
    for listener in &mut *new {
        if let Some(before) = old.iter().find(|it| it.listen == listener.listen) {
            listener.access = before.access.clone();
        }
    }
    for service in &mut *new_services {
        match old_services.iter().find(|it| it.listen == service.listen) {
            Some(before) if before.protocol == ServiceProtocol::Milter || before.protocol != service.protocol => {
                *service = before.clone();
            }
            Some(before) => (service.access, service.connections) = (before.access.clone(), before.connections),
            None => {}
        }
    }
    new.extend(old.iter().filter(|it| has_other_kind(&new_kinds, &it.listen, true)).cloned());
    new_services.extend(old_services.iter().filter(|it| has_other_kind(&new_kinds, &it.listen, false)).cloned());
}

/// The addresses of listeners, and whether each is a proxy. With port 0, the system chooses another port for each, so
/// such an address says nothing.
fn kinds(listeners: &[Listener], services: &[MtaService]) -> Vec<(Endpoint, bool)> {
    let proxies = listeners.iter().map(|it| (it.listen.clone(), true));
    let all = proxies.chain(services.iter().map(|it| (it.listen.clone(), false)));
    all.filter(|(listen, _)| !matches!(listen, Endpoint::Tcp { port: 0, .. })).collect()
}

/// Checks all listeners, alone and together.
///
/// `connections` is the limit for listeners without one of their own.
pub(super) fn build(
    raw: Vec<Spanned<raw::RawListener>>,
    folder: &Path,
    connections: usize,
) -> Result<(Vec<Listener>, Vec<MtaService>), LocatedError> {
    let (mut listeners, mut mta_services) = (Vec::new(), Vec::new());
    let mut taken: Vec<Endpoint> = Vec::new();
    for mut raw in raw {
        let start = Some(raw.span().start);
        let access = access(&mut raw)?;
        if let Some(listen) = &raw.get_ref().listen {
            let fixed = !matches!(listen, Endpoint::Tcp { port: 0, .. });
            if fixed && taken.contains(listen) {
                return Err((start, format!("two listeners on {listen}")));
            }
            taken.push(listen.clone());
        }
        let connections = match &raw.get_ref().connections {
            Some(own) if *own.get_ref() == 0 => {
                return Err((Some(own.span().start), "connections must be at least 1".into()));
            }
            Some(own) => *own.get_ref(),
            None => connections,
        };
        let protocol = match raw.get_ref().protocol {
            Some(ListenerProtocol::Query(protocol)) => {
                mta_services.push(mta_services::mta_service(raw, protocol, connections, access)?);
                continue;
            }
            Some(ListenerProtocol::Mail(protocol)) => protocol,
            None => Protocol::Smtp,
        };
        let next = listener(raw, protocol, folder, connections, access)?;
        let fixed = !matches!(next.listen, Endpoint::Tcp { port: 0, .. });
        let itself = next
            .by_domain
            .iter()
            .flat_map(|(_, hops)| hops)
            .chain(&next.next_hop)
            .any(|hop| hop.leads_to(&next.listen));
        if fixed && itself {
            let text = format!("the next_hop {} is the listener itself: mail would go round for ever", next.listen);
            return Err((start, text));
        }
        listeners.push(next);
    }
    Ok((listeners, mta_services))
}

/// Moves the settings for access to the socket out of a listener.
fn access(raw: &mut Spanned<raw::RawListener>) -> Result<Access, LocatedError> {
    let start = Some(raw.span().start);
    let raw = raw.get_mut();
    let access = Access { mode: raw.mode.map(|mode| mode.0), group: raw.group.take(), users: raw.users.take() };
    if access != Access::default() && !matches!(raw.listen, Some(Endpoint::Unix(_))) {
        let text = "mode, group and users are for a socket in the file system: listen = \"unix:/path\". \
                    Who may connect over TCP stands in clients";
        return Err((start, text.into()));
    }
    Ok(access)
}

fn listener(
    raw: Spanned<raw::RawListener>,
    protocol: Protocol,
    folder: &Path,
    connections: usize,
    access: Access,
) -> Result<Listener, LocatedError> {
    let start = Some(raw.span().start);
    let raw = raw.into_inner();
    let missing =
        |name: &str, example: &str| (start, format!("this listener has no {name}; write {name} = \"{example}\""));
    let role = match raw.role.ok_or_else(|| missing("role", "outbound"))? {
        Side::Outbound => Role::Outbound,
        Side::Inbound => Role::Inbound,
        Side::Auto => {
            let text = "role = \"auto\" is for milters and socketmaps; mail goes one way through a proxy: \"outbound\" or \"inbound\"";
            return Err((start, text.into()));
        }
    };
    if raw.outbound_clients.is_some() || !raw.outbound_daemons.is_empty() {
        let text = "outbound_clients and outbound_daemons are for a milter with role = \"auto\"; who may send through a proxy stands in clients";
        return Err((start, text.into()));
    }
    let listen = raw.listen.ok_or_else(|| missing("listen", "127.0.0.1:10225"))?;
    let trusted_proxies: Networks = raw.trusted_proxies.iter().map(|n| n.0).collect();
    let clients: Networks = if raw.clients.is_empty() && role == Role::Outbound {
        if !listen.is_loopback() {
            let text = format!(
                "the outbound listener {listen} can be reached from outside and would sign for everybody; \
                 name who may use it, for example clients = [\"192.0.2.0/24\"]"
            );
            return Err((start, text));
        }
        mta_services::loopback()
    } else {
        raw.clients.iter().map(|n| n.0).collect()
    };
    let next_hop: Vec<Endpoint> = raw.next_hop.ok_or_else(|| missing("next_hop", "127.0.0.1:10226"))?.into();
    let mut by_domain: Vec<(String, Vec<Endpoint>)> =
        raw.by_domain.into_iter().map(|(name, hops)| (name.0, hops.into())).collect();
    most_specific_first(&mut by_domain);
    let by_domain: Vec<(DomainSet, Vec<Endpoint>)> =
        by_domain.into_iter().map(|(name, hops)| (DomainSet::from_iter([name]), hops)).collect();
    let hops = || by_domain.iter().map(|(_, hops)| hops).chain([&next_hop]);
    if hops().any(Vec::is_empty) {
        return Err((start, "a list of next hops is empty; name at least one, \"127.0.0.1:10226\"".into()));
    }
    if hops().flatten().any(|hop| matches!(hop, Endpoint::Systemd(_) | Endpoint::Tcp { port: 0, .. })) {
        return Err((start, "a next hop must be host:port or unix:/path".into()));
    }
    if raw.accept_proxy && trusted_proxies.is_empty() {
        let text = "accept_proxy = true needs trusted_proxies: who may say which client it brings?";
        return Err((start, text.into()));
    }
    if raw.proxy_unknown.is_some() && !raw.accept_proxy {
        return Err((start, "proxy_unknown is of no use without accept_proxy = true".into()));
    }
    let tls = raw.tls.unwrap_or_default();
    let certificate = match (raw.certificate, raw.private_key) {
        (Some(chain), Some(key)) => Some(Certificate { chain: folder.join(chain), key: folder.join(key) }),
        (None, None) => None,
        _ => return Err((start, "certificate and private_key belong together: one of them is missing".into())),
    };
    if (tls == TlsMode::Off) != certificate.is_none() {
        let text = if certificate.is_some() {
            "this listener has a certificate and tls = \"off\"; write tls = \"may\", \"require\" or \"implicit\""
        } else {
            "tls needs certificate = \"chain.pem\" and private_key = \"key.pem\""
        };
        return Err((start, text.into()));
    }
    let mode = raw.next_hop_tls.unwrap_or_default();
    let certain = matches!(mode, TlsMode::Require | TlsMode::Implicit);
    let hop_tls = HopTls {
        mode,
        // Encryption without verification does not stop an active attacker, so verification is on unless it is switched
        // off.
        verify: raw.next_hop_verify.unwrap_or(certain),
        name: raw.next_hop_name.map(|name| name.0),
        ca: raw.next_hop_ca.map(|ca| folder.join(ca)),
    };
    if hop_tls.verify && !certain {
        let text = "next_hop_verify = true needs next_hop_tls = \"require\" or \"implicit\"; with less, mail would go on in plain text";
        return Err((start, text.into()));
    }
    // Programs on other hosts that send mail through an outbound listener may not wait for replies.
    let strict = role == Role::Inbound || listen.is_loopback();
    let sync = raw.sync.unwrap_or(if strict { SyncMode::Enforce } else { SyncMode::Off });
    let unix = hops().flatten().any(|hop| matches!(hop, Endpoint::Unix(_)));
    if hop_tls.verify && unix && hop_tls.name.is_none() {
        return Err((
            start,
            "to verify a next hop on a unix socket, say its name: next_hop_name = \"mail.our.example\"".into(),
        ));
    }
    Ok(Listener {
        role,
        protocol,
        listen,
        next_hop,
        by_domain,
        clients,
        sync,
        stray_newline: raw.stray_newline.unwrap_or_default(),
        tls,
        certificate,
        hop_tls,
        trusted_proxies,
        accept_proxy: raw.accept_proxy,
        proxy_unknown: raw.proxy_unknown.unwrap_or_default(),
        send_proxy: raw.send_proxy.unwrap_or_default(),
        connections,
        access,
    })
}
