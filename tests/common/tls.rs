//! Certificates of the day, and clients that check them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::{Client, tcp};

pub const NAME: &str = "mail.our.example";

/// Writes a new certificate for [`NAME`] and its key, chain.pem and key.pem.
pub fn certificate(folder: &Path) {
    let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned(), "localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    std::fs::write(folder.join("chain.pem"), made.cert.pem()).unwrap();
}

/// The handshake on a connection, with the certificate in that folder as the only good one.
pub fn secure(folder: &Path, stream: TcpStream) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("chain.pem")).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connection = ClientConnection::new(Arc::new(config), ServerName::try_from(NAME).unwrap()).unwrap();
    let mut stream = StreamOwned::new(connection, stream);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    stream.flush()?;
    Ok(stream)
}

/// A client that has done STARTTLS, before its second EHLO.
pub fn starttls(folder: &Path, port: u16) -> Client {
    let mut stream = tcp(port).unwrap();
    let read = |stream: &mut TcpStream, end: &str| {
        let mut text = Vec::new();
        while !String::from_utf8_lossy(&text).contains(end) {
            let mut octet = [0];
            stream.read_exact(&mut octet).unwrap();
            text.push(octet[0]);
        }
        while !text.ends_with(b"\n") {
            let mut octet = [0];
            stream.read_exact(&mut octet).unwrap();
            text.push(octet[0]);
        }
        String::from_utf8(text).unwrap()
    };
    read(&mut stream, "220 ");
    stream.write_all(b"EHLO client.example\r\n").unwrap();
    let offer = read(&mut stream, "250 ");
    assert!(offer.contains("STARTTLS"), "{offer}");
    stream.write_all(b"STARTTLS\r\n").unwrap();
    read(&mut stream, "220 ");
    Client::over(secure(folder, stream).unwrap())
}
