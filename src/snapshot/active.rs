//! Snapshots in the making, and looks at finished ones.

use super::error::Result;
use super::stack::Snapshot;
use super::writer::DeltaWriter;
use crate::base::Cancel;
use crate::sys::RootFs;

/// A snapshot that is being made on top of another. Dropping it discards it.
pub struct Active {}

impl Active {
    /// Where a process may run: everything below is unpacked first.
    pub fn rootfs(&self, _cancel: &Cancel) -> Result<RootFs> {
        todo!()
    }

    /// For file operations: needs no mount and unpacks nothing.
    pub fn writer(&mut self) -> Result<DeltaWriter> {
        todo!()
    }

    /// Makes it a snapshot: its base with one more delta, or the base itself when nothing was written.
    pub fn commit(self, _cancel: &Cancel) -> Result<Snapshot> {
        todo!()
    }
}

/// A finished snapshot, ready to be mounted; what is written there is thrown away with this value.
pub struct View {}

impl View {
    pub fn rootfs(&self) -> &RootFs {
        todo!()
    }
}
