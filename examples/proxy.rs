//! A signing SMTP proxy in one function: `cargo run --example proxy -- 127.0.0.1:10225 127.0.0.1:25`.
//!
//! Listens on the first address, signs senders in `our.example` with a key that lives as long as the process, and
//! passes the mail to the second address. Ctrl-C stops it; transactions in progress may finish.

use std::path::Path;

use anyhow::{Context, Result};
use countersign::config::Config;
use countersign::envelope::keyring::{Algorithm, Keyring, NewKey, Secret};
use countersign::envelope::time::Timestamp;
use countersign::service::{Service, runtime};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (listen, next_hop) = arguments.next().zip(arguments.next()).context("usage: proxy LISTEN NEXT_HOP")?;
    let config = format!(
        "domains.local = [\"our.example\"]\n[[listener]]\nrole = \"outbound\"\nlisten = \"{listen}\"\n\
         next_hop = \"{next_hop}\"\n"
    );
    let config = Config::parse(Path::new("example.toml"), &config)?;
    let mut secret = vec![0; 32];
    getrandom::fill(&mut secret)?;
    let key = NewKey {
        algorithm: Algorithm::HmacSha256,
        secret: Secret::new(secret.into()),
        lifetime: 7,
        srs_lifetime: 21,
        short_tags: true,
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let ring = Keyring::create(key, Timestamp(i64::try_from(now.as_secs())?))?;
    runtime::control()?.block_on(async {
        let service = Service::bind(config, ring)?;
        for (_, address) in service.addresses() {
            println!("listening on {address}");
        }
        service.run(async { drop(tokio::signal::ctrl_c().await) }).await?;
        Ok(())
    })
}
