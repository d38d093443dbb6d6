//! What is known of registry hosts before anyone talks to them: the `registries:` section of dockless's
//! configuration file, the environment, `certs.d` folders, and what a caller's [`Settings`] add.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::error::{Error, Result};
use super::{ClientCertificate, Settings};
use crate::base::{Env, Secret, reference::DOCKER_HUB};

/// The configuration file. Other sections belong to nobody yet, so that a misspelt one is an error.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    registries: BTreeMap<String, Host>,
}

/// One host, or one CIDR, of the file.
#[derive(Debug, Default, Deserialize, Clone)]
#[serde(deny_unknown_fields, default)]
struct Host {
    mirrors: Vec<String>,
    /// Ask the registry itself where no mirror has it.
    fallback: Option<bool>,
    insecure: bool,
    http: bool,
    /// Paths, or PEM text itself.
    ca: Vec<String>,
    client_certificate: Option<String>,
    client_key: Option<String>,
}

/// How one host is spoken to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Policy {
    /// The certificate is not checked.
    pub insecure: bool,
    pub plain: Plain,
    /// PEM, beside the system's roots.
    pub authorities: Vec<String>,
    pub client_certificate: Option<ClientCertificate>,
}

/// When plain HTTP is spoken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Plain {
    #[default]
    Never,
    /// Loopback: HTTP first, because there is nobody in between and it is the cheaper question.
    First,
    /// Insecure hosts: where TLS does not come up.
    Fallback,
    Only,
}

/// One place to look for a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// `host[:port]`, as an address of TCP.
    pub host: String,
    /// Said with the address (`http://mirror`), else up to the host's policy.
    pub scheme: Option<&'static str>,
    /// Before the repository, with its slash: `proxy/`; empty at the registry itself.
    pub prefix: String,
}

#[derive(Debug)]
pub(super) struct Hosts {
    hosts: BTreeMap<String, Host>,
    insecure: Vec<String>,
    mirrors: BTreeMap<String, Vec<String>>,
    authorities: Vec<(Option<String>, String)>,
    client_certificates: BTreeMap<String, ClientCertificate>,
    certs_d: Vec<PathBuf>,
}

impl Hosts {
    pub fn new(env: &Env, settings: &Settings) -> Result<Self> {
        let file = match config_path(env) {
            Some(path) => read_file(&path)?,
            None => File::default(),
        };
        let mut insecure = settings.insecure.clone();
        insecure.extend(words(env.nonempty("INSECURE_REGISTRIES")).map(str::to_owned));
        let mut mirrors = settings.mirrors.clone();
        for word in words(env.nonempty("REGISTRY_MIRRORS")) {
            // `quay.io=https://mirror` names its registry; a bare mirror is Docker Hub's, as dockerd means it.
            let (host, mirror) = match word.split_once('=') {
                Some((host, mirror)) if !host.contains('/') => (host, mirror),
                _ => (DOCKER_HUB, word),
            };
            mirrors.entry(host.to_owned()).or_default().push(mirror.to_owned());
        }
        let mut authorities = settings.authorities.clone();
        if let Some(pem) = env.nonempty("LOCAL_CA_CERTIFICATE") {
            authorities.push((None, pem.to_owned()));
        }
        for (host, pem) in &authorities {
            check_pem(pem, || match host {
                Some(host) => format!("failed to parse CA certificate for {host:?}"),
                None => "LOCAL_CA_CERTIFICATE".to_owned(),
            })?;
        }
        let mut certs_d = Vec::new();
        if let Some(home) = env.home() {
            certs_d.push(home.join(".config/docker/certs.d"));
            certs_d.push(home.join(".config/containers/certs.d"));
        }
        certs_d.extend(["/etc/containers/certs.d".into(), "/etc/docker/certs.d".into()]);
        Ok(Self {
            hosts: file.registries,
            insecure,
            mirrors,
            authorities,
            client_certificates: settings.client_certificates.clone(),
            certs_d,
        })
    }

    /// Where a registry's images are looked for: its mirrors, then itself.
    pub fn places(&self, registry: &str) -> Vec<Place> {
        let own = self.hosts.get(registry);
        let mirrors = match self.mirrors.get(registry) {
            Some(mirrors) => mirrors.as_slice(),
            None => own.map_or(&[][..], |host| &host.mirrors),
        };
        let mut places: Vec<Place> = mirrors.iter().filter_map(|mirror| parse_place(mirror)).collect();
        if places.is_empty() || own.and_then(|host| host.fallback).unwrap_or(true) {
            places.push(origin(registry));
        }
        places
    }

