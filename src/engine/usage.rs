//! What takes up space in the state folder.

use std::time::SystemTime;

use super::State;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum UsageKind {
    /// Blobs that a named image refers to.
    Image,
    /// Blobs that no name leads to.
    Blob,
    Snapshot,
    CacheMount,
    Container,
}

/// One thing that takes up space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    pub kind: UsageKind,
    pub id: String,
    /// What it came from, in words; may be empty.
    pub description: String,
    pub bytes: u64,
    pub last_used: Option<SystemTime>,
    /// Prune would leave it.
    pub in_use: bool,
}

/// Everything that takes up space, sorted by kind and id.
pub fn du(_state: &State) -> anyhow::Result<Vec<Usage>> {
    todo!()
}
