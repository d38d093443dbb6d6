//! The tar format, both ways. Reading trusts nothing; writing gives the same bytes for the same entries, laid out
//! as Go's `archive/tar` does in PAX mode, so that layers equal those that BuildKit makes of the same files.

mod read;
mod write;

pub use read::read;
pub use write::TarWriter;
