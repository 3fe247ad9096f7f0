//! Ports of loopback that are given by the system and kept.

use std::cell::RefCell;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

/// A port for a server that has to be told one, and for one that starts again where it was.
///
/// It is no guess: this thread, which is the test's, keeps a socket bound to it until it ends. The system gives it to
/// nobody else, neither to a listener that asks for any port nor to a client. A server that sets SO_REUSEADDR, as all
/// do that are used here, may listen on it, since the socket that keeps it does not. Until then connections are
/// refused.
pub fn reserved_port() -> u16 {
    thread_local! {
        static KEPT: RefCell<Vec<Socket>> = const { RefCell::new(Vec::new()) };
    }
    // Sendmail wants the same port in both families.
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

/// A socket that is bound to a port which the system chooses, and does not listen yet.
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
