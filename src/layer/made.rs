//! What a layer has made so far: its whiteouts spare that.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;

/// Paths that the current layer made, those above them included.
///
/// Only hashes, with a key that no archive knows: layers of millions of files need no more memory than that.
#[derive(Default)]
pub struct Made(HashSet<u64>, RandomState);

impl Made {
    /// Notes a path, and the directories that it is in.
    pub fn add(&mut self, path: &Path) {
        for path in path.ancestors() {
            if !self.0.insert(self.1.hash_one(path)) {
                return;
            }
        }
    }

    /// The next layer has made nothing.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    pub fn contains(&self, path: &Path) -> bool {
        self.0.contains(&self.1.hash_one(path))
    }
}
