//! From instructions to a graph: stages and what they need of each other, then every instruction of the stages that
//! the target needs, in order.

mod bases;
mod config;
mod contexts;
mod copy;
mod epoch;
mod expose;
mod outline;
mod run;
mod stage;
mod stages;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::error::{Error, Errors, Result};
use super::input::{Built, Checked, Input, NamedContext, Outline, Target};
use super::instruction::{self, Argument, File};
use super::lint::{Config, Linter, rules};
use super::parser::{self, Parsed, Source};
use super::shell::Lexer;
use super::variables::Variables;
use super::{ImageConfigs, directive, suggest};
use crate::base::patterns::Matcher;
use crate::base::{Platform, Reference};
use crate::llb::build::SourceFile;
use crate::llb::{Builder, pb};
pub use contexts::git_draft;
use stage::StageState;

/// Variables may not grow to more text than this in one build.
const MAX_EXPANDED: usize = 256 << 20;

/// Everything that is known while a Dockerfile becomes a graph.
pub(super) struct Planner<'a> {
    input: &'a Input,
    images: &'a dyn ImageConfigs,
    source: Source,
    linter: Linter,
    lexer: Lexer,
    builder: Builder,
    /// Index of the Dockerfile among the builder's files.
    file: usize,
    platforms: Platforms,
    /// What the caller gives: build arguments, and the date that it pinned.
    given: BTreeMap<String, String>,
    /// Build arguments of the global scope.
    globals: Variables,
    /// All names of the global scope, those without a value included.
    declared: BTreeSet<String>,
    /// What is told of the arguments of the global scope.
    arguments: outline::Arguments,
    /// Every stage is looked at, whatever the target needs.
    all_stages: bool,
    named_contexts: BTreeMap<String, NamedContext>,
    states: Vec<StageState>,
    /// How many of them have a FROM of their own.
    written: usize,
    by_name: HashMap<String, usize>,
    context: contexts::MainContext,
    named_locals: contexts::NamedLocals,
    ignore: Option<Matcher>,
    resolved: bases::Resolved,
    /// What is written into history: seconds since 1970.
    epoch: Option<i64>,
    expanded: usize,
}

struct Platforms {
    target: Platform,
    build: Platform,
    /// Nobody asked for a platform: the base image's may replace it.
    implicit: bool,
}

/// Reads a Dockerfile and plans the build of its target stage.
pub(super) fn build(input: &Input, images: &dyn ImageConfigs) -> Result<Built> {
    let source = read(input)?;
    let linter = linter(&source, input)?;
    let (mut planner, file) = start(input, images, &source, &linter)?;
    let target = planner.work(file)?;
    planner.finish(target)
}

/// Reads a Dockerfile for its mistakes alone: without a target, every stage is looked at.
pub(super) fn check(input: &Input, images: &dyn ImageConfigs) -> Checked {
    let whole = Source::new(&input.name, &input.text);
    let place = whole.place(1..=whole.text.lines().count().max(1));
    let (linter, source) = match read(input).and_then(|source| Ok((linter(&source, input)?, source))) {
        Ok(read) => read,
        Err(error) => return Checked { warnings: Vec::new(), error: Some(error), place },
    };
    let outcome = start(input, images, &source, &linter).and_then(|(mut planner, file)| {
        planner.all_stages = input.target.is_none();
        planner.work(file)
    });
    match outcome.and_then(|_| linter.finish()) {
        Ok(warnings) => Checked { warnings, error: None, place },
        Err(error) => Checked { warnings: linter.warnings(), error: Some(error), place },
    }
}

/// What the target and the stages below it can be given.
pub(super) fn outline(input: &Input, images: &dyn ImageConfigs) -> Result<Outline> {
    let source = read(input)?;
    let (mut planner, file) = start(input, images, &source, &linter(&source, input)?)?;
    let target = planner.work(file)?;
    Ok(planner.outline(target))
}

/// The stages that can be built.
pub(super) fn targets(input: &Input) -> Result<Vec<Target>> {
    let source = read(input)?;
    let file = instruction::file(&parser::parse(&source)?, Errors::default(), &Linter::silent())?;
    let last = file.stages.len().saturating_sub(1);
    let target = |(i, stage): (usize, instruction::Stage)| Target {
        name: stage.name,
        description: stage.description,
        default: i == last,
        base: stage.base,
        platform: stage.platform,
        place: source.place(stage.lines),
    };
    Ok(file.stages.into_iter().enumerate().map(target).collect())
}

