//! The executor for places that allow no mount. What /proc, /dev and a few other names lead to, and who a process is, the
//! supervisor answers. Where chroot is allowed, as in a container with its runtime's default profile, all other names
//! are the kernel's; elsewhere they are the supervisor's too.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::detour::Detours;
use super::emulate::Reach;
use super::ns::{self, Nobody};
use super::placing::Placing;
use super::plan::{self, Answered, Content, HostFiles, HostPath, Launch, Plan};
use super::step_folder::{Borrowed, StepFolder};
use super::stream;
use super::view::{self, Entry, Lead, View};
use super::wire::Request;
use super::{Error, Executor, Exit, Io, Isolation, Mount, MountSource, Network, Process, Stdin};
use crate::base::Cancel;
use crate::sys::{Root, RootFs};

/// Runs steps without namespaces.
pub struct Unmounted {
    program: PathBuf,
    /// Steps get a root of their own.
    chroot: bool,
    /// The executor's folder in the state folder.
    work: PathBuf,
}

/// A step's root as it must be while the step runs.
struct Ground {
    placing: Placing,
    entries: Vec<Entry>,
    /// What realpath asks is the kernel's, who knows nothing of folders that are closed to a step's user: root's only.
    detours: bool,
    /// Where in the root something was placed, and whether to be looked at only.
    placed: Vec<(PathBuf, bool)>,
    borrowed: Vec<Borrowed>,
    folder: StepFolder,
}

fn hostname(process: &Process) -> &str {
    process.hostname.as_deref().unwrap_or(plan::HOSTNAME)
}

fn failed(call: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let call = call.into();
    move |source| Error::Setup { call, source }
}

impl Unmounted {
    pub fn new(program: &Path, work: &Path, chroot: bool) -> Self {
        Self { program: program.to_owned(), chroot, work: work.to_owned() }
    }

    fn unsupported(&self, what: impl Into<String>, hint: &str) -> Error {
        Error::Unsupported { what: what.into(), isolation: self.isolation(), hint: hint.into() }
    }

    fn prepare(&self, root: &Path, process: &Process, cancel: &Cancel) -> Result<Ground, Error> {
        let folder = StepFolder::make(&self.work.join("steps")).map_err(failed("make a folder for the step"))?;
        let placing = Placing::new(root).map_err(failed(format!("open {}", root.display())))?;
        let detours = self.chroot && process.uid == 0;
        let entries = View::of_kernel();
        let mut ground = Ground { placing, entries, detours, placed: Vec::new(), borrowed: Vec::new(), folder };
        let furnished = ground.furnish(self, process, cancel).and_then(|()| {
            if ground.shows(&process.cwd) {
                return Ok(());
            }
            Root::open(root)
                .and_then(|root| root.make_dirs(Path::new(&process.cwd)))
                .map_err(failed(format!("make the working directory {}", process.cwd)))
        });
        match furnished {
            Ok(()) => Ok(ground),
            Err(error) => {
                ground.clear()?;
                Err(error)
            }
        }
    }
}

impl Executor for Unmounted {
    fn isolation(&self) -> Isolation {
        if self.chroot { Isolation::Chroot } else { Isolation::Rewrite }
    }

    fn run(&self, root: &RootFs, process: &Process, io: Io<'_>, cancel: &Cancel) -> Result<Exit, Error> {
        cancel.check()?;
        plan::check(process, self.isolation())?;
        if process.insecure {
            return Err(self.unsupported("a step with all privileges", "it needs root on the machine itself"));
        }
        let RootFs::Directory(directory) = root else {
            return Err(self.unsupported("a layered root", "nothing can be mounted here"));
        };
        let directory = fs::canonicalize(directory).map_err(failed("find the step's root"))?;
        let ground = self.prepare(&directory, process, cancel)?;
        let terminal = matches!(io.stdin, Stdin::Terminal);
        let reach = if self.chroot { Reach::OwnRoot } else { Reach::Host };
        let placed = ground.placed.iter().map(|(place, _)| HostPath::from(&directory.join(place))).collect();
        let plan = Plan {
            namespaces: None,
            view: Some(View {
                root: HostPath::from(&directory),
                entries: ground.entries.clone(),
                placed,
                detours: ground.detours.then(|| HostPath::from(&directory.join("proc"))),
                hostname: hostname(process).to_owned(),
                programs: HostPath::from(&ground.folder.path().join("programs")),
            }),
            setup: Vec::new(),
            launch: Launch {
                root: Some(HostPath::from(&directory)),
                detours: ground.detours,
                offline: process.network == Network::None,
                ..plan::launch(process, Answered::Names(reach), terminal)
            },
        };
        let input = match io.stdin {
            Stdin::Null | Stdin::Terminal => None,
            Stdin::Inherit => Some(io::stdin()),
        };
        let exit = ns::start(&self.program, &Request::Run(Box::new(plan)), input.as_ref())
            .map_err(failed("start the sandbox"))
            .and_then(|stage| stream::attend(stage, io, cancel, &mut Nobody));
        ground.clear()?;
        exit
    }
}

