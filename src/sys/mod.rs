//! Linux as plain types: paths inside a root, file metadata, mounts, id maps. `unsafe`, where it cannot be
//! helped, lives on this floor and nowhere else.

pub mod dir;
pub mod disk;
pub mod idmap;
pub mod ipc;
pub mod landlock;
pub mod meta;
pub mod mount;
pub mod net;
pub mod notify;
pub mod owner;
pub mod process;
pub mod quiet;
pub mod root;
pub mod rootfs;
pub mod seccomp;
pub mod signals;
pub mod trace;
mod watch;
mod xattr;

pub use meta::{Kind, Meta, Mtime};
pub use owner::{Owner, Ownership, SideTable};
pub use root::{LastDirs, Parents, Root};
pub use rootfs::RootFs;
pub use watch::{Limit, Watch};
