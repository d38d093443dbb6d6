//! The executor for places that allow mounts. Where there are all ids that images use, everything a step sees is
//! real; where there is one, the others are emulated.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread::Scope;

use super::emulate::{Answers, Credentials, Supervisor};
use super::plan::{self, HostFiles, Place, Stub};
use super::stream::{self, Emulation};
use super::wire::{self, Request};
use super::{Error, Executor, Exit, Io, Isolation, Process, Stdin, stage};
use crate::base::{Cancel, Digest};
use crate::sys::{Root, RootFs, SideTable};

/// Runs steps in namespaces.
pub struct Namespaced {
    program: PathBuf,
    place: Place,
    /// Where the stubs of mount points are kept, a directory for each set.
    stubs: PathBuf,
}

impl Namespaced {
    /// `work` is a directory of the state folder, made when it is missing.
    pub fn new(program: &Path, work: &Path, place: Place) -> Self {
        Self { program: program.to_owned(), place, stubs: work.join("stubs") }
    }
}

impl Executor for Namespaced {
    fn isolation(&self) -> Isolation {
        if self.place.many_ids { Isolation::Ns } else { Isolation::Ns1 }
    }

    fn run(&self, root: &RootFs, process: &Process, io: Io<'_>, cancel: &Cancel) -> Result<Exit, Error> {
        cancel.check()?;
        let failed = |call: &str| {
            let call = call.to_owned();
            move |source| Error::Setup { call, source }
        };
        let stubs = stub_directory(&self.stubs, &plan::stubs(process)).map_err(failed("make mount points"))?;
        let terminal = matches!(io.stdin, Stdin::Terminal);
        let host = HostFiles { resolv_conf: fs::read("/etc/resolv.conf").unwrap_or_default() };
        let plan = plan::plan(root, process, terminal, &self.place, &host, &stubs)?;
        let input = match io.stdin {
            Stdin::Null | Stdin::Terminal => None,
            Stdin::Inherit => Some(io::stdin()),
        };
        let stage =
            start(&self.program, &Request::Run(Box::new(plan)), input.as_ref()).map_err(failed("start the sandbox"))?;
        if self.place.many_ids {
            return stream::attend(stage, io, cancel, &mut Nobody);
        }
        let first = Credentials::new(process.uid, process.gid, process.groups.clone());
        let below = owners_below(root).map_err(failed("read the owner tables"))?;
        let supervisor = OnceLock::new();
        let exit = std::thread::scope(|scope| {
            let mut emulated = Emulated { supervisor: &supervisor, scope, start: Some((first, below)) };
            stream::attend(stage, io, cancel, &mut emulated)
        });
        if let Some(supervisor) = supervisor.into_inner() {
            let table = supervisor.finish().map_err(failed("emulate ownership"))?;
            keep_owners(root, table).map_err(failed("write the owner table"))?;
        }
        exit
    }
}

/// For steps whose calls the kernel answers.
pub struct Nobody;

impl Emulation for Nobody {
    fn begin(&mut self, _listener: OwnedFd) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn has_failed(&self) -> bool {
        false
    }
}

/// Starts the supervisor when the step's process hands its calls over.
struct Emulated<'scope, 'env> {
    supervisor: &'scope OnceLock<Supervisor>,
    scope: &'scope Scope<'scope, 'env>,
    start: Option<(Credentials, SideTable)>,
}

impl Emulation for Emulated<'_, '_> {
    fn begin(&mut self, listener: OwnedFd) -> io::Result<()> {
        let (first, below) = self.start.take().ok_or(io::ErrorKind::AlreadyExists)?;
        let answers = Answers::of_owners(first.user.real != 0);
        let supervisor = Supervisor::new(listener, first, below)?;
        self.supervisor.get_or_init(|| supervisor).start(answers, self.scope);
        Ok(())
    }

    fn has_failed(&self) -> bool {
        self.supervisor.get().is_some_and(Supervisor::has_failed)
    }
}

/// The directories of a root, topmost first.
fn layers(root: &RootFs) -> Vec<&Path> {
    match root {
        RootFs::Overlay { lower, upper, .. } => std::iter::once(upper).chain(lower).map(PathBuf::as_path).collect(),
        RootFs::Directory(directory) => vec![directory],
    }
}

/// What the owner tables of a root's layers say together: of a path, that of the topmost layer that has it.
fn owners_below(root: &RootFs) -> io::Result<SideTable> {
    let mut above: Vec<Root> = Vec::new();
    let mut all = SideTable::default();
    for layer in layers(root) {
        for (path, owner) in SideTable::load(layer)?.0 {
            if !above.iter().any(|layer| layer.locate(&path, false).is_ok()) {
                all.0.entry(path).or_insert(owner);
            }
        }
        above.push(Root::open(layer)?);
    }
    Ok(all)
}

/// Keeps what a step's table says of the files in its own layer.
fn keep_owners(root: &RootFs, mut table: SideTable) -> io::Result<()> {
    let Some(own) = layers(root).into_iter().next() else { return Ok(()) };
    let layer = Root::open(own)?;
    table.0.retain(|path, _| layer.locate(path, false).is_ok());
    table.store(own)
}

/// A sandbox process that has its request.
pub struct Stage {
    pub process: Child,
    pub control: OwnedFd,
}

/// Starts dockless again, as a sandbox stage, and gives it a request.
pub fn start(program: &Path, request: &Request, input: Option<&io::Stdin>) -> io::Result<Stage> {
    let (control, theirs) = wire::pair()?;
    let request = wire::request_file(request)?;
    let process = Command::new(program)
        .arg0(stage::NAME)
        .env_clear()
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut descriptors = vec![request.as_fd()];
    descriptors.extend(input.map(|input| input.as_fd()));
    wire::send(&control, &(), &descriptors)?;
    Ok(Stage { process, control })
}

/// A directory with these stubs in it. One set serves all steps that need the same; it is never written to again.
fn stub_directory(stubs: &Path, wanted: &[Stub]) -> io::Result<PathBuf> {
    let text: String = wanted.iter().map(|stub| format!("{}\0{}\0", stub.target, stub.directory)).collect();
    let directory = stubs.join(Digest::of(text).hex());
    if directory.is_dir() {
        return Ok(directory);
    }
    fs::create_dir_all(stubs)?;
    let beside = tempfile::tempdir_in(stubs)?;
    let root = Root::open(beside.path())?;
    for Stub { target, directory } in wanted {
        let target = Path::new(target);
        if *directory {
            root.make_dirs(target)?;
        } else {
            root.make_dirs(target.parent().unwrap_or(Path::new("/")))?;
            match root.create_file(target, 0o644) {
                // Two mounts at one place, one in the other: the first decides, and the sandbox will say if it can not.
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
    }
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(beside.path(), fs::Permissions::from_mode(0o755))?;
    match fs::rename(beside.path(), &directory) {
        Ok(()) => {
            // The name is gone, and must not be removed under whoever takes it next.
            let _ = beside.keep();
        }
        // Another process was faster.
        Err(_) if directory.is_dir() => {}
        Err(error) => return Err(error),
    }
    Ok(directory)
}