fn read(input: &Input) -> Result<Source> {
    let source = Source::new(&input.name, &input.text);
    if source.text.is_empty() {
        return Err(Error::new("the Dockerfile cannot be empty"));
    }
    // What PowerShell's `>` writes. With a mark, or an F in two bytes.
    if [&b"\xff\xfe"[..], b"\xfe\xff", b"F\0", b"\0F"].iter().any(|start| input.text.starts_with(start)) {
        return Err(Error::new("the Dockerfile is UTF-16 text").hint("save it as UTF-8"));
    }
    check_syntax(&source, input)?;
    Ok(source)
}

fn start<'a>(
    input: &'a Input,
    images: &'a dyn ImageConfigs,
    source: &Source,
    linter: &Linter,
) -> Result<(Planner<'a>, File)> {
    let (parsed, errors) = parser::parse_all(source)?;
    for line in &parsed.empty_continuations {
        linter.report(&rules::NO_EMPTY_CONTINUATION, &(*line..=*line), || "Empty continuation line".to_owned());
    }
    let file = instruction::file(&parsed, errors, linter)?;
    if file.stages.is_empty() {
        return Err(Error::new("dockerfile contains no stages to build").hint("begin a stage with FROM"));
    }
    stages::check_names(&file.stages, linter);
    stages::check_casing(&file.stages, linter);
    let planner = Planner::new(input, images, &parsed, linter.clone(), &file)?;
    Ok((planner, file))
}

/// The date that the caller pinned is a build argument too, as `buildx` makes it one.
fn given(input: &Input) -> BTreeMap<String, String> {
    let mut given = input.build_args.clone();
    if let Some(date) = input.epoch.source_date() {
        given.entry(epoch::ARGUMENT.to_owned()).or_insert_with(|| date.to_string());
    }
    given
}

/// Refuses a frontend that is not this one: `# syntax=` may name any release of Docker's.
fn check_syntax(source: &Source, input: &Input) -> Result<()> {
    let Some((syntax, from_file)) = foreign(&source.text, input) else { return Ok(()) };
    let error = Error::new(format!("frontend {syntax} cannot be run here")).hint(
        "the built-in frontend reads what docker/dockerfile:1 reads: remove the syntax line to use it, or build on a \
         BuildKit (--engine), which can run the image of another",
    );
    let line = source.text.lines().position(|l| l.contains(&syntax)).map_or(1, |n| n + 1);
    Err(if from_file { error.at_word(&source.place(line..=line), &syntax) } else { error })
}

/// Whether the Dockerfile asks for a frontend that is not this one.
pub(super) fn is_foreign(input: &Input) -> bool {
    foreign(&Source::new(&input.name, &input.text).text, input).is_some()
}

/// The frontend that is asked for where it is not this one, and whether the file asks for it.
fn foreign(text: &str, input: &Input) -> Option<(String, bool)> {
    let argument = input.build_args.get("BUILDKIT_SYNTAX").cloned();
    let from_file = argument.is_none();
    let syntax = argument.or_else(|| directive::find("syntax", text))?;
    let syntax = syntax.split(' ').next().unwrap_or_default();
    let ours = syntax == "dockerfile.v0"
        || syntax.parse::<Reference>().is_ok_and(|reference| {
            let name = reference.repository().rsplit('/').next();
            matches!(name, Some("dockerfile" | "dockerfile-upstream"))
        });
    (!ours).then(|| (syntax.to_owned(), from_file))
}

fn linter(source: &Source, input: &Input) -> Result<Linter> {
    if let Some(check) = input.build_args.get("BUILDKIT_DOCKERFILE_CHECK") {
        return Ok(Linter::new(source, Config::parse(check)?));
    }
    let check = directive::find("check", &source.text).unwrap_or_default();
    let check = check.split(' ').next().unwrap_or_default();
    let line = source.text.lines().position(|l| l.contains("check")).map_or(1, |n| n + 1);
    let config = Config::parse(check).map_err(|e| e.at(&source.place(line..=line)))?;
    Ok(Linter::new(source, config))
}

