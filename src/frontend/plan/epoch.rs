//! `SOURCE_DATE_EPOCH`: seconds since 1970, or the name of what the date is taken from: the build context, a named one,
//! or a stage that does nothing but ADD from an address.

use super::Planner;
use super::contexts::git_draft;
use super::copy::is_http;
use crate::frontend::error::{Error, Result};
use crate::frontend::git;
use crate::frontend::input::NamedContext;
use crate::frontend::instruction::{Copy, Instruction, Stage};
use crate::llb::build::Draft;
use crate::llb::{Builder, source};

pub const ARGUMENT: &str = "SOURCE_DATE_EPOCH";

impl Planner<'_> {
    /// As a build argument or as a global one it beats what the caller pinned.
    pub fn pin_epoch(&mut self, stages: &[Stage]) -> Result<()> {
        let given = self.given.get(ARGUMENT).map(String::as_str);
        let value = given.or_else(|| self.globals.get(ARGUMENT)).unwrap_or_default();
        if value.is_empty() {
            return Ok(());
        }
        if let Ok(seconds) = value.parse() {
            self.epoch = Some(seconds);
            return Ok(());
        }
        let date = self.date_of(value, stages)?;
        // What was a name is a date for all that comes, or was never said.
        let text = date.map(|date| date.to_string());
        if self.given.remove(ARGUMENT).is_some() {
            self.given.extend(text.clone().map(|text| (ARGUMENT.to_owned(), text)));
        }
        if self.globals.get(ARGUMENT).is_some() {
            self.globals.remove(ARGUMENT);
            text.into_iter().for_each(|text| self.globals.set(ARGUMENT, text));
        }
        self.epoch = date;
        Ok(())
    }

    /// The date of what goes by a name; none where that has no date of its own, such as a folder.
    fn date_of(&self, name: &str, stages: &[Stage]) -> Result<Option<i64>> {
        let draft = if name == "context" {
            match &self.input.main_context {
                Some(NamedContext::Url(address)) => Some(self.dated(address)?),
                _ => return Ok(self.input.context_date),
            }
        } else if let Some((_, context)) = self.named_context(name, &self.platforms.target) {
            match &context {
                NamedContext::Url(address) => Some(self.dated(address)?),
                _ => None,
            }
        } else if let Some(stage) = stages.iter().find(|stage| stage.name.eq_ignore_ascii_case(name)) {
            let place = self.source.place(stage.lines.clone());
            Some(self.stage_source(stage).map_err(|error| error.at(&place))?)
        } else {
            let error = Error::new(format!("invalid SOURCE_DATE_EPOCH: {name}"));
            return Err(error.hint(
                "it is whole seconds since 1970, context, or the name of a build context or of a stage that only ADDs",
            ));
        };
        let Some(mut draft) = draft else { return Ok(None) };
        draft.name(format!("[internal] resolve SOURCE_DATE_EPOCH {name}"));
        let mut builder = Builder::new();
        let head = builder.output(draft);
        let date = self.images.source_date(&builder.finish(Some(head)));
        date.map_err(|error| Error::new(format!("cannot take SOURCE_DATE_EPOCH from {name}")).because(error))
    }

    /// What is at an address, in a form that tells its date: files of a commit get the commit's.
    fn dated(&self, address: &str) -> Result<Draft> {
        if let Some(parsed) = git::parse(address)?
            && !parsed.could_be_local
        {
            return Ok(source::Git { mtime: "commit".to_owned(), ..parsed.git }.draft());
        }
        match git_draft(address, &self.input.build_args)? {
            Some(draft) => Ok(draft),
            None => Ok(source::http(address, "context", "")),
        }
    }

    /// The one address that a stage on `scratch` adds.
    fn stage_source(&self, stage: &Stage) -> Result<Draft> {
        let expand =
            |word: &str, variables: &_| Ok::<_, Error>(self.lexer.expand(word, variables).map_err(Error::new)?.text);
        if expand(&stage.base, &self.globals)? != "scratch" {
            return Err(Error::new("a stage that SOURCE_DATE_EPOCH names must be FROM scratch"));
        }
        let mut variables = self.globals.clone();
        variables.remove(ARGUMENT);
        let mut found = None;
        for step in &stage.steps {
            match &step.instruction {
                Instruction::Arg(arguments) => {
                    for argument in arguments {
                        let value = match (self.given.get(&argument.name), &argument.value) {
                            (Some(given), _) => given.clone(),
                            (None, Some(default)) => expand(default, &variables)?,
                            (None, None) => continue,
                        };
                        variables.set(&argument.name, value);
                    }
                }
                Instruction::Copy(add) if add.is_add && found.is_none() => {
                    found = Some(self.add_source(add, &|word| expand(word, &variables))?);
                }
                _ => {
                    let message = format!(
                        "a stage that SOURCE_DATE_EPOCH names holds one ADD and nothing but ARG: {}",
                        step.code
                    );
                    return Err(Error::new(message));
                }
            }
        }
        found.ok_or_else(|| Error::new("a stage that SOURCE_DATE_EPOCH names must ADD from an address"))
    }

    fn add_source(&self, add: &Copy, expand: &dyn Fn(&str) -> Result<String>) -> Result<Draft> {
        let remote =
            || Error::new("a stage that SOURCE_DATE_EPOCH names must ADD one file or repository from an address");
        let [address] = &add.sources[..] else { return Err(remote()) };
        let address = expand(address)?;
        let checksum = expand(&add.checksum)?;
        if let Some(parsed) = git::parse(&address)?
            && !parsed.could_be_local
        {
            let checksum = if checksum.is_empty() { parsed.git.checksum.clone() } else { checksum };
            return Ok(source::Git { mtime: "commit".to_owned(), checksum, ..parsed.git }.draft());
        }
        if !is_http(&address) || !add.inline.is_empty() {
            return Err(remote());
        }
        Ok(source::http(&address, "context", &checksum))
    }
}
