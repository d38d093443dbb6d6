//! Files from http and https addresses, kept in the cache folder and asked for again only if they changed.

mod names;
mod record;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_DISPOSITION, COOKIE, ETAG, HeaderMap, HeaderName, HeaderValue,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, LOCATION,
};
use reqwest::{Client, Response, StatusCode, Url};

use crate::base::cancel::Cancelled;
use crate::base::{Cancel, Digest, Env, Hasher, Secret, progress::Step};
use crate::registry::client;
use record::Record;

/// What to get: LLB's `https://…` source with its attributes.
#[derive(Debug, Clone, Default)]
pub struct HttpRequest {
    pub url: String,
    pub checksum: Option<Digest>,
    /// None: from the answer's headers, else the last name of the address, else `download`.
    pub filename: Option<String>,
    /// Names and values of further request headers.
    pub headers: Vec<(String, Secret)>,
}

/// What was got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpFile {
    /// In the cache folder.
    pub path: PathBuf,
    pub digest: Digest,
    pub filename: String,
    /// `Last-Modified`, in seconds since 1970.
    pub modified: Option<i64>,
}

#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("{url} is no http address: {reason}")]
    Address { url: String, reason: String },
    #[error("get {url}: {reason}")]
    Failed { url: String, reason: String },
    #[error("get {url}: content has digest {actual}, expected {expected}")]
    Checksum { url: String, expected: Digest, actual: Digest },
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// Redirects after which somebody is playing (Go's client has the same).
const HOPS: usize = 10;
/// The first attempt included; together some 7 seconds of waiting.
const TRIES: u32 = 4;
const DELAY: Duration = Duration::from_secs(1);
/// Without an answer or a byte for this long, the attempt failed.
const STALL: Duration = Duration::from_secs(60);
/// How soon a Ctrl-C is noticed.
const TICK: Duration = Duration::from_millis(50);
/// What is shown of an error's body.
const ERROR_BODY: usize = 200;

/// Gets a file into the cache folder. Asks with `If-None-Match` what it already has, and asks nobody where the
/// checksum says that it has it.
pub fn fetch(
    request: &HttpRequest,
    cache: &Path,
    env: &Env,
    step: &Step,
    cancel: &Cancel,
) -> Result<HttpFile, HttpError> {
    let url = Url::parse(&request.url)
        .map_err(|error| HttpError::Address { url: names::redact(&request.url), reason: error.to_string() })?;
    if !matches!(url.scheme(), "http" | "https") {
        let reason = format!("scheme {}", url.scheme());
        return Err(HttpError::Address { url: names::redact(&request.url), reason });
    }
    let known = Record::load(cache, &request.url);
    if let (Some(expected), Some(known)) = (request.checksum, &known)
        && known.digest == expected
    {
        return Ok(known.file(cache, request, &url));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| HttpError::Io { path: "network".into(), source })?;
    let get = Get { request, url: &url, cache, env, step, cancel, known };
    let record = runtime.block_on(get.run())?;
    Ok(record.file(cache, request, &url))
}

struct Get<'a> {
    request: &'a HttpRequest,
    url: &'a Url,
    cache: &'a Path,
    env: &'a Env,
    step: &'a Step,
    cancel: &'a Cancel,
    known: Option<Record>,
}

/// Worth another attempt, or not.
enum Failure {
    Transient(String),
    Final(HttpError),
}

impl<E: Into<HttpError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Final(error.into())
    }
}

