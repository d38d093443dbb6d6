//! An image whose manifest and config have been read, checked against each other, and understood.

use super::{Descriptor, Dialect, Error, ImageConfig, Index, LayerBlob, Manifest, Result, media_type};
use crate::base::{Digest, Platform};
use crate::layer::Compression;
use crate::store::{self, BlobStore};

/// One image for one platform. Its blobs are in the store that it was read from.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    pub manifest_descriptor: Descriptor,
    pub manifest: Manifest,
    pub config: ImageConfig,
    /// The image id.
    pub config_digest: Digest,
    /// Lowest first.
    pub layers: Vec<LayerBlob>,
}

/// How many indexes may stand inside one another. Real ones nest twice: a layout's index, then the platforms'.
const INDEX_DEPTH: usize = 4;

impl Image {
    /// Reads an image by the descriptor of its manifest, or of an index that has one for the platform.
    pub fn read(blobs: &dyn BlobStore, descriptor: &Descriptor, platform: &Platform) -> Result<Self> {
        let mut descriptor = descriptor.clone();
        for _ in 0..INDEX_DEPTH {
            let bytes = store::read_document(blobs, &descriptor.digest)?;
            match document_type(&descriptor, &bytes)? {
                Document::Manifest => return Self::of_manifest(blobs, descriptor, &bytes),
                Document::Index(index) => {
                    let Some(chosen) = index.choose(platform).or_else(|| index.sole()) else {
                        return Err(Error::Platform {
                            digest: descriptor.digest,
                            platform: Box::new(platform.clone()),
                            available: index.manifests.into_iter().filter_map(|d| d.platform).collect(),
                        });
                    };
                    descriptor = chosen.clone();
                }
            }
        }
        Err(Error::malformed(
            descriptor.digest.to_string(),
            format!("more than {INDEX_DEPTH} indexes inside one another"),
        ))
    }

    fn of_manifest(blobs: &dyn BlobStore, descriptor: Descriptor, bytes: &[u8]) -> Result<Self> {
        let manifest: Manifest = serde_json::from_slice(bytes)
            .map_err(|source| Error::Json { what: format!("manifest {}", descriptor.digest), source })?;
        let config_digest = manifest.config.digest;
        let config = ImageConfig::parse(&store::read_document(blobs, &config_digest)?)
            .map_err(|source| Error::Json { what: format!("image config {config_digest}"), source })?;
        let diff_ids = &config.rootfs.diff_ids;
        if diff_ids.len() != manifest.layers.len() {
            return Err(Error::LayerCount {
                manifest: descriptor.digest,
                layers: manifest.layers.len(),
                diff_ids: diff_ids.len(),
            });
        }
        let layers = manifest
            .layers
            .iter()
            .zip(diff_ids)
            .map(|(layer, &diff_id)| match media_type::compression(&layer.media_type) {
                Some(_) => Ok(LayerBlob { descriptor: layer.clone(), diff_id }),
                None => Err(Error::LayerType { digest: layer.digest, media_type: layer.media_type.clone() }),
            })
            .collect::<Result<_>>()?;
        Ok(Self { manifest_descriptor: descriptor, manifest, config, config_digest, layers })
    }

    /// Makes an image of layers that are in the store and a config whose diff IDs are theirs; stores config and manifest.
    pub fn write(
        blobs: &dyn BlobStore,
        config_bytes: &[u8],
        layers: Vec<LayerBlob>,
        dialect: Dialect,
        annotations: std::collections::BTreeMap<String, String>,
    ) -> Result<Self> {
        let config_digest = store::write_document(blobs, config_bytes)?;
        let config = ImageConfig::parse(config_bytes)
            .map_err(|source| Error::Json { what: format!("image config {config_digest}"), source })?;
        let manifest = Manifest {
            schema_version: 2,
            media_type: dialect.manifest().to_owned(),
            config: Descriptor::new(dialect.config(), config_digest, config_bytes.len() as u64),
            layers: layers.iter().map(|layer| layer.descriptor.clone()).collect(),
            annotations,
            extra: serde_json::Map::new(),
        };
        let bytes = manifest.to_bytes();
        let digest = store::write_document(blobs, &bytes)?;
        let mut manifest_descriptor = Descriptor::new(dialect.manifest(), digest, bytes.len() as u64);
        manifest_descriptor.platform = Some(config.platform.clone());
        Ok(Self { manifest_descriptor, manifest, config, config_digest, layers })
    }

    pub fn dialect(&self) -> Dialect {
        if self.manifest.config.media_type == media_type::DOCKER_CONFIG { Dialect::Docker } else { Dialect::Oci }
    }

    /// Whether layers are compressed in different ways, which readers that judge by the first one do not survive.
    pub fn is_mixed(&self) -> bool {
        self.layers.windows(2).any(|pair| pair[0].compression() != pair[1].compression())
    }

    /// The compression for an archive that everybody can read: what the lowest layer has, none where that is zstd, as in
    /// what `docker save` writes. To gzip it would take many times as long as all else.
    pub fn readable_compression(&self) -> Option<Compression> {
        match self.layers.first()?.compression() {
            Compression::Zstd => Some(Compression::Uncompressed),
            other => Some(other),
        }
    }

    /// Every blob that the image is made of, the manifest included.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        [&self.manifest_descriptor, &self.manifest.config].into_iter().chain(self.layers.iter().map(|l| &l.descriptor))
    }

    /// The bytes of all layers as they are stored.
    pub fn stored_size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.descriptor.size).sum()
    }
}

impl LayerBlob {
    /// Whether the layer is stored as the plain bytes that its diff ID is of.
    pub fn is_plain(&self) -> bool {
        self.descriptor.digest == self.diff_id.0
    }

    pub fn compression(&self) -> Compression {
        media_type::compression(&self.descriptor.media_type).unwrap_or_default()
    }
}

pub(super) enum Document {
    Manifest,
    Index(Index),
}

/// Tells a manifest from an index: by the descriptor, and where that is silent by what is inside.
pub(super) fn document_type(descriptor: &Descriptor, bytes: &[u8]) -> Result<Document> {
    let name = &descriptor.media_type;
    let unknown = || Error::MediaType { digest: descriptor.digest, media_type: name.clone() };
    let is_index = if media_type::is_index(name) {
        true
    } else if media_type::is_manifest(name) {
        false
    } else if name.is_empty() {
        let json: serde_json::Value = serde_json::from_slice(bytes)
            .map_err(|source| Error::Json { what: format!("manifest {}", descriptor.digest), source })?;
        match (json.get("manifests").is_some(), json.get("config").is_some()) {
            (true, false) => true,
            (false, true) => false,
            _ => return Err(unknown()),
        }
    } else {
        return Err(unknown());
    };
    if !is_index {
        return Ok(Document::Manifest);
    }
    serde_json::from_slice(bytes)
        .map(Document::Index)
        .map_err(|source| Error::Json { what: format!("index {}", descriptor.digest), source })
}