    pub fn policy(&self, host: &str) -> Result<Policy> {
        let mut policy = Policy::default();
        let mut names = vec![host];
        if host == HUB_ENDPOINT {
            names.push(DOCKER_HUB);
        }
        let listed = |pattern: &str| names.iter().any(|name| matches(pattern, name));
        policy.insecure = self.insecure.iter().any(|pattern| listed(pattern));
        let mut http = false;
        for (pattern, entry) in self.hosts.iter().filter(|(pattern, _)| listed(pattern)) {
            policy.insecure |= entry.insecure;
            http |= entry.http;
            for ca in &entry.ca {
                policy.authorities.push(pem_or_file(ca, pattern)?);
            }
            if let (Some(certificate), Some(key)) = (&entry.client_certificate, &entry.client_key) {
                policy.client_certificate = Some(ClientCertificate {
                    certificate: pem_or_file(certificate, pattern)?,
                    key: Secret::from(pem_or_file(key, pattern)?),
                });
            }
        }
        policy.plain = if http {
            Plain::Only
        } else if is_loopback(host) {
            Plain::First
        } else if policy.insecure {
            Plain::Fallback
        } else {
            Plain::Never
        };
        for (only, pem) in &self.authorities {
            if only.as_deref().is_none_or(|only| names.contains(&only)) {
                policy.authorities.push(pem.clone());
            }
        }
        for folder in &self.certs_d {
            for name in &names {
                read_certs_d(&folder.join(name), &mut policy)?;
            }
        }
        if let Some(given) = names.iter().find_map(|name| self.client_certificates.get(*name)) {
            policy.client_certificate = Some(given.clone());
        }
        Ok(policy)
    }
}

/// Docker Hub's registry has another name than its images.
pub(super) const HUB_ENDPOINT: &str = "registry-1.docker.io";

/// The registry itself.
pub(super) fn origin(registry: &str) -> Place {
    let host = if registry == DOCKER_HUB { HUB_ENDPOINT } else { registry };
    Place { host: host.to_owned(), scheme: None, prefix: String::new() }
}

fn parse_place(text: &str) -> Option<Place> {
    let text = text.trim().trim_end_matches('/');
    let (scheme, rest) = match text.split_once("://") {
        Some(("http", rest)) => (Some("http"), rest),
        Some(("https", rest)) => (Some("https"), rest),
        Some(_) => return None,
        None => (None, text),
    };
    let (host, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let prefix = prefix.trim_start_matches("v2/");
    (!host.is_empty()).then(|| Place {
        host: host.to_owned(),
        scheme,
        prefix: if prefix.is_empty() { String::new() } else { format!("{prefix}/") },
    })
}

fn words(list: Option<&str>) -> impl Iterator<Item = &str> {
    list.unwrap_or("").split([',', ' ', '\n']).map(str::trim).filter(|word| !word.is_empty())
}

fn config_path(env: &Env) -> Option<PathBuf> {
    if let Some(path) = env.nonempty("DOCKLESS_CONFIG") {
        return Some(env.absolute(path));
    }
    let config_home = env.nonempty("XDG_CONFIG_HOME").map(PathBuf::from).or_else(|| Some(env.home()?.join(".config")));
    config_home
        .map(|dir| dir.join("dockless"))
        .into_iter()
        .chain([PathBuf::from("/etc/dockless")])
        .map(|dir| dir.join("config.yml"))
        .find(|path| path.is_file())
}

fn read_file(path: &Path) -> Result<File> {
    let config_error = |reason: String| Error::Config { place: path.display().to_string(), reason };
    let text = std::fs::read_to_string(path).map_err(|error| config_error(error.to_string()))?;
    parse_file(&text).map_err(config_error)
}

fn parse_file(text: &str) -> std::result::Result<File, String> {
    if text.trim().is_empty() {
        return Ok(File::default());
    }
    let file: File = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
    for (name, host) in &file.registries {
        if let Some(mirror) = host.mirrors.iter().find(|mirror| parse_place(mirror).is_none()) {
            return Err(format!("registries: {name}: mirror {mirror:?} is not an http or https address"));
        }
        if host.client_certificate.is_some() != host.client_key.is_some() {
            return Err(format!("registries: {name}: client_certificate and client_key go together"));
        }
    }
    Ok(file)
}

fn pem_or_file(text: &str, host: &str) -> Result<String> {
    if text.contains("-----BEGIN ") {
        return Ok(text.to_owned());
    }
    std::fs::read_to_string(text)
        .map_err(|error| Error::Config { place: format!("registries: {host}: {text}"), reason: error.to_string() })
}

fn check_pem(pem: &str, name: impl Fn() -> String) -> Result<()> {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        certificate.map_err(|error| Error::Config { place: name(), reason: format!("not PEM: {error}") })?;
        count += 1;
    }
    if count == 0 {
        return Err(Error::Config { place: name(), reason: "holds no PEM certificate".to_owned() });
    }
    Ok(())
}

/// As dockerd reads it: every `.crt` is an authority, a `.cert` with a `.key` of the same name is ours.
fn read_certs_d(folder: &Path, policy: &mut Policy) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    let read = |path: &Path| {
        std::fs::read_to_string(path)
            .map_err(|error| Error::Config { place: path.display().to_string(), reason: error.to_string() })
    };
    for path in paths {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => {
                let pem = read(&path)?;
                check_pem(&pem, || path.display().to_string())?;
                policy.authorities.push(pem);
            }
            Some("cert") => {
                let key = path.with_extension("key");
                policy.client_certificate =
                    Some(ClientCertificate { certificate: read(&path)?, key: Secret::from(read(&key)?) });
            }
            _ => {}
        }
    }
    Ok(())
}

