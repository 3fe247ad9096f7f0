//! TLS on both sides, with rustls and the ring provider. Certificates are reloaded without a restart.

use std::io;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{
    ClientConfig, ConfigBuilder, DigitallySignedStruct, Error, RootCertStore, ServerConfig, SignatureScheme,
    WantsVerifier,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::stream::{Plain, Stream};
use crate::config::{Certificate, HopTls};
use crate::envelope::time::Timestamp;

/// The server side of TLS, for clients.
pub(crate) struct Acceptor {
    files: Certificate,
    current: Arc<Current>,
    acceptor: TlsAcceptor,
}

/// The certificate in force.
#[derive(Debug)]
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acceptor").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Acceptor {
    /// Loads certificate and key.
    ///
    /// # Errors
    /// Names the file that is wrong, and the reason.
    pub(crate) fn load(files: &Certificate) -> Result<Self, String> {
        let provider = Arc::new(ring::default_provider());
        let current = Arc::new(Current(ArcSwap::from_pointee(read(files, &provider)?)));
        let resolver: Arc<dyn ResolvesServerCert> = Arc::clone(&current) as _;
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        Ok(Self { files: files.clone(), current, acceptor: Arc::new(config).into() })
    }

    /// Reloads the files. New connections use the new certificate.
    ///
    /// # Errors
    /// Names the file that is wrong, and the reason; the last valid certificate stays in force.
    pub(crate) fn reload(&self) -> Result<(), String> {
        let key = read(&self.files, &ring::default_provider())?;
        self.current.0.store(Arc::new(key));
        Ok(())
    }

    /// The files of the certificate chain and the private key.
    #[must_use]
    pub(crate) fn files(&self) -> [&Path; 2] {
        [&self.files.chain, &self.files.key]
    }

    /// When the certificate in force expires.
    #[must_use]
    pub(crate) fn expires(&self) -> Option<Timestamp> {
        let current = self.current.0.load();
        let (_, own) = x509_parser::parse_x509_certificate(current.cert.first()?).ok()?;
        Some(Timestamp(own.validity().not_after.timestamp()))
    }

    /// Performs the handshake with a client.
    ///
    /// # Errors
    /// The handshake or the connection failed.
    pub(crate) async fn accept(&self, client: Plain) -> io::Result<Stream> {
        let stream = self.acceptor.accept(client).await?;
        Ok(Stream::Tls(Box::new(TlsStream::Server(stream))))
    }
}

/// The error about a certificate that current TLS libraries cannot parse.
const TOO_OLD: &str = "the certificate has no extensions (X.509 version 1, as `openssl x509 -req` makes without -extfile), and TLS \
    clients refuse it";

fn read(files: &Certificate, provider: &CryptoProvider) -> Result<CertifiedKey, String> {
    let chain = certificates(&files.chain)?;
    if chain.first().is_some_and(|own| ParsedCertificate::try_from(own).is_err()) {
        return Err(format!(
            "{}: {TOO_OLD}. A good one for a start: openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=mail.our.example \
             -addext subjectAltName=DNS:mail.our.example -keyout key.pem -out chain.pem",
            files.chain.display()
        ));
    }
    let key =
        PrivateKeyDer::from_pem_file(&files.key).map_err(|error| unreadable(&files.key, "private key", &error))?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| {
        format!("{} and {} cannot be used together: {error}", files.chain.display(), files.key.display())
    })
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| unreadable(file, "certificate", &error))?;
    if certificates.is_empty() {
        Err(unreadable(file, "certificate", &pem::Error::NoItemsFound))
    } else {
        Ok(certificates)
    }
}

fn unreadable(file: &Path, what: &str, error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) => format!("{}: cannot be read: {error}", file.display()),
        error => format!("{}: no {what} in PEM form: {error}", file.display()),
    }
}

