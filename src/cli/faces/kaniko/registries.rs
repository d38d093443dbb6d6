//! kaniko's flags of registries, as the settings that all registry work takes.

use std::fs;

use anyhow::Context as _;

use crate::base::reference::DOCKER_HUB;
use crate::base::{Env, Reference, Secret};
use crate::cli::exit::{Unsupported, usage};
use crate::cli::flags;
use crate::registry::{ClientCertificate, Settings};

#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Registries")]
pub struct Flags {
    /// Push to destinations over plain HTTP too
    #[arg(long)]
    insecure: bool,
    /// Push to destinations whatever their certificate
    #[arg(long)]
    skip_tls_verify: bool,
    /// Registry that may speak plain HTTP, or show any certificate; may be repeated
    #[arg(long = "insecure-registry", alias = "skip-tls-verify-registry", value_name = "HOST")]
    insecure_registries: Vec<String>,
    /// Certificate of a registry's authority; may be repeated
    #[arg(long = "registry-certificate", value_name = "HOST=FILE", value_parser = flags::key_value)]
    certificates: Vec<(String, String)>,
    /// Certificate for a registry, and its key; may be repeated
    #[arg(long = "registry-client-cert", value_name = "HOST=FILE,KEY", value_parser = flags::key_value)]
    client_certificates: Vec<(String, String)>,
    /// Place that is asked first for images of Docker Hub; may be repeated
    #[arg(long = "registry-mirror", value_name = "ADDRESS")]
    mirrors: Vec<String>,
    /// Place that is asked first for images of any registry, several with ;
    #[arg(long = "registry-map", value_name = "HOST=ADDRESS")]
    maps: Vec<String>,
    #[arg(long, hide = true)]
    insecure_pull: bool,
    #[arg(long, hide = true)]
    skip_tls_verify_pull: bool,
    #[arg(long, hide = true)]
    skip_default_registry_fallback: bool,
}

impl Flags {
    pub fn settings(&self, destinations: &[Reference], env: &Env) -> anyhow::Result<Settings> {
        let named = "--insecure-registry HOST names the registry";
        if self.insecure_pull {
            return Err(Unsupported::instead("--insecure-pull", named));
        }
        if self.skip_tls_verify_pull {
            return Err(Unsupported::instead("--skip-tls-verify-pull", named));
        }
        if self.skip_default_registry_fallback {
            let instead = "`fallback: false` in dockless's configuration file says it of a registry";
            return Err(Unsupported::instead("--skip-default-registry-fallback", instead));
        }
        let mut settings = Settings { insecure: self.insecure_registries.clone(), ..Settings::default() };
        if self.insecure || self.skip_tls_verify {
            settings.insecure.extend(destinations.iter().map(|name| name.registry().to_owned()));
        }
        let read = |path: &str| {
            let path = env.absolute(path);
            fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
        };
        for (host, path) in &self.certificates {
            settings.authorities.push((Some(host.clone()), read(path)?));
        }
        for (host, paths) in &self.client_certificates {
            let (certificate, key) = paths
                .split_once(',')
                .ok_or_else(|| usage(format!("--registry-client-cert {host}={paths} is not HOST=FILE,KEY")))?;
            let own = ClientCertificate { certificate: read(certificate)?, key: Secret::from(read(key)?) };
            settings.client_certificates.insert(host.clone(), own);
        }
        let maps = self.maps.iter().map(String::as_str).chain(env.nonempty("KANIKO_REGISTRY_MAP"));
        for pair in maps.flat_map(|map| map.split(';')).filter(|pair| !pair.is_empty()) {
            let (host, place) = flags::key_value(pair).map_err(|error| usage(format!("--registry-map: {error}")))?;
            // What kaniko's library calls Docker Hub.
            let host = if host == "index.docker.io" { DOCKER_HUB.to_owned() } else { host };
            settings.mirrors.entry(host).or_default().push(place);
        }
        let mirrors = self.mirrors.iter().map(String::as_str).chain(env.nonempty("KANIKO_REGISTRY_MIRROR"));
        for place in mirrors.flat_map(|list| list.split(',')).filter(|place| !place.is_empty()) {
            settings.mirrors.entry(DOCKER_HUB.to_owned()).or_default().push(place.to_owned());
        }
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_hosts_is_kept_by_host() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["ca", "crt", "key"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        let at = |name: &str| dir.path().join(name).display().to_string();
        let flags = Flags {
            insecure: true,
            insecure_registries: vec!["b.example".to_owned()],
            certificates: vec![("c.example".to_owned(), at("ca"))],
            client_certificates: vec![("d.example".to_owned(), format!("{},{}", at("crt"), at("key")))],
            mirrors: vec!["m.example".to_owned()],
            maps: vec!["index.docker.io=n.example;quay.io=o.example/q".to_owned()],
            ..Flags::default()
        };
        let env = Env::of([("KANIKO_REGISTRY_MIRROR", "p.example,q.example")]);
        let settings = flags.settings(&["a.example/x:1".parse().unwrap()], &env).unwrap();
        assert_eq!(settings.insecure, ["b.example", "a.example"]);
        assert_eq!(settings.authorities, [(Some("c.example".to_owned()), "ca".to_owned())]);
        assert_eq!(settings.client_certificates["d.example"].certificate, "crt");
        assert_eq!(settings.mirrors["docker.io"], ["n.example", "m.example", "p.example", "q.example"]);
        assert_eq!(settings.mirrors["quay.io"], ["o.example/q"]);
        for (flags, word) in [
            (Flags { insecure_pull: true, ..Flags::default() }, "--insecure-pull"),
            (Flags { skip_default_registry_fallback: true, ..Flags::default() }, "--skip-default-registry-fallback"),
            (Flags { maps: vec!["x".to_owned()], ..Flags::default() }, "--registry-map"),
        ] {
            assert!(flags.settings(&[], &env).unwrap_err().to_string().starts_with(word), "{word}");
        }
    }
}