impl Get<'_> {
    async fn run(&self) -> Result<Record, HttpError> {
        let mut attempt = 1;
        loop {
            match self.attempt().await {
                Ok(record) => return Ok(record),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Transient(reason)) if attempt == TRIES => return Err(self.failed(reason)),
                Err(Failure::Transient(_)) => {
                    if self.cancel.wait(DELAY * (1 << (attempt - 1))) {
                        return Err(Cancelled.into());
                    }
                    attempt += 1;
                }
            }
        }
    }

    fn failed(&self, reason: String) -> HttpError {
        HttpError::Failed { url: names::redact(self.url.as_str()), reason }
    }

    async fn attempt(&self) -> Result<Record, Failure> {
        let mut response = self.send().await?;
        match response.status() {
            StatusCode::NOT_MODIFIED => {
                let Some(known) = self.known.clone() else {
                    return Err(self.failed("says that nothing changed since we got nothing".to_owned()).into());
                };
                // What is here passed when it came, if anybody asked then.
                self.check(known.digest)?;
                return Ok(known);
            }
            StatusCode::OK => {}
            status => {
                let reason = self.refusal(status, &mut response).await;
                let again = status.is_server_error()
                    || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
                return Err(if again { Failure::Transient(reason) } else { Failure::Final(self.failed(reason)) });
            }
        }
        let text = |name| response.headers().get(&name).and_then(|value: &HeaderValue| value.to_str().ok());
        let mut record = Record {
            url: self.request.url.clone(),
            etag: text(ETAG).map(str::to_owned),
            last_modified: text(LAST_MODIFIED).map(str::to_owned),
            // Names of files are sent as UTF-8 too, which `to_str` refuses.
            filename: response
                .headers()
                .get(CONTENT_DISPOSITION)
                .and_then(|value| names::of_disposition(&String::from_utf8_lossy(value.as_bytes()))),
            digest: Digest::from_bytes([0; 32]),
            size: 0,
        };
        (record.digest, record.size) = self.store(&mut response).await?;
        record.save(self.cache).map_err(|source| HttpError::Io { path: self.cache.to_owned(), source })?;
        Ok(record)
    }

    /// Sends the request, and again wherever it is redirected to.
    async fn send(&self) -> Result<Response, Failure> {
        let mut url = self.url.clone();
        for _ in 0..=HOPS {
            let response = self.wait(self.client(&url)?.get(url.clone()).headers(self.headers(&url)?).send()).await?;
            let redirected = response.status().is_redirection() && response.status() != StatusCode::NOT_MODIFIED;
            let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            let Some(location) = location.filter(|_| redirected) else { return Ok(response) };
            let target =
                url.join(location).map_err(|error| self.failed(format!("redirects to {location:?}: {error}")))?;
            // With a checksum it does not matter who was listening, or speaking.
            let lost_tls = url.scheme() == "https" && target.scheme() != "https" && self.request.checksum.is_none();
            if lost_tls || !matches!(target.scheme(), "http" | "https") {
                let target = names::redact(target.as_str());
                return Err(self.failed(format!("redirects to {target}, which is not encrypted")).into());
            }
            url = target;
        }
        Err(self.failed(format!("more than {HOPS} redirects")).into())
    }

    fn client(&self, url: &Url) -> Result<Client, HttpError> {
        let host = match (url.host_str(), url.port()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (host, _) => host.unwrap_or_default().to_owned(),
        };
        client::web(self.env, &host).map_err(|error| self.failed(error.to_string()))
    }

    fn headers(&self, url: &Url) -> Result<HeaderMap, HttpError> {
        let mut headers = HeaderMap::new();
        // The file as it is: a server's own compression would give it another digest.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(known) = &self.known {
            let copy = |value: &Option<String>| value.as_deref().and_then(|value| HeaderValue::from_str(value).ok());
            // An etag says more than a time; a server that is given both may answer by either.
            if let Some(etag) = copy(&known.etag) {
                headers.insert(IF_NONE_MATCH, etag);
            } else if let Some(modified) = copy(&known.last_modified) {
                headers.insert(IF_MODIFIED_SINCE, modified);
            }
        }
        let at_home = url.origin() == self.url.origin();
        for (name, value) in &self.request.headers {
            let invalid = || self.failed(format!("header {name:?} is not possible"));
            let name = HeaderName::try_from(name.as_str()).map_err(|_| invalid())?;
            let mut value = HeaderValue::from_bytes(value.expose()).map_err(|_| invalid())?;
            value.set_sensitive(true);
            // A redirect must not take the credentials to another host.
            if at_home || !matches!(name, AUTHORIZATION | COOKIE) {
                headers.insert(name, value);
            }
        }
        Ok(headers)
    }

    async fn wait<T>(&self, future: impl Future<Output = reqwest::Result<T>>) -> Result<T, Failure> {
        let mut future = std::pin::pin!(future);
        let end = tokio::time::Instant::now() + STALL;
        loop {
            self.cancel.check()?;
            tokio::select! {
                biased;
                result = &mut future => return result.map_err(|error| {
                    let reason = client::causes(&error);
                    match client::is_transient(&error) {
                        true => Failure::Transient(reason),
                        false => Failure::Final(self.failed(reason)),
                    }
                }),
                () = tokio::time::sleep(TICK) => {}
            }
            if tokio::time::Instant::now() >= end {
                return Err(Failure::Transient(format!("no answer for {} s", STALL.as_secs())));
            }
        }
    }

    /// Writes the body into the cache under its digest.
    async fn store(&self, response: &mut Response) -> Result<(Digest, u64), Failure> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| HttpError::Io { path, source }
        };
        let total = response.content_length();
        let mut counter = self.step.counter(names::redact(self.url.as_str()), total.unwrap_or(0));
        std::fs::create_dir_all(self.cache).map_err(io(self.cache))?;
        let mut file = tempfile::Builder::new().prefix("tmp-").tempfile_in(self.cache).map_err(io(self.cache))?;
        let (mut hasher, mut size) = (Hasher::new(), 0);
        while let Some(piece) = self.wait(response.chunk()).await? {
            hasher.update(&piece);
            file.write_all(&piece).map_err(io(file.path()))?;
            size += piece.len() as u64;
            counter.add(piece.len() as u64);
        }
        if let Some(total) = total.filter(|total| *total != size) {
            return Err(Failure::Transient(format!("ended after {size} of {total} bytes")));
        }
        let actual = hasher.finish();
        self.check(actual)?;
        // Synced, because a later run trusts its length alone.
        File::sync_data(file.as_file()).map_err(io(file.path()))?;
        let path = Record::content(self.cache, &actual);
        file.persist(&path).map_err(|error| io(&path)(error.error))?;
        Ok((actual, size))
    }

    /// Whether the content is what the request says that it is.
    fn check(&self, actual: Digest) -> Result<(), HttpError> {
        match self.request.checksum {
            Some(expected) if expected != actual => {
                Err(HttpError::Checksum { url: names::redact(self.url.as_str()), expected, actual })
            }
            _ => Ok(()),
        }
    }

    async fn refusal(&self, status: StatusCode, response: &mut Response) -> String {
        let body = match self.wait(response.chunk()).await {
            Ok(Some(body)) => String::from_utf8_lossy(&body[..body.len().min(ERROR_BODY)]).trim().to_owned(),
            _ => String::new(),
        };
        let plain = !body.is_empty() && !body.starts_with('<') && !body.contains('\n');
        if plain { format!("{status}: {body}") } else { status.to_string() }
    }
}
