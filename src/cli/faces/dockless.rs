//! dockless's own command line: docker's verbs, and what only dockless does.

use std::path::PathBuf;

use clap::{CommandFactory, Parser, Subcommand};

use crate::cli::exit::Exit;
use crate::cli::session::{self, Session};
use crate::cli::verbs::{debug, disk, doctor, expand, pages, resource, rootfs, task, trim, unpack, version};
use crate::engine::Places;
use crate::exec::Isolation;

use super::docker;

/// Builds container images with a project's own build, with no daemon and no privileges.
#[derive(Debug, Parser)]
#[command(name = "dockless", version = version::VERSION, subcommand_required = true, arg_required_else_help = true)]
#[command(override_help = HELP)]
pub struct Dockless {
    /// State folder [default: $DOCKLESS_STATE, else ~/.local/share/dockless]
    #[arg(long, value_name = "DIR", global = true)]
    pub state: Option<PathBuf>,
    /// How RUN steps are boxed: auto, ns, ns1, chroot, rewrite
    #[arg(long, value_name = "NAME", default_value = "auto", env = session::ISOLATION)]
    #[arg(hide_default_value = true, global = true)]
    pub isolation: Isolation,
    /// Where builds happen: local, buildkit://HOST:PORT, unix://PATH, docker://PATH; several (A,B or repeated) share
    /// the builds [default: $DOCKLESS_ENGINE, else $BUILDKIT_HOST, else local]
    #[arg(long = "engine", value_name = "ADDRESS", global = true)]
    engines: Vec<Places>,
    /// Log what dockless does
    #[arg(short = 'D', long, global = true)]
    pub debug: bool,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Clone, Subcommand)]
pub enum Verb {
    Task(Box<task::Args>),
    Expand(expand::Args),
    Unpack(unpack::Args),
    #[command(subcommand)]
    Rootfs(rootfs::Args),
    Du(disk::DuArgs),
    Prune(disk::PruneArgs),
    Trim(trim::Args),
    Doctor(doctor::Args),
    /// Look inside: the parsed Dockerfile, the graph
    #[command(subcommand)]
    Debug(debug::Args),
    /// Concourse's resource protocol: check, in, out
    #[command(subcommand)]
    Resource(resource::Args),
    Man(pages::ManArgs),
    Completion(pages::CompletionArgs),
    #[command(flatten)]
    Docker(docker::Verb),
}

impl Dockless {
    /// All that `--engine` names.
    pub fn engines(&self) -> Option<Places> {
        self.engines.iter().cloned().reduce(Places::and)
    }
}

pub fn run(dockless: Dockless, session: &Session) -> anyhow::Result<Exit> {
    match dockless.verb {
        Verb::Task(args) => task::run(*args, session),
        Verb::Expand(args) => expand::run(args, session),
        Verb::Unpack(args) => unpack::run(args, session),
        Verb::Rootfs(args) => rootfs::run(args, session),
        Verb::Du(args) => disk::du(args, session),
        Verb::Prune(args) => disk::prune(args, session),
        Verb::Trim(args) => trim::run(args, session),
        Verb::Doctor(args) => doctor::run(args, session),
        Verb::Debug(args) => debug::run(args, session),
        Verb::Resource(args) => resource::run(args, session),
        Verb::Man(args) => pages::man(args, Dockless::command(), session),
        Verb::Completion(args) => pages::completion(args, Dockless::command()),
        Verb::Docker(verb) => docker::verb(verb, session),
    }
}

const HELP: &str = "\
Builds container images with a project's own build, with no daemon and no privileges.

Usage: dockless [OPTIONS] COMMAND [ARGS]

The main job
  task        run the project's own build (default: make release), lay out every image that it made
  build       build an image from a Dockerfile
  bake        build the targets of a bake or compose file
  expand      lay out one image: image.tar, digest, root file system, picked files

Images, with no registry
  import      make a base image of a root file system: a tar, or rootfs/ with metadata.json in any form
  export      an image as rootfs/ with metadata.json: a folder, a git work tree, a tgz for S3
  rootfs      restore what git forgot of a root file system
  load, save  read and write archives (docker, OCI)
  unpack      unpack an image's files into a folder
  images      list                        tag, rmi    give and take names
  inspect     what is known of one        history     the steps it is made of

Images, with a registry or a bucket (s3://BUCKET/KEY)
  pull, push, login, logout

Containers, to run something or to copy files out
  run, create, start, stop, kill, rm, ps, logs, wait
  cp, export, commit

This place
  doctor      what it allows, and which isolation a RUN step gets
  du, prune   what takes up space, and giving it back; trim keeps it within limits
  info, version

Inside
  debug       a Dockerfile as parsed (ast), as graph (llb)
  resource    Concourse's check, in and out
  man, completion

As docker groups them: image, container, builder, buildx, system, network, volume.
Called as docker, img, buildctl, executor (kaniko's), build, check, in or out, dockless is that tool.

Options
      --state DIR         where images and caches are [default: $DOCKLESS_STATE, else
                          $XDG_DATA_HOME/dockless, else ~/.local/share/dockless]
      --isolation NAME    how RUN steps are boxed: auto, ns, ns1, chroot, rewrite [default: auto]
      --engine ADDRESS    where builds happen: local, buildkit://HOST:PORT, unix://PATH, docker://PATH;
                          several, A,B or repeated, do the builds between them
                          [default: $DOCKLESS_ENGINE, else $BUILDKIT_HOST, else local]
  -D, --debug             log what dockless does
  -h, --help              this text, or that of a command: dockless COMMAND --help
  -V, --version

Exit codes
  0 it worked                     5 a registry refused, or could not be reached
  1 it failed otherwise           6 this place does not allow it (see dockless doctor)
  2 the command line, a           7 an image or archive is damaged, or is none
    parameter or dockless.yml     8 there is no image, container or file of that name
    cannot be understood          125 to 127, and any other: of the process that run,
  3 the Dockerfile is wrong       start or task ran
  4 a step of the build failed    128+N stopped by signal N
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_every_command_and_the_definition_is_sound() {
        Dockless::command().debug_assert();
        docker::Docker::command().debug_assert();
        super::super::img::Img::command().debug_assert();
        super::super::buildctl::Buildctl::command().debug_assert();
        for command in Dockless::command().get_subcommands() {
            let name = command.get_name();
            let named = HELP.split(|c: char| !(c.is_alphanumeric())).any(|word| word == name);
            assert!(named, "the help does not name {name}");
            assert!(command.get_about().is_some(), "{name} says nothing about itself");
        }
    }
}
