//! Caches in an S3 bucket, where BuildKit's `cache/remotecache/s3` has them: documents by name, layers by digest.

use std::fmt;
use std::fs::File;
use std::io::Write as _;
use std::time::Duration;

use super::document::Document;
use crate::base::progress::Step;
use crate::base::{Cancel, Digest};
use crate::engine::State;
use crate::image::Descriptor;
use crate::registry::{BucketSettings, Object, ObjectAddress, Shelf};
use crate::store::{self, DOCUMENT_LIMIT, DiskBlobs};

/// A bucket with step caches in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketCache {
    pub bucket: String,
    pub settings: BucketSettings,
    /// What the keys of documents begin with.
    pub manifests: String,
    /// What the keys of layers begin with.
    pub blobs: String,
    /// All are written, the first is read; never none.
    pub names: Vec<String>,
}

impl BucketCache {
    fn object(&self, name: &str, state: &State) -> anyhow::Result<Object> {
        let address = ObjectAddress::new(&self.bucket, format!("{}{name}", self.manifests));
        Ok(state.registry()?.object(&address, &self.settings, state.env())?)
    }

    fn shelf<'a>(&'a self, state: &'a State) -> anyhow::Result<Shelf<'a>> {
        let (registry, env) = (state.registry()?, state.env());
        Ok(Shelf { registry, bucket: &self.bucket, prefix: &self.blobs, settings: &self.settings, env })
    }

    /// The document of the first name.
    pub(super) fn document(&self, state: &State, step: &Step, cancel: &Cancel) -> anyhow::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let name = self.names.first().map(String::as_str).unwrap_or_default();
        let mut sink = |piece: &[u8]| {
            bytes.extend_from_slice(piece);
            match bytes.len() as u64 > DOCUMENT_LIMIT {
                true => Err(std::io::Error::other(format!("it is longer than {DOCUMENT_LIMIT} bytes"))),
                false => Ok(()),
            }
        };
        self.object(name, state)?.download(&mut sink, step, cancel)?;
        Ok(bytes)
    }

    pub(super) fn fetch(
        &self,
        layers: &[Descriptor],
        state: &State,
        step: &Step,
        cancel: &Cancel,
    ) -> anyhow::Result<()> {
        Ok(self.shelf(state)?.fetch(layers, state.blobs()?.as_ref(), step, cancel)?)
    }

    /// Layers first: a document never names what is not there.
    #[expect(clippy::too_many_arguments, reason = "what is written, how, and for whom")]
    pub(super) fn write(
        &self,
        document: &Document,
        layers: &[Descriptor],
        refresh: Duration,
        at_once: usize,
        state: &State,
        step: &Step,
        cancel: &Cancel,
    ) -> anyhow::Result<()> {
        let here = DiskBlobs::open(state.images().dir());
        let open = |digest: &Digest| {
            let path = here.path(digest);
            File::open(&path).map_err(|source| match source.kind() {
                std::io::ErrorKind::NotFound => store::Error::Missing { digest: *digest },
                _ => store::Error::Io { path: path.display().to_string(), source },
            })
        };
        self.shelf(state)?.send(layers, &open, refresh, at_once, step, cancel)?;
        let mut file = tempfile::tempfile_in(state.tmp()?)?;
        file.write_all(&serde_json::to_vec(document)?)?;
        for name in &self.names {
            self.object(name, state)?.upload(&file, step, cancel)?;
        }
        Ok(())
    }

    /// Whether layers of the other are where those of this one are.
    pub(super) fn shares_layers_with(&self, other: &Self) -> bool {
        let place = |cache: &Self| {
            let BucketSettings { endpoint, region, .. } = &cache.settings;
            (cache.bucket.clone(), cache.blobs.clone(), endpoint.clone(), region.clone())
        };
        place(self) == place(other)
    }
}

impl fmt::Display for BucketCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}{}", self.bucket, self.manifests, self.names.join(";"))
    }
}
