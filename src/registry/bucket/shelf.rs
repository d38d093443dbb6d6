//! Blobs in a bucket, each under its digest: several at once, and nothing twice.

use std::fs::File;
use std::io::Write as _;
use std::time::{Duration, SystemTime};

use super::{BucketSettings, Object, ObjectAddress};
use crate::base::progress::Step;
use crate::base::{Cancel, Digest, Env};
use crate::image::Descriptor;
use crate::registry::Registry;
use crate::registry::error::Result;
use crate::registry::pull::in_parallel;
use crate::store::{self, BlobStore};

/// Where the keys of blobs begin: `s3://BUCKET/PREFIXsha256:…`.
pub struct Shelf<'a> {
    pub registry: &'a Registry,
    pub bucket: &'a str,
    pub prefix: &'a str,
    pub settings: &'a BucketSettings,
    pub env: &'a Env,
}

impl Shelf<'_> {
    fn object(&self, digest: &Digest) -> Result<Object> {
        let address = ObjectAddress::new(self.bucket, format!("{}{digest}", self.prefix));
        self.registry.object(&address, self.settings, self.env)
    }

    /// Ok means that all of them are in `blobs`, verified; what was there is not fetched again.
    pub fn fetch(&self, wanted: &[Descriptor], blobs: &dyn BlobStore, step: &Step, cancel: &Cancel) -> Result<()> {
        in_parallel(wanted, self.registry.1.downloads, cancel, |wanted, _| {
            if blobs.size(&wanted.digest)?.is_some() {
                return Ok(());
            }
            let mut blob = blobs.create()?;
            self.object(&wanted.digest)?.download(&mut |bytes| blob.write_all(bytes), step, cancel)?;
            Ok(blob.complete_verified_as(&wanted.digest, Some(wanted.size))?)
        })
    }

    /// Ok means that all of them are in the bucket. `open` is asked for what is not; what is, and is older than
    /// `refresh`, is made new, so that nothing takes it away while it is in use.
    pub fn send(
        &self,
        wanted: &[Descriptor],
        open: &(dyn Fn(&Digest) -> store::Result<File> + Sync),
        refresh: Duration,
        at_once: usize,
        step: &Step,
        cancel: &Cancel,
    ) -> Result<()> {
        let now = SystemTime::now();
        in_parallel(wanted, at_once, cancel, |wanted, _| {
            let object = self.object(&wanted.digest)?;
            let Some(held) = object.status(cancel)?.filter(|held| held.bytes == Some(wanted.size)) else {
                return object.upload(&open(&wanted.digest)?, step, cancel);
            };
            let age = held.modified.and_then(|modified| now.duration_since(modified).ok()).unwrap_or_default();
            if age > refresh { object.touch(&held, cancel) } else { Ok(()) }
        })
    }
}
