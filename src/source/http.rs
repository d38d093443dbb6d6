//! Files from http and https addresses.

use std::path::{Path, PathBuf};

use crate::base::{Cancel, Digest, Env, Secret, progress::Step};

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
    #[error("GET {url}: {reason}")]
    Failed { url: String, reason: String },
}

/// Gets a file into the cache folder. Asks with `If-None-Match` what it already has.
pub fn fetch(
    _request: &HttpRequest,
    _cache: &Path,
    _env: &Env,
    _step: &Step,
    _cancel: &Cancel,
) -> Result<HttpFile, HttpError> {
    todo!()
}
