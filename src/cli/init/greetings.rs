//! Whether a mail server still greets its clients: a setting that it cannot use shows only when a client comes.

use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long a server may take to greet; postscreen waits 6 seconds.
const PATIENCE: Duration = Duration::from_secs(12);

/// The addresses at which a client is greeted.
pub(super) fn that_greet(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    // All at a time: each may make its client wait.
    let asked: Vec<_> = addresses.iter().map(|address| (*address, std::thread::spawn(greets(*address)))).collect();
    asked.into_iter().filter_map(|(address, answer)| answer.join().ok()?.then_some(address)).collect()
}

fn greets(address: SocketAddr) -> impl FnOnce() -> bool + Send {
    move || {
        let Ok(mut stream) = TcpStream::connect_timeout(&address, PATIENCE) else { return false };
        let mut greeting = [0; 3];
        let _ = stream.set_read_timeout(Some(PATIENCE));
        stream.read_exact(&mut greeting).is_ok() && &greeting == b"220"
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn who_greets_is_told_from_who_does_not() {
        let server = |greeting: &'static [u8]| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            std::thread::spawn(move || listener.accept().unwrap().0.write_all(greeting).unwrap());
            address
        };
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (good, bad, silent) = (server(b"220 a ESMTP\r\n"), server(b"421 no\r\n"), server(b""));
        assert_eq!(that_greet(&[closed, bad, good, silent]), [good]);
    }
}
