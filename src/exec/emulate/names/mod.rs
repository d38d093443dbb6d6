//! The names of a step's files where nothing can be mounted: which file of the host a path of the step means, and
//! which path of the step a file of the host has.
//!
//! Most paths lie in the root and are resolved by the kernel in one call, as if the root were `/`. A path that meets
//! the view, or a link on the way to it, is walked name by name. The step's own root and working directory play no
//! part: the same serves a step that is confined by chroot and one that is not.

mod beneath;
mod mounts;
mod near;
mod path;
mod proc;
mod walk;

pub use self::beneath::is_device;
pub use self::near::Directory;
pub use self::path::irremovable;
pub use self::proc::process_of;

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Statx};
use rustix::io::Errno;

use self::beneath::{inside, own};
use self::near::Near;
use super::acting::Acting;
use super::call::Where;
use super::credentials::Credentials;
use super::files::{Place, kind, link_to};
use super::programs::Programs;
use super::stored::STATUS;
use super::{errno, memory, turn};
use crate::exec::detour::Detours;
use crate::exec::view::{self, Lead, View};
use crate::sys::Owner;

/// A file without following it or waking its device.
pub(super) const HANDLE: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// A view that is open.
pub struct Names {
    root: OwnedFd,
    /// Where the root lies on the host, without links.
    root_path: Vec<u8>,
    /// The file system that it lies on.
    root_device: (u32, u32),
    /// Longest target first: the first that a path is in is the right one.
    entries: Vec<Entry>,
    /// Where on the host lies what is as if mounted, longest path first.
    mounts: Vec<Vec<u8>>,
    /// Something is there to be looked at only.
    pub has_read_only: bool,
    /// Whose the files in memory are, where the kernel cannot say it, and which permission bits they have.
    memory: Vec<(u64, Owner)>,
    /// Every single name in a target, so that most relative paths are known by sight to lead nowhere else.
    words: Vec<Vec<u8>>,
    near: Near,
    /// The process that all of the step's processes descend from.
    pub shepherd: i32,
    /// The step's own root is the view's, so that the kernel means by most paths what the step does, and owners are
    /// real. Else owners are kept in the owner store.
    pub own_root: bool,
    /// The user and the group that everything on disk belongs to, where owners are kept elsewhere.
    pub on_disk: (u32, u32),
    pub hostname: String,
    /// Programs that run from a copy.
    pub programs: Programs,
    detours: Option<Detours>,
}

/// A file by its name in a directory, and what the disk says of it; none if it is not there.
pub struct Followed {
    pub directory: Arc<Directory>,
    pub name: OsString,
    pub stat: Option<Statx>,
}

struct Entry {
    target: Vec<u8>,
    lead: Opened,
    read_only: bool,
}

enum Opened {
    Proc,
    Sys(OwnedFd),
    /// Opened anew each time, by its path: a device does something when it is opened.
    Device(Vec<u8>),
    /// With its path on the host.
    Directory(OwnedFd, Vec<u8>),
    File(OwnedFd),
}

/// How a path is opened, and by whom.
#[derive(Clone, Copy)]
pub struct How<'a> {
    pub flags: OFlags,
    pub mode: Mode,
    /// None where the kernel cannot tell users apart.
    pub who: Option<&'a Credentials>,
}

impl<'a> How<'a> {
    /// For nothing but looking at it.
    pub fn look(follow: bool, who: Option<&'a Credentials>) -> Self {
        let flags = if follow { HANDLE } else { HANDLE | OFlags::NOFOLLOW };
        Self { flags, mode: Mode::empty(), who }
    }

    fn writes(self) -> bool {
        !self.flags.contains(OFlags::PATH)
            && (self.flags.intersects(OFlags::WRONLY | OFlags::RDWR | OFlags::TRUNC | OFlags::CREATE))
    }
}

