use std::io::{BufRead, Read};

use crate::layer::{Entry, Result};

/// Reads an archive to its end mark, giving each member to `visit` with exactly its bytes. Bytes after the end mark
/// are left in `input`.
pub fn read(
    _input: &mut dyn Read,
    _visit: &mut dyn FnMut(&Entry, &mut dyn BufRead) -> anyhow::Result<()>,
) -> Result<()> {
    todo!()
}
