//! `rootfs.tgz`: `metadata.json` and `rootfs/` at the top of a gzipped tar, as Concourse's s3 resource unpacks it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::ledger::{Ledger, Node};
use super::warn::Tally;
use crate::base::Cancel;
use crate::layer::{Compression, Encoder, Entry, TarWriter};
use crate::sys::{Kind, Meta, Root};

const ROOTFS: &str = "rootfs";

/// Writes the archive: what the files are from the ledger, their bytes from the directory they were unpacked to.
/// Nothing below `/dev` goes in: a container gets its own.
pub fn write(dest: &Path, metadata: &[u8], ledger: &Ledger, rootfs: &Path, cancel: &Cancel) -> anyhow::Result<()> {
    let root = Root::open(rootfs).with_context(|| format!("open {}", rootfs.display()))?;
    let file = File::create_new(dest).with_context(|| format!("make {}", dest.display()))?;
    // gzip, because s3-resource knows neither zstd nor xz.
    let encoder = Encoder::new(BufWriter::new(file), Compression::Gzip, None)?;
    let mut tar = TarWriter::new(encoder);
    let meta = Meta { mode: 0o644, ..Meta::default() };
    let kind = Kind::File { size: metadata.len() as u64 };
    tar.append(&Entry { path: "metadata.json".into(), kind, meta }, &mut &*metadata)?;

    let mut seen: HashMap<u64, PathBuf> = HashMap::new();
    for (path, node) in ledger.entries() {
        cancel.check()?;
        if below_dev(path) || node.kind == Kind::Socket {
            continue;
        }
        let Node { kind, meta, file, .. } = node.clone();
        let name = Path::new(ROOTFS).join(path);
        let append = |tar: &mut TarWriter<_>, kind, data: &mut dyn io::Read| {
            // The join leaves a slash behind the root's own name.
            let path: PathBuf = name.components().collect();
            tar.append(&Entry { path, kind, meta: meta.clone() }, data).with_context(|| format!("archive {name:?}"))
        };
        let is_file = matches!(kind, Kind::File { .. });
        match seen.get(&file).filter(|_| kind != Kind::Directory) {
            Some(first) => append(&mut tar, Kind::Hardlink { target: first.clone() }, &mut io::empty())?,
            None if is_file => {
                let mut data = root.open_file(path).with_context(|| format!("open {path:?}"))?;
                append(&mut tar, kind, &mut data)?;
            }
            None => append(&mut tar, kind, &mut io::empty())?,
        }
        seen.entry(file).or_insert_with(|| name.clone());
    }
    let out = tar.finish()?.finish()?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?;
    Ok(())
}

/// What is in the archive, and not in what Concourse unpacks of it: a line for each class.
pub fn warnings(ledger: &Ledger) -> Vec<String> {
    let mut tally = Tally::default();
    for (path, node) in ledger.entries().filter(|(path, _)| !below_dev(path)) {
        if !node.meta.xattrs.is_empty() {
            tally.note("extended attributes", path);
        }
        if matches!(node.kind, Kind::CharDevice { .. } | Kind::BlockDevice { .. }) {
            tally.note("device nodes", path);
        }
    }
    tally.lines("Concourse's s3 resource does not unpack")
}

/// Inside `/dev`, not that directory itself.
pub fn below_dev(path: &Path) -> bool {
    path.starts_with("dev") && path != Path::new("dev")
}