impl<'a> Planner<'a> {
    fn new(
        input: &'a Input,
        images: &'a dyn ImageConfigs,
        parsed: &Parsed,
        linter: Linter,
        file: &File,
    ) -> Result<Self> {
        let platforms = Platforms {
            target: input.platform.clone().unwrap_or_else(|| input.build_platform.clone()),
            build: input.build_platform.clone(),
            implicit: input.platform.is_none(),
        };
        let mut builder = Builder::new();
        let dockerfile = builder.file(SourceFile {
            name: input.name.clone(),
            data: input.text.clone().into(),
            language: "Dockerfile".to_owned(),
        });
        let patterns = input.ignore.as_ref().map(|(_, text)| super::ignore::parse(text)).unwrap_or_default();
        let ignore = Matcher::new(&patterns).map_err(|e| {
            let name = input.ignore.as_ref().map(|(name, _)| name.as_str()).unwrap_or_default();
            Error::new(format!("failed parsing {name}: {e}"))
        })?;
        let mut planner = Self {
            input,
            images,
            source: parsed.source.clone(),
            linter,
            lexer: Lexer::new(parsed.escape),
            builder,
            file: dockerfile,
            platforms,
            given: given(input),
            globals: Variables::new(),
            declared: BTreeSet::new(),
            arguments: outline::Arguments::new(),
            all_stages: false,
            named_contexts: contexts::by_familiar_name(&input.named_contexts),
            states: Vec::new(),
            written: 0,
            by_name: HashMap::new(),
            context: contexts::MainContext::new(patterns),
            named_locals: contexts::NamedLocals::default(),
            ignore: (!ignore.is_empty()).then_some(ignore),
            resolved: bases::Resolved::default(),
            epoch: input.epoch.source_date(),
            expanded: 0,
        };
        let target = input.target.as_deref().or(file.stages.last().map(|s| s.name.as_str()));
        planner.globals = planner.default_arguments(target.unwrap_or_default());
        planner.check_default_bases(file);
        (planner.globals, planner.arguments) =
            planner.global_arguments(file, planner.globals.clone(), &planner.given)?;
        planner.declared = planner.globals.names().map(str::to_owned).collect();
        let names = file.arguments.iter().flat_map(|a| &a.pairs).map(|a| a.name.clone());
        planner.declared.extend(names);
        planner.pin_epoch(&file.stages)?;
        Ok(planner)
    }

    /// Works through the stages that the target needs; the target.
    fn work(&mut self, file: File) -> Result<usize> {
        self.add_stages(file.stages)?;
        let target = self.target()?;
        self.link_stages()?;
        self.resolve_stages(target)?;
        self.run_stages(target)?;
        Ok(target)
    }

    /// The arguments that are there without being declared.
    fn default_arguments(&self, target: &str) -> Variables {
        let (build, wanted) = (&self.platforms.build, &self.platforms.target);
        let defaults = [
            ("BUILDPLATFORM", build.to_string()),
            ("BUILDOS", build.os.clone()),
            ("BUILDOSVERSION", String::new()),
            ("BUILDARCH", build.arch.clone()),
            ("BUILDVARIANT", build.variant.clone()),
            ("TARGETPLATFORM", wanted.to_string()),
            ("TARGETOS", wanted.os.clone()),
            ("TARGETOSVERSION", String::new()),
            ("TARGETARCH", wanted.arch.clone()),
            ("TARGETVARIANT", wanted.variant.clone()),
            ("TARGETSTAGE", if target.is_empty() { "default".to_owned() } else { target.to_owned() }),
        ];
        let mut variables = Variables::new();
        for (name, value) in defaults {
            variables.set(name, self.given.get(name).cloned().unwrap_or(value));
        }
        variables
    }

    /// The arguments before the first FROM, over those that are always there.
    fn global_arguments(
        &self,
        file: &File,
        mut variables: Variables,
        given: &BTreeMap<String, String>,
    ) -> Result<(Variables, outline::Arguments)> {
        let mut notes = outline::Arguments::new();
        for arguments in &file.arguments {
            for Argument { name, value, description } in &arguments.pairs {
                let mut uses = BTreeSet::new();
                let value = match (given.get(name), value) {
                    (Some(given), _) => Some(given.clone()),
                    (None, Some(default)) => {
                        let place = self.source.place(arguments.lines.clone());
                        let expansion = self.lexer.expand(default, &variables);
                        let expansion = expansion.map_err(|m| Error::new(m).at_word(&place, default))?;
                        uses = expansion.found;
                        if uses.remove(name)
                            && let Some(outline::Note { uses: before, .. }) = notes.get(name)
                        {
                            uses.extend(before.iter().cloned());
                        }
                        Some(expansion.text)
                    }
                    (None, None) => None,
                };
                if let Some(value) = &value {
                    variables.set(name, value.as_str());
                }
                let (description, lines) = (description.clone(), arguments.lines.clone());
                notes.insert(name.clone(), outline::Note { description, value, lines, uses });
            }
        }
        Ok((variables, notes))
    }

