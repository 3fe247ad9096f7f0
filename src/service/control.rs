//! The control socket: how `status`, `trace`, `observe` and `reload` speak to a running daemon. HTTP over a Unix socket
//! that only root and the daemon's own user may use.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::serve::Listener;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tracing::warn;

use super::decision_log::find;
use super::listeners::Listeners;
use super::pause::pause;
use super::reload::{Reload, reload_config};
use super::report::Report;
use crate::config::{Access, ConfigChanges, ControlSocket, Endpoint};
use crate::drive::app_state::AppState;
use crate::drive::listener::{Bound, Inherited};
use crate::drive::stream::{Accepted, Plain};
use crate::envelope::time::Timestamp;
use crate::state::store::Store;

/// The number of connections that may wait until they are served.
const WAITING: usize = 16;

/// The daemon, as far as commands reach it.
#[derive(Clone)]
pub(super) struct Daemon {
    pub app: Arc<AppState>,
    pub listeners: Arc<Listeners>,
    pub reload: Reload,
    pub store: Arc<dyn Store>,
}

/// The path of the control socket. Without one in the config, it is in the folder that systemd gives
/// (`RuntimeDirectory=`), if it gives one.
fn place(config: &ControlSocket) -> Option<PathBuf> {
    let given = std::env::var_os("RUNTIME_DIRECTORY").filter(|_| config.is_default);
    // Several folders are separated by colons; the first is ours.
    let given = given.as_ref().and_then(|folders| folders.to_str()?.split(':').next());
    given.map(|folder| Path::new(folder).join("control")).or_else(|| config.path.clone())
}

/// Binds the control socket. `None`: the config wants none, or it cannot be had, which the log says.
pub(super) fn bind(config: &ControlSocket) -> Option<Bound> {
    let path = place(config)?;
    let bound = || -> io::Result<Bound> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let own = rustix::process::geteuid().as_raw().to_string();
        let access = Access { mode: Some(0o660), group: None, users: Some(vec![own]) };
        Bound::bind(&Endpoint::Unix(path.clone()), &access, &mut Inherited::none())
    };
    match bound() {
        Ok(bound) => Some(bound),
        Err(error) => {
            warn!(path = %path.display(), %error, "no control socket: `countersign status`, `observe` and `reload` find no daemon");
            None
        }
    }
}

/// Serves requests, without end.
pub(super) async fn serve(bound: Bound, daemon: Daemon) {
    let router = Router::new()
        .route("/status", get(status))
        .route("/trace", post(trace))
        .route("/observe", post(observe))
        .route("/reload", post(reload_now))
        .with_state(daemon);
    let (sender, accepted) = mpsc::channel(WAITING);
    let served = async {
        tokio::select! {
            ended = bound.accept_all(move |accepted| drop(sender.try_send(accepted))) => ended,
            ended = axum::serve(Incoming(accepted), router).into_future() => ended,
        }
    };
    if let Err(error) = served.await {
        warn!(%error, "the control socket has failed");
    }
}

/// The connections that were accepted.
struct Incoming(mpsc::Receiver<Accepted>);

impl Listener for Incoming {
    type Io = Plain;
    type Addr = ();

    async fn accept(&mut self) -> (Plain, ()) {
        loop {
            match self.0.recv().await.map(Accepted::into_plain) {
                Some(Ok(plain)) => return (plain, ()),
                Some(Err(error)) => warn!(%error, "connection lost before it was served"),
                // Nothing is accepted any more.
                None => std::future::pending().await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

async fn status(State(daemon): State<Daemon>) -> Json<Report> {
    Json(Report::of(&daemon.app, &daemon.listeners.shared().load()))
}

/// What `trace` asks for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Trace {
    /// An address, a Message-ID in angle brackets, or the address of a client.
    pub about: String,
    /// Since when, in seconds since 1970.
    pub since: i64,
}

async fn trace(State(daemon): State<Daemon>, Json(asked): Json<Trace>) -> Response {
    // A large state file takes a moment to read.
    let found = tokio::task::spawn_blocking(move || find(&*daemon.store, &asked.about, Timestamp(asked.since))).await;
    match found.unwrap_or_else(|error| Err(error.to_string())) {
        Ok(found) => Json(found).into_response(),
        Err(text) => (StatusCode::BAD_REQUEST, Json(Answer { text })).into_response(),
    }
}

/// What `observe` asks for: until when all domains are observed, in seconds since 1970; `None`: not any more.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Observe {
    /// The moment.
    pub until: Option<i64>,
}

/// The answer to a command.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// What has been done, or why not, in words.
    pub text: String,
}

async fn observe(State(daemon): State<Daemon>, Json(asked): Json<Observe>) -> (StatusCode, Json<Answer>) {
    match pause(&daemon.app, asked.until.map(Timestamp)) {
        Ok(text) => (StatusCode::OK, Json(Answer { text })),
        Err(text) => (StatusCode::BAD_REQUEST, Json(Answer { text })),
    }
}

async fn reload_now(State(daemon): State<Daemon>) -> (StatusCode, Json<Answer>) {
    let here = daemon.clone();
    let changes = tokio::task::spawn_blocking(move || reload_config(&here.app, &here.listeners)).await;
    let (code, text) = match changes {
        Ok(Ok(changes)) => {
            daemon.reload.ring_and_certificates();
            (StatusCode::OK, reloaded(&changes))
        }
        Ok(Err(error)) => (StatusCode::BAD_REQUEST, format!("{error}; nothing has changed")),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    (code, Json(Answer { text }))
}

fn reloaded(changes: &ConfigChanges) -> String {
    let mut text = if changes.is_empty() {
        "The config is as before.".to_owned()
    } else if changes.applied.is_empty() {
        "No change can take effect without a restart.".to_owned()
    } else {
        format!("In force now: {}.", changes.applied.join(", "))
    };
    if !changes.need_restart.is_empty() {
        text.push_str(&format!("\nAfter a restart: {}.", changes.need_restart.join(", ")));
    }
    text.push_str("\nKey ring and certificates are read again; the log has the result.");
    text
}
