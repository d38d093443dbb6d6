//! The same image with its layers stored another way.

use super::{Dialect, Image, Result};
use crate::base::Cancel;
use crate::layer::Compression;
use crate::store::BlobStore;

/// Gives an image whose layers are all compressed alike and described in one dialect, with new blobs written to `into`.
/// Without a wish for a compression, what the lowest layer has is given to all. An image that is so already comes back
/// as it is.
pub fn uniform(
    image: &Image,
    from: &dyn BlobStore,
    into: &dyn BlobStore,
    compression: Option<Compression>,
    dialect: Option<Dialect>,
    cancel: &Cancel,
) -> Result<Image> {
    let _ = (image, from, into, compression, dialect, cancel);
    todo!()
}
