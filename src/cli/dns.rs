//! Look-ups in the DNS, for `probe` and `report`. The daemon makes none.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{RData, RecordType};
use tokio::runtime::Runtime;

use crate::service::runtime;

/// How long one name server is waited for, and how often a query is repeated.
const PATIENCE: Duration = Duration::from_secs(3);
const ATTEMPTS: usize = 2;

/// A resolver whose look-ups block the caller.
pub(super) struct Dns {
    resolver: TokioResolver,
    runtime: Runtime,
}

impl Dns {
    /// Uses the name servers of this machine, or the one that is given.
    ///
    /// # Errors
    /// The configuration of this machine cannot be read.
    pub(super) fn new(server: Option<SocketAddr>) -> Result<Self> {
        let runtime = runtime::control()?;
        let resolver = runtime.block_on(async {
            let mut builder = match server {
                Some(address) => {
                    let provider = TokioRuntimeProvider::default();
                    TokioResolver::builder_with_config(config_for(address), provider)
                }
                None => TokioResolver::builder_tokio().context("the name servers of this machine")?,
            };
            (builder.options_mut().timeout, builder.options_mut().attempts) = (PATIENCE, ATTEMPTS);
            builder.build().map_err(anyhow::Error::from)
        })?;
        Ok(Self { resolver, runtime })
    }

    /// The texts of the TXT records of a name; none: it has no such record.
    ///
    /// # Errors
    /// No name server has answered.
    pub(super) fn txt(&self, name: &str) -> Result<Vec<String>> {
        self.look_up(name, RecordType::TXT, |data| match data {
            RData::TXT(txt) => Some(txt.txt_data.iter().map(|part| String::from_utf8_lossy(part)).collect()),
            _ => None,
        })
    }

    /// The MX hosts of a domain with their preferences, the preferred ones first.
    ///
    /// # Errors
    /// No name server has answered.
    pub(super) fn mx(&self, domain: &str) -> Result<Vec<(u16, String)>> {
        let mut hosts = self.look_up(domain, RecordType::MX, |data| match data {
            RData::MX(mx) => {
                let host = mx.exchange.to_ascii();
                Some((mx.preference, host.strip_suffix('.').unwrap_or(&host).to_ascii_lowercase()))
            }
            _ => None,
        })?;
        hosts.sort();
        Ok(hosts)
    }

    /// The addresses of a host.
    ///
    /// # Errors
    /// No name server has answered.
    pub(super) fn addresses(&self, host: &str) -> Result<Vec<IpAddr>> {
        let mut addresses = self.ipv4(host)?;
        addresses.extend(self.look_up(host, RecordType::AAAA, |data| match data {
            RData::AAAA(address) => Some(IpAddr::V6(address.0)),
            _ => None,
        })?);
        Ok(addresses)
    }

    /// The IPv4 addresses of a name.
    ///
    /// # Errors
    /// No name server has answered.
    pub(super) fn ipv4(&self, name: &str) -> Result<Vec<IpAddr>> {
        self.look_up(name, RecordType::A, |data| match data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            _ => None,
        })
    }

    fn look_up<T>(&self, name: &str, kind: RecordType, pick: impl Fn(&RData) -> Option<T>) -> Result<Vec<T>> {
        // With a dot at its end, the search list of this machine is not used.
        let full = format!("{}.", name.trim_end_matches('.'));
        match self.runtime.block_on(self.resolver.lookup(full, kind)) {
            Ok(found) => Ok(found.answers().iter().filter_map(|record| pick(&record.data)).collect()),
            Err(error) if is_absent(&error) => Ok(Vec::new()),
            Err(error) => Err(anyhow::anyhow!("{name}: {error}")),
        }
    }
}

/// Whether a name server has said that there is no such record.
fn is_absent(error: &NetError) -> bool {
    let NetError::Dns(DnsError::NoRecordsFound(none)) = error else { return false };
    matches!(none.response_code, ResponseCode::NoError | ResponseCode::NXDomain)
}

fn config_for(address: SocketAddr) -> ResolverConfig {
    let (mut udp, mut tcp) = (ConnectionConfig::udp(), ConnectionConfig::tcp());
    (udp.port, tcp.port) = (address.port(), address.port());
    let server = NameServerConfig::new(address.ip(), true, vec![udp, tcp]);
    ResolverConfig::from_parts(None, Vec::new(), vec![server])
}
