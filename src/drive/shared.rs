//! What all sessions share: policy, keys, clock, and room for held messages.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::clients::Clients;
use super::hops::Hops;
use super::room::Rooms;
use super::stats::Stats;
use super::tls::{Acceptor, Connector};
use crate::config::{Config, HopTls, Listener, Protocol, Role, SendProxy, StrayNewline, SyncMode, TlsMode};
use crate::envelope::abuse::Memory;
use crate::envelope::keyring::Keyring;
use crate::envelope::rules::RampEvent;
use crate::envelope::site_policy::DomainSet;
use crate::envelope::time::Timestamp;
use crate::wire::smtp::session::{Direction, NextHopChoice, SessionLimits, Settings, Tls};

/// One for the process.
#[derive(Debug)]
pub struct Shared {
    /// The config.
    pub config: Config,
    /// The ring in force; replaced as a whole.
    pub ring: ArcSwap<Keyring>,
    /// Who has how many sessions.
    pub clients: Arc<Clients>,
    /// What has happened.
    pub stats: Stats,
    /// When the process started.
    pub started: Timestamp,
    memory: Mutex<Memory>,
    ramp: Mutex<RampNotes>,
    ramp_changed: Notify,
    /// Room for held messages.
    pub rooms: Arc<Rooms>,
    sessions: AtomicU64,
}

impl Shared {
    /// For this config and ring.
    #[must_use]
    pub fn new(config: Config, ring: Keyring) -> Self {
        let started = clock();
        let rooms = Arc::new(Rooms::new(config.limits.held, config.hold));
        Self {
            config,
            ring: ArcSwap::from_pointee(ring),
            clients: Arc::default(),
            stats: Stats::default(),
            started,
            memory: Mutex::new(Memory::since(started)),
            ramp: Mutex::default(),
            ramp_changed: Notify::new(),
            rooms,
            sessions: AtomicU64::new(0),
        }
    }

    /// The clock of this machine.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        clock()
    }

    /// What the rules remember.
    pub fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a ring in force. What is known here about a ramp holds although the file may not say so: it may be read-only.
    pub fn set_ring(&self, mut ring: Keyring) {
        for (domain, at) in &self.ramp.lock().unwrap_or_else(PoisonError::into_inner).gaps {
            ring.ramp_stop(domain, *at);
        }
        self.ring.store(Arc::new(ring));
    }

    /// Notes what mail says about a ramp; somebody writes it into the ring. Each is noted once an hour.
    pub fn note_ramp(&self, event: RampEvent) {
        let now = self.now();
        let mut notes = self.ramp.lock().unwrap_or_else(PoisonError::into_inner);
        if notes.noted.get(&event).is_some_and(|at| now.0 - at.0 < HOUR) {
            return;
        }
        if let RampEvent::Gap(domain) = &event {
            notes.gaps.insert(domain.clone(), now);
        }
        notes.noted.insert(event.clone(), now);
        notes.to_write.push(event);
        drop(notes);
        self.ramp_changed.notify_one();
    }

    /// Waits for something to be written into the ring.
    pub async fn ramp_notes(&self) -> Vec<RampEvent> {
        loop {
            self.ramp_changed.notified().await;
            let notes = std::mem::take(&mut self.ramp.lock().unwrap_or_else(PoisonError::into_inner).to_write);
            if !notes.is_empty() {
                return notes;
            }
        }
    }

    /// A number for a session, for the log.
    pub fn next_session(&self) -> u64 {
        self.sessions.fetch_add(1, Ordering::Relaxed) + 1
    }
}

const HOUR: i64 = 3600;

/// What mail has said about ramps. There are as many as the config has domains.
#[derive(Debug, Default)]
struct RampNotes {
    noted: HashMap<RampEvent, Timestamp>,
    to_write: Vec<RampEvent>,
    gaps: BTreeMap<String, Timestamp>,
}

fn clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    Timestamp(i64::try_from(since).unwrap_or(i64::MAX))
}

/// A way in, and the next hops behind it.
#[derive(Debug)]
pub struct Door {
    /// As configured.
    pub listener: Listener,
    /// What encrypts for clients.
    pub acceptor: Option<Acceptor>,
    /// What encrypts towards next hops that are asked for STARTTLS.
    pub connector: Option<Connector>,
    main: Hops,
    domains: Vec<(DomainSet, Hops)>,
    srs: Option<Hops>,
    srs_tls: Tls,
}

impl Door {
    /// Reads certificates and gets everything ready.
    ///
    /// # Errors
    /// Which file is wrong, and why.
    pub fn new(listener: &Listener, config: &Config) -> Result<Self, String> {
        let mode = listener.hop_tls.mode;
        let connector = (mode != TlsMode::Off).then(|| Connector::load(&listener.hop_tls)).transpose()?;
        let implicit = connector.clone().filter(|_| mode == TlsMode::Implicit);
        let (proxy, timeout) = (listener.send_proxy, config.timeouts.connect);
        let hops = |hops| Hops::new(hops, implicit.clone(), proxy, timeout);
        // The loopback listener that may relay needs no TLS. It is not told the client either: its right to relay is ours.
        let nearby = config.srs_next_hop.iter().all(crate::config::Endpoint::is_loopback);
        let srs = (!config.srs_next_hop.is_empty()).then(|| {
            let implicit = implicit.clone().filter(|_| !nearby);
            Hops::new(&config.srs_next_hop, implicit, SendProxy::Off, timeout)
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

    /// The next hop for recipients in this domain, where it has one of its own.
    #[must_use]
    pub fn domain(&self, domain: &str) -> Option<u16> {
        let at = self.domains.iter().position(|(names, _)| names.contains(domain))?;
        u16::try_from(at).ok()
    }

    /// The next hops behind a target.
    #[must_use]
    pub fn hops(&self, target: NextHopChoice) -> &Hops {
        match target {
            NextHopChoice::Main => &self.main,
            NextHopChoice::Srs => self.srs.as_ref().unwrap_or(&self.main),
            NextHopChoice::Domain(n) => self.domains.get(usize::from(n)).map_or(&self.main, |(_, hops)| hops),
        }
    }

    /// All of them.
    pub fn all_hops(&self) -> impl Iterator<Item = &Hops> {
        self.domains.iter().map(|(_, hops)| hops).chain([&self.main]).chain(&self.srs)
    }

    /// What a session has to know.
    #[must_use]
    pub fn settings(&self, config: &Config, encrypted: bool, trusted: bool) -> Settings {
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
