//! TLS handshakes in the middle of a session, after STARTTLS on either side.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::proxy_session::ProxySession;
use crate::drive::stream::Stream;
use crate::drive::tls::in_words;
use crate::drive::{limited, limited_warn};

impl ProxySession {
    /// Continues the handshakes in progress. Returns whether one has ended.
    pub(super) fn poll_handshakes(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        if let Some(handshake) = &mut self.securing_client
            && let Poll::Ready(done) = handshake.as_mut().poll(cx)
        {
            (self.securing_client, moved) = (None, true);
            match done {
                Ok(stream) => {
                    self.client = stream;
                    self.session.client_secured();
                }
                Err(error) => {
                    let (session, client) = (self.evaluator.id, self.evaluator.who());
                    limited!(info, %session, client, %error, "TLS handshake with the client failed");
                    self.session.client_lost();
                    self.gone = true;
                    self.act(cx);
                }
            }
        }
        if let Some(handshake) = &mut self.securing_hop
            && let Poll::Ready(done) = handshake.as_mut().poll(cx)
        {
            (self.securing_hop, moved) = (None, true);
            match done {
                Ok(stream) => {
                    self.hop = Some(stream);
                    self.session.hop_secured();
                }
                Err(error) => {
                    limited_warn!(
                        session = %self.evaluator.id,
                        client = self.evaluator.who(),
                        next_hop = self.next_hop,
                        error = in_words(&error),
                        "TLS handshake with the next hop failed"
                    );
                    self.session.hop_not_secured();
                }
            }
        }
        moved
    }

    /// Begins the handshake when the client has been sent the reply to STARTTLS: its next octets belong to the
    /// handshake.
    pub(super) fn begin_client_handshake(&mut self) {
        if !self.session.is_securing() || self.securing_client.is_some() || !self.session.out.to_client.is_empty() {
            return;
        }
        let Some(plain) = self.client.take_plain() else { return };
        let proxy_listener = Arc::clone(&self.proxy_listener);
        self.securing_client = Some(Box::pin(async move {
            match &proxy_listener.acceptor {
                Some(acceptor) => acceptor.accept(plain).await,
                None => Err(io::Error::other("the listener has no certificate")),
            }
        }));
    }

    pub(super) fn begin_hop_handshake(&mut self) {
        let plain = self.hop.as_mut().and_then(Stream::take_plain);
        self.hop = None;
        let (connector, host) = (self.proxy_listener.connector.clone(), self.host.clone());
        self.securing_hop = Some(Box::pin(async move {
            match (connector, plain) {
                (Some(connector), Some(plain)) => connector.connect(&host, plain).await,
                _ => Err(io::ErrorKind::NotConnected.into()),
            }
        }));
    }
}