/// The client side of TLS, for next hops.
#[derive(Clone)]
pub(crate) struct Connector {
    connector: TlsConnector,
    name: Option<String>,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Connector {
    /// Loads the certificate authorities for next hops.
    ///
    /// # Errors
    /// The authorities cannot be read, or there are none.
    pub(crate) fn load(settings: &HopTls) -> Result<Self, String> {
        let config = match settings.verify {
            true => {
                let builder = client_builder(Arc::new(ring::default_provider()))?;
                Arc::new(builder.with_root_certificates(roots(settings.ca.as_deref())?).with_no_client_auth())
            }
            false => any_certificate()?,
        };
        Ok(Self { connector: config.into(), name: settings.name.clone() })
    }

    /// Performs the handshake with a next hop. `host` is its name, unless the config has another.
    ///
    /// # Errors
    /// The handshake or the connection failed, or the certificate is not valid for the name.
    pub(crate) async fn connect(&self, host: &str, hop: Plain) -> io::Result<Stream> {
        let name = self.name.as_deref().unwrap_or(host);
        // Without verification no name is needed, and a Unix socket has none.
        let name = ServerName::try_from(if name.is_empty() { "localhost" } else { name }.to_owned())
            .map_err(io::Error::other)?;
        let stream = self.connector.connect(name, hop).await?;
        Ok(Stream::Tls(Box::new(TlsStream::Client(stream))))
    }
}

fn client_builder(provider: Arc<CryptoProvider>) -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, String> {
    let builder = ClientConfig::builder_with_provider(provider);
    builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())
}

/// The client side of TLS without verification: encrypts, and does not know with whom.
///
/// # Errors
/// The library of TLS does not work.
pub(crate) fn any_certificate() -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(ring::default_provider());
    let anybody = Arc::new(AcceptAnyCertificate(Arc::clone(&provider)));
    let builder = client_builder(provider)?.dangerous();
    Ok(Arc::new(builder.with_custom_certificate_verifier(anybody).with_no_client_auth()))
}

/// The reason why a handshake failed, in words.
#[must_use]
pub(crate) fn in_words(error: &io::Error) -> String {
    use tokio_rustls::rustls::CertificateError as Bad;
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    let Some(Error::InvalidCertificate(bad)) = inner else { return error.to_string() };
    match bad {
        Bad::Expired | Bad::ExpiredContext { .. } => "its certificate has expired".into(),
        Bad::NotValidYet | Bad::NotValidYetContext { .. } => "its certificate is not valid yet".into(),
        Bad::UnknownIssuer => "its certificate is signed by none in the list of authorities (next_hop_ca)".into(),
        Bad::NotValidForName | Bad::NotValidForNameContext { .. } => {
            "its certificate is for another name (next_hop_name)".into()
        }
        // rustls reports a certificate that it cannot parse as another error.
        Bad::BadEncoding | Bad::Other(_) => format!("{TOO_OLD}; or it cannot be read for another reason: {error}"),
        _ => error.to_string(),
    }
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(file) => {
            for certificate in certificates(file)? {
                roots.add(certificate).map_err(|error| format!("{}: {error}", file.display()))?;
            }
        }
        None => {
            let _ = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err("this system has no list of certificate authorities (package ca-certificates); install it, \
                    name one as next_hop_ca, or set next_hop_verify = false"
            .into());
    }
    Ok(roots)
}

/// Accepts any certificate, as opportunistic TLS does, which protects from eavesdroppers and not from impostors. The
/// other side has to prove that it has the key of its certificate, unless rustls cannot parse that (X.509 version 1).
#[derive(Debug)]
struct AcceptAnyCertificate(Arc<CryptoProvider>);

/// Refuses a wrong signature, and accepts one that could not be verified.
fn unless_wrong(checked: Result<HandshakeSignatureValid, Error>) -> Result<HandshakeSignatureValid, Error> {
    use tokio_rustls::rustls::CertificateError as Bad;
    match checked {
        Err(Error::InvalidCertificate(Bad::BadEncoding | Bad::Other(_))) => Ok(HandshakeSignatureValid::assertion()),
        other => other,
    }
}

impl ServerCertVerifier for AcceptAnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        unless_wrong(verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        unless_wrong(verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
