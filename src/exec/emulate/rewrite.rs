//! Calls that only their caller can make: to run a program, to change the working directory, to use a socket's name, to
//! watch a file. Where a path does not mean to the kernel what it means to the step, the caller is stopped before such a
//! call and makes it with another path.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use super::call::{Call, Where};
use super::names::{Names, host_path};
use super::paths::Named;
use super::permission::{EXECUTE, WRITE};
use super::programs::{self, Kind};
use super::{Supervisor, errno, memory};
use crate::sys::notify::Notification;
use crate::sys::trace::Pending;

/// As many interpreters of interpreters as the kernel follows.
const SCRIPTS: usize = 5;
/// Descriptors that callers may still be on the way to. Each is used at once.
const HELD: usize = 64;
/// A program's arguments and environment, in numbers: the kernel's own limit is in bytes.
const MAX_ARGUMENTS: usize = 1 << 17;
/// `struct sockaddr_un`.
const MAX_ADDRESS: usize = 110;

/// Rewrites the calls of one step.
pub struct Rewriter<'a> {
    supervisor: &'a Supervisor,
    held: VecDeque<OwnedFd>,
}

/// What a program is started with instead.
struct Start {
    path: Vec<u8>,
    /// What comes in place of the first argument; nothing for a program that is no script.
    before: Vec<Vec<u8>>,
}

impl<'a> Rewriter<'a> {
    pub fn new(supervisor: &'a Supervisor) -> Self {
        Self { supervisor, held: VecDeque::new() }
    }

    /// Rewrites the call before which a thread is stopped.
    pub fn rewrite(&mut self, thread: i32) -> io::Result<()> {
        let pending = Pending::of(thread)?;
        let (number, arguments) = (pending.number(), pending.arguments());
        match self.attempt(thread, &pending, number, arguments) {
            Ok(Some((number, arguments))) => pending.replace(number, arguments),
            Ok(None) => Ok(()),
            Err(error) => pending.refuse(error.raw_os_error().unwrap_or(libc::EIO)),
        }
    }

    /// The call to make instead; none if it is fine as it is.
    fn attempt(
        &mut self,
        thread: i32,
        pending: &Pending,
        number: i64,
        arguments: [u64; 6],
    ) -> io::Result<Option<(i64, [u64; 3])>> {
        let supervisor = self.supervisor;
        let names = supervisor.names.as_ref().ok_or_else(|| errno(libc::ENOSYS))?;
        let notification = Notification::stopped(thread, number, arguments);
        let named = Named::of(supervisor, names, &notification)?;
        let [a, b, c, ..] = arguments;
        match (number, super::call::decode(number, arguments)) {
            (_, Some(Call::Execute { file })) => {
                supervisor.listener.settle();
                let (list, environment) = if number == libc::SYS_execveat { (c, arguments[3]) } else { (b, c) };
                let start = start(&named, names, &file)?;
                let (path, list) = put_start(thread, pending, &start, list)?;
                Ok(Some((libc::SYS_execve, [path, list, environment])))
            }
            (_, Some(Call::ChangeDirectory { file })) => {
                let directory = named.look(&file)?;
                named.may(&directory, &named.who, EXECUTE)?;
                let path = self.put_link(thread, pending, directory, b"")?;
                Ok(Some((number, [path, b, c])))
            }
            (libc::SYS_inotify_add_watch, _) => {
                let follow = c as u32 & libc::IN_DONT_FOLLOW == 0;
                let file = Where { directory: libc::AT_FDCWD, path: Some(b), follow, may_be_empty: false };
                let path = self.put_link(thread, pending, named.look(&file)?, b"")?;
                let mask = c & !u64::from(libc::IN_DONT_FOLLOW);
                Ok(Some((number, [a, path, mask])))
            }
            (libc::SYS_bind | libc::SYS_connect, _) => {
                let Some(path) = socket_path(thread, b, c)? else { return Ok(None) };
                let (at, length) = self.put_address(thread, pending, &named, &path, number == libc::SYS_bind)?;
                Ok(Some((number, [a, at, length])))
            }
            _ => Err(errno(libc::ENOSYS)),
        }
    }