impl Names {
    /// The working directory of this process must be /proc.
    pub fn open(view: &View, shepherd: i32, own_root: bool) -> io::Result<Self> {
        let root = rustix::fs::open(view.root.as_ref(), HANDLE | OFlags::DIRECTORY, Mode::empty())?;
        let root_path = host_path(&root)?;
        let on = rustix::fs::fstat(&root)?.st_dev;
        let mut entries = Vec::with_capacity(view.entries.len());
        let mut memory = Vec::new();
        for entry in &view.entries {
            let lead = match &entry.lead {
                Lead::Proc => Opened::Proc,
                Lead::Sys => Opened::Sys(rustix::fs::open("/sys", HANDLE | OFlags::DIRECTORY, Mode::empty())?),
                Lead::Device(path) => Opened::Device(path.as_ref().as_os_str().as_bytes().to_vec()),
                Lead::Host(path) => {
                    let file = rustix::fs::open(path.as_ref(), HANDLE, Mode::empty())?;
                    match FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) {
                        FileType::Directory => {
                            let path = host_path(&file)?;
                            Opened::Directory(file, path)
                        }
                        _ => Opened::File(file),
                    }
                }
                Lead::Memory { content, mode, uid, gid } if own_root => {
                    Opened::File(view::memory_file(&content.0, *mode, (*uid, *gid))?)
                }
                Lead::Memory { content, mode, uid, gid } => {
                    let file = view::memory_file(&content.0, *mode | 0o600, (0, 0))?;
                    let owner = Owner { uid: *uid, gid: *gid, mode: Some(*mode), ..Owner::default() };
                    memory.push((rustix::fs::fstat(&file)?.st_ino, owner));
                    Opened::File(file)
                }
            };
            entries.push(Entry { target: entry.target.clone().into_bytes(), lead, read_only: entry.read_only });
        }
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.target.len()));
        let placed = view.placed.iter().map(|path| path.as_ref().as_os_str().as_bytes());
        let shown = entries.iter().filter_map(|entry| match &entry.lead {
            Opened::Directory(_, path) => Some(path.clone()),
            Opened::File(file) => host_path(file).ok(),
            _ => None,
        });
        let mut mounts: Vec<Vec<u8>> = placed.map(<[u8]>::to_vec).chain(shown).collect();
        mounts.sort_by_key(|path| std::cmp::Reverse(path.len()));
        let mut words: Vec<Vec<u8>> =
            entries.iter().flat_map(|entry| path::names(&entry.target)).map(<[u8]>::to_vec).collect();
        words.sort();
        words.dedup();
        Ok(Self {
            root,
            root_path,
            root_device: (rustix::fs::major(on), rustix::fs::minor(on)),
            has_read_only: entries.iter().any(|entry| entry.read_only),
            memory,
            entries,
            mounts,
            words,
            near: Near::default(),
            shepherd,
            own_root,
            on_disk: (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
            hostname: view.hostname.clone(),
            programs: Programs::new(view.programs.as_ref()),
            // An image may have a link there.
            detours: view.detours.as_ref().and_then(|path| Detours::open(path.as_ref()).ok()),
        })
    }

    /// A thread has started, and has not made a call yet.
    pub fn has_started(&self, thread: i32) {
        if let Some(detours) = &self.detours {
            // Without it, realpath does not find this one thread's files in /proc: no reason to end a step.
            let _ = detours.lay_like(OsStr::new("self"), OsStr::new(&thread.to_string()));
        }
    }

    /// A thread has ended.
    pub fn has_ended(&self, thread: i32) {
        if let Some(detours) = &self.detours {
            // Of those from before the tracer came there is none.
            let _ = detours.take_away(OsStr::new(&thread.to_string()));
        }
    }

    /// What a call names, as an absolute path of the step; none for a descriptor itself.
    pub fn path(&self, thread: i32, file: &Where) -> io::Result<Option<Vec<u8>>> {
        let Some(text) = text(thread, file)? else { return Ok(None) };
        self.absolute(thread, file.directory, text).map(Some)
    }

    /// Whether the kernel, for a step whose root is its own, does with what a call names what it should; `text` is the
    /// path in it.
    pub fn is_native(&self, thread: i32, file: &Where, text: Option<&[u8]>) -> io::Result<bool> {
        if let Some(text) = text
            && !(self.is_plain(text) && (text == b"." || self.stays(thread, file, text)?))
        {
            return Ok(false);
        }
        if !self.has_read_only || text.is_some_and(|text| text.first() == Some(&b'/')) {
            return Ok(true);
        }
        Ok(!self.is_read_only(&read_link(&descriptor(thread, file.directory))?))
    }

    /// What is said of a file in memory, by the link in /proc to it; none for others.
    pub fn owner_in_memory(&self, link: &Path, inode: u64) -> Option<Owner> {
        let (_, owner) = self.memory.iter().find(|(known, _)| *known == inode)?;
        std::fs::read_link(link).is_ok_and(|path| path.as_os_str().as_bytes().starts_with(b"/memfd:")).then_some(*owner)
    }

    /// Whether a path that is looked at as it stands, no link followed, leads nowhere but into the root. It is then the
    /// kernel's to resolve, for a step whose root is its own. Links in /dev lead to /proc.
    pub fn is_plain(&self, text: &[u8]) -> bool {
        let climbs = path::names(text).any(|name| name == b"..");
        if text.first() == Some(&b'/') && !climbs {
            let path = path::clean(text);
            return self.lead(&path).is_none() && path::below(&path, b"/dev").is_none();
        }
        // Relative to what, is worth a look only if it could matter.
        !climbs && !path::names(text).any(|name| self.is_in_a_target(name))
    }

    /// Whether no link takes a plain path out of the root: one on the way, or one at its end if that is followed.
    fn stays(&self, thread: i32, file: &Where, text: &[u8]) -> io::Result<bool> {
        let Some((head, name)) = near::split(text) else { return Ok(false) };
        // Where the caller is, or what it has open, lies in the root.
        if head.is_empty() && (!file.follow || !is_link(&descriptor(thread, file.directory), name)) {
            return Ok(true);
        }
        Ok(self.follow(thread, file, text)?.is_some())
    }

    fn is_in_a_target(&self, name: &[u8]) -> bool {
        self.words.binary_search_by(|word| word.as_slice().cmp(name)).is_ok()
    }

    /// What a call names, by the path in it, links at its end followed if they are to be; none where that is not in the
    /// root, or takes more to find out. For root, who may look into every directory.
    pub fn follow(&self, thread: i32, file: &Where, text: &[u8]) -> io::Result<Option<Followed>> {
        let mut link: Vec<u8>;
        let mut text = text;
        for _ in 0..=walk::HOPS {
            let Some((directory, name)) = self.near(thread, file.directory, text)? else { return Ok(None) };
            let stat = match rustix::fs::statx(&directory.file, name, AtFlags::SYMLINK_NOFOLLOW, STATUS) {
                Err(Errno::NOENT) => None,
                result => Some(result?),
            };
            if !(file.follow && stat.as_ref().is_some_and(|stat| kind(stat) == FileType::Symlink)) {
                let name = name.to_owned();
                return Ok(Some(Followed { directory, name, stat }));
            }
            let target = rustix::fs::readlinkat(&directory.file, name, Vec::new())?.into_bytes();
            link = if target.first() == Some(&b'/') { target } else { directory.join(&target) };
            text = &link;
        }
        Ok(None)
    }

    /// The directory of what a call names, by the path in it, and its last name, no link followed; none where that is not
    /// in the root, or takes more to find out. For root, who may look into every directory.
    pub fn near<'a>(&self, thread: i32, at: i32, text: &'a [u8]) -> io::Result<Option<(Arc<Directory>, &'a OsStr)>> {
        let Some((head, name)) = near::split(text) else { return Ok(None) };
        let directory = if head.first() == Some(&b'/') {
            self.directory(head)
        } else {
            // What cannot be said of it, the long way says.
            let Ok(base) = self.shown_link(thread, at) else { return Ok(None) };
            if head.is_empty() { self.directory(&base) } else { self.directory(&[&base, &b"/"[..], head].concat()) }
        };
        let names_the_view = self.is_in_a_target(name);
        let directory = match directory {
            // What is shown needs no directory.
            Err(error) if names_the_view && error.kind() == io::ErrorKind::NotFound => return Ok(None),
            found => found?,
        };
        let Some(directory) = directory else { return Ok(None) };
        let is_of_the_view = names_the_view && self.lead(&directory.join(name)).is_some();
        Ok((!is_of_the_view).then(|| (directory, OsStr::from_bytes(name))))
    }

    /// A directory of the root, by an absolute path; none for what is none, or lies elsewhere. That there is nothing, and
    /// nothing shown below it, is an error.
    fn directory(&self, path: &[u8]) -> io::Result<Option<Arc<Directory>>> {
        if let Some(known) = self.near.get(path) {
            return Ok(Some(known));
        }
        self.near.find(path, || {
            let clean = path::clean(path);
            let how = How { flags: HANDLE | OFlags::DIRECTORY, mode: Mode::empty(), who: None };
            if self.lead(&clean).is_some() {
                return Ok(None);
            }
            if !path::names(&clean).any(|name| name == b"..") {
                match inside(self.root.as_fd(), &clean, how, ResolveFlags::NO_SYMLINKS) {
                    Ok(file) => return Ok(Some(Directory::new(file, path::joined(path::names(&clean))))),
                    Err(Errno::NOENT) => return Err(errno(libc::ENOENT)),
                    Err(_) => {}
                }
            }
            let Ok(file) = inside(self.root.as_fd(), &clean, how, ResolveFlags::empty()) else { return Ok(None) };
            let host = host_path(&file)?;
            let real = if self.is_in_root(&host) { self.shown(&host) } else { None };
            Ok(real.filter(|real| self.lead(real).is_none()).map(|real| Directory::new(file, real)))
        })
    }

    /// A directory or a link has gone away or been moved.
    pub fn have_moved(&self) {
        self.near.forget();
    }

    pub fn absolute(&self, thread: i32, directory: i32, text: Vec<u8>) -> io::Result<Vec<u8>> {
        if text.first() == Some(&b'/') {
            return Ok(text);
        }
        let mut base = self.shown_link(thread, directory)?;
        base.push(b'/');
        base.extend(text);
        Ok(base)
    }

    /// The path that a thread knows its working directory or a descriptor by.
    pub fn shown_link(&self, thread: i32, directory: i32) -> io::Result<Vec<u8>> {
        let host = read_link(&descriptor(thread, directory))?;
        self.shown(&host).ok_or_else(|| errno(libc::ENOENT))
    }

    /// The path that the step knows a path of the host by; none when it has none.
    pub fn shown(&self, host: &[u8]) -> Option<Vec<u8>> {
        let below = |base: &[u8], target: &[u8]| {
            let rest = path::below(host, base)?;
            let mut shown = if target == b"/" { Vec::new() } else { target.to_vec() };
            shown.extend(rest);
            Some(if shown.is_empty() { b"/".to_vec() } else { shown })
        };
        if let Some(path) = self.programs.original(host) {
            return Some(path);
        }
        self.entries
            .iter()
            .find_map(|entry| match &entry.lead {
                Opened::Proc => below(b"/proc", &entry.target),
                Opened::Sys(_) => below(b"/sys", &entry.target),
                Opened::Device(device) => (host == *device).then(|| entry.target.clone()),
                Opened::Directory(_, path) => below(path, &entry.target),
                Opened::File(_) => None,
            })
            .or_else(|| below(&self.root_path, b"/"))
    }

    /// Opens what a call names, for nothing but looking at it; `text` is the path in it.
    pub fn look(
        &self,
        thread: i32,
        file: &Where,
        text: Option<Vec<u8>>,
        who: Option<&Credentials>,
    ) -> io::Result<OwnedFd> {
        match text {
            Some(text) => {
                let path = self.absolute(thread, file.directory, text)?;
                self.open_path(thread, &path, How::look(file.follow, who))
            }
            None => Ok(rustix::fs::open(descriptor(thread, file.directory), HANDLE, Mode::empty())?),
        }
    }

    /// What a link says.
    pub fn read_link(&self, thread: i32, path: &[u8], who: Option<&Credentials>) -> io::Result<Vec<u8>> {
        let real = self.real(thread, path, false, who)?;
        if let Some(Entry { lead: Opened::Proc, target, .. }) = self.lead(&real) {
            let rest = path::below(&real, target).unwrap_or_default();
            return self.read_proc_link(thread, rest.strip_prefix(b"/").unwrap_or(rest));
        }
        let file = self.open_path(thread, &real, How::look(false, who))?;
        match rustix::fs::readlinkat(file, "", Vec::new()) {
            // What is no link.
            Err(Errno::NOENT) => Err(errno(libc::EINVAL)),
            result => Ok(result?.into_bytes()),
        }
    }

    /// Whether the kernel, which knows only the root, finds this file by this path.
    pub fn is_found(&self, path: &[u8], file: &OwnedFd) -> bool {
        let same = || {
            let found = inside(self.root.as_fd(), path, How::look(true, None), ResolveFlags::empty())?;
            let (found, wanted) = (rustix::fs::fstat(found)?, rustix::fs::fstat(file)?);
            Ok::<_, Errno>((found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino))
        };
        same().unwrap_or(false)
    }

    pub fn root_path(&self) -> PathBuf {
        OsStr::from_bytes(&self.root_path).into()
    }

    /// Whether a path of the host lies in the root.
    pub fn is_in_root(&self, host: &[u8]) -> bool {
        path::below(host, &self.root_path).is_some()
    }

    /// Opens the directory for a new name; never one of the view's own.
    pub fn place(&self, thread: i32, place: &Where, who: Option<&Credentials>) -> io::Result<Place> {
        let text = text(thread, place)?.ok_or_else(|| errno(libc::ENOENT))?;
        if who.is_none_or(Credentials::is_root_for_files)
            && let Some((directory, name)) = self.near(thread, place.directory, &text)?
        {
            return directory.at(name);
        }
        self.place_at(thread, &self.absolute(thread, place.directory, text)?, who)
    }

    pub fn place_at(&self, thread: i32, path: &[u8], who: Option<&Credentials>) -> io::Result<Place> {
        let (head, name) = path::split(path);
        if matches!(name, b"" | b"." | b"..") {
            return Err(errno(libc::EBUSY));
        }
        let how = How { flags: HANDLE | OFlags::DIRECTORY, mode: Mode::empty(), who };
        let directory = self.open_path(thread, head, how)?;
        let mut real = self.shown(&host_path(&directory)?).ok_or_else(|| errno(libc::ENOENT))?;
        if let Some(entry) = self.lead(&real)
            && (entry.read_only || matches!(entry.lead, Opened::Proc | Opened::Sys(_)))
        {
            return Err(errno(libc::EROFS));
        }
        real.push(b'/');
        real.extend(name);
        if self.entries.iter().any(|entry| entry.target == path::clean(&real)) {
            return Err(errno(libc::EBUSY));
        }
        Ok(Place { directory, name: name.to_vec() })
    }

    /// Opens a path of the step.
    pub fn open_path(&self, thread: i32, path: &[u8], how: How<'_>) -> io::Result<OwnedFd> {
        let path = path::clean(path);
        let climbs = path::names(&path).any(|name| name == b"..");
        match self.lead(&path) {
            // The last name may still be a link, and in /proc every name may be a strange one.
            Some(Entry { lead: Opened::Proc, .. }) => self.walk_and_open(thread, &path, how),
            Some(_) if climbs => self.walk_and_open(thread, &path, how),
            Some(entry) => match self.open_lead(thread, entry, &path, how) {
                Err(error) if error.raw_os_error() == Some(libc::ELOOP) => self.walk_and_open(thread, &path, how),
                result => result,
            },
            None => {
                if !climbs {
                    match own(self.root.as_fd(), &path, how, ResolveFlags::NO_SYMLINKS) {
                        Err(Errno::LOOP) => {}
                        result => return Ok(result?),
                    }
                }
                let gently = How { flags: how.flags - OFlags::TRUNC, ..how };
                match own(self.root.as_fd(), &path, gently, ResolveFlags::empty()) {
                    Ok(file) => {
                        // A link may have led to where something else stands.
                        let real = self.shown(&host_path(&file)?);
                        if real.is_none_or(|real| self.lead(&real).is_some()) {
                            return self.walk_and_open(thread, &path, how);
                        }
                        if how.flags.contains(OFlags::TRUNC) && how.writes() {
                            rustix::fs::ftruncate(&file, 0)?;
                        }
                        Ok(file)
                    }
                    Err(Errno::NOENT | Errno::NOTDIR) => self.walk_and_open(thread, &path, how),
                    Err(error) => Err(error.into()),
                }
            }
        }
    }

    /// The entry that a path without links is in.
    fn lead(&self, path: &[u8]) -> Option<&Entry> {
        self.entries.iter().find(|entry| path::below(path, &entry.target).is_some())
    }

    fn open_lead(&self, thread: i32, entry: &Entry, path: &[u8], how: How<'_>) -> io::Result<OwnedFd> {
        let rest = path::below(path, &entry.target).unwrap_or_default();
        let rest = rest.strip_prefix(b"/").unwrap_or(rest);
        if entry.read_only && how.writes() {
            return Err(errno(libc::EROFS));
        }
        let itself = || if rest.is_empty() { Ok(()) } else { Err(errno(libc::ENOTDIR)) };
        let last = How { flags: (how.flags - OFlags::NOFOLLOW - OFlags::CREATE) | OFlags::NOCTTY, ..how };
        match &entry.lead {
            Opened::Proc => self.open_proc(thread, rest, how),
            Opened::Sys(_) if how.writes() => Err(errno(libc::EROFS)),
            Opened::Sys(directory) => Ok(inside(directory.as_fd(), rest, how, ResolveFlags::empty())?),
            Opened::Device(path) => {
                itself()?;
                turn::give_way();
                Ok(rustix::fs::open(OsStr::from_bytes(path), last.flags | OFlags::CLOEXEC, Mode::empty())?)
            }
            Opened::Directory(directory, _) if entry.target.starts_with(b"/dev/") => {
                Ok(inside(directory.as_fd(), rest, how, ResolveFlags::NO_SYMLINKS)?)
            }
            Opened::Directory(directory, _) => Ok(own(directory.as_fd(), rest, how, ResolveFlags::NO_SYMLINKS)?),
            Opened::File(file) => {
                itself()?;
                turn::give_way();
                // It may be a secret that is not this user's.
                let _acting = Acting::for_files(how.who)?;
                Ok(rustix::fs::open(link_to(file), last.flags | OFlags::CLOEXEC, Mode::empty())?)
            }
        }
    }

    fn walk_and_open(&self, thread: i32, path: &[u8], how: How<'_>) -> io::Result<OwnedFd> {
        let follow = !how.flags.contains(OFlags::NOFOLLOW);
        let real = self.real(thread, path, follow, how.who)?;
        match self.lead(&real) {
            Some(entry) => self.open_lead(thread, entry, &real, how),
            None => Ok(own(self.root.as_fd(), &real, how, ResolveFlags::NO_SYMLINKS)?),
        }
    }
}

