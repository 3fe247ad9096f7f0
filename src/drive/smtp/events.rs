//! The events of the session machine: connections are opened and closed, the rules queried, lines logged.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Context;

use tracing::{debug, info};

use super::proxy_session::{Later, ProxySession, write_out};
use super::{admit, is_known};
use crate::config::SyncMode;
use crate::drive::next_hops::Reached;
use crate::drive::{limited_by, limited_warn};
use crate::envelope::tag::masked_text;
use crate::wire::message::{Direction, NextHopChoice};
use crate::wire::smtp::reply::is_unknown_user;
use crate::wire::smtp::session::Event;

impl ProxySession {
    /// Handles all events of the machine.
    pub(super) fn act(&mut self, cx: &mut Context<'_>) {
        while let Some(event) = self.session.next_event() {
            match event {
                Event::Ask => self.ask_rules(),
                Event::Open(target) => self.connecting = Some(self.connect(target)),
                Event::CloseHop => {
                    if let Some(mut hop) = self.hop.take() {
                        let _ = write_out(&mut hop, &mut self.session.out.to_hop, cx);
                    }
                    (self.connecting, self.securing_hop) = (None, None);
                    self.hop_in_use = None;
                    self.session.out.to_hop.clear();
                }
                Event::CloseClient => self.closing = true,
                // The handshake begins when all earlier output is written.
                Event::SecureClient => {}
                Event::SecureHop => self.begin_hop_handshake(),
                Event::Client { address, forwarded } => self.client_is(address, forwarded),
                Event::Refused { command: "RCPT", reply } if !self.shows_refused(&reply) => {}
                Event::Refused { command, reply } => {
                    let reply = masked_text(&reply);
                    info!(
                        session = %self.evaluator.id,
                        client = self.evaluator.who(),
                        event = "next-hop",
                        command,
                        reply
                    );
                }
                Event::Unfit(why) => limited_warn!(
                    session = %self.evaluator.id,
                    client = self.evaluator.who(),
                    next_hop = self.next_hop,
                    why,
                    "next hop cannot be used"
                ),
                Event::Limit(limit) => {
                    self.evaluator.app.metrics.limit(limit);
                    limited_by!(
                        info,
                        limit,
                        session = %self.evaluator.id,
                        client = self.evaluator.who(),
                        event = "limit"
                    );
                }
                Event::NotSmtp(reason) => {
                    limited_by!(
                        info,
                        reason,
                        session = %self.evaluator.id,
                        client = self.evaluator.who(),
                        event = "not-smtp"
                    );
                }
                Event::LoggedIn => {
                    self.evaluator.is_spared = true;
                    info!(session = %self.evaluator.id, client = self.evaluator.who(), event = "login");
                }
                Event::RecipientSent => self.asked.push_back(self.evaluator.take_pending()),
                Event::RecipientNotSent => drop(self.evaluator.take_pending()),
                Event::RecipientAnswered { unknown } => {
                    if let Some(pending) = self.asked.pop_front().flatten().filter(|_| unknown) {
                        pending.told_unknown();
                    }
                }
                Event::Verify => self.evaluator.count_unknown(),
                Event::OwnTransaction => {
                    drop(self.evaluator.take_pending());
                    let (action, reason) = ("defer", "own-transaction");
                    info!(
                        session = %self.evaluator.id,
                        client = self.evaluator.who(),
                        event = "recipient",
                        to = self.evaluator.asked(),
                        action,
                        reason
                    );
                }
                Event::Finished(finished) => self.finished(&finished),
            }
        }
    }

    /// Counts a recipient that the next hop has refused. Returns whether it has a log line.
    fn shows_refused(&mut self, reply: &str) -> bool {
        if self.direction() == Direction::Inbound && is_unknown_user(reply) {
            self.evaluator.app.metrics.unknown_users.inc();
        }
        self.evaluator.shows_refused()
    }

    /// A trusted proxy names its client. With XCLIENT, the client takes the proxy's place, and has only its own rights.
    fn client_is(&mut self, address: Option<SocketAddr>, forwarded: bool) {
        let proxy = self.evaluator.who();
        if !forwarded {
            self.caller.counted = None;
            match admit(address, &self.evaluator.app, &self.proxy_listener) {
                Ok(counted) => self.caller.counted = counted,
                Err(reply) => self.session.turn_away(reply),
            }
            self.caller.passed.source = address;
            let listener = &self.proxy_listener.listener;
            let trusted = address.is_some_and(|address| listener.trusted_proxies.contains(address.ip()));
            self.session.client_is(trusted, listener.sync == SyncMode::Enforce && !trusted);
        }
        self.caller.address = address;
        self.evaluator.client = address.map(|address| address.ip());
        self.evaluator.is_spared = self.client_is_spared();
        debug!(
            session = %self.evaluator.id,
            proxy,
            client = self.evaluator.who(),
            forwarded,
            "a trusted proxy names its client"
        );
    }

    /// Whether the client is spared the limit on unknown recipients, because the config names it.
    pub(super) fn client_is_spared(&self) -> bool {
        self.evaluator.client.is_none_or(|client| is_known(client, &self.proxy_listener))
    }

    fn connect(&mut self, target: NextHopChoice) -> Later<Result<Reached, String>> {
        let (proxy_listener, passed) = (Arc::clone(&self.proxy_listener), self.caller.passed);
        self.reach = proxy_listener.hops(target).patience();
        Box::pin(async move { proxy_listener.hops(target).reach(passed).await })
    }
}
