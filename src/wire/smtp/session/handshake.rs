//! The handshake with a next hop, before the client's commands: EHLO, STARTTLS, XCLIENT.
//!
//! The first handshake is begun by the client's EHLO, and its last reply is passed on to the client. On later
//! connections, the client does not notice the handshake.

use super::client::Hello;
use super::next_hop::{Connection, Handshake, Purpose, Step};
use super::queue::{Item, ProxyCommand};
use super::{Event, Session, Tls};
use crate::wire::message::NextHopChoice;
use crate::wire::smtp::command::Verb;
use crate::wire::smtp::extensions::{self, Extensions, Ours};
use crate::wire::smtp::replies::HOP_UNFIT;
use crate::wire::smtp::reply::Reply;

impl Session {
    /// Begins a handshake for the client's HELO or EHLO, or for its earlier one.
    pub(super) fn begin_handshake(&mut self, asked: Option<Hello>) {
        let for_client = asked.is_some();
        let Some(hello) = asked.or_else(|| self.client.hello.clone()) else {
            // Before the client's HELO or EHLO, no command needs a handshake.
            self.hop.connection = Connection::Ready;
            return;
        };
        let wants_more = self.tls() != Tls::Off || (self.client().is_some() && self.hop.target != NextHopChoice::Srs);
        let probing = hello.verb == Verb::Helo && wants_more;
        let handshake = Handshake { hello, for_client, probing, plain: false, answered: false, step: Step::Reply };
        self.hop.connection = Connection::Handshake(handshake);
        self.say_hello();
    }

    fn say_hello(&mut self) {
        let Some(handshake) = self.hop.connection.handshake() else { return };
        let line = match (handshake.plain, handshake.probing) {
            (true, _) => format!("HELO {}", handshake.hello.name()).into_bytes(),
            (false, true) => format!("EHLO {}", handshake.hello.name()).into_bytes(),
            (false, false) => handshake.hello.line.clone(),
        };
        self.hop.facts.offer.pipelining = false;
        self.send(&line, Item::Swallowed(ProxyCommand::Hello));
    }

    fn tls(&self) -> Tls {
        match self.hop.target {
            NextHopChoice::Srs => self.settings.srs_tls,
            NextHopChoice::Main | NextHopChoice::Domain(_) => self.settings.hop_tls,
        }
    }

    /// Handles a reply of the next hop to HELO or EHLO.
    pub(super) fn hello_answered(&mut self, reply: Reply) {
        let Some(handshake) = self.hop.connection.handshake_mut() else { return };
        if !reply.is_positive() {
            return self.hello_refused(reply);
        }
        handshake.answered = true;
        let extended = !handshake.plain && (handshake.probing || handshake.hello.verb != Verb::Helo);
        let offer = if extended { extensions::read(&reply) } else { Extensions::default() };
        if extended && !self.hop.facts.encrypted && self.tls() != Tls::Off && !self.hop.plain_only {
            if offer.starttls {
                return self.send(b"STARTTLS", Item::Swallowed(ProxyCommand::StartTls));
            }
            if self.tls() == Tls::Require {
                return self.unfit("the next hop offers no TLS");
            }
        }
        if extended
            && self.must_tell(&offer)
            && let Some(line) = self.identity_line("XCLIENT", &offer)
        {
            return self.send(line.as_bytes(), Item::Swallowed(ProxyCommand::XClient));
        }
        self.handshake_done(reply, if extended { Some(offer) } else { None });
    }

    /// Handles a negative reply to HELO or EHLO. A refusal of the client is passed on; for an unknown command, another
    /// is tried.
    fn hello_refused(&mut self, reply: Reply) {
        let Some(handshake) = self.hop.connection.handshake_mut() else { return };
        let unknown = (500..=503).contains(&reply.code) && reply.code != 501;
        // A later EHLO follows STARTTLS or XCLIENT, so it must not be replaced by HELO.
        let was_extended =
            !handshake.plain && !handshake.answered && (handshake.probing || handshake.hello.verb == Verb::Ehlo);
        if unknown && self.settings.sends_proxy {
            return self.unfit("the next hop does not understand: does it expect the PROXY header (send_proxy)?");
        }
        if unknown && !was_extended {
            return self.unfit("the next hop does not understand our hello: does it speak SMTP, or LMTP?");
        }
        if was_extended && (unknown || (handshake.probing && reply.code >= 500)) {
            // The next hop may support HELO only, which is not enough if TLS is required.
            handshake.plain = true;
            if self.tls() == Tls::Require && !self.hop.facts.encrypted {
                return self.unfit("the next hop offers no TLS");
            }
            return self.say_hello();
        }
        self.handshake_refused(reply);
    }

    fn must_tell(&self, offer: &Extensions) -> bool {
        !offer.xclient.is_empty()
            && self.hop.target != NextHopChoice::Srs
            && self.hop.facts.told != Some(self.client.identity_version)
    }

    /// Whether the client has changed since the next hop was sent XCLIENT.
    pub(super) fn must_introduce_again(&self) -> bool {
        self.hop.facts.told.is_some_and(|told| told != self.client.identity_version)
    }

    /// Handles the next hop's reply to STARTTLS.
    pub(super) fn starttls_answered(&mut self, reply: &Reply) {
        if reply.code == 220 {
            if let Some(handshake) = self.hop.connection.handshake_mut() {
                handshake.step = Step::Tls;
            }
            self.out.events.push_back(Event::SecureHop);
        } else if self.tls() == Tls::Require {
            self.unfit("the next hop refuses TLS");
        } else {
            self.hop.plain_only = true;
            self.say_hello();
        }
    }

