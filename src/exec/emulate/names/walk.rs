//! A path of a step, walked name by name: where links and the view cross, the kernel cannot do it in one call.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{FileType, ResolveFlags};

use super::beneath::inside;
use super::{Entry, How, Names, Opened, path};
use crate::exec::emulate::credentials::Credentials;
use crate::exec::emulate::errno;

/// As many links as the kernel follows in one path.
pub(super) const HOPS: usize = 40;

impl Names {
    /// The path without links, dots and doubles that a path means. Its last name need not be there.
    pub fn real(&self, thread: i32, path: &[u8], follow: bool, who: Option<&Credentials>) -> io::Result<Vec<u8>> {
        let mut todo = path::reversed(path);
        let must_be_directory = path.len() > 1 && path.ends_with(b"/");
        let mut done: Vec<u8> = Vec::new();
        let mut hops = 0;
        while let Some(name) = todo.pop() {
            if name == b".." {
                let end = done.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
                done.truncate(end);
                continue;
            }
            done.push(b'/');
            done.extend(&name);
            let last = todo.is_empty() && !must_be_directory;
            if last && !follow {
                break;
            }
            let found = match self.step(thread, &done, who) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && todo.is_empty() => break,
                found => found?,
            };
            match found {
                Step::Directory => {}
                Step::Other if todo.is_empty() => {}
                Step::Other => return Err(errno(libc::ENOTDIR)),
                // A link that no path leads through, such as that to a pipe.
                Step::Dead if todo.is_empty() => break,
                Step::Dead => return Err(errno(libc::ENOENT)),
                Step::Link(target) => {
                    hops += 1;
                    if hops > HOPS {
                        return Err(errno(libc::ELOOP));
                    }
                    if target.first() == Some(&b'/') {
                        done.clear();
                    } else {
                        let end = done.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
                        done.truncate(end);
                    }
                    todo.extend(path::reversed(&target));
                }
            }
        }
        if done.is_empty() {
            done.push(b'/');
        }
        Ok(done)
    }

    /// What a path is, all of whose names but the last are directories.
    fn step(&self, thread: i32, path: &[u8], who: Option<&Credentials>) -> io::Result<Step> {
        let how = How::look(false, who);
        let file = match self.lead(path) {
            Some(Entry { lead: Opened::Proc, target, .. }) => {
                let rest = path::below(path, target).unwrap_or_default();
                return self.step_in_proc(thread, rest.strip_prefix(b"/").unwrap_or(rest));
            }
            Some(entry) => self.open_lead(thread, entry, path, how)?,
            None => inside(self.root.as_fd(), path, how, ResolveFlags::NO_SYMLINKS)?,
        };
        Ok(match FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) {
            FileType::Directory => Step::Directory,
            FileType::Symlink => Step::Link(rustix::fs::readlinkat(&file, "", Vec::new())?.into_bytes()),
            _ => Step::Other,
        })
    }
}

/// What one name on the way is.
pub(super) enum Step {
    Directory,
    Link(Vec<u8>),
    /// A link of /proc to what has no path here.
    Dead,
    Other,
}
