//! Order is law here: the stages of a sandbox's child come first (before any thread, before any allocation that
//! could fail loudly), then the surroundings are captured, then `cli` takes over.

use std::process::ExitCode;

use dockless::base::Env;

fn main() -> ExitCode {
    dockless::exec::startup();
    let cwd = match std::env::current_dir() {
        Ok(cwd) => cwd,
        Err(error) => {
            eprintln!("dockless: the working directory cannot be read: {error}");
            return ExitCode::from(1);
        }
    };
    let (uid, gid) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
    dockless::cli::main(Env::new(std::env::vars_os(), cwd, uid, gid))
}
