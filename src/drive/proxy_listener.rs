//! A proxy listener, its next hops, and the settings of its sessions.

use super::next_hops::NextHops;
use super::tls::{Acceptor, Connector};
use crate::config::{Config, HopTls, Listener, Protocol, Role, SendProxy, StrayNewline, SyncMode, TlsMode};
use crate::envelope::match_lists::DomainSet;
use crate::wire::message::{Direction, NextHopChoice};
use crate::wire::smtp::session::{SessionLimits, Settings, Tls};

/// A proxy listener with its next hops.
#[derive(Debug)]
pub(crate) struct ProxyListener {
    /// The listener in the config.
    pub listener: Listener,
    /// The server side of TLS, for clients.
    pub acceptor: Option<Acceptor>,
    /// The client side of TLS, for next hops after STARTTLS.
    pub connector: Option<Connector>,
    main: NextHops,
    domains: Vec<(DomainSet, NextHops)>,
    srs: Option<NextHops>,
    srs_tls: Tls,
}

impl ProxyListener {
    /// Loads certificates, and prepares the next hops.
    ///
    /// # Errors
    /// Names the file that is wrong, and the reason.
    pub(crate) fn new(listener: &Listener, config: &Config) -> Result<Self, String> {
        let mode = listener.hop_tls.mode;
        let connector = (mode != TlsMode::Off).then(|| Connector::load(&listener.hop_tls)).transpose()?;
        let implicit = connector.clone().filter(|_| mode == TlsMode::Implicit);
        let (proxy, timeout) = (listener.send_proxy, config.timeouts.connect);
        let hops = |hops| NextHops::new(hops, implicit.clone(), proxy, timeout);
        // The loopback listener that may relay needs no TLS. It is not told the client, because the right to relay is
        // this program's.
        let nearby = config.srs_next_hop.iter().all(crate::config::Endpoint::is_loopback);
        let srs = (!config.srs_next_hop.is_empty()).then(|| {
            let implicit = implicit.clone().filter(|_| !nearby);
            NextHops::new(&config.srs_next_hop, implicit, SendProxy::Off, timeout)
        });
        Ok(Self {
            acceptor: listener.certificate.as_ref().map(Acceptor::load).transpose()?,
            main: hops(&listener.next_hop),
            domains: listener.by_domain.iter().map(|(names, list)| (names.clone(), hops(list))).collect(),
            srs,
            srs_tls: if nearby { Tls::Off } else { starttls(&listener.hop_tls) },
            connector,
            listener: listener.clone(),
        })
    }

    /// The number of the next hops for recipients in this domain, if the domain has its own.
    #[must_use]
    pub(crate) fn domain(&self, domain: &str) -> Option<u16> {
        let at = self.domains.iter().position(|(names, _)| names.contains(domain))?;
        u16::try_from(at).ok()
    }

    /// The next hops for this choice.
    #[must_use]
    pub(crate) fn hops(&self, target: NextHopChoice) -> &NextHops {
        match target {
            NextHopChoice::Main => &self.main,
            NextHopChoice::Srs => self.srs.as_ref().unwrap_or(&self.main),
            NextHopChoice::Domain(n) => self.domains.get(usize::from(n)).map_or(&self.main, |(_, hops)| hops),
        }
    }

    /// All lists of next hops.
    pub(crate) fn all_hops(&self) -> impl Iterator<Item = &NextHops> {
        self.domains.iter().map(|(_, hops)| hops).chain([&self.main]).chain(&self.srs)
    }

    /// The settings of a session. `encrypted`: by implicit TLS; `trusted`: the client is in `trusted_proxies`.
    #[must_use]
    pub(crate) fn settings(&self, config: &Config, encrypted: bool, trusted: bool) -> Settings {
        let limits = &config.limits;
        Settings {
            direction: match self.listener.role {
                Role::Outbound => Direction::Outbound,
                Role::Inbound => Direction::Inbound,
            },
            lmtp: self.listener.protocol == Protocol::Lmtp,
            sync: self.listener.sync == SyncMode::Enforce && !trusted,
            reject_stray: self.listener.stray_newline == StrayNewline::Reject,
            hold: config.hold,
            has_srs_next_hop: self.srs.is_some(),
            client_tls: match self.listener.tls {
                TlsMode::May => Tls::May,
                TlsMode::Require => Tls::Require,
                TlsMode::Off | TlsMode::Implicit => Tls::Off,
            },
            encrypted,
            sends_proxy: self.listener.send_proxy != SendProxy::Off,
            hop_tls: starttls(&self.listener.hop_tls),
            hop_verified: self.listener.hop_tls.verify,
            srs_tls: self.srs_tls,
            trusted,
            strips_content: self.listener.role == Role::Outbound && config.policy.outbound.ndr.strip_content,
            limits: SessionLimits {
                commands: limits.commands,
                bad_commands: limits.bad_commands,
                refused_recipients: limits.refused_recipients,
                recipients: limits.recipients,
                line: limits.line,
                header: limits.header as u64,
                message: limits.message as u64,
            },
        }
    }
}

fn starttls(tls: &HopTls) -> Tls {
    match tls.mode {
        TlsMode::May => Tls::May,
        TlsMode::Require => Tls::Require,
        TlsMode::Off | TlsMode::Implicit => Tls::Off,
    }
}
