//! The tar format, both ways. Reading trusts nothing; writing gives the same bytes for the same entries, laid out
//! as Go's `archive/tar` does in PAX mode, so that layers equal those that BuildKit makes of the same files.

mod data;
mod member;
mod path;
mod pax;
mod read;
#[cfg(test)]
pub mod tests;
mod write;

pub use path::{normalise, quote};
pub use read::{read, read_buffered};
pub use write::TarWriter;

/// Everything in an archive is a multiple of this.
const BLOCK: usize = 512;

const XATTR: &str = "SCHILY.xattr.";
/// Percent-encoded name, base64 value.
const XATTR_ENCODED: &str = "LIBARCHIVE.xattr.";
