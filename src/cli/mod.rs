//! The only floor that prints. What was typed becomes a request, a request becomes work below, and what came out
//! becomes lines, files and an exit code. Other tools' command lines (faces) end in the same requests.

mod bake;
mod cache;
mod call;
mod changes;
mod context;
mod definition;
mod exit;
mod faces;
mod flags;
mod given;
mod hidden;
mod limits;
mod output;
mod progress;
mod report;
mod session;
mod solve;
mod switches;
mod table;
mod template;
mod verbs;

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use crate::base::Env;
use crate::engine::Settings;

use exit::Exit;
use faces::{buildctl, docker, dockless, img, kaniko, oci_build};
use session::{Chosen, Face, Session};
use verbs::resource;

/// Runs the process's command line to its exit code.
pub fn main(env: Env) -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    let name = words.first().and_then(|word| Path::new(word).file_name()).unwrap_or_default();
    let name = name.to_string_lossy().into_owned();
    let mut words = words;
    if name == "docker-compose" {
        words[0] = "docker".into();
        words.insert(1, "compose".into());
    }
    let code = match name.as_str() {
        "docker" | "docker-compose" => parsed(Face::Docker, env, &words, |docker: docker::Docker, env, chosen| {
            // Docker's flag for what is otherwise a variable.
            let env = match &docker.config {
                Some(dir) => env.with("DOCKER_CONFIG", dir),
                None => env,
            };
            log(docker.debug);
            let chosen = Chosen { debug: docker.debug, ..chosen };
            finish(&Session::new(env, Face::Docker, chosen), |session| docker::run(docker, session))
        }),
        "img" => parsed(Face::Img, env, &words, |img: img::Img, env, chosen| {
            log(img.debug);
            let chosen = Chosen { state: img.state.clone(), debug: img.debug, ..chosen };
            finish(&Session::new(env, Face::Img, chosen), |session| img::run(img, session))
        }),
        "buildctl" | "buildctl-daemonless.sh" => {
            parsed(Face::Buildctl, env, &words, |args: buildctl::Buildctl, env, chosen| {
                log(args.debug);
                let chosen = Chosen { debug: args.debug, ..chosen };
                finish(&Session::new(args.env(env), Face::Buildctl, chosen), |session| buildctl::run(args, session))
            })
        }
        "build" => parsed(Face::Build, env, &words, |_: oci_build::OciBuild, env, chosen| {
            let chosen = Chosen { state: oci_build::state(&env), ..chosen };
            finish(&Session::new(env, Face::Build, chosen), oci_build::run)
        }),
        "executor" => parsed(Face::Kaniko, env, &words, |args: kaniko::Kaniko, env, chosen| {
            log(args.debug());
            let chosen = Chosen { debug: args.debug(), ..chosen };
            finish(&Session::new(env, Face::Kaniko, chosen), |session| kaniko::run(&args, session))
        }),
        "check" | "in" | "out" => {
            // The protocol has no flags: the word before the folder is the program's own name.
            words[0] = "resource".into();
            words.insert(1, name.into());
            parsed(Face::Resource, env, &words, |args: Resource, env, chosen| {
                finish(&Session::new(env, Face::Resource, chosen), |session| resource::run(args.verb, session))
            })
        }
        _ => parsed(Face::Dockless, env, &words, |args: dockless::Dockless, env, _| {
            log(args.debug);
            let settings = Settings { isolation: args.isolation, ..Settings::default() };
            let chosen = Chosen { state: args.state.clone(), settings, engine: args.engines(), debug: args.debug };
            finish(&Session::new(env, Face::Dockless, chosen), |session| dockless::run(args, session))
        }),
    };
    ExitCode::from(code)
}

/// `check`, `in` and `out` as programs.
#[derive(Debug, Parser)]
struct Resource {
    #[command(subcommand)]
    verb: resource::Args,
}

/// Reads a face's words, and answers those that it does not understand, or that ask for help, itself.
fn parsed<T: Parser>(face: Face, env: Env, words: &[OsString], run: impl FnOnce(T, Env, Chosen) -> u8) -> u8 {
    // Docker's switches may be given a value, `--pull=false`; clap's may not.
    let typed = switches::plain(&T::command(), words);
    match T::try_parse_from(&typed) {
        Ok(args) => match Chosen::of(&env) {
            Ok(chosen) => run(args, env, chosen),
            Err(error) => finish(&Session::new(env, face, Chosen::default()), |_| Err(error)),
        },
        Err(error) => {
            // Nothing can be done for a reader that went away.
            let _ = match unsupported(&error) {
                Some((verb, instead)) => writeln!(
                    std::io::stderr().lock(),
                    "{name}: {name} {verb} is not supported; {instead}",
                    name = face.name()
                ),
                None => error.print(),
            };
            match error.kind() {
                clap::error::ErrorKind::DisplayHelp | clap::error::ErrorKind::DisplayVersion => 0,
                _ => face.code(Exit::Usage),
            }
        }
    }
}

/// A verb of docker's that dockless has not, and what to do instead.
fn unsupported(error: &clap::Error) -> Option<(&str, &'static str)> {
    use clap::error::{ContextKind, ContextValue};
    match error.get(ContextKind::InvalidSubcommand)? {
        ContextValue::String(verb) => Some((verb, docker::instead(verb)?)),
        _ => None,
    }
}

/// Runs a verb, says what went wrong, and gives the face's number for it.
fn finish(session: &Session, run: impl FnOnce(&Session) -> anyhow::Result<Exit>) -> u8 {
    match run(session) {
        Ok(exit) => session.face.code(exit),
        Err(error) => {
            let report = report::report(&error, session.face.name(), session.env.cwd(), progress::colour(&session.env));
            // Nothing can be done for a reader that went away.
            let _ = std::io::stderr().lock().write_all(report.text.as_bytes());
            session.face.code(report.exit)
        }
    }
}

/// Sends the library's traces to stderr, where they were asked for.
fn log(debug: bool) {
    if debug {
        let filter = tracing_subscriber::EnvFilter::new("dockless=debug");
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
}
