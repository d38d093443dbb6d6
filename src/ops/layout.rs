//! Images in OCI layouts as a source: a folder that the caller named, and the digest of what is wanted of it.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;

use super::{Ref, Request};
use crate::base::{Cancel, Digest, Hasher, Platform};
use crate::image::{Descriptor, Image};
use crate::snapshot::Snapshot;
use crate::solver::{CacheMap, Op, Policy};
use crate::store::{self, BlobStore, DiskBlobs};

pub struct LayoutSource {
    request: Arc<Request>,
    dir: PathBuf,
    digest: Digest,
    platform: Platform,
}

impl LayoutSource {
    /// `reference` is a name that says nothing and a digest; the layout is the one that goes by the name of `store`.
    pub fn new(
        request: Arc<Request>,
        reference: &str,
        store: Option<String>,
        platform: Platform,
    ) -> anyhow::Result<Self> {
        let (_, digest) = reference.split_once('@').context("an oci-layout source without a digest")?;
        let digest = digest.parse()?;
        let store = store.context("an oci-layout source that names no store (oci.store)")?;
        let dir = request.layouts.get(&store);
        let dir = dir.with_context(|| format!("no OCI layout {store:?} was given"))?.clone();
        Ok(Self { request, dir, digest, platform })
    }
}

impl Op<Ref> for LayoutSource {
    fn cache_map(&self, _: &Cancel) -> anyhow::Result<CacheMap> {
        // As that of an image from anywhere else: the digest says what it is.
        let mut hasher = Hasher::new();
        hasher.field("image");
        hasher.field(self.digest.as_bytes());
        hasher.field(self.platform.to_string());
        Ok(CacheMap { digest: hasher.finish(), inputs: Vec::new(), policy: Policy::Shared })
    }

    fn content(&self, _: usize, _: &Ref, _: &Cancel) -> anyhow::Result<Digest> {
        unreachable!("a source has no inputs")
    }

    fn exec(&self, _: &[Ref], _: &Cancel) -> anyhow::Result<Vec<Ref>> {
        let from = DiskBlobs::open(&self.dir);
        let work = || -> anyhow::Result<Image> {
            let size = from.size(&self.digest)?.ok_or(store::Error::Missing { digest: self.digest })?;
            let image = Image::read(&from, &Descriptor::new("", self.digest, size), &self.platform)?;
            self.request.machine.images().adopt(&image, &from)?;
            Ok(image)
        };
        let image = work().with_context(|| format!("OCI layout {}", self.dir.display()))?;
        Ok(vec![Ref::Snapshot(Snapshot::image(&image.layers))])
    }
}
