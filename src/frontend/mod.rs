//! Dockerfiles: text in, LLB definition and image config out. Pure: it asks the world only through [`ImageConfigs`].

mod answer;
pub mod ast;
mod directive;
pub mod error;
mod flags;
mod git;
mod go;
mod heredoc;
pub mod ignore;
pub mod input;
mod instruction;
pub mod lint;
mod mount;
mod parser;
mod plan;
mod shell;
mod suggest;
mod variables;
mod words;

use std::collections::BTreeMap;

use crate::base::{Platform, Reference};
use crate::image::config::ImageConfig;
use crate::llb::{Builder, pb};

pub use answer::{Answer, Question};
pub use error::{Error, Place};
pub use input::{Built, Checked, Input, NamedContext, Needed, NoCache, Outline, Parameter, Target, Warning};

/// What the frontend must know about base images; implemented in `engine`.
pub trait ImageConfigs: Sync {
    /// The pinned reference and config of an image. Looks locally first, then asks the registry.
    fn resolve(&self, reference: &Reference, platform: &Platform) -> anyhow::Result<ResolvedImage>;

    /// When what a source fetches was last changed: a commit, a file on the web, an archive's newest file. None where
    /// nothing tells, and for those who fetch nothing.
    fn source_date(&self, _source: &pb::Definition) -> anyhow::Result<Option<i64>> {
        Ok(None)
    }
}

#[derive(Debug, Clone)]
pub struct ResolvedImage {
    /// With digest: what goes into the definition, so that the plan says exactly what it builds on.
    pub reference: Reference,
    pub config: ImageConfig,
}

/// Reads a Dockerfile and plans the build of its target stage.
pub fn build(input: &Input, images: &dyn ImageConfigs) -> Result<Built, Error> {
    plan::build(input, images)
}

/// Whether the Dockerfile, or an argument of the build, names a frontend that is not this one.
pub fn is_foreign(input: &Input) -> bool {
    plan::is_foreign(input)
}

/// What brings a git repository here that a build context's address names; none where it names none.
pub fn git_context(address: &str, build_args: &BTreeMap<String, String>) -> Result<Option<pb::Definition>, Error> {
    let draft = plan::git_draft(address, build_args)?;
    Ok(draft.map(|draft| {
        let mut builder = Builder::new();
        let head = builder.output(draft);
        builder.finish(Some(head))
    }))
}

/// Answers a question about a Dockerfile.
pub fn ask(question: Question, input: &Input, images: &dyn ImageConfigs) -> Result<Answer, Error> {
    match question {
        Question::Check => Ok(Answer::Check(check(input, images))),
        Question::Outline => outline(input, images).map(Answer::Outline),
        Question::Targets => targets(input).map(Answer::Targets),
    }
}

/// Reads a Dockerfile for its mistakes and the rules it breaks; nothing is planned.
pub fn check(input: &Input, images: &dyn ImageConfigs) -> Checked {
    plan::check(input, images)
}

/// What the target and the stages below it can be given.
pub fn outline(input: &Input, images: &dyn ImageConfigs) -> Result<Outline, Error> {
    plan::outline(input, images)
}

/// The stages of a Dockerfile, in order.
pub fn targets(input: &Input) -> Result<Vec<Target>, Error> {
    plan::targets(input)
}
