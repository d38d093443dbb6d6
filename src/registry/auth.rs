//! Answers a registry's challenge: Basic, or a token from the server that it names.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Body, Method, StatusCode};
use serde::Deserialize;
use url::Url;

use super::Credential;
use super::challenge::Challenge;
use super::config::{Place, Plain};
use super::error::{Error, Result};
use super::keychain::Search;
use super::transport::{Call, Host, Transport, authority, lock};
use super::watch::Watch;
use crate::base::Secret;

/// The spec's word for a token without `expires_in`.
const DEFAULT_LIFE: u64 = 60;
/// A token that ends within this is as good as gone: the request that carries it needs time too.
const MARGIN: Duration = Duration::from_secs(10);
/// A token with its claims is some kilobytes.
const TOKEN_BODY: u64 = 1024 * 1024;

/// What one host wants to know, and what we found out.
#[derive(Default)]
pub(super) struct Auth {
    challenge: Option<Challenge>,
    /// By repository, as podman's files may differ between them.
    searches: BTreeMap<String, Arc<Search>>,
    tokens: BTreeMap<String, Token>,
}

struct Token {
    value: Secret,
    until: Instant,
}

/// A token server's answer.
#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
    refresh_token: Option<String>,
}

impl Auth {
    /// Where credentials came from, for an error; none when nobody asked for any.
    pub fn describe(&self, repository: &str) -> Option<String> {
        self.searches.get(repository).map(|search| search.describe())
    }
}

impl Transport {
    /// The header for a request to its own registry; none until that has asked.
    pub(super) fn authorization(
        &self,
        host: &Host,
        url: &Url,
        call: &Call<'_>,
        watch: Watch<'_>,
    ) -> Result<Option<HeaderValue>> {
        // Held while a token is fetched: eight layers need it once.
        let mut auth = lock(&host.auth);
        let Some(challenge) = auth.challenge.clone() else { return Ok(None) };
        let search = match auth.searches.get(call.repository) {
            Some(search) => Arc::clone(search),
            None => {
                let search = Arc::new(self.find_credential(&host.name, call.repository, watch)?);
                auth.searches.insert(call.repository.to_owned(), Arc::clone(&search));
                search
            }
        };
        let credential = search.found.as_ref().map(|found| &found.credential);
        match (challenge, credential) {
            (_, Some(Credential::Bearer(token))) => Ok(Some(header(&host.name, "Bearer ", token.expose())?)),
            (Challenge::Basic, Some(Credential::Password { user, password })) => {
                Ok(Some(basic(&host.name, user, password)?))
            }
            (Challenge::Basic, Some(Credential::IdentityToken(token))) => {
                Ok(Some(basic(&host.name, "<token>", token)?))
            }
            (Challenge::Basic, None) => Ok(None),
            (Challenge::Bearer { realm, service, scope }, _) => {
                let mut scopes = call.scopes.to_vec();
                // Some registries name what they mean differently from what we would.
                scopes.extend(scope.filter(|scope| scopes.is_empty() || !covers(&scopes, scope)));
                scopes.sort();
                scopes.dedup();
                let key = format!("{} {}", scopes.join(" "), call.repository);
                if let Some(token) = auth.tokens.get(&key).filter(|token| token.until > Instant::now() + MARGIN) {
                    return Ok(Some(header(&host.name, "Bearer ", token.value.expose())?));
                }
                let asked = Asked {
                    host,
                    registry_scheme: url.scheme(),
                    realm: &realm,
                    service: service.as_deref(),
                    offline: false,
                };
                let answer = self.fetch_token(&asked, &scopes, &search, watch)?;
                let (value, life) = answer.usable(host)?;
                let header = header(&host.name, "Bearer ", value.expose())?;
                auth.tokens.insert(key, Token { value, until: Instant::now() + life });
                Ok(Some(header))
            }
        }
    }

    /// Remembers what a 401 asked for. False when there is nothing new that we could answer; `shown` is what the
    /// refused request carried.
    pub(super) fn take_challenge(&self, host: &Host, headers: &HeaderMap, shown: Option<&HeaderValue>) -> bool {
        let Some(challenge) = Challenge::of(headers) else { return false };
        let mut auth = lock(&host.auth);
        let is_basic = challenge == Challenge::Basic;
        auth.challenge = Some(challenge);
        let Some(shown) = shown else { return true };
        // The token in use was not liked: it ran out. A sibling may have got a new one already.
        auth.tokens.retain(|_, token| shown.as_bytes().strip_prefix(b"Bearer ") != Some(token.value.expose()));
        !is_basic
    }

