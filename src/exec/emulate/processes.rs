//! What a process whose names are looked at does to itself and to others: run a program, change its directory, ask what
//! the machine is called, send a signal.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{Access, FileType, Mode, OFlags};

use super::call::{Call, Where};
use super::files::kind;
use super::names::{host_path, process_of};
use super::paths::{Named, NearFile};
use super::permission::{EXECUTE, Guarded};
use super::programs::{self, Kind};
use super::{CONTINUE, DONE, Reply, errno, memory, value};

/// The length of each field of `struct utsname`.
const UTSNAME: usize = 65;

impl Named<'_> {
    pub(super) fn change_directory(&self, file: &Where) -> io::Result<Reply> {
        if file.path.is_some() && self.is_native(&[file])? {
            return CONTINUE;
        }
        let directory = self.look(file)?;
        self.may(&directory, &self.who, EXECUTE)?;
        if !self.names.own_root || self.names.is_in_root(&host_path(&directory)?) {
            return CONTINUE;
        }
        // A working directory outside of its root would let a process out.
        Err(errno(libc::EACCES))
    }

    pub(super) fn working_directory(&self, buffer: u64, size: u64) -> io::Result<Reply> {
        if self.names.own_root {
            return CONTINUE;
        }
        let mut path = self.names.shown_link(self.thread(), libc::AT_FDCWD)?;
        path.push(0);
        if path.len() as u64 > size {
            return Err(errno(libc::ERANGE));
        }
        memory::write(self.thread(), buffer, &path)?;
        value(i64::try_from(path.len()).unwrap_or(i64::MAX))
    }

    /// uname(2), with the name that the step's machine has.
    pub(super) fn name_machine(&self, buffer: u64) -> io::Result<Reply> {
        let host = rustix::system::uname();
        let fields = [
            host.sysname().to_bytes(),
            self.names.hostname.as_bytes(),
            host.release().to_bytes(),
            host.version().to_bytes(),
            host.machine().to_bytes(),
            host.domainname().to_bytes(),
        ];
        let mut bytes = Vec::with_capacity(fields.len() * UTSNAME);
        for field in fields {
            let end = bytes.len() + UTSNAME;
            bytes.extend(&field[..field.len().min(UTSNAME - 1)]);
            bytes.resize(end, 0);
        }
        memory::write(self.thread(), buffer, &bytes)?;
        DONE
    }

    /// A program is about to run: a setuid one makes its caller somebody else.
    pub(super) fn execute(&self, file: &Where) -> io::Result<Reply> {
        let text = self.text(file)?;
        if let Some(reply) = self.execute_near(file, text.as_deref())? {
            return Ok(reply);
        }
        let program = self.look(file)?;
        let guarded = self.check_program(&program)?;
        if let Ok(content) = programs::open(&program)
            && programs::is_narrow(&content)?
        {
            return Err(self.refuse_program(&host_path(&program)?, &Kind::Narrow));
        }
        if let (Some(place), Some(text)) = (file.path, text) {
            let room = text.len();
            let path = self.names.absolute(self.thread(), file.directory, text)?;
            if !self.names.is_found(&path, &program) {
                self.put_path(place, room, &host_path(&program)?)?;
            }
        }
        self.becomes(guarded)?;
        CONTINUE
    }

    /// The same of a program of root's that the kernel finds by its name as it stands.
    fn execute_near(&self, file: &Where, text: Option<&[u8]>) -> io::Result<Option<Reply>> {
        if !self.is_native_by(file, text)? {
            return Ok(None);
        }
        let Some(NearFile { directory, name, stat }) = self.near_file(file, text)? else { return Ok(None) };
        if kind(&stat) != FileType::RegularFile {
            return Ok(None);
        }
        let guarded = Guarded::by(&stat);
        guarded.permits(&self.who, EXECUTE)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let content = rustix::fs::openat(&directory.file, &name, flags, Mode::empty())?.into();
        if programs::is_narrow(&content)? {
            return Ok(None);
        }
        self.becomes(guarded)?;
        CONTINUE.map(Some)
    }

    /// Says which program it is that cannot run, and where it could: to its caller it is no program at all.
    pub(super) fn refuse_program(&self, host: &[u8], kind: &Kind) -> io::Error {
        let shown = self.names.shown(host).unwrap_or_default();
        let why = match kind {
            Kind::Foreign => {
                "programs for another processor cannot run here, since their emulator would see the paths of the host; \
                 they can where chroot or namespaces are allowed"
            }
            _ => "32-bit programs cannot run here; they can where namespaces are allowed",
        };
        eprintln!("dockless: {}: {why}", String::from_utf8_lossy(&shown));
        errno(libc::ENOEXEC)
    }

    /// Whether the caller may run a program; whose it is.
    pub(super) fn check_program(&self, program: &OwnedFd) -> io::Result<Guarded> {
        let guarded = self.guarded(program)?;
        if guarded.mode & libc::S_IFMT != libc::S_IFREG {
            return Err(errno(libc::EACCES));
        }
        self.may(program, &self.who, EXECUTE)?;
        Ok(guarded)
    }

    /// Makes the caller who this program makes it.
    pub(super) fn becomes(&self, program: Guarded) -> io::Result<()> {
        self.supervisor.becomes(self.thread(), program.mode, program.uid, program.gid)
    }

    /// Has the kernel find a program that it would not find by the path that its caller gave: by its path in the root,
    /// put where the other one is. A caller whose call succeeds never sees it again.
    fn put_path(&self, address: u64, room: usize, host: &[u8]) -> io::Result<()> {
        let shown =
            self.names.shown(host).filter(|_| self.names.is_in_root(host)).ok_or_else(|| errno(libc::EACCES))?;
        if shown.len() > room {
            return Err(errno(libc::ENOENT));
        }
        memory::write_through(self.thread(), address, &[&shown[..], b"\0"].concat())
    }

    /// Says why not: to the program it is an error like any other.
    pub(super) fn mount(&self) -> io::Result<Reply> {
        eprintln!(
            "dockless: this step called mount(2), which is not possible here; it is in a privileged container or as root, \
             with RUN --security=insecure"
        );
        Err(errno(libc::EPERM))
    }

    /// Nobody but the step's own processes is there for it.
    pub(super) fn touch(&self, process: i32) -> io::Result<Reply> {
        if process <= 0 || self.names.is_ours(process) { CONTINUE } else { Err(errno(libc::ESRCH)) }
    }

    /// Where calls are rewritten, whoever is traced is traced by us.
    pub(super) fn trace(&self, call: Call) -> io::Result<Reply> {
        match call {
            Call::Trace { thread } if !self.names.is_ours(thread) => Err(errno(libc::ESRCH)),
            _ if self.names.own_root => self.supervisor.leave_to_another(self.thread(), call),
            _ => CONTINUE,
        }
    }

    /// Signals go to the step's own processes.
    pub(super) fn kill(&self, process: i32, signal: i32) -> io::Result<Reply> {
        match process {
            0 => CONTINUE,
            -1 => {
                self.names.signal_all(process_of(self.thread())?, signal)?;
                DONE
            }
            _ => {
                let leader = process.saturating_abs();
                let exists = rustix::fs::access(leader.to_string(), Access::EXISTS).is_ok();
                if exists && leader != self.names.shepherd && !self.names.is_ours(leader) {
                    return Err(errno(libc::ESRCH));
                }
                if leader == self.names.shepherd {
                    return Err(errno(libc::EPERM));
                }
                CONTINUE
            }
        }
    }
}
