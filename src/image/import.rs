//! A flat root file system as an image of one layer (`docker import`).

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use super::config::History;
use super::{Descriptor, Dialect, Error, Image, ImageConfig, LayerBlob, Result};
use crate::base::{Cancel, DiffId, Epoch};
use crate::layer::{self, Compression};
use crate::store::{BlobStore, BlobWrite};

/// Makes an image of a root file system's tar, compressed in any known way. `config` is what `docker import --change`
/// made of an empty one; its layers and history are filled in here.
pub fn import(
    rootfs: &mut (dyn Read + Send),
    config: ImageConfig,
    message: &str,
    epoch: &Epoch,
    blobs: &dyn BlobStore,
    cancel: &Cancel,
) -> Result<Image> {
    let plain =
        layer::decompress_any(rootfs).map_err(|source| Error::Io { path: "root file system".to_owned(), source })?;
    let mut tee = Tee { input: plain, blob: blobs.create()?, cancel };
    // The archive is the layer as it is; reading it through here is what refuses one that no reader could unpack.
    let read = layer::tar::read(&mut tee, &mut |_, _| Ok(()));
    cancel.check()?;
    read.map_err(|error| Error::malformed("root file system", error.to_string()))?;
    // What follows the end mark belongs to the layer's bytes.
    io::copy(&mut tee, &mut io::sink()).map_err(|source| Error::Io { path: "root file system".to_owned(), source })?;
    let (digest, size) = tee.blob.complete()?;
    let diff_id = DiffId(digest);
    let descriptor = Descriptor::new(Dialect::Oci.layer(Compression::Uncompressed), digest, size);
    of_layer(LayerBlob { descriptor, diff_id }, config, message, epoch, blobs)
}

/// Makes an image of one layer that is in `blobs`; what the config says of layers and history is filled in here.
pub fn of_layer(
    layer: LayerBlob,
    mut config: ImageConfig,
    message: &str,
    epoch: &Epoch,
    blobs: &dyn BlobStore,
) -> Result<Image> {
    let created = Some(epoch.created().to_string());
    config.rootfs.diff_ids = vec![layer.diff_id];
    config.history =
        vec![History { created: created.clone(), comment: Some(message.to_owned()), ..History::default() }];
    config.created = created;
    Image::write(blobs, &config.to_bytes(), vec![layer], Dialect::Oci, BTreeMap::new())
}

/// Stores what is read through it.
struct Tee<'a, R> {
    input: R,
    blob: Box<dyn BlobWrite>,
    cancel: &'a Cancel,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.cancel.check().map_err(io::Error::other)?;
        let count = self.input.read(buffer)?;
        self.blob.write_all(&buffer[..count])?;
        Ok(count)
    }
}