impl Ground {
    fn furnish(&mut self, executor: &Unmounted, process: &Process, cancel: &Cancel) -> Result<(), Error> {
        for target in ["/proc", "/sys"] {
            self.kernel_files(target).map_err(failed(format!("make {target}")))?;
        }
        self.devices(executor.chroot).map_err(failed("make /dev"))?;
        let host = HostFiles { resolv_conf: fs::read("/etc/resolv.conf").unwrap_or_default() };
        for (name, content) in plan::etc_files(process, hostname(process), &host) {
            let path = self.folder.path().join(name);
            fs::write(&path, content).map_err(failed(format!("write {name}")))?;
            self.lead(&format!("/etc/{name}"), Lead::Host(HostPath::from(&path)), false);
        }
        if executor.chroot {
            self.borrow(executor, process, cancel)?;
        }
        for (number, mount) in process.mounts.iter().enumerate() {
            self.mount(executor, number, mount)?;
        }
        self.protect().map_err(failed("protect read-only mounts"))
    }

    /// Gives names to what is placed and must not be written to: of that the kernel knows nothing. And to what lies in it
    /// and may be.
    fn protect(&mut self) -> io::Result<()> {
        let placed = self.placed.clone();
        let root = self.placing.root_path()?;
        for (place, read_only) in &placed {
            if placed.iter().any(|(other, read_only)| *read_only && place.starts_with(other)) {
                let lead = Lead::Host(HostPath::from(&root.join(place)));
                self.lead(&place.to_string_lossy(), lead, *read_only);
            }
        }
        Ok(())
    }

    /// A directory whose content is only names.
    fn kernel_files(&mut self, target: &str) -> io::Result<()> {
        if !self.detours {
            return self.placing.mark(Path::new(target), true);
        }
        let directory = self.folder.directory(target.trim_start_matches('/'), 0o755)?;
        let names = fs::read_dir(target).into_iter().flatten().flatten().map(|entry| entry.file_name());
        // Processes get theirs when they start.
        let names = names.filter(|name| !name.as_encoded_bytes().first().is_some_and(u8::is_ascii_digit));
        Detours::open(&directory)?.lay_all(names)?;
        self.show(&directory, target, true, false)
    }

    /// A directory that looks like /dev; the devices in it are only names.
    fn devices(&mut self, chroot: bool) -> io::Result<()> {
        let dev = self.folder.directory("dev", 0o755)?;
        for name in view::DEVICES {
            fs::write(dev.join(name), "")?;
        }
        for (name, to) in view::DEVICE_LINKS {
            symlink(to, dev.join(name))?;
        }
        self.folder.directory("dev/shm", 0o1777)?;
        self.folder.directory("dev/mqueue", 0o1777)?;
        // A directory: find aborts where a name in one is listed as a link, and is none. Few steps have more terminals.
        let pts = self.folder.directory("dev/pts", 0o755)?;
        if self.detours {
            Detours::open(&pts)?.lay_all(["ptmx", "0", "1", "2", "3"])?;
        }
        self.show(&dev, "/dev", chroot, false)
    }

    /// Has the step see a directory of ours: where programs are run by the kernel, in its place; else as a name.
    fn show(&mut self, from: &Path, target: &str, chroot: bool, read_only: bool) -> io::Result<()> {
        if chroot {
            let place = self.placing.place(from, Path::new(target))?;
            self.placed.push((place, read_only));
            return Ok(());
        }
        self.placing.mark(Path::new(target), from.is_dir())?;
        self.lead(target, Lead::Host(HostPath::from(from)), read_only);
        Ok(())
    }

