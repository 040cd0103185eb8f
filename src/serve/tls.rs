//! TLS of the HTTP server: certificate and key from PEM files, read again on SIGHUP.
//! In: two paths. Out: handshakes. Invariant: files that cannot be read leave the certificate in force as it is.

use std::path::PathBuf;

/// The files.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

#[cfg(feature = "https")]
pub(super) use with::Tls;
#[cfg(not(feature = "https"))]
pub(super) use without::Tls;

#[cfg(feature = "https")]
mod with {
    use std::sync::{Arc, PoisonError, RwLock};

    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer};
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::server::TlsStream;

    use anyhow::Context;

    use super::Files;
    use crate::serve::listen::Patient;

    /// Shakes hands with the certificate in force.
    #[derive(Clone)]
    pub(in crate::serve) struct Tls {
        files: Files,
        config: Arc<RwLock<Arc<ServerConfig>>>,
    }

    impl Tls {
        pub(in crate::serve) fn new(files: &Files) -> anyhow::Result<Self> {
            let (config, files) = (Arc::new(RwLock::new(read(files)?)), files.clone());
            Ok(Self { files, config })
        }

        pub(in crate::serve) fn reload(&self) -> anyhow::Result<()> {
            let config = read(&self.files)?;
            *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
            Ok(())
        }

        pub(in crate::serve) async fn accept(&self, stream: Patient) -> std::io::Result<TlsStream<Patient>> {
            let config = Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner));
            TlsAcceptor::from(config).accept(stream).await
        }
    }

    fn read(files: &Files) -> anyhow::Result<Arc<ServerConfig>> {
        let (certificate, key) = (&files.certificate, &files.key);
        let chain = CertificateDer::pem_file_iter(certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .with_context(|| format!("http_tls_cert: cannot read {}", certificate.display()))?;
        let key = PrivateKeyDer::from_pem_file(key)
            .with_context(|| format!("http_tls_key: cannot read {}", key.display()))?;
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("TLS versions")?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .with_context(|| format!("http_tls_cert: {} and its key do not fit", certificate.display()))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

#[cfg(not(feature = "https"))]
mod without {
    use super::Files;
    use crate::serve::listen::Patient;

    /// There is none in this build.
    #[derive(Clone)]
    pub(in crate::serve) struct Tls;

    impl Tls {
        pub(in crate::serve) fn new(files: &Files) -> anyhow::Result<Self> {
            let (certificate, key) = (files.certificate.display(), files.key.display());
            anyhow::bail!(
                "http_tls_cert {certificate}, http_tls_key {key}: this khala was built without TLS; build it with \
                 `--features tls`"
            )
        }

        #[expect(clippy::unnecessary_wraps, reason = "as the one with TLS")]
        pub(in crate::serve) fn reload(&self) -> anyhow::Result<()> {
            Ok(())
        }

        pub(in crate::serve) fn accept(&self, stream: Patient) -> std::future::Ready<std::io::Result<Patient>> {
            std::future::ready(Ok(stream))
        }
    }
}
