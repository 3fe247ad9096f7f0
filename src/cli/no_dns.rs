//! What takes the place of look-ups in the DNS where this program was built without them.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, bail};

/// A resolver, which cannot be had.
pub(super) enum Dns {}

impl Dns {
    /// # Errors
    /// Always: says how it can be had.
    pub(super) fn new(_: Option<SocketAddr>) -> Result<Self> {
        bail!("this countersign was built without DNS look-ups; build it with the feature `dns`")
    }

    pub(super) fn txt(&self, _: &str) -> Result<Vec<String>> {
        match *self {}
    }

    pub(super) fn mx(&self, _: &str) -> Result<Vec<(u16, String)>> {
        match *self {}
    }

    pub(super) fn addresses(&self, _: &str) -> Result<Vec<IpAddr>> {
        match *self {}
    }

    pub(super) fn ipv4(&self, _: &str) -> Result<Vec<IpAddr>> {
        match *self {}
    }
}
