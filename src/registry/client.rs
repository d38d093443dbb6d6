//! One HTTP client per host: its trust, its certificate, its proxy.

use std::time::Duration;

use reqwest::{Certificate, Client, Identity, NoProxy, Proxy, redirect};

use super::Settings;
use super::config::{Hosts, Policy, is_loopback};
use super::error::{Error, Result};
use crate::base::Env;

/// A host that does not even accept within this time is away.
const CONNECT_TIME: Duration = Duration::from_secs(20);

/// A client for a web server that is no registry, with the same trust and proxies. It follows no redirect.
pub fn web(env: &Env, host: &str) -> Result<Client> {
    build(env, host, &Hosts::new(env, &Settings::default())?.policy(host)?)
}

pub(super) fn build(env: &Env, host: &str, policy: &Policy) -> Result<Client> {
    // A second installation is refused, and means that somebody was first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match configured(env, host, policy, true)?.build() {
        Ok(client) => Ok(client),
        // A container without ca-certificates has no system roots; our own authorities still do.
        Err(error) => match configured(env, host, policy, false)?.build() {
            Ok(client) if !policy.authorities.is_empty() => Ok(client),
            _ => Err(Error::Unreachable {
                registry: host.to_owned(),
                what: "set up TLS".to_owned(),
                cause: format!("{}; is the package ca-certificates installed?", causes(&error)),
            }),
        },
    }
}

fn configured(env: &Env, host: &str, policy: &Policy, system_roots: bool) -> Result<reqwest::ClientBuilder> {
    let config_error = |what: &str, error: &reqwest::Error| Error::Config {
        place: format!("{what} of {host}"),
        reason: causes(error),
    };
    let mut builder = Client::builder()
        .user_agent(concat!("dockless/", env!("CARGO_PKG_VERSION")))
        // Redirects are followed by hand, so that credentials stay at home.
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT_TIME)
        .http2_adaptive_window(true)
        // A blob is what its digest says; nobody may unzip it on the way.
        .retry(reqwest::retry::never())
        .no_proxy();
    if !is_loopback(host) {
        for proxy in proxies(env) {
            builder = builder.proxy(proxy);
        }
    }
    if policy.insecure {
        builder = builder.tls_danger_accept_invalid_certs(true);
    } else {
        let mut certificates = Vec::new();
        for pem in &policy.authorities {
            let bundle = Certificate::from_pem_bundle(pem.as_bytes());
            certificates.extend(bundle.map_err(|error| config_error("CA certificate", &error))?);
        }
        builder =
            if system_roots { builder.tls_certs_merge(certificates) } else { builder.tls_certs_only(certificates) };
    }
    if let Some(own) = &policy.client_certificate {
        let mut pem = own.key.expose().to_vec();
        pem.push(b'\n');
        pem.extend_from_slice(own.certificate.as_bytes());
        let identity = Identity::from_pem(&pem).map_err(|error| config_error("client certificate", &error))?;
        builder = builder.identity(identity);
    }
    Ok(builder)
}

/// From the captured environment, lower case first, as curl does. A proxy that is no address is left out; the
/// request then says that it could not connect.
fn proxies(env: &Env) -> Vec<Proxy> {
    let var = |lower: &str| env.nonempty(lower).or_else(|| env.nonempty(&lower.to_ascii_uppercase()));
    let exceptions = var("no_proxy").and_then(NoProxy::from_string);
    let all = var("all_proxy");
    [
        var("http_proxy").or(all).and_then(|address| Proxy::http(address).ok()),
        var("https_proxy").or(all).and_then(|address| Proxy::https(address).ok()),
    ]
    .into_iter()
    .flatten()
    .map(|proxy| proxy.no_proxy(exceptions.clone()))
    .collect()
}

/// The whole chain of causes in one line, without the address: it may carry a signature.
pub fn causes(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut source: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(cause) = source {
        let words = cause.to_string();
        // hyper says the same thing on several floors.
        if !text.contains(&words) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&words);
        }
        source = cause.source();
    }
    if text.is_empty() { if error.is_timeout() { "timed out".to_owned() } else { "failed".to_owned() } } else { text }
}

/// Whether trying again could help: a certificate will be as bad in a second.
pub fn is_transient(error: &reqwest::Error) -> bool {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(cause) = source {
        if cause.downcast_ref::<rustls::Error>().is_some() {
            return false;
        }
        // rustls hides in an io::Error, whose `source` is the inner error's source, not the inner error.
        if let Some(io) = cause.downcast_ref::<std::io::Error>()
            && io.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
        {
            return false;
        }
        source = cause.source();
    }
    !error.is_builder()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_come_from_the_captured_environment() {
        let cases: [(&[(&str, &str)], usize); 4] = [
            (&[], 0),
            (&[("https_proxy", "http://p:3128")], 1),
            (&[("HTTP_PROXY", "http://p:3128"), ("HTTPS_PROXY", "p:3128")], 2),
            (&[("all_proxy", "http://p:3128"), ("no_proxy", "a.b")], 2),
        ];
        for (vars, expected) in cases {
            assert_eq!(proxies(&Env::of(vars.iter().copied())).len(), expected, "{vars:?}");
        }
    }
}
