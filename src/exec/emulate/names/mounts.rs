//! What is as if mounted, by where it lies on the host: which of two files lie on what are two file systems for the step, and what
//! is to be looked at only.

use std::path::Path;

use rustix::fs::{CWD, Statx};

use super::{Entry, Names, Opened, host_path, path};

impl Names {
    /// Whether a path of the host is to be looked at only.
    pub fn is_read_only(&self, host: &[u8]) -> bool {
        let is_at = |entry: &&Entry| match &entry.lead {
            Opened::Directory(_, path) => path::below(host, path).is_some(),
            Opened::File(file) => host_path(file).is_ok_and(|path| path == host),
            _ => false,
        };
        self.entries.iter().find(is_at).is_some_and(|entry| entry.read_only)
    }

    /// Whether one of two paths of the host lies, for the step, on a file system that the other does not lie on.
    pub fn are_apart(&self, one: &[u8], other: &[u8]) -> bool {
        self.mount(one) != self.mount(other)
    }

    fn mount(&self, host: &[u8]) -> Option<usize> {
        self.mounts.iter().position(|mount| path::below(host, mount).is_some())
    }

    /// What is known of a file, by the link in /proc to it, with a file system of its own where it has one for the step:
    /// `find -xdev` and the like tell by that where the image ends. Not where the kernel tells too, and knows of none.
    pub fn set_apart(&self, link: &Path, mut stat: Statx) -> Statx {
        /// No file system of the kernel's has so high a number: they are counted from 1.
        const LAST: usize = (1 << 20) - 1;
        if !self.own_root
            && (stat.stx_dev_major, stat.stx_dev_minor) == self.root_device
            && let Ok(host) = rustix::fs::readlinkat(CWD, link, Vec::new())
            && let Some(mount) = self.mount(host.as_bytes())
        {
            (stat.stx_dev_major, stat.stx_dev_minor) = (0, u32::try_from(LAST - mount).unwrap_or_default());
        }
        stat
    }
}
