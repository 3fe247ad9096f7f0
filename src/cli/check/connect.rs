//! Do the servers answer that the config names?

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::config::{Config, Endpoint, Role, TlsMode};
use crate::envelope::printable::printable;

/// How long a server may take to accept a connection, and to greet.
const PATIENCE: Duration = Duration::from_secs(5);

/// Connects to each server, and says what is wrong.
pub(super) fn all(config: &Config) -> Vec<String> {
    let complaints = servers(config).into_iter().filter_map(|(server, (what, greets))| {
        let wrong = answers(&server, greets).err()?;
        Some(format!("{what} {server} {wrong}"))
    });
    complaints.collect()
}

/// The servers, each with what it is, and whether it speaks first.
fn servers(config: &Config) -> BTreeMap<Endpoint, (String, bool)> {
    let mut all = BTreeMap::new();
    for listener in &config.listeners {
        let way = if listener.role == Role::Outbound { "outbound" } else { "inbound" };
        let hops = listener.by_domain.iter().flat_map(|(_, hops)| hops).chain(&listener.next_hop);
        for hop in hops {
            let greets = listener.hop_tls.mode != TlsMode::Implicit;
            all.entry(hop.clone()).or_insert((format!("the {way} next hop"), greets));
        }
    }
    for hop in &config.srs_next_hop {
        all.entry(hop.clone()).or_insert(("inbound.srs_next_hop".to_owned(), true));
    }
    for server in &config.recipients.servers {
        all.entry(server.endpoint.clone()).or_insert(("the server of inbound.recipients".to_owned(), true));
    }
    all
}

/// Whether a server accepts a connection and, if it speaks first, greets. Says what is wrong, and what would be right.
fn answers(server: &Endpoint, greets: bool) -> Result<(), String> {
    let refused = |kind: ErrorKind, error: std::io::Error| match kind {
        ErrorKind::ConnectionRefused => {
            "does not answer: nothing listens there. Start it, or correct the port".to_owned()
        }
        ErrorKind::NotFound => "is not there. Start the server, or correct the path".to_owned(),
        ErrorKind::PermissionDenied => {
            "may not be used by this user: check the rights of the socket and its folder".to_owned()
        }
        ErrorKind::TimedOut | ErrorKind::WouldBlock => "does not answer within 5 seconds: a firewall?".to_owned(),
        _ => format!("cannot be reached: {error}"),
    };
    let refused = |error: std::io::Error| refused(error.kind(), error);
    let greeting = match server {
        Endpoint::Tcp { host, port } => {
            let found = (host.as_str(), *port).to_socket_addrs();
            let addresses = found.map_err(|error| format!("has no address: {error}. Correct the name, or the DNS"))?;
            let mut last = Err("has no address".to_owned());
            for address in addresses {
                match TcpStream::connect_timeout(&address, PATIENCE) {
                    Ok(stream) => {
                        last = Ok(stream);
                        break;
                    }
                    Err(error) => last = Err(refused(error)),
                }
            }
            let stream = last?;
            stream.set_read_timeout(Some(PATIENCE)).map_err(refused)?;
            first_line(stream, greets)
        }
        Endpoint::Unix(path) => {
            let stream = UnixStream::connect(path).map_err(refused)?;
            stream.set_read_timeout(Some(PATIENCE)).map_err(refused)?;
            first_line(stream, greets)
        }
        Endpoint::Systemd(_) => return Ok(()),
    };
    match greeting {
        Ok(line) if line.is_empty() || line.starts_with("220") => Ok(()),
        Ok(line) => Err(format!("answers {}, which is not a greeting", printable(&line))),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            Err("accepts connections and does not greet within 5 seconds".to_owned())
        }
        Err(error) => Err(format!("closes the connection: {error}")),
    }
}

/// The beginning of the greeting; nothing from a server that does not speak first.
fn first_line(mut stream: impl std::io::Read, greets: bool) -> std::io::Result<String> {
    if !greets {
        return Ok(String::new());
    }
    let mut buffer = [0; 200];
    let n = stream.read(&mut buffer)?;
    if n == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    let text = String::from_utf8_lossy(buffer.get(..n).unwrap_or_default()).into_owned();
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::TcpListener;

    use super::*;

    fn server(greeting: Option<&'static str>) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            if let Some(greeting) = greeting {
                stream.write_all(greeting.as_bytes()).unwrap();
            }
        });
        Endpoint::Tcp { host: "127.0.0.1".to_owned(), port }
    }

    #[test]
    fn servers_that_do_not_answer_are_named_with_what_would_be_right() {
        assert_eq!(answers(&server(Some("220 mail ESMTP\r\n")), true), Ok(()));
        assert_eq!(answers(&server(None), false), Ok(()));
        let wrong = |endpoint: &Endpoint| answers(endpoint, true).unwrap_err();
        assert_eq!(wrong(&server(Some("554 no\u{1b}\r\n"))), "answers 554 no?, which is not a greeting");
        assert!(wrong(&server(None)).starts_with("closes the connection"));
        // A port that was free a moment ago.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let nobody = Endpoint::Tcp { host: "127.0.0.1".to_owned(), port };
        assert!(wrong(&nobody).starts_with("does not answer: nothing listens there."));
        let folder = tempfile::tempdir().unwrap();
        assert!(wrong(&Endpoint::Unix(folder.path().join("lmtp"))).starts_with("is not there."));
    }
}
