//! Loopback ports that are chosen by the system and reserved.

use std::cell::RefCell;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

/// A port for a server that needs a fixed one, or that is restarted on its port.
///
/// The test's thread keeps a socket bound to the port until it ends, so the system does not assign the port to another
/// listener or client. Servers that set SO_REUSEADDR, as all servers of these tests do, can still listen on it, because
/// the reserving socket does not listen. Until then, connections are refused.
pub fn reserved_port() -> u16 {
    thread_local! {
        static KEPT: RefCell<Vec<Socket>> = const { RefCell::new(Vec::new()) };
    }
    // Sendmail needs the port in both address families.
    let both = || {
        let four = bound()?;
        let six = bind(SocketAddr::from((Ipv6Addr::LOCALHOST, number(&four))));
        let in_use = six.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse);
        if in_use { std::io::Result::Ok(None) } else { Ok(Some((four, six.ok()))) }
    };
    let (four, six) =
        (0..100).find_map(|_| both().expect("a port of loopback")).expect("one that is free for IPv6, too");
    let port = number(&four);
    KEPT.with_borrow_mut(|kept| kept.extend(std::iter::once(four).chain(six)));
    port
}

/// A socket that is bound to a port chosen by the system, and does not listen yet.
pub fn bound() -> std::io::Result<Socket> {
    bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
}

fn bind(address: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

pub fn number(socket: &Socket) -> u16 {
    socket.local_addr().unwrap().as_socket().unwrap().port()
}