/// The host of `host[:port]`, without the brackets of an IPv6 address.
fn bare(host: &str) -> &str {
    if let Some((v6, _)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return v6;
    }
    host.split_once(':').map_or(host, |(name, _)| name)
}

pub(super) fn is_loopback(host: &str) -> bool {
    let name = bare(host);
    name == "localhost" || name.ends_with(".localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether a line of an insecure list means this host: itself, its name without the port, or a CIDR around it.
fn matches(pattern: &str, host: &str) -> bool {
    if pattern == host || pattern == bare(host) {
        return true;
    }
    let Some((network, bits)) = pattern.split_once('/') else { return false };
    let (Ok(network), Ok(bits), Ok(ip)) =
        (network.parse::<IpAddr>(), bits.parse::<u32>(), bare(host).parse::<IpAddr>())
    else {
        return false;
    };
    let widen = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => (u128::from(u32::from(v4)), 32),
        IpAddr::V6(v6) => (u128::from(v6), 128),
    };
    let ((network, width), (ip, ip_width)) = (widen(network), widen(ip));
    // A shift by all the bits would overflow, and a /0 holds everything.
    width == ip_width && bits <= width && (bits == 0 || network >> (width - bits) == ip >> (width - bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(env: &Env, settings: Settings) -> Hosts {
        Hosts::new(env, &settings).unwrap()
    }

    #[test]
    fn an_insecure_entry_means_a_host_a_port_or_a_network() {
        let cases = [
            ("r.example", "r.example", true),
            ("r.example", "r.example:5000", true),
            ("r.example:5000", "r.example:5000", true),
            ("r.example:5000", "r.example", false),
            ("r.example", "xr.example", false),
            ("10.0.0.0/8", "10.1.2.3:5000", true),
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "11.1.2.3:5000", false),
            ("10.0.0.0/8", "ten.example:5000", false),
            ("0.0.0.0/0", "11.1.2.3:5000", true),
            ("0.0.0.0/33", "11.1.2.3:5000", false),
            ("fd00::/8", "[fd00::1]:5000", true),
            ("fd00::/8", "[fe00::1]:5000", false),
        ];
        for (pattern, host, expected) in cases {
            assert_eq!(matches(pattern, host), expected, "{pattern} {host}");
        }
    }

    #[test]
    fn plain_http_is_for_loopback_and_where_asked() {
        let settings = Settings { insecure: vec!["10.0.0.0/8".into()], ..Settings::default() };
        let hosts = hosts(&Env::of([]), settings);
        let cases = [
            ("localhost:5000", Plain::First),
            ("127.0.0.1:5000", Plain::First),
            ("[::1]:5000", Plain::First),
            ("10.0.0.1:5000", Plain::Fallback),
            ("registry.example", Plain::Never),
            ("localhost.example", Plain::Never),
        ];
        for (host, expected) in cases {
            assert_eq!(hosts.policy(host).unwrap().plain, expected, "{host}");
        }
    }

    #[test]
    fn mirrors_come_first_and_the_registry_last() {
        let env = Env::of([("REGISTRY_MIRRORS", "https://m.example/hub/, quay.io=http://q:5000")]);
        let hosts = hosts(&env, Settings::default());
        let shown = |registry: &str| -> Vec<String> {
            let show = |p: Place| format!("{}|{}|{}", p.scheme.unwrap_or("-"), p.host, p.prefix);
            hosts.places(registry).into_iter().map(show).collect()
        };
        assert_eq!(shown("docker.io"), ["https|m.example|hub/", "-|registry-1.docker.io|"]);
        assert_eq!(shown("quay.io"), ["http|q:5000|", "-|quay.io|"]);
        assert_eq!(shown("a.b:1"), ["-|a.b:1|"]);
    }

    #[test]
    fn the_file_is_strict() {
        let file = parse_file("registries:\n  docker.io:\n    mirrors: [m.example]\n  10.0.0.0/8: {insecure: true}\n");
        assert_eq!(file.unwrap().registries["docker.io"].mirrors, ["m.example"]);
        for (text, expected) in [
            ("registries:\n  a.b:\n    insecur: true\n", "insecur"),
            ("registry: {}\n", "registry"),
            ("registries:\n  a.b:\n    mirrors: [ftp://x]\n", "is not an http or https address"),
            ("registries:\n  a.b:\n    client_key: x\n", "go together"),
        ] {
            let error = parse_file(text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_bad_certificate_is_named() {
        let settings = Settings { authorities: vec![(Some("a.b".into()), "rubbish".into())], ..Settings::default() };
        let error = Hosts::new(&Env::of([]), &settings).unwrap_err();
        assert_eq!(error.to_string(), "failed to parse CA certificate for \"a.b\": holds no PEM certificate");
    }
}