    /// Whether a path leads to something that is shown as a name.
    fn shows(&self, path: &str) -> bool {
        self.entries.iter().any(|entry| Path::new(path).starts_with(&entry.target))
    }

    fn lead(&mut self, target: &str, lead: Lead, read_only: bool) {
        let names: Vec<_> = target.split('/').filter(|name| !name.is_empty() && *name != ".").collect();
        self.entries.push(Entry { target: format!("/{}", names.join("/")), lead, read_only });
    }

    /// Takes all that will be moved, in an order that no two steps can wait for each other in.
    fn borrow(&mut self, executor: &Unmounted, process: &Process, cancel: &Cancel) -> Result<(), Error> {
        let mut paths: Vec<&Path> = Vec::new();
        for mount in &process.mounts {
            if let MountSource::Bind(path) = &mount.source
                && executor.is_lent(path)
            {
                paths.push(path);
            }
        }
        paths.sort();
        for (number, path) in paths.iter().enumerate() {
            if number > 0 && paths[number - 1] == *path {
                return Err(executor.unsupported(
                    "one cache at two places",
                    "it would have to be moved to both; --isolation=rewrite shows it at both",
                ));
            }
            let borrowed = Borrowed::take(&executor.work.join("lent"), path, cancel);
            self.borrowed.push(borrowed.map_err(failed(format!("borrow {}", path.display())))?);
        }
        Ok(())
    }

    fn mount(&mut self, executor: &Unmounted, number: usize, mount: &Mount) -> Result<(), Error> {
        let Mount { target, source, read_only } = mount;
        let what = || format!("put a mount at {target}");
        let chroot = executor.chroot;
        match source {
            MountSource::Tmpfs { mode, .. } => {
                let fresh = self.folder.directory(&format!("fresh{number}"), mode.unwrap_or(0o1777));
                fresh.and_then(|fresh| self.show(&fresh, target, chroot, *read_only)).map_err(failed(what()))
            }
            MountSource::RootFs { root: RootFs::Directory(root), subpath } => {
                let found = Root::open(root).and_then(|root| root.locate(subpath, true));
                let from = found.and_then(|file| fs::read_link(crate::sys::mount::descriptor_path(&file)));
                from.and_then(|from| self.show(&from, target, chroot, *read_only)).map_err(failed(what()))
            }
            MountSource::RootFs { .. } => Err(executor.unsupported("a layered mount", "nothing can be mounted here")),
            MountSource::Secret { value, mode, uid, gid } => {
                self.placing.mark(Path::new(target), false).map_err(failed(what()))?;
                let content = Content(value.expose().to_vec());
                self.lead(target, Lead::Memory { content, mode: *mode, uid: *uid, gid: *gid }, *read_only);
                Ok(())
            }
            MountSource::Bind(path) if chroot && executor.is_lent(path) => {
                self.show(path, target, chroot, *read_only).map_err(failed(what()))
            }
            MountSource::Bind(path) if chroot && path.is_dir() => Err(executor.unsupported(
                format!("the directory {} at {target}", path.display()),
                "it would have to be moved, and might be lost; --isolation=rewrite shows it where it is",
            )),
            MountSource::Bind(path) => {
                let path = fs::canonicalize(path).map_err(failed(what()))?;
                self.placing.mark(Path::new(target), path.is_dir()).map_err(failed(what()))?;
                self.lead(target, Lead::Host(HostPath::from(&path)), *read_only);
                Ok(())
            }
        }
    }

    fn clear(self) -> Result<(), Error> {
        self.placing.undo().map_err(failed("take the step's mounts away"))?;
        for borrowed in self.borrowed {
            borrowed.give_back().map_err(failed("give a cache folder back"))?;
        }
        self.folder.remove().map_err(failed("remove the step's folder"))
    }
}

impl Unmounted {
    /// Whether what lies at a path may be moved into a step's root: what is dockless's own and no more than a cache, a
    /// socket that it made.
    fn is_lent(&self, path: &Path) -> bool {
        let Some(state) = self.work.parent() else { return false };
        ["cache", "tmp"].iter().any(|folder| path.starts_with(state.join(folder)))
    }
}
