//! The addresses of this machine.

use std::net::IpAddr;

/// The addresses of all network interfaces; none if the system does not tell them.
pub(super) fn own_addresses() -> Vec<IpAddr> {
    let address = |interface: nix::ifaddrs::InterfaceAddress| {
        let storage = interface.address?;
        let v4 = storage.as_sockaddr_in().map(|it| IpAddr::V4(it.ip()));
        v4.or_else(|| storage.as_sockaddr_in6().map(|it| IpAddr::V6(it.ip())))
    };
    nix::ifaddrs::getifaddrs().map(|all| all.filter_map(address).collect()).unwrap_or_default()
}

/// Whether an address can be seen in the internet.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(it) => {
            let [a, b, ..] = it.octets();
            let is_shared = a == 100 && (64..128).contains(&b);
            !(it.is_loopback()
                || it.is_private()
                || it.is_link_local()
                || it.is_unspecified()
                || it.is_documentation()
                || it.is_multicast()
                || is_shared)
        }
        IpAddr::V6(it) => (0x2000..0x4000).contains(&it.segments()[0]) && !it.segments().starts_with(&[0x2001, 0xdb8]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_not_public() {
        let of = |text: &str| is_public(text.parse().unwrap());
        for private in [
            "127.0.0.1",
            "10.0.0.1",
            "192.168.1.1",
            "172.16.0.1",
            "169.254.1.1",
            "100.64.0.1",
            "192.0.2.1",
            "::1",
            "fe80::1",
            "fd00::1",
            "2001:db8::1",
        ] {
            assert!(!of(private), "{private}");
        }
        assert!(of("8.8.8.8") && of("100.128.0.1") && of("2001:4860:4860::8888"));
        assert!(own_addresses().contains(&[127, 0, 0, 1].into()));
    }
}
