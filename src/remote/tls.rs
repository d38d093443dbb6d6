//! Whom we believe to be the engine, and how we show who we are.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::{Error, Result};

/// Files for a connection to an engine at a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    pub authority: PathBuf,
    /// Our certificate and its key, where the engine wants to know its clients.
    pub client: Option<(PathBuf, PathBuf)>,
    /// What the engine's certificate says its name is; none for the host of its address.
    pub server_name: Option<String>,
}

impl Tls {
    /// A folder as `buildctl --tlsdir` has it, with the names of either habit: `ca.pem`, `cert.pem`, `key.pem`, or
    /// `ca.crt`, `tls.crt`, `tls.key`.
    pub fn of_folder(dir: &Path) -> Self {
        let file = |names: [&str; 2]| names.map(|name| dir.join(name)).into_iter().find(|path| path.exists());
        let (certificate, key) = (file(["cert.pem", "tls.crt"]), file(["key.pem", "tls.key"]));
        let client = (certificate.is_some() || key.is_some()).then(|| {
            // One without the other is told when it is read.
            (certificate.unwrap_or_else(|| dir.join("cert.pem")), key.unwrap_or_else(|| dir.join("key.pem")))
        });
        let authority = file(["ca.pem", "ca.crt"]).unwrap_or_else(|| dir.join("ca.pem"));
        Self { authority, client, server_name: None }
    }

    pub(super) fn trust(&self) -> Result<ClientConfig> {
        let bad = |path: &Path, why: String| Error::Io {
            what: path.display().to_string(),
            source: io::Error::new(io::ErrorKind::InvalidData, why),
        };
        let read =
            |path: &Path| std::fs::read(path).map_err(|source| Error::Io { what: path.display().to_string(), source });
        let certificates = |path: &Path| {
            CertificateDer::pem_slice_iter(&read(path)?)
                .collect::<std::result::Result<Vec<_>, _>>()
                .map_err(|error| bad(path, error.to_string()))
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.authority)? {
            roots.add(certificate).map_err(|error| bad(&self.authority, error.to_string()))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| bad(&self.authority, error.to_string()))?
            .with_root_certificates(roots);
        let mut config = match &self.client {
            Some((certificate, key)) => {
                let secret = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|error| bad(key, error.to_string()))?;
                config
                    .with_client_auth_cert(certificates(certificate)?, secret)
                    .map_err(|error| bad(certificate, error.to_string()))?
            }
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}
