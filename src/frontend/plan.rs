//! From instructions to a graph: stages and what they need of each other, then every instruction of the stages that
//! the target needs, in order.

mod bases;
mod config;
mod contexts;
mod copy;
mod expose;
mod run;
mod stage;
mod stages;

use std::collections::{BTreeMap, HashMap};

use super::error::{Error, Result};
use super::input::{Built, Input, NamedContext};
use super::instruction::{self, Argument, File};
use super::lint::{Config, Linter, rules};
use super::parser::{self, Parsed, Source};
use super::shell::Lexer;
use super::variables::Variables;
use super::{ImageConfigs, directive, suggest};
use crate::base::Platform;
use crate::base::patterns::Matcher;
use crate::llb::build::SourceFile;
use crate::llb::{Builder, pb};
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
    /// Build arguments of the global scope.
    globals: Variables,
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
    let source = Source::new(&input.name, &input.text);
    if source.text.is_empty() {
        return Err(Error::boxed("the Dockerfile cannot be empty"));
    }
    let linter = linter(&source)?;
    let parsed = parser::parse(&source)?;
    for line in &parsed.empty_continuations {
        linter.report(&rules::NO_EMPTY_CONTINUATION, &(*line..=*line), || "Empty continuation line".to_owned());
    }
    let file = instruction::file(&parsed, &linter)?;
    if file.stages.is_empty() {
        return Err(Box::new(Error::new("dockerfile contains no stages to build").hint("begin a stage with FROM")));
    }
    stages::check_names(&file.stages, &linter);
    stages::check_casing(&file.stages, &linter);
    let mut planner = Planner::new(input, images, &parsed, linter, &file)?;
    planner.add_stages(file.stages)?;
    let target = planner.target()?;
    planner.link_stages()?;
    planner.resolve_stages(target)?;
    planner.run_stages(target)?;
    planner.finish(target)
}

fn linter(source: &Source) -> Result<Linter> {
    let check = directive::find("check", &source.text).unwrap_or_default();
    let check = check.split(' ').next().unwrap_or_default();
    let line = source.text.lines().position(|l| l.contains("check")).map_or(1, |n| n + 1);
    let config = Config::parse(check).map_err(|e| Box::new(e.at(&source.place(line..=line))))?;
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
            Error::boxed(format!("failed parsing {name}: {e}"))
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
            globals: Variables::new(),
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
        planner.globals = planner.global_arguments(file, planner.globals.clone(), &input.build_args)?;
        planner.pin_epoch()?;
        Ok(planner)
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
            variables.set(name, self.input.build_args.get(name).cloned().unwrap_or(value));
        }
        variables
    }

    /// The arguments before the first FROM, over those that are always there.
    fn global_arguments(
        &self,
        file: &File,
        mut variables: Variables,
        given: &BTreeMap<String, String>,
    ) -> Result<Variables> {
        for arguments in &file.arguments {
            for Argument { name, value, .. } in &arguments.pairs {
                let value = match (given.get(name), value) {
                    (Some(given), _) => Some(given.clone()),
                    (None, Some(default)) => {
                        let place = self.source.place(arguments.lines.clone());
                        let expansion = self.lexer.expand(default, &variables);
                        Some(expansion.map_err(|m| Error::new(m).at_word(&place, default))?.text)
                    }
                    (None, None) => None,
                };
                if let Some(value) = value {
                    variables.set(name, value);
                }
            }
        }
        Ok(variables)
    }

    /// Warns of bases that are no image names when nobody gives any build argument.
    fn check_default_bases(&self, file: &File) {
        let Ok(variables) = self.global_arguments(file, self.globals.clone(), &BTreeMap::new()) else { return };
        for stage in &file.stages {
            let Ok(base) = self.lexer.expand(&stage.base, &variables) else { return };
            if base.text.parse::<crate::base::Reference>().is_err() {
                self.linter.report(&rules::INVALID_DEFAULT_ARG_IN_FROM, &stage.lines, || {
                    format!("Default value for ARG {} results in empty or invalid base image name", stage.base)
                });
            }
        }
    }

    /// `SOURCE_DATE_EPOCH` as a build argument or as a global one beats what the caller pinned.
    fn pin_epoch(&mut self) -> Result<()> {
        const NAME: &str = "SOURCE_DATE_EPOCH";
        let given = self.input.build_args.get(NAME).map(String::as_str);
        let Some(value) = given.or_else(|| self.globals.get(NAME)).filter(|v| !v.is_empty()) else { return Ok(()) };
        let seconds = value.parse().map_err(|_| {
            Error::boxed(format!("invalid SOURCE_DATE_EPOCH: {value}: expected whole seconds since 1970"))
        })?;
        self.epoch = Some(seconds);
        Ok(())
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
            return Err(Error::boxed(format!("variables expand to more than {MAX_EXPANDED} bytes in all")));
        }
        Ok(())
    }

    fn error_at_word(&self, message: String, lines: &std::ops::RangeInclusive<usize>, word: &str) -> Box<Error> {
        Box::new(Error::new(message).at_word(&self.source.place(lines.clone()), word))
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
