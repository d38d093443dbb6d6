//! Step caches that travel (`--cache-to`, `--cache-from`): what one machine has built, another takes over.
//!
//! A cache is a document of BuildKit's format (`application/vnd.buildkit.cacheconfig.v0`) beside the layers that it
//! speaks of: in a registry, in a bucket, in a folder (an OCI layout), or inside of the image that was built (`inline`).
//! Nothing of it is fetched before a step is found in it whose files are needed.

mod bucket;
mod document;
mod export;
mod import;
mod steps;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::LayerOptions;
use crate::base::{Digest, Reference};

pub use bucket::BucketCache;
pub use document::INLINE;
pub use steps::StepCache;

/// The shared caches of one build.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SharedCaches {
    /// Looked at in this order, after the state folder's own.
    pub from: Vec<CacheSource>,
    pub to: Vec<CacheTarget>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheSource {
    /// A cache, or an image with one inside. An image of that name in the local store comes first.
    Registry(Reference),
    Directory {
        path: PathBuf,
        pick: Pick,
    },
    Bucket(BucketCache),
}

/// Which manifest of a layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pick {
    Tag(String),
    Digest(Digest),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheTarget {
    pub place: CachePlace,
    pub mode: CacheMode,
    /// How its layers are stored.
    pub options: LayerOptions,
    /// A cache that cannot be written is a warning.
    pub ignore_error: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CachePlace {
    /// In the config of the image itself.
    Inline,
    Registry(Reference),
    Directory {
        path: PathBuf,
        tag: String,
    },
    Bucket {
        cache: BucketCache,
        /// Layers that are older are made new.
        refresh: Duration,
        /// Layers on their way at one time.
        at_once: usize,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheMode {
    /// The steps whose layers are in the result.
    #[default]
    Min,
    /// Those of all stages that were built.
    Max,
}

impl SharedCaches {
    /// With what build arguments ask for: `BUILDKIT_INLINE_CACHE=1`, as BuildKit's frontend has it.
    pub fn asked_for_in(&self, build_args: &BTreeMap<String, String>) -> Self {
        let mut caches = self.clone();
        let asked = build_args.get("BUILDKIT_INLINE_CACHE").is_some_and(|value| matches!(value.as_str(), "1" | "true"));
        if asked && !caches.is_inline() {
            caches.to.push(CacheTarget::new(CachePlace::Inline));
        }
        caches
    }

    pub fn is_inline(&self) -> bool {
        self.to.iter().any(|target| target.place == CachePlace::Inline)
    }
}

impl CacheTarget {
    pub fn new(place: CachePlace) -> Self {
        Self { place, mode: CacheMode::Min, options: LayerOptions::default(), ignore_error: false }
    }
}

impl std::fmt::Display for CacheSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Registry(reference) => f.write_str(&reference.familiar()),
            Self::Directory { path, .. } => path.display().fmt(f),
            Self::Bucket(cache) => cache.fmt(f),
        }
    }
}
