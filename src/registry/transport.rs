//! Requests as this program means them: retried with bounds, authorised, redirected without their credentials,
//! and cancelled from a synchronous caller. The only part of the client that knows the runtime.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, HeaderMap, LOCATION};
use reqwest::{Body, Client, Method, Response, StatusCode};
use tokio::runtime::{Handle, Runtime};
use url::Url;

use super::Settings;
use super::answer::{is_retryable, retry_after};
use super::auth::Auth;
use super::client::{self, causes, is_transient};
use super::config::{Hosts, Place, Plain, Policy};
use super::ecr::AwsKeys;
use super::error::{Error, Result};
use super::keychain::Keychain;
use super::watch::{Pace, Patience, SLOWEST, TICK, Watch};
use crate::base::Env;

/// Redirects after which somebody is playing.
const HOPS: usize = 10;
/// A registry that wants us to wait longer is told that we do not.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// One request, able to be sent again.
pub(super) struct Call<'a> {
    pub method: Method,
    pub place: &'a Place,
    pub url: Url,
    pub headers: HeaderMap,
    /// `repository:a/b:pull`
    pub scopes: &'a [String],
    pub repository: &'a str,
    /// For errors: `pull manifest a/b:1`.
    pub what: &'a str,
    pub body: Option<&'a dyn Fn() -> Result<Body>>,
    /// Bytes of the body so far: an upload that moves is not late.
    pub sent: Option<&'a AtomicU64>,
    /// Answer the registry's challenge. False for those who answer challenges themselves.
    pub authorise: bool,
    pub tries: u32,
}

impl<'a> Call<'a> {
    /// A plain question about a repository, which the registry may ask to be authorised for.
    pub fn get(
        place: &'a Place,
        url: Url,
        scopes: &'a [String],
        repository: &'a str,
        what: &'a str,
        tries: u32,
    ) -> Self {
        Self {
            method: Method::GET,
            place,
            url,
            headers: HeaderMap::new(),
            scopes,
            repository,
            what,
            body: None,
            sent: None,
            authorise: true,
            tries,
        }
    }

    /// A question to somebody who knows nothing of registries' challenges: a token server, a cloud, a bucket.
    pub fn outside(place: &'a Place, url: Url, what: &'a str, tries: u32) -> Self {
        Self { authorise: false, ..Self::get(place, url, &[], "", what, tries) }
    }
}

/// All that is remembered of one host.
pub(super) struct Host {
    pub name: String,
    pub policy: Policy,
    client: Mutex<Option<Client>>,
    scheme: Mutex<Option<&'static str>>,
    pub auth: Mutex<Auth>,
}

pub(super) struct Transport {
    env: Env,
    pub hosts: Hosts,
    pub keychain: Keychain,
    pub patience: Patience,
    pub aws: Option<AwsKeys>,
    /// `AWS_ENDPOINT_URL_ECR`: a private endpoint.
    pub aws_endpoint: Option<String>,
    runtime: Mutex<Option<Runtime>>,
    known: Mutex<BTreeMap<String, Arc<Host>>>,
}

enum Failure {
    Transient(Error),
    Final(Error),
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Final(error.into())
    }
}