    /// The TLS handshake with the next hop is done.
    pub fn hop_secured(&mut self) {
        let Some(handshake) = self.hop.connection.handshake_mut().filter(|handshake| handshake.step == Step::Tls)
        else {
            return;
        };
        handshake.step = Step::Reply;
        self.hop.facts.encrypted = true;
        self.out.progress += 1;
        self.say_hello();
    }

    /// The TLS handshake with the next hop has failed. If TLS is optional, the next hop is connected to again without
    /// it.
    pub fn hop_not_secured(&mut self) {
        if !self.hop.connection.is_securing() {
            return;
        }
        if self.tls() == Tls::May && !self.hop.plain_only {
            self.hop.plain_only = true;
            let unfinished = self.hop.connection.end_handshake().filter(|handshake| handshake.for_client);
            self.drop_hop();
            self.open(self.hop.target, unfinished.map_or(Purpose::Silent, |handshake| Purpose::Hello(handshake.hello)));
        } else {
            self.unfit("the TLS handshake with the next hop failed");
        }
    }

    /// Handles the next hop's reply to XCLIENT: a new greeting, after which the handshake starts again.
    pub(super) fn xclient_answered(&mut self, reply: Reply) {
        match reply.code {
            200..300 => {
                self.hop.facts.told = Some(self.client.identity_version);
                self.say_hello();
            }
            // The next hop refuses this client, permanently or for now, so the client is sent the reply.
            400..500 | 521 | 554 => self.handshake_refused(reply),
            // The next hop does not understand XCLIENT, or does not trust this program. That must not lose mail, and
            // without XCLIENT the client would be taken for this program.
            _ => self.unfit("the next hop offers XCLIENT and refuses it"),
        }
    }

    fn handshake_refused(&mut self, reply: Reply) {
        if !self.hop.connection.handshake().is_some_and(|handshake| handshake.for_client) {
            return self.hop_failed();
        }
        self.hop.connection = Connection::Ready;
        self.out.to_client.extend_from_slice(&reply.text);
        if reply.code == 421 || self.hop.facts.told.is_some() || self.hop.facts.encrypted {
            self.end();
        }
    }

    fn handshake_done(&mut self, reply: Reply, offer: Option<Extensions>) {
        let Some(handshake) = self.hop.connection.end_handshake() else { return };
        self.hop.facts.set_up = true;
        let extended = handshake.hello.verb != Verb::Helo;
        if let Some(offer) = offer {
            // After HELO, commands are sent one at a time.
            self.hop.facts.offer = Extensions { pipelining: offer.pipelining && extended, ..offer };
        }
        if handshake.for_client {
            self.client.offered_chunking = extended && self.hop.facts.offer.chunking && !self.settings.strips_content;
            self.out.to_client.extend_from_slice(&self.greeting_of(&reply, extended));
            self.client.hello = Some(handshake.hello);
        }
        self.hop.facts.hello_reply = Some(reply);
    }

    /// The reply to the client's HELO or EHLO. The reply to EHLO is the next hop's, filtered. The reply to HELO is one
    /// line: some servers refuse HELO after EHLO, so EHLO was sent instead.
    pub(super) fn greeting_of(&self, reply: &Reply, extended: bool) -> Vec<u8> {
        if extended {
            return extensions::filter(reply, &self.ours());
        }
        let name = reply.lines().next().unwrap_or_default();
        [reply.code.to_string().as_bytes(), b" ", name, b"\r\n"].concat()
    }

    /// The extensions of this program that the client is offered.
    pub(super) fn ours(&self) -> Ours {
        Ours {
            starttls: self.settings.client_tls != Tls::Off && !self.client.encrypted,
            auth: !self.auth_needs_tls() && !self.client.authenticated,
            requires_tls: self.may_require_tls(),
            trusted: self.settings.trusted,
            chunking: !self.settings.strips_content,
            message: self.settings.limits.message,
            recipients: self.settings.limits.recipients,
        }
    }

    /// Whether REQUIRETLS can be offered: both connections are encrypted, and the next hop's certificate is verified.
    pub(super) fn may_require_tls(&self) -> bool {
        self.client.encrypted && self.hop.facts.encrypted && self.settings.hop_verified
    }

    /// Sends the client's identity by XFORWARD, unless XCLIENT was sent. It is sent with each MAIL, because the next
    /// hop forgets it after each message.
    pub(super) fn introduce(&mut self) {
        if self.hop.facts.told.is_none()
            && let Some(line) = self.identity_line("XFORWARD", &self.hop.facts.offer)
        {
            self.send(line.as_bytes(), Item::Swallowed(ProxyCommand::XForward));
        }
    }

    fn identity_line(&self, verb: &str, offer: &Extensions) -> Option<String> {
        let hello = self.hop.connection.handshake().map(|handshake| &handshake.hello).or(self.client.hello.as_ref());
        let name = hello.map(Hello::name).unwrap_or_default();
        let protocol = match hello.map(|hello| hello.verb) {
            Some(Verb::Helo) => "SMTP",
            Some(Verb::Lhlo) => "LMTP",
            Some(Verb::Ehlo) | None => "ESMTP",
        };
        let taken = if verb == "XCLIENT" { &offer.xclient } else { &offer.xforward };
        self.client()?.command(verb, taken, &name, protocol)
    }

    fn unfit(&mut self, why: &'static str) {
        self.out.events.push_back(Event::Unfit(why));
        self.no_hop(HOP_UNFIT);
    }
}
