//! The executor for places that allow mounts and have all ids that images use: everything a step sees is real.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::plan::{self, HostFiles, Place, Stub};
use super::wire::{self, Request};
use super::{Error, Executor, Exit, Io, Isolation, Process, Stdin, stage, stream};
use crate::base::{Cancel, Digest};
use crate::sys::RootFs;

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
        Isolation::Ns
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
            Stdin::Inherit => Some(std::io::stdin()),
        };
        let stage =
            start(&self.program, &Request::Run(Box::new(plan)), input.as_ref()).map_err(failed("start the sandbox"))?;
        stream::attend(stage, io, cancel)
    }
}

/// A sandbox process that has its request.
pub struct Stage {
    pub process: Child,
    pub control: std::os::fd::OwnedFd,
}

/// Starts dockless again, as a sandbox stage, and gives it a request.
pub fn start(program: &Path, request: &Request, input: Option<&std::io::Stdin>) -> io::Result<Stage> {
    use std::os::fd::AsFd;
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
    let root = crate::sys::Root::open(beside.path())?;
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
