//! What a checkout is made to look like: modes as git knows them, no trace of git's own files unless asked for, and the
//! commit's date where that is wanted.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode};

use crate::sys::{Mtime, Root, dir, meta};

/// Gives all files mode 0644 or 0755, and removes every `.git` (of submodules too) unless they are kept. With a date,
/// all files get it.
pub fn tidy(tree: &Path, keep_git: bool, date: Option<Mtime>) -> io::Result<()> {
    let root = Root::open(tree)?;
    walk(root.fd().as_fd(), keep_git, date)
}

fn walk(dir: BorrowedFd<'_>, keep_git: bool, date: Option<Mtime>) -> io::Result<()> {
    for (name, _) in dir::list(dir)? {
        if name == ".git" && !keep_git {
            dir::remove(dir, &name)?;
            continue;
        }
        let stat = rustix::fs::statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let mode = match kind {
            FileType::Directory => 0o755,
            FileType::RegularFile if stat.st_mode & 0o100 != 0 => 0o755,
            FileType::RegularFile => 0o644,
            _ => 0o777,
        };
        let has_mode = matches!(kind, FileType::Directory | FileType::RegularFile);
        if has_mode && stat.st_mode & 0o7777 != mode {
            rustix::fs::chmodat(dir, &name, Mode::from_raw_mode(mode), AtFlags::empty())?;
        }
        if kind == FileType::Directory {
            walk(dir::open(dir, &name)?.as_fd(), keep_git, date)?;
        }
        // After what is in it: making and removing gives a folder another time.
        if let Some(date) = date {
            meta::set_mtime(dir, &name, date)?;
        }
    }
    Ok(())
}

/// Makes a folder of `dest/inner` the whole of `dest`. Symlinks on the way to it are followed inside `inner`.
pub fn hoist(dest: &Path, inner: &str, subdir: &str) -> io::Result<()> {
    let dest = Root::open(dest)?;
    let checkout = Root::from_fd(dest.open_dir(Path::new(inner))?);
    let folder = checkout.open_dir(Path::new(subdir))?;
    // Out of its own way first: the folder may hold a name like the checkout's.
    let aside = format!("{inner}-{}", std::process::id());
    rustix::fs::renameat(dest.fd(), inner, dest.fd(), &aside)?;
    for (name, _) in dir::list(&folder)? {
        rustix::fs::renameat(&folder, &name, dest.fd(), &name)?;
    }
    dir::remove(dest.fd(), aside.as_ref())
}
