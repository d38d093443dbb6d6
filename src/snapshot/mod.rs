//! File system states as stacks of deltas. A delta is a directory in overlayfs's own format (whiteout = character
//! device 0:0, opaque = `user.overlay.opaque`), or a layer blob that nobody had to look into yet.
//!
//! Everything that looks at a file's owner, mode or type asks here, because on a host that refuses chown or mknod
//! the truth lives in the owner store beside the file.

mod active;
mod blob;
mod copy;
mod delta;
mod diff;
mod disk;
mod error;
mod flat;
mod folder;
mod host;
mod index;
mod look;
mod memory;
mod native;
mod plan;
mod pool;
mod prune;
mod stack;
mod stamps;
mod store;
mod subtree;
#[cfg(test)]
mod suite;
#[cfg(test)]
pub(crate) mod testing;
mod tree;
mod unpack;
mod waiting;
mod walk;
mod writer;

pub use active::{Active, View};
pub use copy::Copier;
pub use error::{Error, Result};
pub use prune::{Pruned, Usage};
pub use stack::{DeltaId, Snapshot};
pub use store::{Driver, LayerSpec, Snapshots};
pub use subtree::Subtree;
pub use tree::{FileData, Node, Tree, clean, read_small, resolve};
pub use walk::walk;
pub use writer::DeltaWriter;
