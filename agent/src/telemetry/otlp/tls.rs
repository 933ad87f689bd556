//! TLS to a collector: whom to trust, by a file or by the system.

use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Makes secure connections.
pub(super) struct Connector(TlsConnector);

impl Connector {
    /// One that trusts the authorities of a PEM file, or, without one, the system's (`SSL_CERT_FILE` and `SSL_CERT_DIR` say where they are).
    ///
    /// # Errors
    /// What cannot be read, or holds no authority.
    pub(super) fn trusting(authorities: Option<&Path>) -> Result<Self, String> {
        let (certificates, from) = match authorities {
            Some(file) => {
                let unreadable = |error| format!("{}: {error}", file.display());
                let found = CertificateDer::pem_file_iter(file).map_err(unreadable)?;
                (found.collect::<Result<Vec<_>, _>>().map_err(unreadable)?, file.display().to_string())
            }
            None => (rustls_native_certs::load_native_certs().certs, "the system's certificates".to_owned()),
        };
        let mut roots = RootCertStore::empty();
        let (taken, _) = roots.add_parsable_certificates(certificates);
        if taken == 0 {
            return Err(format!(
                "{from}: there is no certificate authority in it: --otlp-ca-file names a PEM file with one"
            ));
        }
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    pub(super) async fn connect(&self, host: &str, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        self.0.connect(name, stream).await
    }
}
