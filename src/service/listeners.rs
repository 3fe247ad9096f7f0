//! The listeners of a running daemon. When the config is reloaded, new ones are bound first; others take their new
//! settings for new connections; those that are gone stop accepting, and their open transactions may finish.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::accept;
use super::runtime::Workers;
use super::start_error::StartError;
use super::task_group::Group;
use crate::config::{Access, Config, Endpoint, MtaService, Role, ServiceProtocol, listed};
use crate::drive::app_state::AppState;
use crate::drive::listener::{Bound, Inherited};
use crate::drive::proxy_listener::ProxyListener;

/// The proxy listeners in force, for those who look at them.
pub(super) type SharedListeners = Arc<ArcSwap<Vec<Arc<ProxyListener>>>>;

/// The listeners of a config, with their sockets.
#[derive(Debug)]
pub(super) struct BoundListeners {
    proxies: Vec<(Arc<ProxyListener>, Bound)>,
    services: Vec<(Arc<MtaService>, Bound)>,
}

impl BoundListeners {
    /// Binds all listeners of a config.
    ///
    /// # Errors
    /// See [`StartError`]; no socket is left bound then.
    pub(super) fn bind(config: &Config, inherited: &mut Inherited) -> Result<Self, StartError> {
        let mut bound = Self { proxies: Vec::new(), services: Vec::new() };
        for listener in &config.listeners {
            let proxy = proxy(listener, config)?;
            let what = proxy_name(listener.role);
            bound.proxies.push((Arc::new(proxy), bind(what, &listener.listen, &listener.access, inherited)?));
        }
        for service in &config.mta_services {
            let socket = bind(service_name(service.protocol), &service.listen, &access_of(service), inherited)?;
            bound.services.push((Arc::new(service.clone()), socket));
        }
        Ok(bound)
    }

    /// Role and address of each proxy listener, with the ports that the system chose.
    pub(super) fn addresses(&self) -> Vec<(Role, Endpoint)> {
        self.proxies.iter().map(|(proxy, bound)| (proxy.listener.role, bound.endpoint())).collect()
    }
}

fn proxy(listener: &crate::config::Listener, config: &Config) -> Result<ProxyListener, StartError> {
    ProxyListener::new(listener, config).map_err(|error| StartError::Tls { listen: listener.listen.clone(), error })
}

/// A proxy listener, in words.
fn proxy_name(role: Role) -> &'static str {
    match role {
        Role::Outbound => "the outbound listener",
        Role::Inbound => "the inbound listener",
    }
}

/// A listener for queries, in words.
fn service_name(protocol: ServiceProtocol) -> &'static str {
    match protocol {
        ServiceProtocol::Milter => "the milter",
        ServiceProtocol::Socketmap => "the socketmap",
        ServiceProtocol::Policy => "the policy service",
    }
}

fn bind(
    what: &'static str,
    listen: &Endpoint,
    access: &Access,
    inherited: &mut Inherited,
) -> Result<Bound, StartError> {
    Bound::bind(listen, access, inherited)
        .map_err(|error| StartError::bind(what, listen, access.group.as_deref(), error))
}

/// By default, access is limited only by the permissions of the socket's folder, because the MTA runs as another user.
fn access_of(service: &MtaService) -> Access {
    Access { mode: service.access.mode.or(Some(0o666)), ..service.access.clone() }
}

/// A listener that accepts connections.
struct Running<T> {
    /// Its settings for new connections.
    current: Arc<ArcSwap<T>>,
    acceptor: AbortHandle,
    /// The signal to its connections to finish.
    drain: CancellationToken,
}

impl<T> Running<T> {
    /// Stops accepting connections. Open transactions may finish.
    fn close(self) {
        self.acceptor.abort();
        self.drain.cancel();
    }
}

#[derive(Default)]
struct Inner {
    /// Listeners that carry messages stop first, because the MTA may need queries to finish them.
    mail: Group,
    queries: Group,
    proxies: Vec<Running<ProxyListener>>,
    services: Vec<Running<MtaService>>,
}

/// The listeners of a running daemon.
pub(super) struct Listeners {
    app: Arc<AppState>,
    workers: Workers,
    inner: Mutex<Inner>,
    shared: SharedListeners,
    draining: CancellationToken,
    /// Held while the config is being changed.
    changing: Mutex<()>,
}

impl Listeners {
    /// None so far.
    pub(super) fn new(app: Arc<AppState>, workers: Workers) -> Self {
        let inner = Inner::default();
        let draining = inner.mail.stopping();
        Self {
            app,
            workers,
            inner: Mutex::new(inner),
            shared: SharedListeners::default(),
            draining,
            changing: Mutex::new(()),
        }
    }

    /// The proxy listeners in force.
    pub(super) fn shared(&self) -> SharedListeners {
        Arc::clone(&self.shared)
    }

    /// The signal that the daemon stops.
    pub(super) fn draining(&self) -> CancellationToken {
        self.draining.clone()
    }