    /// A short path to an open file, and perhaps a name in it. The file stays open for a while.
    fn link(&mut self, file: OwnedFd, name: &[u8]) -> Vec<u8> {
        let mut path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()).into_bytes();
        if !name.is_empty() {
            path.push(b'/');
            path.extend(name);
        }
        if self.held.len() == HELD {
            self.held.pop_front();
        }
        self.held.push_back(file);
        path
    }

    fn put_link(&mut self, thread: i32, pending: &Pending, file: OwnedFd, name: &[u8]) -> io::Result<u64> {
        let mut path = self.link(file, name);
        path.push(0);
        let at = pending.scratch(path.len());
        memory::write(thread, at, &path)?;
        Ok(at)
    }

    /// The address of a socket that means to the kernel what this path means to the step.
    fn put_address(
        &mut self,
        thread: i32,
        pending: &Pending,
        named: &Named<'_>,
        path: &[u8],
        new: bool,
    ) -> io::Result<(u64, u64)> {
        let path = named.absolute(path)?;
        let link = if new {
            let place = named.new_place_at(&path).map_err(|error| match error.raw_os_error() {
                Some(libc::EEXIST) => errno(libc::EADDRINUSE),
                _ => error,
            })?;
            self.link(place.directory, &place.name)
        } else {
            let socket = named.look_at(&path)?;
            named.may(&socket, &named.who, WRITE)?;
            self.link(socket, b"")
        };
        let mut address = libc::AF_UNIX.to_ne_bytes()[..2].to_vec();
        address.extend(link);
        address.push(0);
        if address.len() > MAX_ADDRESS {
            return Err(errno(libc::ENAMETOOLONG));
        }
        let at = pending.scratch(address.len());
        memory::write(thread, at, &address)?;
        Ok((at, address.len() as u64))
    }
}

/// The path in a socket's address; none for other kinds of addresses, and for those without one.
fn socket_path(thread: i32, address: u64, length: u64) -> io::Result<Option<Vec<u8>>> {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if !(3..=MAX_ADDRESS).contains(&length) {
        return Ok(None);
    }
    let mut bytes = vec![0; length];
    memory::read(thread, address, &mut bytes)?;
    let family = i32::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
    let path: Vec<u8> = bytes[2..].iter().copied().take_while(|byte| *byte != 0).collect();
    Ok((family == libc::AF_UNIX && !path.is_empty()).then_some(path))
}

/// Finds what really starts when a program is run, and makes its caller who it makes them.
fn start(named: &Named<'_>, names: &Names, file: &Where) -> io::Result<Start> {
    let mut program = named.look(file)?;
    let mut before: Vec<Vec<u8>> = Vec::new();
    for _ in 0..SCRIPTS {
        let mode = named.check_program(&program)?;
        let host = host_path(&program)?;
        let shown = names.shown(&host).ok_or_else(|| errno(libc::EACCES))?;
        // A copy that somebody names by its link in /proc.
        if names.programs.original(&host).is_some() {
            program = named.look_at(&shown)?;
            continue;
        }
        let content = programs::open(&program)?;
        match programs::kind(&content)? {
            Kind::Script { interpreter, argument } => {
                // The script's path as its caller wrote it comes in place of the first argument.
                let text = if before.is_empty() { named.text(file)?.unwrap_or(shown) } else { before.remove(0) };
                let mut list: Vec<Vec<u8>> =
                    [Some(interpreter.clone()), argument, Some(text)].into_iter().flatten().collect();
                list.extend(before);
                before = list;
                program = named.look_at(&named.absolute(&interpreter)?)?;
            }
            kind @ (Kind::Narrow | Kind::Foreign) => return Err(named.refuse_program(&host, &kind)),
            Kind::Plain => {
                named.becomes(mode)?;
                return Ok(Start { path: host, before });
            }
            Kind::Dynamic(loader) => {
                let there = host_path(&named.look_at(&named.absolute(&loader.path)?)?)?;
                let path = names.programs.with_loader(&content, &shown, &loader, &there)?;
                named.becomes(mode)?;
                return Ok(Start { path, before });
            }
        }
    }
    Err(errno(libc::ELOOP))
}

/// Puts a program's path, and its arguments if they are others, where the kernel will read them. `list` is where the
/// caller's arguments are.
fn put_start(thread: i32, pending: &Pending, start: &Start, list: u64) -> io::Result<(u64, u64)> {
    let mut strings = [&start.path[..], b"\0"].concat();
    let mut offsets = Vec::with_capacity(start.before.len());
    for text in &start.before {
        offsets.push(strings.len() as u64);
        strings.extend(text);
        strings.push(0);
    }
    let mut pointers: Vec<u64> = Vec::new();
    if !start.before.is_empty() {
        // Behind the first argument, up to and with the end.
        let mut at = list;
        for index in 0.. {
            let mut word = [0; 8];
            if at != 0 {
                memory::read(thread, at, &mut word)?;
            }
            let word = u64::from_ne_bytes(word);
            if index > 0 || word == 0 {
                pointers.push(word);
            }
            if word == 0 {
                break;
            }
            if index > MAX_ARGUMENTS {
                return Err(errno(libc::E2BIG));
            }
            at += 8;
        }
    }
    let table = (offsets.len() + pointers.len()) * 8;
    let at = pending.scratch(strings.len().next_multiple_of(16) + table);
    memory::write(thread, at + table as u64, &strings)?;
    let path = at + table as u64;
    if start.before.is_empty() {
        return Ok((path, list));
    }
    let words: Vec<u8> =
        offsets.iter().map(|offset| path + offset).chain(pointers).flat_map(u64::to_ne_bytes).collect();
    memory::write(thread, at, &words)?;
    Ok((path, at))
}
