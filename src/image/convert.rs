//! The same image with its layers stored another way.

use std::io::{self, Write};

use super::{Descriptor, Dialect, Error, Image, LayerBlob, Result};
use crate::base::{Cancel, DiffId, Hasher};
use crate::layer::{self, Compression, Encoder};
use crate::store::{BlobStore, BlobWrite};

/// How an image's layers are to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Uniform {
    /// None: as the lowest layer is.
    pub compression: Option<Compression>,
    pub level: Option<i32>,
    /// None: as the image is.
    pub dialect: Option<Dialect>,
}

/// Gives an image whose layers are all compressed alike and described in one dialect, with new blobs written to `into`.
/// An image that is so already comes back as it is.
pub fn uniform(
    image: &Image,
    from: &dyn BlobStore,
    into: &dyn BlobStore,
    wanted: &Uniform,
    cancel: &Cancel,
) -> Result<Image> {
    let compression =
        wanted.compression.or_else(|| image.layers.first().map(LayerBlob::compression)).unwrap_or_default();
    let dialect = wanted.dialect.unwrap_or_else(|| image.dialect());
    let fits = |layer: &LayerBlob| layer.descriptor.media_type == dialect.layer(compression);
    if dialect == image.dialect() && image.layers.iter().all(fits) {
        return Ok(image.clone());
    }
    let mut layers = Vec::with_capacity(image.layers.len());
    for layer in &image.layers {
        cancel.check()?;
        let mut layer = if layer.compression() == compression {
            layer.clone()
        } else {
            recompress(layer, from, into, compression, wanted.level, cancel)?
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
