//! The folder that a task puts at the front of `PATH`: every tool that dockless answers to, as a link to dockless.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::base::Env;

/// The tools whose place dockless takes in a native build.
pub const NAMES: [&str; 5] = ["docker", "docker-compose", "img", "buildctl", "buildctl-daemonless.sh"];

/// Variables by which Makefiles choose their tool (`DOCKER ?= docker`), set where the caller left them unset.
pub const VARIABLES: [(&str, &str); 3] = [("DOCKER", "docker"), ("IMG", "img"), ("BUILDCTL", "buildctl")];

/// Makes the folder inside `dir`; `program` is dockless itself.
pub fn make(dir: &Path, program: &Path) -> io::Result<PathBuf> {
    let bin = dir.join("bin");
    std::fs::create_dir(&bin)?;
    for name in NAMES.iter().copied().chain(["dockless"]) {
        symlink(program, bin.join(name))?;
    }
    Ok(bin)
}

/// The caller's `PATH` with the folder in front.
pub fn path(env: &Env, bin: &Path) -> OsString {
    let mut path = OsString::from(bin);
    if !env.path().is_empty() {
        path.push(":");
        path.push(env.path());
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_is_a_link_to_the_program() {
        let dir = tempfile::tempdir().unwrap();
        let bin = make(dir.path(), Path::new("/opt/dockless")).unwrap();
        for name in NAMES {
            assert_eq!(std::fs::read_link(bin.join(name)).unwrap(), Path::new("/opt/dockless"));
        }
        assert_eq!(path(&Env::of([("PATH", "/bin")]), Path::new("/x/bin")), "/x/bin:/bin");
    }
}
