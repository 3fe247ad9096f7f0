//! The config file as it is typed. Every field may be missing here; `super` knows the defaults.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::values::{self, Endpoint, Entry, Name, Network, NextHops, Size, Span};
use super::{Advice, LogFormat, Protocol, ProxyUnknown, SendProxy, Side, StrayNewline, SyncMode, TlsMode};
use crate::envelope::site_policy::{FailureAction, InboundMode, Mixed, OutboundMode, Overflow, RejectAt};
use crate::envelope::tag::batv::MacLength;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Raw {
    pub domains: Domains,
    pub keys: Keys,
    pub listener: Vec<Spanned<Listener>>,
    pub outbound: Outbound,
    pub inbound: Inbound,
    pub batv: Batv,
    pub srs: Srs,
    pub clock_tolerance: Option<u16>,
    pub limits: Limits,
    pub timeouts: Timeouts,
    pub log: Log,
    pub status: Status,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Domains {
    pub local: Vec<Name>,
    pub relay: Vec<Name>,
    pub srs_domain: Option<SrsDomain>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected one domain, or a table from sender domain to alias domain")]
pub(super) enum SrsDomain {
    One(Name),
    Table(BTreeMap<String, Name>),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Keys {
    pub ring: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Listener {
    #[serde(deserialize_with = "values::role")]
    pub role: Option<Side>,
    #[serde(deserialize_with = "values::protocol")]
    pub protocol: Option<Spoken>,
    pub listen: Option<Endpoint>,
    pub next_hop: Option<NextHops>,
    pub by_domain: BTreeMap<Name, NextHops>,
    pub clients: Vec<Network>,
    #[serde(deserialize_with = "values::stray_newline")]
    pub stray_newline: Option<StrayNewline>,
    #[serde(deserialize_with = "values::sync")]
    pub sync: Option<SyncMode>,
    #[serde(deserialize_with = "values::tls")]
    pub tls: Option<TlsMode>,
    pub certificate: Option<String>,
    pub private_key: Option<String>,
    #[serde(deserialize_with = "values::tls")]
    pub next_hop_tls: Option<TlsMode>,
    pub next_hop_verify: Option<bool>,
    pub next_hop_name: Option<Name>,
    pub next_hop_ca: Option<String>,
    pub trusted_proxies: Vec<Network>,
    pub accept_proxy: bool,
    #[serde(deserialize_with = "values::proxy_unknown")]
    pub proxy_unknown: Option<ProxyUnknown>,
    #[serde(deserialize_with = "values::send_proxy")]
    pub send_proxy: Option<SendProxy>,
    pub outbound_clients: Option<Vec<Network>>,
    pub outbound_daemons: Vec<String>,
    pub connections: Option<Spanned<usize>>,
    pub mode: Option<values::Mode>,
    pub group: Option<String>,
    pub users: Option<Vec<String>>,
}

/// What a listener speaks: a proxy is one thing, an advisor another.
#[derive(Debug, Clone, Copy)]
pub(super) enum Spoken {
    Mail(Protocol),
    Advice(Advice),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Status {
    pub listen: Option<Spanned<Endpoint>>,
    pub hosts: Vec<values::Name>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Outbound {
    #[serde(deserialize_with = "values::outbound_mode")]
    pub mode: Option<OutboundMode>,
    pub pilot: Vec<Entry>,
    #[serde(deserialize_with = "values::overflow")]
    pub overflow: Option<Overflow>,
    #[serde(deserialize_with = "values::mixed")]
    pub mixed: Option<Mixed>,
    pub exempt_senders: Option<Vec<Entry>>,
    pub exempt_recipients: Vec<Entry>,
    pub exempt_clients: Vec<Network>,
    pub evidence: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Inbound {
    #[serde(deserialize_with = "values::inbound_mode")]
    pub mode: Option<InboundMode>,
    #[serde(deserialize_with = "values::reject_at")]
    pub reject_at: Option<RejectAt>,
    #[serde(deserialize_with = "values::action")]
    pub action: Option<FailureAction>,
    pub actions: Actions,
    pub hold: Option<Size>,
    pub exempt_senders: Vec<Entry>,
    pub exempt_recipients: Option<Vec<Entry>>,
    pub exempt_clients: Vec<Network>,
    #[serde(deserialize_with = "values::foreign")]
    pub foreign: Option<bool>,
    #[serde(deserialize_with = "values::own_senders")]
    pub own_senders: Option<bool>,
    pub srs_next_hop: Option<NextHops>,
    #[serde(deserialize_with = "values::srs_stays")]
    pub srs_reverse: Option<bool>,
    pub srs_for_senders: bool,
    pub daemon_senders: Option<Vec<Entry>>,
    pub trusted_relays: Vec<Network>,
    pub guesses_per_minute: Option<u32>,
    #[serde(deserialize_with = "values::replay")]
    pub replay: Option<bool>,
    pub quarantine_to: Option<Spanned<String>>,
    pub evidence: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(super) struct Actions {
    #[serde(deserialize_with = "values::action")]
    pub forged: Option<FailureAction>,
    #[serde(deserialize_with = "values::action")]
    pub expired: Option<FailureAction>,
    #[serde(deserialize_with = "values::action")]
    pub future: Option<FailureAction>,
    #[serde(deserialize_with = "values::action")]
    pub untagged_ndr: Option<FailureAction>,
    #[serde(deserialize_with = "values::action")]
    pub daemon_ndr: Option<FailureAction>,
    #[serde(deserialize_with = "values::action")]
    pub text_ndr: Option<FailureAction>,
    #[serde(deserialize_with = "values::action")]
    pub overflow: Option<FailureAction>,
    #[serde(deserialize_with = "values::action")]
    pub doubtful_ndr: Option<FailureAction>,
    #[serde(deserialize_with = "values::action")]
    pub dsn_failed: Option<FailureAction>,
    #[serde(deserialize_with = "values::action")]
    pub dsn_delayed: Option<FailureAction>,
    #[serde(deserialize_with = "values::action")]
    pub text_bounce: Option<FailureAction>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Batv {
    pub lifetime: Option<Spanned<u16>>,
    pub queue_lifetime: Option<u16>,
    #[serde(deserialize_with = "values::mac")]
    pub mac: Option<MacLength>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Srs {
    pub lifetime: Option<Spanned<u16>>,
    #[serde(deserialize_with = "values::separator")]
    pub separator: Option<char>,
    pub hash_length: Option<Spanned<u8>>,
    pub hash_min: Option<Spanned<u8>>,
    pub always_rewrite: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Limits {
    pub connections: Option<Spanned<usize>>,
    pub connections_per_client: Option<usize>,
    pub commands: Option<Spanned<u32>>,
    pub bad_commands: Option<u32>,
    pub refused_recipients: Option<u32>,
    pub recipients: Option<Spanned<u32>>,
    pub line: Option<Spanned<usize>>,
    pub header: Option<Size>,
    pub message: Option<Size>,
    pub octets_per_second: Option<u32>,
    pub held: Option<Size>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Timeouts {
    pub connect: Option<Span>,
    pub command: Option<Span>,
    pub transaction: Option<Span>,
    pub next_hop: Option<Span>,
    pub drain: Option<Span>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Log {
    #[serde(deserialize_with = "values::log_format")]
    pub format: Option<LogFormat>,
    pub level: Option<values::LogLevel>,
}
