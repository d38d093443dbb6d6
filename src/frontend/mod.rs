//! Dockerfiles: text in, LLB definition and image config out. Pure: it asks the world only through [`ImageConfigs`].

use crate::base::{Platform, Reference};
use crate::image::config::ImageConfig;

/// What the frontend must know about base images; implemented in `engine`.
pub trait ImageConfigs {
    /// The pinned reference and config of an image. Looks locally first, then asks the registry.
    fn resolve(&self, reference: &Reference, platform: &Platform) -> anyhow::Result<ResolvedImage>;
}

#[derive(Debug, Clone)]
pub struct ResolvedImage {
    /// With digest: what goes into the definition, so that the plan says exactly what it builds on.
    pub reference: Reference,
    pub config: ImageConfig,
}
