//! `serve`: runs the daemon.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::common_args::find_config;
use crate::service::{Service, fd_limit, logs, runtime};
use crate::state;

/// `countersign serve`
#[derive(Debug, Args)]
#[command(after_help = "\
SIGHUP reads the config, and key ring and certificates (changed ones are noticed within two
seconds anyway). `countersign reload` does the same, and says what came of it.
SIGTERM stops: no new connections, transactions in progress may finish.")]
pub(super) struct Serve {
    /// Config file [default: countersign.toml here, then /etc/countersign/countersign.toml; or the files in
    /// COUNTERSIGN_CONFIG_PATH]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs the daemon until a signal stops it.
pub(super) fn run(args: &Serve) -> Result<bool> {
    let config = find_config(args.config.as_deref())?.context("there is no config; name one with -c FILE")?;
    let ring = state::ring_file::load(&config.ring)?;
    logs::start(config.log_format, &config.log_level).map_err(anyhow::Error::msg)?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        config = %config.path.display(),
        ring = %config.ring.display(),
        signing = ring.own_signer().map(|key| key.id.to_string()),
        outbound = config.policy.outbound.mode.name(),
        inbound = config.policy.inbound.mode.name(),
        "starting"
    );
    for danger in super::check::dangers(&config) {
        tracing::error!("dangerous: {danger}");
    }
    for warning in super::check::warnings(&config, &ring) {
        tracing::warn!("{warning}");
    }
    if let Some(why) = state::ring_file::cannot_change(&config.ring) {
        tracing::warn!(
            "the key ring cannot be changed by this process: {why}. Until then a ramp begins only by: countersign keys ramp-start DOMAIN"
        );
    }
    fd_limit::raise_descriptors(&config)?;
    let control = runtime::control()?;
    let served = control.block_on(async {
        // The signal handlers are registered before anything listens, so that no signal is missed.
        let (mut hup, mut term, mut int) =
            (signal(SignalKind::hangup())?, signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let service = Service::bind(config, ring)?;
        let reload = service.reload();
        tokio::spawn(async move {
            while hup.recv().await.is_some() {
                reload.now();
            }
        });
        let stop = async {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
        };
        service.run(stop).await?;
        Ok(true)
    });
    // Do not wait for a thread that is blocked on the lock of the ring.
    control.shutdown_background();
    served
}
