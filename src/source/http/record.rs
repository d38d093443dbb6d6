//! What is remembered of an address: a small JSON file beside the content, which is stored by its digest.

use std::io;
use std::path::{Path, PathBuf};

use reqwest::Url;

use super::{HttpFile, HttpRequest, names};
use crate::base::Digest;

#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Record {
    pub url: String,
    pub etag: Option<String>,
    pub last_modified: Option<String>,
    /// As the server named it.
    pub filename: Option<String>,
    pub digest: Digest,
    pub size: u64,
}

impl Record {
    /// Where content lies.
    pub fn content(cache: &Path, digest: &Digest) -> PathBuf {
        cache.join(digest.hex())
    }

    fn path(cache: &Path, url: &str) -> PathBuf {
        cache.join(format!("{}.json", Digest::of(url).hex()))
    }

    /// None when nothing is known, or the content went.
    pub fn load(cache: &Path, url: &str) -> Option<Self> {
        let record: Self = serde_json::from_slice(&std::fs::read(Self::path(cache, url)).ok()?).ok()?;
        let content = std::fs::metadata(Self::content(cache, &record.digest)).ok()?;
        (record.url == url && content.len() == record.size).then_some(record)
    }

    pub fn save(&self, cache: &Path) -> io::Result<()> {
        let mut file = tempfile::Builder::new().prefix("tmp-").tempfile_in(cache)?;
        serde_json::to_writer(&mut file, self)?;
        file.persist(Self::path(cache, &self.url)).map_err(|error| error.error)?;
        Ok(())
    }

    pub fn file(&self, cache: &Path, request: &HttpRequest, url: &Url) -> HttpFile {
        let filename = request.filename.clone().filter(|name| !name.is_empty()).or_else(|| self.filename.clone());
        HttpFile {
            path: Self::content(cache, &self.digest),
            digest: self.digest,
            filename: filename.unwrap_or_else(|| names::of_address(url)),
            modified: self.last_modified.as_deref().and_then(names::http_date),
        }
    }
}
