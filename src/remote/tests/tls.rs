//! An engine at a host that shows a certificate and wants to see one.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use bollard_buildkit_proto::moby::buildkit::v1 as proto;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tonic::Request;

use crate::base::Cancel;
use crate::remote::{Address, Client, Error, Reach, Tls, grpc};

fn openssl(dir: &Path, words: &str) {
    let output = Command::new("openssl").args(words.split(' ')).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
}

/// An authority, and a certificate and key of it for each name.
fn certificates(dir: &Path) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(dir, &format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=authority"));
    for (name, extension) in [("server", "subjectAltName=IP:127.0.0.1"), ("client", "extendedKeyUsage=clientAuth")] {
        fs::write(dir.join("extension"), extension).unwrap();
        openssl(dir, &format!("req {key} -keyout {name}.key -out {name}.csr -subj /CN={name}"));
        openssl(
            dir,
            &format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extension -out {name}.pem"
            ),
        );
    }
}

fn acceptor(dir: &Path) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let certificates = |name: &str| -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(&fs::read(dir.join(name)).unwrap()).collect::<Result<_, _>>().unwrap()
    };
    let mut roots = RootCertStore::empty();
    certificates("ca.pem").into_iter().for_each(|certificate| roots.add(certificate).unwrap());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
    let key = PrivateKeyDer::from_pem_slice(&fs::read(dir.join("server.key")).unwrap()).unwrap();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(certificates("server.pem"), key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

#[test]
fn both_sides_show_a_certificate() {
    if which::which("openssl").is_err() {
        return eprintln!("skip: both_sides_show_a_certificate: needs openssl");
    }
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let acceptor = acceptor(dir.path());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let port = listener.local_addr().unwrap().port();
    runtime.spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(socket).await else { continue };
            tokio::spawn(grpc::serve(stream, |call| {
                grpc::one(call, |_: Request<proto::ListWorkersRequest>| async {
                    Ok(proto::ListWorkersResponse { record: vec![Default::default()] })
                })
            }));
        }
    });
    let address = Address::Tcp { host: "127.0.0.1".to_owned(), port };
    let workers = |tls: &Path| {
        let cancel = Cancel::new();
        let reach = Reach { tls: Some(Tls::of_folder(tls)), ..Reach::default() };
        Client::connect(&address, &reach, &cancel)?.workers(&[], &cancel)
    };
    let folder = |names: &[(&str, &str)]| {
        let folder = tempfile::tempdir_in(dir.path()).unwrap();
        for (name, from) in names {
            fs::copy(dir.path().join(from), folder.path().join(name)).unwrap();
        }
        folder
    };
    let known = folder(&[("ca.pem", "ca.pem"), ("cert.pem", "client.pem"), ("key.pem", "client.key")]);
    assert_eq!(workers(known.path()).unwrap().len(), 1);
    let unknown = folder(&[("ca.pem", "ca.pem")]);
    // TLS 1.3 refuses a client only after the client was told that all is well.
    let error = workers(unknown.path()).unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
    assert_eq!(error.to_string(), format!("reach the engine at {address}: received fatal alert: CertificateRequired"));
    let cancel = Cancel::new();
    let plain = Client::connect(&address, &Reach::default(), &cancel).map(|_| ()).unwrap_err();
    assert!(matches!(plain, Error::Connect { .. }), "{plain:?}");
    let distrustful = folder(&[("ca.pem", "client.pem"), ("cert.pem", "client.pem"), ("key.pem", "client.key")]);
    let error = workers(distrustful.path()).unwrap_err().to_string();
    assert!(error.starts_with(&format!("reach the engine at {address}: invalid peer certificate")), "{error}");
    let half = folder(&[("ca.pem", "ca.pem"), ("cert.pem", "client.pem")]);
    let error = workers(half.path()).unwrap_err().to_string();
    assert!(error.contains("key.pem: No such file"), "{error}");
}