/// The path in a call, as its caller wrote it; none when the descriptor itself is meant.
pub fn text(thread: i32, file: &Where) -> io::Result<Option<Vec<u8>>> {
    let Some(address) = file.path else { return Ok(None) };
    // Since Linux 6.11 no path at all means the same as an empty one.
    let path = if address == 0 && file.may_be_empty { Vec::new() } else { memory::read_string(thread, address)? };
    match path.is_empty() {
        true if file.may_be_empty => Ok(None),
        true => Err(errno(libc::ENOENT)),
        false => Ok(Some(path)),
    }
}

/// The link in /proc to a thread's working directory or to one of its descriptors.
pub fn descriptor(thread: i32, number: i32) -> String {
    if number == libc::AT_FDCWD { format!("{thread}/cwd") } else { format!("{thread}/fd/{number}") }
}

/// Whether a name in this directory is a link. The kernel tells what is wrong with it.
fn is_link(directory: &str, name: &[u8]) -> bool {
    let path = [directory.as_bytes(), b"/", name].concat();
    let stat = rustix::fs::statat(CWD, OsStr::from_bytes(&path), AtFlags::SYMLINK_NOFOLLOW);
    stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
}

fn read_link(path: &str) -> io::Result<Vec<u8>> {
    match std::fs::read_link(path) {
        Ok(target) => Ok(target.into_os_string().into_vec()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(errno(libc::EBADF)),
        Err(error) => Err(error),
    }
}

/// Where an open file lies on the host.
pub fn host_path(file: &impl AsFd) -> io::Result<Vec<u8>> {
    Ok(std::fs::read_link(link_to(file))?.into_os_string().into_vec())
}
