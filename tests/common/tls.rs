//! Certificates of the day, and clients that check them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};

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

/// A certificate of X.509 version 1 for [`NAME`], as `openssl x509 -req` makes it without extensions, and its key.
const VERSION_1: [(&str, &str); 2] = [
    (
        "chain.pem",
        "-----BEGIN CERTIFICATE-----\n\
        MIIBMTCB2QIUWB57N01kEgYjnyADat6YnP9K6wAwCgYIKoZIzj0EAwIwGzEZMBcG\n\
        A1UEAwwQbWFpbC5vdXIuZXhhbXBsZTAgFw0yNjExMjYyMjAzMzJaGA8yMTI2MTEw\n\
        MjIyMDMzMlowGzEZMBcGA1UEAwwQbWFpbC5vdXIuZXhhbXBsZTBZMBMGByqGSM49\n\
        AgEGCCqGSM49AwEHA0IABF5oAm04ivtCV0kH/3zUjmjjWfh1K/N8pKp8fkyfmV4A\n\
        UoiceehLX3jGfc03vUWuMEsdqWGOwHLE4BbZ4X2xoTMwCgYIKoZIzj0EAwIDRwAw\n\
        RAIgcjcY7L1+uTPonx/dpPx3JjBHIQxuofVvuIz1xiV3/f8CIFV6Z3SgtBO+pIFL\n\
        hhvcm9tEmrsysr29edCSCaurdvkt\n\
        -----END CERTIFICATE-----\n",
    ),
    (
        "key.pem",
        "-----BEGIN PRIVATE KEY-----\n\
        MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg3tDKxLYafAOiNOlz\n\
        XhSaM2VYQqebR/MW1BtMU2Ja67ihRANCAAReaAJtOIr7QldJB/981I5o41n4dSvz\n\
        fKSqfH5Mn5leAFKInHnoS194xn3NN71FrjBLHalhjsByxOAW2eF9saEz\n\
        -----END PRIVATE KEY-----\n",
    ),
];

/// Writes it into chain.pem and key.pem.
pub fn old_certificate(folder: &Path) {
    for (file, text) in VERSION_1 {
        std::fs::write(folder.join(file), text).unwrap();
    }
}

/// Shows whatever it is given: rustls itself would not.
#[derive(Debug)]
struct Shown(Arc<CertifiedKey>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

/// For a next hop that shows the certificate in that folder, whatever it is.
pub fn shows_certificate(folder: &Path) -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_file_iter(folder.join("chain.pem")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(folder.join("key.pem")).unwrap();
    let key = default_provider().key_provider.load_private_key(key).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Shown(Arc::new(CertifiedKey::new(chain, key)))));
    Arc::new(config)
}