    /// What the keychain has for a whole registry.
    pub(super) fn credential(&self, registry: &str, watch: Watch<'_>) -> Result<Option<Credential>> {
        Ok(self.find_credential(registry, "", watch)?.found.map(|found| found.credential))
    }

    fn find_credential(&self, registry: &str, repository: &str, watch: Watch<'_>) -> Result<Search> {
        let mut search = self.keychain.find(registry, repository)?;
        if search.found.is_none() {
            self.find_cloud_credential(registry, &mut search, watch)?;
        }
        Ok(search)
    }

    fn fetch_token(
        &self,
        asked: &Asked<'_>,
        scopes: &[String],
        search: &Search,
        watch: Watch<'_>,
    ) -> Result<TokenAnswer> {
        let host = asked.host;
        let invalid = |reason: String| Error::Invalid {
            registry: host.name.clone(),
            what: format!("token server {}", asked.realm),
            reason,
        };
        let mut url = Url::parse(asked.realm).map_err(|error| invalid(error.to_string()))?;
        let name = authority(&url);
        let plain_allowed = asked.registry_scheme == "http" || self.host(&name)?.policy.plain != Plain::Never;
        match url.scheme() {
            "https" => {}
            "http" if plain_allowed => {}
            _ => return Err(invalid("is not encrypted, while the registry is".to_owned())),
        }
        let mut headers = HeaderMap::new();
        let mut form = None;
        let credential = search.found.as_ref().map(|found| &found.credential);
        if let Some(Credential::IdentityToken(token)) = credential {
            let mut pairs = url::form_urlencoded::Serializer::new(String::new());
            pairs.append_pair("grant_type", "refresh_token").append_pair("client_id", "dockless");
            pairs.append_pair("refresh_token", token.expose_str().unwrap_or_default());
            if let Some(service) = asked.service {
                pairs.append_pair("service", service);
            }
            if !scopes.is_empty() {
                pairs.append_pair("scope", &scopes.join(" "));
            }
            form = Some(pairs.finish());
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        } else {
            let mut pairs = url.query_pairs_mut();
            if let Some(service) = asked.service {
                pairs.append_pair("service", service);
            }
            for scope in scopes {
                pairs.append_pair("scope", scope);
            }
            if let Some(Credential::Password { user, .. }) = credential {
                pairs.append_pair("account", user);
                if asked.offline {
                    pairs.append_pair("offline_token", "true").append_pair("client_id", "dockless");
                }
            }
            drop(pairs);
            if let Some(Credential::Password { user, password }) = credential {
                headers.insert(AUTHORIZATION, basic(&host.name, user, password)?);
            }
        }
        let body = form.map(|form| move || Ok(Body::from(form.clone())));
        let place = Place { host: name, scheme: None, prefix: String::new() };
        let what = match scopes {
            [] => format!("log in to {}", host.name),
            scopes => format!("get a token of {} for {}", host.name, scopes.join(" ")),
        };
        let call = Call {
            method: if body.is_some() { Method::POST } else { Method::GET },
            headers,
            body: body.as_ref().map(|body| body as &dyn Fn() -> Result<Body>),
            ..Call::outside(&place, url, &what, self.patience.tries)
        };
        let response = self.send(&call, watch)?;
        if response.status() != StatusCode::OK {
            let mut error = self.refusal(response, &call, watch);
            if let Error::Refused(refusal) = &mut error {
                refusal.credentials = Some(search.describe());
                refusal.registry.clone_from(&host.name);
            }
            return Err(error);
        }
        let bytes = self.body(response, TOKEN_BODY, watch)?.map_err(invalid)?;
        // Not the parser's words: they may quote the token.
        serde_json::from_slice(&bytes).map_err(|_| invalid("answered no token".to_owned()))
    }

