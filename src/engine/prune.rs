//! Frees what can be made again: build cache, unpacked layers, cache mounts, leftovers of killed processes.

use std::time::Duration;

use super::State;

/// What a prune leaves alone.
#[derive(Debug, Clone, Default)]
pub struct Keep {
    /// Things used within this time.
    pub newer_than: Option<Duration>,
    /// The most recently used things, up to so many bytes.
    pub bytes: Option<u64>,
    /// `RUN --mount=type=cache` folders.
    pub cache_mounts: bool,
    /// What named images and containers stand on, so that the next build or run has it unpacked.
    pub images: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Ids of what was removed, sorted.
    pub removed: Vec<String>,
    pub bytes: u64,
}

/// Removes what `keep` does not name. What a running process uses stays.
pub fn prune(_state: &State, _keep: &Keep) -> anyhow::Result<Pruned> {
    todo!()
}
