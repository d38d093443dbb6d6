//! The executors, run for real: one suite, in every place that this machine can make.
//!
//! Sandbox stages are this very program started again, and a user namespace can only be entered by a process with one
//! thread, so this test has a `main` of its own: it runs itself once for each place.

mod ground;
mod places;
mod suite;
mod traps;
mod unmounted;

use std::process::ExitCode;

fn main() -> ExitCode {
    dockless::exec::startup();
    let args: Vec<_> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--list") {
        return ExitCode::SUCCESS;
    }
    if let Some(shared) = std::env::var_os(suite::VICTIM) {
        return suite::victim(shared.into());
    }
    // Options are libtest's own; what is left chooses cases by a part of their name.
    let args: Vec<_> = args.into_iter().filter(|arg| !arg.starts_with('-')).collect();
    match std::env::var(places::VARIABLE) {
        Ok(place) => suite::run(&place, &args),
        Err(_) => places::run_all(&args),
    }
}