// What these mutexes guard is never half-written.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Transport {
    pub fn new(env: &Env, settings: &Settings) -> Result<Self> {
        Ok(Self {
            env: env.clone(),
            hosts: Hosts::new(env, settings)?,
            keychain: Keychain::new(env, &settings.credentials),
            patience: settings.patience.unwrap_or_default(),
            aws: settings.aws.clone().or_else(|| AwsKeys::of_env(env)),
            aws_endpoint: env.nonempty("AWS_ENDPOINT_URL_ECR").or(env.nonempty("AWS_ENDPOINT_URL")).map(str::to_owned),
            runtime: Mutex::new(None),
            known: Mutex::new(BTreeMap::new()),
        })
    }

    /// Starts the runtime at the first request.
    fn handle(&self) -> Result<Handle> {
        let mut runtime = lock(&self.runtime);
        if let Some(runtime) = runtime.as_ref() {
            return Ok(runtime.handle().clone());
        }
        let started = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("registry")
            .enable_all()
            .build()
            .map_err(|error| Error::Config { place: "network threads".to_owned(), reason: error.to_string() })?;
        Ok(runtime.insert(started).handle().clone())
    }

    /// Waits for a future; none when it took longer than `limit`, counted from the last time that `moving` moved.
    fn wait<T>(
        &self,
        watch: Watch<'_>,
        limit: Duration,
        moving: Option<&AtomicU64>,
        future: impl Future<Output = T>,
    ) -> Result<Option<T>> {
        // Here too: a peer that always answers within a tick must not outrun the look at the flag.
        watch.check()?;
        self.handle()?.block_on(async {
            let mut future = std::pin::pin!(future);
            let mut end = Instant::now() + limit;
            let mut seen = 0;
            loop {
                tokio::select! {
                    biased;
                    value = &mut future => return Ok(Some(value)),
                    () = tokio::time::sleep(TICK) => {
                        watch.check()?;
                        let now = moving.map_or(seen, |moving| moving.load(Ordering::Relaxed));
                        if now != seen {
                            seen = now;
                            end = Instant::now() + limit;
                        }
                        if Instant::now() >= end {
                            return Ok(None);
                        }
                    }
                }
            }
        })
    }

    pub fn host(&self, name: &str) -> Result<Arc<Host>> {
        let mut known = lock(&self.known);
        if let Some(host) = known.get(name) {
            return Ok(Arc::clone(host));
        }
        let host = Arc::new(Host {
            name: name.to_owned(),
            policy: self.hosts.policy(name)?,
            client: Mutex::new(None),
            scheme: Mutex::new(None),
            auth: Mutex::new(Auth::default()),
        });
        known.insert(name.to_owned(), Arc::clone(&host));
        Ok(host)
    }

    fn client(&self, host: &Host) -> Result<Client> {
        let mut client = lock(&host.client);
        if let Some(client) = client.as_ref() {
            return Ok(client.clone());
        }
        Ok(client.insert(client::build(&self.env, &host.name, &host.policy)?).clone())
    }

    /// `https://host/v2/`, or `http` where that is what the host speaks and may speak.
    pub fn base(&self, place: &Place, watch: Watch<'_>) -> Result<Url> {
        let scheme = match place.scheme {
            Some(scheme) => scheme,
            None => self.scheme(&place.host, watch)?,
        };
        let text = format!("{scheme}://{}/v2/", place.host);
        Url::parse(&text).map_err(|error| Error::Invalid {
            registry: place.host.clone(),
            what: text,
            reason: error.to_string(),
        })
    }

    fn scheme(&self, name: &str, watch: Watch<'_>) -> Result<&'static str> {
        let host = self.host(name)?;
        // Held while asking, so that eight layers do not ask eight times.
        let mut scheme = lock(&host.scheme);
        if let Some(known) = *scheme {
            return Ok(known);
        }
        let found = match host.policy.plain {
            Plain::Never => "https",
            Plain::Only => "http",
            Plain::First => match self.knock(&host, "http", watch)? {
                // What TLS servers answer to plain requests.
                Ok(StatusCode::BAD_REQUEST) | Err(Failure::Transient(_)) => "https",
                Ok(_) => "http",
                Err(Failure::Final(error)) => return Err(error),
            },
            Plain::Fallback => match self.knock(&host, "https", watch)? {
                Ok(_) => "https",
                Err(https) => match self.knock(&host, "http", watch)? {
                    Ok(_) => "http",
                    Err(_) => match https {
                        Failure::Transient(error) | Failure::Final(error) => return Err(error),
                    },
                },
            },
        };
        Ok(scheme.insert(found))
    }

    /// Asks `/v2/` once, without credentials.
    fn knock(&self, host: &Host, scheme: &str, watch: Watch<'_>) -> Result<std::result::Result<StatusCode, Failure>> {
        let request = self.client(host)?.get(format!("{scheme}://{}/v2/", host.name)).send();
        let what = format!("{scheme}://{}/v2/", host.name);
        Ok(match self.wait(watch, self.patience.stall, None, request)? {
            Some(Ok(response)) => Ok(response.status()),
            Some(Err(error)) => Err(failure(&host.name, &what, &error)),
            None => Err(Failure::Transient(timed_out(&host.name, &what))),
        })
    }

    /// Sends until there is an answer that trying again would not change. Ok may be any status.
    pub fn send(&self, call: &Call<'_>, watch: Watch<'_>) -> Result<Response> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let last = attempt >= call.tries.max(1);
            let wait = match self.attempt(call, watch) {
                Ok(response) if !is_retryable(response.status()) || last => return Ok(response),
                Ok(response) => match retry_after(response.headers()) {
                    Some(wait) if wait > LONGEST_WAIT => return Ok(response),
                    Some(wait) => wait,
                    None => self.backoff(attempt),
                },
                Err(Failure::Transient(_)) if !last => self.backoff(attempt),
                Err(Failure::Transient(error) | Failure::Final(error)) => return Err(error),
            };
            watch.sleep(wait)?;
        }
    }

    /// Doubled each time, and spread: a fleet that failed together should not come back together.
    pub fn backoff(&self, attempt: u32) -> Duration {
        use std::hash::{BuildHasher, RandomState};
        let base = self.patience.delay.saturating_mul(1 << attempt.saturating_sub(1).min(6));
        // The keys of a RandomState are random; nothing here needs more than that.
        let spread = RandomState::new().hash_one(attempt) % 512;
        base.mul_f64(0.75 + spread as f64 / 1024.0).min(LONGEST_WAIT)
    }

    fn attempt(&self, call: &Call<'_>, watch: Watch<'_>) -> std::result::Result<Response, Failure> {
        let home = self.host(&call.place.host)?;
        let mut url = call.url.clone();
        let mut answered_challenge = false;
        // After the last byte of an upload the registry computes its digest, of many gigabytes perhaps.
        let limit = if call.sent.is_some() { self.patience.stall * 5 } else { self.patience.stall };
        for _ in 0..=HOPS {
            watch.check()?;
            let name = authority(&url);
            let host = self.host(&name)?;
            // The home of the credentials is the registry itself, and the way there must not have lost its TLS.
            let at_home = name == call.place.host && url.scheme() == call.url.scheme();
            let mut headers = call.headers.clone();
            let mut shown = None;
            if !at_home {
                headers.remove(AUTHORIZATION);
            } else if call.authorise {
                shown = self.authorization(&home, &url, call, watch)?;
                if let Some(value) = &shown {
                    headers.insert(AUTHORIZATION, value.clone());
                }
            }
            let mut request = self.client(&host)?.request(call.method.clone(), url.clone()).headers(headers);
            if let Some(body) = call.body {
                request = request.body(body()?);
            }
            let response = match self.wait(watch, limit, call.sent, request.send())? {
                Some(Ok(response)) => response,
                Some(Err(error)) => return Err(failure(&home.name, call.what, &error)),
                None => return Err(Failure::Transient(timed_out(&home.name, call.what))),
            };
            if response.status() == StatusCode::UNAUTHORIZED
                && at_home
                && call.authorise
                && !answered_challenge
                && self.take_challenge(&home, response.headers(), shown.as_ref())
            {
                answered_challenge = true;
                continue;
            }
            match redirect_target(call, &url, &response)? {
                None => return Ok(response),
                // The body of a log-in is the secret.
                Some(_) if !call.authorise && call.body.is_some() => return Ok(response),
                Some(target) => {
                    let allowed = target.scheme() == "https"
                        || target.scheme() == "http"
                            && (url.scheme() == "http" || self.host(&authority(&target))?.policy.plain != Plain::Never);
                    if !allowed {
                        return Err(Failure::Final(Error::Invalid {
                            registry: home.name.clone(),
                            what: call.what.to_owned(),
                            reason: format!(
                                "redirects to {}://{}, which is not encrypted",
                                target.scheme(),
                                authority(&target)
                            ),
                        }));
                    }
                    url = target;
                }
            }
        }
        Err(Failure::Final(Error::Invalid {
            registry: home.name.clone(),
            what: call.what.to_owned(),
            reason: format!("more than {HOPS} redirects"),
        }))
    }

    /// The next piece of a body; none at its end. Err of the inner result is worth another try.
    pub fn chunk(
        &self,
        response: &mut Response,
        pace: &mut Pace,
        watch: Watch<'_>,
    ) -> Result<std::result::Result<Option<Bytes>, String>> {
        Ok(match self.wait(watch, self.patience.stall, None, response.chunk())? {
            Some(Ok(Some(bytes))) if pace.is_dripping(bytes.len(), self.patience.stall) => {
                Err(format!("less than {SLOWEST} bytes per second"))
            }
            Some(Ok(chunk)) => Ok(chunk),
            Some(Err(error)) => Err(causes(&error)),
            None => Err(format!("no byte for {} s", self.patience.stall.as_secs())),
        })
    }

    /// A whole small body, refused when it is longer than `limit`.
    pub fn body(
        &self,
        mut response: Response,
        limit: u64,
        watch: Watch<'_>,
    ) -> Result<std::result::Result<Vec<u8>, String>> {
        let mut pace = Pace::new();
        let mut body = Vec::new();
        loop {
            match self.chunk(&mut response, &mut pace, watch)? {
                Ok(None) => return Ok(Ok(body)),
                Ok(Some(bytes)) if (body.len() + bytes.len()) as u64 > limit => {
                    return Ok(Err(format!("more than {limit} bytes")));
                }
                Ok(Some(bytes)) => body.extend_from_slice(&bytes),
                Err(reason) => return Ok(Err(reason)),
            }
        }
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        // A name look-up that hangs must not keep the process.
        if let Some(runtime) = lock(&self.runtime).take() {
            runtime.shutdown_background();
        }
    }
}