    /// Warns of bases that are no image names when nobody gives any build argument.
    fn check_default_bases(&self, file: &File) {
        let Ok((variables, _)) = self.global_arguments(file, self.globals.clone(), &BTreeMap::new()) else { return };
        for stage in &file.stages {
            let Ok(base) = self.lexer.expand(&stage.base, &variables) else { return };
            if base.text.parse::<Reference>().is_err() {
                self.linter.report(&rules::INVALID_DEFAULT_ARG_IN_FROM, &stage.lines, || {
                    format!("Default value for ARG {} results in empty or invalid base image name", stage.base)
                });
            }
        }
    }

    fn created(&self) -> Option<String> {
        let epoch = self.epoch?;
        Some(self.input.epoch.pinned(epoch).created().to_string())
    }

    /// Expands a word of an instruction. Variables that nobody set are reported.
    fn expand(&mut self, stage: &StageState, word: &str, lines: &std::ops::RangeInclusive<usize>) -> Result<String> {
        self.expand_with(self.lexer, stage, word, lines)
    }

    fn expand_with(
        &mut self,
        lexer: Lexer,
        stage: &StageState,
        word: &str,
        lines: &std::ops::RangeInclusive<usize>,
    ) -> Result<String> {
        let expansion = lexer.expand(word, &stage.env).map_err(|m| self.error_at_word(m, lines, word))?;
        for name in &expansion.missing {
            if stage.build_args.iter().any(|a| a.name == *name) || stage::is_scan_argument(name) {
                continue;
            }
            stage.linter.report(&rules::UNDEFINED_VAR, lines, || {
                let hint = suggest::nearest(name, stage.env.names());
                let hint = hint.map(|h| format!(" (did you mean ${h}?)")).unwrap_or_default();
                format!("Usage of undefined variable '${name}'{hint}")
            });
        }
        self.spend(expansion.text.len())?;
        Ok(expansion.text)
    }

    fn spend(&mut self, bytes: usize) -> Result<()> {
        self.expanded = self.expanded.saturating_add(bytes);
        if self.expanded > MAX_EXPANDED {
            return Err(Error::new(format!("variables expand to more than {MAX_EXPANDED} bytes in all")));
        }
        Ok(())
    }

    fn error_at_word(&self, message: String, lines: &std::ops::RangeInclusive<usize>, word: &str) -> Error {
        Error::new(message).at_word(&self.source.place(lines.clone()), word)
    }

    /// Where an op comes from, line by line as BuildKit does it.
    fn lines(&self, lines: &std::ops::RangeInclusive<usize>) -> Vec<crate::llb::build::Lines> {
        let position = |line: usize| Some(pb::Position { line: i32::try_from(line).unwrap_or(i32::MAX), character: 0 });
        // A here-document of a million lines is one range.
        const MOST: usize = 1000;
        let ranges = if lines.end() - lines.start() < MOST {
            lines.clone().map(|line| pb::Range { start: position(line), end: position(line) }).collect()
        } else {
            vec![pb::Range { start: position(*lines.start()), end: position(*lines.end()) }]
        };
        vec![crate::llb::build::Lines { file: self.file, ranges }]
    }

    fn finish(mut self, target: usize) -> Result<Built> {
        let warnings = self.linter.finish()?;
        self.close_contexts();
        let state = &mut self.states[target];
        let mut config = state.image.clone();
        config.history.extend(state.log.to_lines());
        config.config.labels.extend(self.input.labels.clone());
        if !self.platforms.implicit {
            config.platform = self.platforms.target.clone();
        }
        config.rootfs = crate::image::config::RootFsConfig::default();
        let base = state.base_image.take();
        let definition = self.builder.finish(self.states[target].root);
        Ok(Built { definition, config, base, epoch: self.epoch, warnings })
    }
}
