//! Instructions as they are meant, variables not yet expanded.

mod parse;

use std::ops::RangeInclusive;

use crate::image::config::Healthcheck;

pub use parse::{file, trigger};

/// What a Dockerfile says, stage by stage.
#[derive(Debug, Default)]
pub struct File {
    /// Build arguments before the first FROM.
    pub arguments: Vec<Arguments>,
    pub stages: Vec<Stage>,
}

/// ARG lines before the first FROM.
#[derive(Debug, Clone)]
pub struct Arguments {
    pub pairs: Vec<Argument>,
    pub lines: RangeInclusive<usize>,
}

/// One name of an ARG.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    pub name: String,
    pub value: Option<String>,
    /// From the comment above.
    pub description: String,
}

/// From one FROM to the next.
#[derive(Debug, Clone)]
pub struct Stage {
    /// Lower case; empty when it has none.
    pub name: String,
    pub base: String,
    pub platform: String,
    /// FROM, as it was typed.
    pub keyword: String,
    /// The whole FROM line.
    pub code: String,
    pub lines: RangeInclusive<usize>,
    pub comments: Vec<String>,
    /// From the comment above.
    pub description: String,
    pub steps: Vec<Step>,
}

/// One instruction of a stage.
#[derive(Debug, Clone)]
pub struct Step {
    /// As it was typed.
    pub keyword: String,
    pub code: String,
    pub lines: RangeInclusive<usize>,
    pub comments: Vec<String>,
    pub instruction: Instruction,
}

#[derive(Debug, Clone)]
pub enum Instruction {
    /// ADD and COPY.
    Copy(Box<Copy>),
    Arg(Vec<Argument>),
    Cmd(CommandLine),
    Entrypoint(CommandLine),
    Env(Vec<Pair>),
    Expose(Vec<String>),
    Healthcheck(Healthcheck),
    Label(Vec<Pair>),
    Maintainer(String),
    /// The trigger, as text.
    Onbuild(String),
    Run(Box<Run>),
    Shell(Vec<String>),
    StopSignal(String),
    User(String),
    Volume(Vec<String>),
    Workdir(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    pub name: String,
    pub value: String,
    /// `NAME value` without an equals sign.
    pub legacy: bool,
}

/// A command as a list, or as text for a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    pub words: Vec<String>,
    pub shell: bool,
}

#[derive(Debug, Clone, Default)]
pub struct Copy {
    pub is_add: bool,
    pub sources: Vec<String>,
    pub inline: Vec<InlineFile>,
    pub dest: String,
    /// Empty for the build context.
    pub from: String,
    pub chown: String,
    pub chmod: String,
    pub link: bool,
    pub parents: bool,
    pub exclude: Vec<String>,
    pub keep_git_dir: Option<bool>,
    pub checksum: String,
    pub unpack: Option<bool>,
}

/// A here-document that becomes a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InlineFile {
    pub name: String,
    pub content: String,
    pub expand: bool,
}

#[derive(Debug, Clone)]
pub struct Run {
    pub command: CommandLine,
    pub heredocs: Vec<super::heredoc::Heredoc>,
    /// The values of `--mount`, read once variables are known.
    pub mounts: Vec<String>,
    /// The stage, image or context of each mount, read already: variables cannot be in it.
    pub mount_sources: Vec<String>,
    pub network: RunNetwork,
    pub insecure: bool,
    pub devices: Vec<Device>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunNetwork {
    Default,
    None,
    Host,
}

/// `RUN --device=…`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    pub name: String,
    pub required: bool,
}