fn failure(registry: &str, what: &str, error: &reqwest::Error) -> Failure {
    let transient = is_transient(error);
    let error = Error::Unreachable { registry: registry.to_owned(), what: what.to_owned(), cause: causes(error) };
    if transient { Failure::Transient(error) } else { Failure::Final(error) }
}

fn timed_out(registry: &str, what: &str) -> Error {
    Error::Unreachable { registry: registry.to_owned(), what: what.to_owned(), cause: "timed out".to_owned() }
}

/// `host[:port]` as it stands in a reference.
pub(super) fn authority(url: &Url) -> String {
    match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (Some(host), None) => host.to_owned(),
        (None, _) => String::new(),
    }
}

fn redirect_target(call: &Call<'_>, url: &Url, response: &Response) -> std::result::Result<Option<Url>, Failure> {
    let status = response.status().as_u16();
    // Others than these would turn an upload into a GET.
    let follows = match call.method {
        Method::GET | Method::HEAD => matches!(status, 301 | 302 | 303 | 307 | 308),
        _ => matches!(status, 307 | 308),
    };
    // S3 tells of a bucket's other region in the body of a 301 that leads nowhere.
    if !follows || !response.headers().contains_key(LOCATION) {
        return Ok(None);
    }
    let target =
        response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).and_then(|to| url.join(to).ok());
    match target {
        Some(target) => Ok(Some(target)),
        None => Err(Failure::Final(Error::Invalid {
            registry: call.place.host.clone(),
            what: call.what.to_owned(),
            reason: format!("answered {status} without a valid Location"),
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_as_a_reference_has_it() {
        for (url, expected) in [
            ("https://a.b/x", "a.b"),
            ("http://a.b:5000/x", "a.b:5000"),
            ("http://[::1]:5/x", "[::1]:5"),
            ("https://a:443/", "a"),
        ] {
            assert_eq!(authority(&Url::parse(url).unwrap()), expected);
        }
    }
}
