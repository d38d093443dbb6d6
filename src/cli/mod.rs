//! The only floor that prints. What was typed becomes a request, a request becomes work below, and what came out
//! becomes lines, files and an exit code. Other tools' command lines (faces) end in the same requests.

mod exit;
mod flags;
mod output;
mod progress;
mod report;
mod session;
mod template;

use std::process::ExitCode;

use crate::base::Env;

/// Runs the process's command line to its exit code.
pub fn main(env: Env) -> ExitCode {
    let _ = env;
    ExitCode::SUCCESS
}
