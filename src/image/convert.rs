//! The same image with its layers stored another way.

use std::io::{self, Write};

use super::{Descriptor, Dialect, Error, Image, LayerBlob, Result};
use crate::base::{Cancel, DiffId, Hasher};
use crate::layer::{self, Compression, Encoder};
use crate::store::{BlobStore, BlobWrite};

/// How an image's layers are to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Uniform {
    /// None: each layer as it is.
    pub compression: Option<Compression>,
    pub level: Option<i32>,
    /// None: as the image is.
    pub dialect: Option<Dialect>,
}

/// Gives an image whose layers are compressed alike and described in one dialect, with new blobs written to `into`.
/// An image that is so already comes back as it is.
pub fn uniform(
    image: &Image,
    from: &dyn BlobStore,
    into: &dyn BlobStore,
    wanted: &Uniform,
    cancel: &Cancel,
) -> Result<Image> {
    let dialect = wanted.dialect.unwrap_or_else(|| image.dialect());
    let compression = |layer: &LayerBlob| wanted.compression.unwrap_or_else(|| layer.compression());
    let fits = |layer: &LayerBlob| layer.descriptor.media_type == dialect.layer(compression(layer));
    if dialect == image.dialect() && image.layers.iter().all(fits) {
        return Ok(image.clone());
    }
    let mut layers = Vec::with_capacity(image.layers.len());
    for old in &image.layers {
        cancel.check()?;
        let compression = compression(old);
        let mut layer = if old.compression() == compression {
            old.clone()
        } else {
            recompress(old, from, into, compression, wanted.level, cancel)?
        };
        layer.descriptor.media_type = dialect.layer(compression).to_owned();
        layers.push(layer);
    }
    let config = crate::store::read_document(from, &image.config_digest)?;
    Image::write(into, &config, layers, dialect, image.manifest.annotations.clone())
}

/// Stores a layer's plain bytes under another compression; both of its digests are checked on the way.
fn recompress(
    layer: &LayerBlob,
    from: &dyn BlobStore,
    into: &dyn BlobStore,
    compression: Compression,
    level: Option<i32>,
    cancel: &Cancel,
) -> Result<LayerBlob> {
    let digest = layer.descriptor.digest;
    let failed = |source: io::Error| Error::Layer { digest, source: source.into() };
    let mut stored = from.open(&digest)?;
    let mut plain = layer::decompress(&mut stored).map_err(failed)?;
    let mut out = Plain {
        encoder: Encoder::new(into.create()?, compression, level).map_err(failed)?,
        hasher: Hasher::new(),
        cancel,
    };
    let copied = io::copy(&mut plain, &mut out);
    cancel.check()?;
    copied.map_err(failed)?;
    drop(plain);
    stored.finish()?;
    let actual = DiffId(out.hasher.finish());
    if actual != layer.diff_id {
        let expected = layer.diff_id;
        return Err(Error::Layer { digest, source: layer::Error::DiffId { expected, actual }.into() });
    }
    let (digest, size) = out.encoder.finish().map_err(failed)?.complete()?;
    Ok(LayerBlob { descriptor: Descriptor::new("", digest, size), diff_id: layer.diff_id })
}

/// Hashes the plain bytes on their way into the encoder.
struct Plain<'a> {
    encoder: Encoder<Box<dyn BlobWrite>>,
    hasher: Hasher,
    cancel: &'a Cancel,
}

impl Write for Plain<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.cancel.check().map_err(io::Error::other)?;
        let count = self.encoder.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.encoder.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::base::Platform;
    use crate::image::{ImageConfig, media_type};
    use crate::layer::LayerWriter;
    use crate::store::{MemoryBlobs, write_document};

    fn layer(blobs: &MemoryBlobs, name: &str, compression: Compression) -> LayerBlob {
        let mut writer = LayerWriter::new(Vec::new(), compression, None).unwrap();
        writer.whiteout(name.as_ref()).unwrap();
        let written = writer.finish().unwrap();
        let digest = write_document(blobs, &written.out).unwrap();
        let descriptor = Descriptor::new(Dialect::Oci.layer(compression), digest, written.out.len() as u64);
        LayerBlob { descriptor, diff_id: written.diff_id.unwrap_or(DiffId(digest)) }
    }

    fn image(blobs: &MemoryBlobs, layers: Vec<LayerBlob>) -> Image {
        let mut config = ImageConfig::new(Platform::host());
        config.rootfs.diff_ids = layers.iter().map(|layer| layer.diff_id).collect();
        Image::write(blobs, &config.to_bytes(), layers, Dialect::Oci, BTreeMap::new()).unwrap()
    }

    const ALL: [Compression; 3] = [Compression::Uncompressed, Compression::Gzip, Compression::Zstd];

    #[test]
    fn any_mixture_becomes_alike_and_the_image_stays_the_same() {
        let blobs = MemoryBlobs::new();
        let mixed = image(&blobs, ALL.map(|compression| layer(&blobs, "x", compression)).to_vec());
        for compression in ALL {
            let wanted = Uniform { compression: Some(compression), ..Uniform::default() };
            let alike = uniform(&mixed, &blobs, &blobs, &wanted, &Cancel::new()).unwrap();
            assert!(alike.layers.iter().all(|layer| layer.compression() == compression), "{compression:?}");
            assert_eq!(alike.config_digest, mixed.config_digest);
            let of_its_own = layer(&blobs, "x", compression);
            assert_eq!(
                alike.layers,
                [of_its_own.clone(), of_its_own.clone(), of_its_own],
                "made directly or converted"
            );
            assert_eq!(
                uniform(&alike, &MemoryBlobs::new(), &MemoryBlobs::new(), &wanted, &Cancel::new()).unwrap(),
                alike
            );
        }
    }

    #[test]
    fn another_dialect_changes_words_alone() {
        let blobs = MemoryBlobs::new();
        let mixed = image(&blobs, ALL.map(|compression| layer(&blobs, "x", compression)).to_vec());
        let wanted = Uniform { dialect: Some(Dialect::Docker), ..Uniform::default() };
        let docker = uniform(&mixed, &blobs, &blobs, &wanted, &Cancel::new()).unwrap();
        assert_eq!(docker.manifest.media_type, media_type::DOCKER_MANIFEST);
        let digests = |image: &Image| image.layers.iter().map(|layer| layer.descriptor.digest).collect::<Vec<_>>();
        assert_eq!(digests(&docker), digests(&mixed));
    }

    #[test]
    fn a_layer_that_is_not_its_diff_id_is_refused() {
        let blobs = MemoryBlobs::new();
        let mut wrong = layer(&blobs, "x", Compression::Gzip);
        wrong.diff_id = layer(&blobs, "y", Compression::Gzip).diff_id;
        let image = image(&blobs, vec![wrong.clone()]);
        let wanted = Uniform { compression: Some(Compression::Uncompressed), ..Uniform::default() };
        let error = uniform(&image, &blobs, &MemoryBlobs::new(), &wanted, &Cancel::new()).unwrap_err();
        assert!(error.to_string().contains(&format!("expected {}", wrong.diff_id)), "{error}");
    }
}
