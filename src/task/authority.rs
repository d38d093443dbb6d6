//! `LOCAL_CA_CERTIFICATE`: a certificate authority (PEM text) that a whole task trusts. Tools are told by their own
//! variables, each pointing to a bundle of what it trusted before and this; no system file and no layer is touched.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::base::Env;

pub const VARIABLE: &str = "LOCAL_CA_CERTIFICATE";

/// Variables that name a bundle which *replaces* the tool's own: OpenSSL (and Python's ssl, Ruby, Go), curl, git,
/// Python's requests and pip, cargo, the AWS tools, Perl, Nix.
const BUNDLES: [&str; 9] = [
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",
    "PERL_LWP_SSL_CA_FILE",
    "NIX_SSL_CERT_FILE",
];

/// Node's variable *adds* to what it trusts; Deno's is the same idea.
const EXTRAS: [&str; 2] = ["NODE_EXTRA_CA_CERTS", "DENO_CERT"];

/// Where distributions keep the system's bundle: Debian and Alpine, Fedora, openSUSE, the BSD way.
const SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{VARIABLE} is not a certificate in PEM form: {0}")]
    Pem(&'static str),
    #[error("certificate bundle {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

/// Checks that a text is one or more PEM certificates, and gives it with a line feed at its end.
pub fn certificates(text: &str) -> Result<String, Error> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let mut rest = text;
    let mut found = 0;
    while let Some(start) = rest.find(BEGIN) {
        let body = &rest[start + BEGIN.len()..];
        let end = body.find(END).ok_or(Error::Pem("a BEGIN CERTIFICATE line has no END CERTIFICATE line"))?;
        let base64: String = body[..end].split_whitespace().collect();
        let der = BASE64_STANDARD.decode(base64).map_err(|_| Error::Pem("its base64 text is damaged"))?;
        // DER: a certificate is a SEQUENCE.
        if der.first() != Some(&0x30) {
            return Err(Error::Pem("what is inside is no certificate"));
        }
        found += 1;
        rest = &body[end + END.len()..];
    }
    if found == 0 {
        return Err(Error::Pem("there is no BEGIN CERTIFICATE line (the variable holds the text, not a path)"));
    }
    Ok(format!("{}\n", text.trim_end()))
}

/// Writes the bundles into `dir` and gives the variables to set; none where the variable is unset or empty.
///
/// A tool for which the caller named a bundle already keeps it, with the authority added.
pub fn prepare(env: &Env, dir: &Path) -> Result<Vec<(&'static str, OsString)>, Error> {
    let Some(text) = env.nonempty(VARIABLE) else { return Ok(Vec::new()) };
    let local = certificates(text)?;
    let extra = dir.join("local-ca.crt");
    write(&extra, local.as_bytes())?;
    let system = SYSTEM.iter().map(Path::new).find(|path| path.exists());
    let mut variables = Vec::new();
    let mut common = None;
    for name in BUNDLES {
        let own = env.nonempty(name).map(|path| env.absolute(path));
        let bundle = match (own, &common) {
            (None, Some(common)) => Clone::clone(common),
            (own, _) => {
                let is_common = own.is_none();
                let path = dir.join(if is_common { "ca-bundle.crt".to_owned() } else { format!("{name}.crt") });
                let base = own.as_deref().or(system);
                write(&path, &joined(base, &local)?)?;
                if is_common {
                    common = Some(path.clone());
                }
                path
            }
        };
        variables.push((name, bundle.into_os_string()));
    }
    for name in EXTRAS {
        let path = match env.nonempty(name) {
            Some(own) => {
                let path = dir.join(format!("{name}.crt"));
                write(&path, &joined(Some(&env.absolute(own)), &local)?)?;
                path
            }
            None => extra.clone(),
        };
        variables.push((name, path.into_os_string()));
    }
    Ok(variables)
}

fn joined(base: Option<&Path>, local: &str) -> Result<Vec<u8>, Error> {
    let mut bytes = match base {
        Some(path) => std::fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?,
        None => Vec::new(),
    };
    if !bytes.is_empty() && !bytes.ends_with(b"\n") {
        bytes.push(b'\n');
    }
    bytes.extend_from_slice(local.as_bytes());
    Ok(bytes)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    std::fs::write(path, bytes).map_err(|source| Error::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEM: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----";

    #[test]
    fn says_what_is_wrong_with_a_text() {
        assert_eq!(certificates(PEM).unwrap(), format!("{PEM}\n"));
        let cases = [
            ("/etc/ca.pem", "there is no BEGIN CERTIFICATE line (the variable holds the text, not a path)"),
            ("-----BEGIN CERTIFICATE-----\nMIIB", "a BEGIN CERTIFICATE line has no END CERTIFICATE line"),
            ("-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----", "its base64 text is damaged"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "what is inside is no certificate"),
        ];
        for (text, reason) in cases {
            assert_eq!(
                certificates(text).unwrap_err().to_string(),
                format!("LOCAL_CA_CERTIFICATE is not a certificate in PEM form: {reason}")
            );
        }
    }

    #[test]
    fn a_bundle_that_the_caller_named_is_kept_and_added_to() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("own.pem");
        std::fs::write(&own, "MINE").unwrap();
        let env = Env::of([(VARIABLE, PEM), ("GIT_SSL_CAINFO", own.to_str().unwrap())]);
        let variables = prepare(&env, dir.path()).unwrap();
        let read = |name: &str| {
            let (_, path) = variables.iter().find(|(n, _)| *n == name).unwrap();
            std::fs::read_to_string(path).unwrap()
        };
        assert_eq!(read("GIT_SSL_CAINFO"), format!("MINE\n{PEM}\n"));
        assert_eq!(read("NODE_EXTRA_CA_CERTS"), format!("{PEM}\n"));
        assert!(read("SSL_CERT_FILE").ends_with(&format!("{PEM}\n")));
        assert!(!read("SSL_CERT_FILE").contains("MINE"));
        assert_eq!(prepare(&Env::of([]), dir.path()).unwrap(), []);
    }
}
