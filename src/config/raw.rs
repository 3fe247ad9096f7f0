//! The config file as typed. Every field may be missing here; `super` supplies the defaults.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::choices::{
    AddressDetail, ListenerProtocol, LogFormat, ProxyUnknown, SendProxy, Side, StrayNewline, SyncMode, TlsMode,
    TokenFor,
};
use super::recipients::RawRecipients;
use super::words::{self, AddressEntry, Delay, Endpoint, Name, NetworkWord, NextHops, Size, Span};
use crate::envelope::site_policy::{
    FailureAction, InboundMode, LongSrs, Mixed, OutboundMode, Overflow, OwnBouncePolicy, RejectAt,
};
use crate::envelope::tag::batv::MacLength;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct Raw {
    pub domains: RawDomains,
    pub keys: RawKeys,
    pub listener: Vec<Spanned<RawListener>>,
    pub outbound: RawOutbound,
    pub inbound: RawInbound,
    pub batv: Batv,
    pub srs: RawSrs,
    pub clock_tolerance: Option<u16>,
    pub limits: RawLimits,
    pub timeouts: RawTimeouts,
    pub log: Log,
    pub status: RawStatus,
    pub state: RawState,
    pub control: RawControl,
    pub notify: RawNotify,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct RawDomains {
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
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct RawKeys {
    pub ring: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct RawListener {
    #[serde(deserialize_with = "words::role")]
    pub role: Option<Side>,
    #[serde(deserialize_with = "words::protocol")]
    pub protocol: Option<ListenerProtocol>,
    pub listen: Option<Endpoint>,
    pub next_hop: Option<NextHops>,
    pub by_domain: BTreeMap<Name, NextHops>,
    pub clients: Vec<NetworkWord>,
    #[serde(deserialize_with = "words::stray_newline")]
    pub stray_newline: Option<StrayNewline>,
    #[serde(deserialize_with = "words::sync")]
    pub sync: Option<SyncMode>,
    #[serde(deserialize_with = "words::tls")]
    pub tls: Option<TlsMode>,
    pub certificate: Option<String>,
    pub private_key: Option<String>,
    #[serde(deserialize_with = "words::tls")]
    pub next_hop_tls: Option<TlsMode>,
    pub next_hop_verify: Option<bool>,
    pub next_hop_name: Option<Name>,
    pub next_hop_ca: Option<String>,
    pub trusted_proxies: Vec<NetworkWord>,
    pub accept_proxy: bool,
    #[serde(deserialize_with = "words::proxy_unknown")]
    pub proxy_unknown: Option<ProxyUnknown>,
    #[serde(deserialize_with = "words::send_proxy")]
    pub send_proxy: Option<SendProxy>,
    pub outbound_clients: Option<Vec<NetworkWord>>,
    pub outbound_daemons: Vec<String>,
    pub connections: Option<Spanned<usize>>,
    pub mode: Option<words::Mode>,
    pub group: Option<String>,
    pub users: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct RawStatus {
    pub listen: Option<Spanned<Endpoint>>,
    pub hosts: Vec<Name>,
    pub token_file: Option<String>,
    #[serde(deserialize_with = "words::token_for")]
    pub token_for: Option<TokenFor>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct RawState {
    pub path: Option<String>,
    pub max_size: Option<Size>,
    pub decisions: Option<usize>,
    #[serde(deserialize_with = "words::address_detail")]
    pub addresses: Option<AddressDetail>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct RawNotify {
    pub mail_to: Vec<Spanned<String>>,
    pub mail_from: Option<Spanned<String>>,
    pub mail_via: Option<Endpoint>,
    pub webhook: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct RawControl {
    pub listen: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct RawOutbound {
    #[serde(deserialize_with = "words::outbound_mode")]
    pub mode: Option<OutboundMode>,
    pub pilot: Vec<AddressEntry>,
    #[serde(deserialize_with = "words::overflow")]
    pub overflow: Option<Overflow>,
    #[serde(deserialize_with = "words::mixed")]
    pub mixed: Option<Mixed>,
    pub exempt_senders: Option<Vec<AddressEntry>>,
    pub exempt_recipients: Vec<AddressEntry>,
    pub exempt_clients: Vec<NetworkWord>,
    pub evidence: Option<bool>,
    pub ndr: RawNdr,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct RawNdr {
    #[serde(deserialize_with = "words::own_bounces")]
    pub policy: Option<OwnBouncePolicy>,
    pub authserv_id: Option<String>,
    pub results_below_received: bool,
    pub per_domain_per_hour: u32,
    pub per_hour: u32,
    pub strip_content: bool,
    pub copy_to: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct RawInbound {
    #[serde(deserialize_with = "words::inbound_mode")]
    pub mode: Option<InboundMode>,
    #[serde(deserialize_with = "words::reject_at")]
    pub reject_at: Option<RejectAt>,
    #[serde(deserialize_with = "words::action")]
    pub action: Option<FailureAction>,
    pub actions: RawActions,
    pub hold: Option<Size>,
    pub exempt_senders: Vec<AddressEntry>,
    pub exempt_recipients: Option<Vec<AddressEntry>>,
    pub exempt_clients: Vec<NetworkWord>,
    #[serde(deserialize_with = "words::foreign")]
    pub foreign: Option<bool>,
    #[serde(deserialize_with = "words::own_senders")]
    pub own_senders: Option<bool>,
    pub srs_next_hop: Option<NextHops>,
    #[serde(deserialize_with = "words::srs_stays")]
    pub srs_reverse: Option<bool>,
    pub srs_for_senders: bool,
    pub daemon_senders: Option<Vec<AddressEntry>>,
    pub trusted_relays: Vec<NetworkWord>,
    pub recipients: Option<Spanned<RawRecipients>>,
    pub guesses_per_minute: Option<u32>,
    #[serde(deserialize_with = "words::replay")]
    pub replay: Option<bool>,
    pub quarantine_to: Option<Spanned<String>>,
    pub evidence: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case", expecting = "a table of actions")]
pub(super) struct RawActions {
    #[serde(deserialize_with = "words::action")]
    pub forged: Option<FailureAction>,
    #[serde(deserialize_with = "words::action")]
    pub expired: Option<FailureAction>,
    #[serde(deserialize_with = "words::action")]
    pub future: Option<FailureAction>,
    #[serde(deserialize_with = "words::action")]
    pub untagged_ndr: Option<FailureAction>,
    #[serde(deserialize_with = "words::action")]
    pub daemon_ndr: Option<FailureAction>,
    #[serde(deserialize_with = "words::action")]
    pub text_ndr: Option<FailureAction>,
    #[serde(deserialize_with = "words::action")]
    pub overflow: Option<FailureAction>,
    #[serde(deserialize_with = "words::action")]
    pub doubtful_ndr: Option<FailureAction>,
    #[serde(deserialize_with = "words::action")]
    pub dsn_failed: Option<FailureAction>,
    #[serde(deserialize_with = "words::action")]
    pub dsn_delayed: Option<FailureAction>,
    #[serde(deserialize_with = "words::action")]
    pub text_bounce: Option<FailureAction>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct Batv {
    pub lifetime: Option<Spanned<u16>>,
    pub queue_lifetime: Option<u16>,
    #[serde(deserialize_with = "words::mac")]
    pub mac: Option<MacLength>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct RawSrs {
    pub lifetime: Option<Spanned<u16>>,
    #[serde(deserialize_with = "words::separator")]
    pub separator: Option<char>,
    pub hash_length: Option<Spanned<u8>>,
    pub hash_min: Option<Spanned<u8>>,
    pub always_rewrite: bool,
    #[serde(deserialize_with = "words::long_srs")]
    pub long: Option<LongSrs>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct RawLimits {
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
    pub unknown_recipients_per_hour: Option<u32>,
    pub tarpit: Option<Delay>,
    pub held: Option<Size>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct RawTimeouts {
    pub connect: Option<Span>,
    pub command: Option<Span>,
    pub transaction: Option<Span>,
    pub next_hop: Option<Span>,
    pub drain: Option<Span>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct Log {
    #[serde(deserialize_with = "words::log_format")]
    pub format: Option<LogFormat>,
    pub level: Option<words::LogLevel>,
}