    /// Waits until no other change of the config is in progress.
    pub(super) fn lock(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Accepts connections on listeners that were bound at the start.
    pub(super) fn start(&self, bound: BoundListeners) {
        let mut inner = self.inner();
        for (proxy, socket) in bound.proxies {
            let running = self.serve_proxy(&mut inner.mail, proxy, socket);
            inner.proxies.push(running);
        }
        for (service, socket) in bound.services {
            let running = self.serve_service(&mut inner, service, socket);
            inner.services.push(running);
        }
        self.publish(&inner);
    }

    /// Puts the listeners of a config in force. What cannot be bound or read is found before anything is changed.
    /// `rules`: puts its rules in force, which comes first: what is refused from now on must not be accepted on a listener
    /// that is opened to more clients.
    ///
    /// # Errors
    /// A listener cannot be bound, or a certificate cannot be used; nothing has changed.
    pub(super) fn change(&self, config: &Config, rules: impl FnOnce()) -> Result<(), StartError> {
        if config.listeners.is_empty() && config.mta_services.is_empty() {
            return Err(StartError::NoListener);
        }
        let mut inner = self.inner();
        // A listener that begins now would not be told to finish.
        if self.draining.is_cancelled() {
            return Err(StartError::Stopping);
        }
        let mut inherited = Inherited::none();
        let mut proxies = Vec::new();
        for (at, listener) in config.listeners.iter().enumerate() {
            let before = config.listeners.iter().take(at).filter(|it| it.listen == listener.listen).count();
            let same = inner.proxies.iter().filter(|it| it.current.load().listener.listen == listener.listen);
            let socket = match same.skip(before).count() {
                0 => Some(bind(proxy_name(listener.role), &listener.listen, &listener.access, &mut inherited)?),
                _ => None,
            };
            proxies.push((Arc::new(proxy(listener, config)?), socket));
        }
        let mut services = Vec::new();
        for (at, service) in config.mta_services.iter().enumerate() {
            let before = config.mta_services.iter().take(at).filter(|it| it.listen == service.listen).count();
            let same = inner.services.iter().filter(|it| it.current.load().listen == service.listen);
            let socket = match same.skip(before).count() {
                0 => Some(bind(service_name(service.protocol), &service.listen, &access_of(service), &mut inherited)?),
                _ => None,
            };
            services.push((Arc::new(service.clone()), socket));
        }
        // Nothing can fail from here on.
        rules();
        let mut old = std::mem::take(&mut inner.proxies);
        for (proxy, socket) in proxies {
            let at = old.iter().position(|it| it.current.load().listener.listen == proxy.listener.listen);
            let running = match (socket, at) {
                (None, Some(at)) => {
                    let running = old.remove(at);
                    running.current.store(proxy);
                    running
                }
                (Some(socket), _) => self.serve_proxy(&mut inner.mail, proxy, socket),
                (None, None) => continue,
            };
            inner.proxies.push(running);
        }
        for gone in old {
            info!(listen = %gone.current.load().listener.listen, "no new connections on this listener; transactions may finish");
            gone.close();
        }
        let mut old = std::mem::take(&mut inner.services);
        for (service, socket) in services {
            let at = old.iter().position(|it| it.current.load().listen == service.listen);
            let running = match (socket, at) {
                (None, Some(at)) => {
                    let running = old.remove(at);
                    running.current.store(service);
                    running
                }
                (Some(socket), _) => self.serve_service(&mut inner, service, socket),
                (None, None) => continue,
            };
            inner.services.push(running);
        }
        for gone in old {
            info!(listen = %gone.current.load().listen, "no new connections on this listener");
            gone.close();
        }
        self.publish(&inner);
        Ok(())
    }

    fn publish(&self, inner: &Inner) {
        self.shared.store(Arc::new(inner.proxies.iter().map(|running| running.current.load_full()).collect()));
    }

    fn serve_proxy(&self, group: &mut Group, proxy: Arc<ProxyListener>, bound: Bound) -> Running<ProxyListener> {
        info!(role = proxy.listener.role.name(), listen = %bound.endpoint(), next_hop = listed(&proxy.listener.next_hop), "listening");
        let (current, drain) = (Arc::new(ArcSwap::new(proxy)), group.stopping().child_token());
        let accepting =
            accept::proxy(bound, Arc::clone(&current), &self.app, &self.workers, drain.clone(), group.member());
        Running { current, acceptor: group.accept(accepting), drain }
    }

    fn serve_service(&self, inner: &mut Inner, service: Arc<MtaService>, bound: Bound) -> Running<MtaService> {
        info!(role = service.side.name(), protocol = service.protocol.name(), listen = %bound.endpoint(), "listening");
        let (app, workers) = (&self.app, &self.workers);
        let current = Arc::new(ArcSwap::new(service));
        if current.load().protocol == ServiceProtocol::Milter {
            let (drain, member) = (inner.mail.stopping().child_token(), inner.mail.member());
            let milter = accept::milter(bound, Arc::clone(app), current.load_full(), drain.clone(), member);
            workers.spawn_aside(milter);
            // It ends by its signal.
            let acceptor = inner.mail.accept(std::future::ready(Ok(())));
            return Running { current, acceptor, drain };
        }
        let group = &mut inner.queries;
        let drain = group.stopping().child_token();
        let accepting = accept::service(bound, Arc::clone(&current), app, workers, drain.clone(), group.member());
        Running { current, acceptor: group.accept(accepting), drain }
    }

    /// Stops accepting mail, and tells its sessions to finish. Returns the groups, which end when their connections
    /// have.
    pub(super) async fn close(&self) -> (Group, Group) {
        let (mut mail, queries) = {
            let mut inner = self.inner();
            self.draining.cancel();
            (std::mem::take(&mut inner.mail), std::mem::take(&mut inner.queries))
        };
        mail.close().await;
        (mail, queries)
    }
}