    /// Tries a credential at the registry. What comes back is what to keep: the credential, or the identity token
    /// that the token server gave for it.
    pub(super) fn try_login(&self, place: &Place, credential: &Credential, watch: Watch<'_>) -> Result<Credential> {
        let url = self.base(place, watch)?;
        let host = self.host(&place.host)?;
        let mut call = Call::outside(place, url.clone(), "log in", self.patience.tries);
        let response = self.send(&call, watch)?;
        if response.status() != StatusCode::UNAUTHORIZED {
            // A registry that asks nobody: docker keeps the password all the same.
            return if response.status().is_success() {
                Ok(credential.clone())
            } else {
                Err(self.refusal(response, &call, watch))
            };
        }
        let mut kept = credential.clone();
        let value = match (Challenge::of(response.headers()), credential) {
            (Some(Challenge::Basic), Credential::Password { user, password }) => basic(&host.name, user, password)?,
            (Some(Challenge::Bearer { realm, service, .. }), _) => {
                let found =
                    super::keychain::Found { credential: credential.clone(), source: "the command line".to_owned() };
                let search = Search { found: Some(found), tried: Vec::new() };
                let asked = Asked {
                    host: &host,
                    registry_scheme: url.scheme(),
                    realm: &realm,
                    service: service.as_deref(),
                    offline: true,
                };
                let answer = self.fetch_token(&asked, &[], &search, watch)?;
                if let Some(refresh) = answer.refresh_token.clone().filter(|token| !token.is_empty()) {
                    kept = Credential::IdentityToken(Secret::from(refresh));
                }
                header(&host.name, "Bearer ", answer.usable(&host)?.0.expose())?
            }
            _ => return Err(self.refusal(response, &call, watch)),
        };
        call.headers.insert(AUTHORIZATION, value);
        let response = self.send(&call, watch)?;
        if response.status().is_success() { Ok(kept) } else { Err(self.refusal(response, &call, watch)) }
    }
}

/// A token server as the registry described it.
struct Asked<'a> {
    host: &'a Host,
    registry_scheme: &'a str,
    realm: &'a str,
    service: Option<&'a str>,
    /// Ask for an identity token too.
    offline: bool,
}

impl TokenAnswer {
    fn usable(self, host: &Host) -> Result<(Secret, Duration)> {
        let token =
            self.token.or(self.access_token).filter(|token| !token.is_empty()).ok_or_else(|| Error::Invalid {
                registry: host.name.clone(),
                what: "token server".to_owned(),
                reason: "answered no token".to_owned(),
            })?;
        // A day at most: the clock of a token server is not ours.
        let life = self.expires_in.unwrap_or(DEFAULT_LIFE).clamp(DEFAULT_LIFE, 24 * 3600);
        Ok((Secret::from(token), Duration::from_secs(life)))
    }
}

/// Whether one of our scopes already asks for all that the registry's own wants.
fn covers(scopes: &[String], wanted: &str) -> bool {
    let split = |scope: &str| -> Option<(String, Vec<String>)> {
        let (name, actions) = scope.rsplit_once(':')?;
        Some((name.to_owned(), actions.split(',').map(str::to_owned).collect()))
    };
    wanted.split(' ').all(|wanted| match split(wanted) {
        None => false,
        Some((name, actions)) => scopes
            .iter()
            .filter_map(|scope| split(scope))
            .any(|(own, granted)| own == name && actions.iter().all(|action| granted.contains(action))),
    })
}

fn basic(registry: &str, user: &str, password: &Secret) -> Result<HeaderValue> {
    let mut pair = format!("{user}:").into_bytes();
    pair.extend_from_slice(password.expose());
    header(registry, "Basic ", base64::engine::general_purpose::STANDARD.encode(pair).as_bytes())
}

fn header(registry: &str, scheme: &str, value: &[u8]) -> Result<HeaderValue> {
    let bytes = [scheme.as_bytes(), value].concat();
    let mut header = HeaderValue::from_bytes(&bytes).map_err(|_| Error::Credential {
        registry: registry.to_owned(),
        reason: "they hold characters that no HTTP header can carry".to_owned(),
    })?;
    // Keeps it out of every Debug and of HTTP/2's compression table.
    header.set_sensitive(true);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_covers_what_it_grants() {
        let own = ["repository:a/b:pull,push".to_owned()];
        for (wanted, expected) in [
            ("repository:a/b:pull", true),
            ("repository:a/b:push,pull", true),
            ("repository:a/b:delete", false),
            ("repository:a/c:pull", false),
            ("registry:catalog:*", false),
            ("rubbish", false),
        ] {
            assert_eq!(covers(&own, wanted), expected, "{wanted}");
        }
    }
}
