//! Applies one layer to a target.

use std::io::Read;

use super::{Result, Target};
use crate::base::{Cancel, DiffId};

/// What was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    pub diff_id: DiffId,
    /// Bytes of the plain tar.
    pub size: u64,
}

/// Applies a layer as it is stored (plain, gzip or zstd) to a target, and checks its diff ID after the last byte.
///
/// `stored` is read to its end, so that the caller can verify the blob's own digest afterwards. On an error the
/// target holds some part of the layer, and is to be thrown away.
pub fn apply(
    _stored: &mut (dyn Read + Send),
    _expected: Option<&DiffId>,
    _target: &mut dyn Target,
    _cancel: &Cancel,
) -> Result<Applied> {
    todo!()
}
