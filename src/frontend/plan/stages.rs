//! Stages among each other: names, targets, who needs whom, and in which order they are worked through.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::rc::Rc;

use super::Planner;
use super::stage::{self, Planned, StageState};
use crate::base::Platform;
use crate::frontend::error::{Error, Errors, Result};
use crate::frontend::go::quote;
use crate::frontend::input::NoCache;
use crate::frontend::instruction::{self, Instruction, Stage, Step};
use crate::frontend::lint::{Linter, rules};
use crate::frontend::shell::Expansion;
use crate::frontend::{parser, suggest};

pub fn check_names(stages: &[Stage], linter: &Linter) {
    let mut seen = BTreeSet::new();
    for Stage { name, lines, .. } in stages.iter().filter(|s| !s.name.is_empty()) {
        if matches!(name.as_str(), "context" | "scratch") {
            linter.report(&rules::RESERVED_STAGE_NAME, lines, || {
                format!("Stage name should not use the same name as reserved stage {}", quote(name))
            });
        }
        if !seen.insert(name) {
            linter.report(&rules::DUPLICATE_STAGE_NAME, lines, || {
                format!("Duplicate stage name {}, stage names should be unique", quote(name))
            });
        }
    }
}

/// Warns of keywords that are not in the case of most of the others.
pub fn check_casing(stages: &[Stage], linter: &Linter) {
    let keywords = || {
        stages.iter().flat_map(|stage| {
            let steps = stage.steps.iter().map(|s| (s.keyword.as_str(), &s.lines));
            std::iter::once((stage.keyword.as_str(), &stage.lines)).chain(steps)
        })
    };
    let is_lower = |k: &str| k == k.to_lowercase();
    let is_upper = |k: &str| k == k.to_uppercase();
    let lower = keywords().filter(|(k, _)| is_lower(k)).count();
    let upper = keywords().filter(|(k, _)| !is_lower(k) && is_upper(k)).count();
    let (fits, wanted): (&dyn Fn(&str) -> bool, _) =
        if lower > upper { (&is_lower, "lowercase") } else { (&is_upper, "uppercase") };
    for (keyword, lines) in keywords().filter(|(k, _)| !fits(k)) {
        linter.report(&rules::CONSISTENT_INSTRUCTION_CASING, lines, || {
            format!("Command '{keyword}' should match the case of the command majority ({wanted})")
        });
    }
}

impl Planner<'_> {
    /// Makes a state for each FROM, its words expanded.
    pub fn add_stages(&mut self, stages: Vec<Stage>) -> Result<()> {
        let mut errors = Errors::default();
        for (i, stage) in stages.into_iter().enumerate() {
            errors.take(self.add_stage(i, stage));
        }
        errors.finish()
    }

    fn add_stage(&mut self, i: usize, mut stage: Stage) -> Result<()> {
        let place = self.source.place(stage.lines.clone());
        let linter = self.linter.with_comments(&stage.comments);
        let base =
            self.lexer.expand(&stage.base, &self.globals).map_err(|m| Error::new(m).at_word(&place, &stage.base))?;
        self.report_undefined(&base, &stage.lines, &linter);
        if base.text.is_empty() {
            let mut error = Error::new(format!("base name ({}) should not be blank", stage.base));
            error.hint = self.suggest_argument(&base);
            return Err(error.at_word(&place, &stage.base));
        }
        stage.base = base.text;
        let mut used = base.found;
        let platform = self.stage_platform(&stage, &linter, &mut used)?;
        let label = if stage.name.is_empty() { format!("stage-{i}") } else { stage.name.clone() };
        let steps = std::mem::take(&mut stage.steps);
        let mut state = StageState::new(stage, label, self.platforms.target.clone());
        state.platform = platform;
        state.notes.uses(&used);
        let wanted = state.platform.clone().unwrap_or_else(|| self.platforms.target.clone());
        if !state.stage.name.is_empty() {
            state.replaced_by = self.named_context(&state.stage.name, &wanted);
        }
        state.no_cache = self.is_no_cache(&state.stage.name);
        let replaced = state.replaced_by.is_some();
        let counted = steps.iter().filter(|s| counts(&s.instruction)).count();
        state.steps = steps
            .into_iter()
            .map(|step| Planned { step: Rc::new(step), sources: Vec::new(), in_trigger: false })
            .collect();
        let index = self.add_state(state);
        self.written = self.states.len();
        let state = &mut self.states[index];
        if replaced {
            state.base = None;
        } else {
            let from_image = state.stage.base != "scratch" && state.base.is_none();
            state.total = counted + usize::from(from_image);
        }
        Ok(())
    }

    fn report_undefined(&self, expansion: &Expansion, lines: &RangeInclusive<usize>, linter: &Linter) {
        for name in expansion.missing.iter().filter(|name| !self.declared.contains(*name)) {
            linter.report(&rules::UNDEFINED_ARG_IN_FROM, lines, || {
                let hint = suggest::nearest(name, self.declared.iter().map(String::as_str));
                let hint = hint.map(|h| format!(" (did you mean {h}?)")).unwrap_or_default();
                format!("FROM argument '{name}' is not declared{hint}")
            });
        }
    }

    fn suggest_argument(&self, expansion: &Expansion) -> Option<String> {
        let found = expansion
            .missing
            .iter()
            .find_map(|name| suggest::nearest(name, self.declared.iter().map(String::as_str)))?;
        Some(format!("did you mean {found}?"))
    }

    fn stage_platform(&self, stage: &Stage, linter: &Linter, used: &mut BTreeSet<String>) -> Result<Option<Platform>> {
        let flag = &stage.platform;
        if flag.is_empty() {
            return Ok(None);
        }
        let place = self.source.place(stage.lines.clone());
        let expansion = self.lexer.expand(flag, &self.globals).map_err(|m| {
            Error::new(format!("failed to process arguments for platform {flag}: {m}")).at_word(&place, flag)
        })?;
        self.report_undefined(&expansion, &stage.lines, linter);
        if expansion.found.len() == 1 && expansion.missing.is_empty() {
            let target = expansion.found.contains("TARGETPLATFORM")
                && self.globals.get("TARGETPLATFORM") == Some(expansion.text.as_str());
            if target {
                linter.report(&rules::REDUNDANT_TARGET_PLATFORM, &stage.lines, || {
                    format!(
                        "Setting platform to predefined {flag} in FROM is redundant as this is the default behavior"
                    )
                });
            }
        }
        let problem = |message: String| {
            let mut error = Error::new(message).at_word(&place, flag);
            error.hint = self.suggest_argument(&expansion);
            error
        };
        if expansion.text.is_empty() {
            return Err(problem(format!("empty platform value from expression {flag}")));
        }
        let platform: Platform =
            expansion.text.parse().map_err(|e| problem(format!("failed to parse platform {flag}: {e}")))?;
        if platform.os == "windows" {
            return Err(problem(format!("platform {platform} cannot be built: only Linux images can")));
        }
        let constant = expansion.found.is_empty() && expansion.missing.is_empty();
        if constant && !stage.name.contains(&platform.os) && !stage.name.contains(&platform.arch) {
            linter.report(&rules::FROM_PLATFORM_FLAG_CONST_DISALLOWED, &stage.lines, || {
                format!("FROM --platform flag should not use constant value {}", quote(&expansion.text))
            });
        }
        used.extend(expansion.found);
        Ok(Some(platform))
    }

    fn is_no_cache(&self, name: &str) -> bool {
        match &self.input.no_cache {
            NoCache::Use => false,
            NoCache::All => true,
            NoCache::Stages(names) => names.iter().any(|n| n.eq_ignore_ascii_case(name)),
        }
    }

    /// A later stage of a name takes the name over.
    fn add_state(&mut self, mut state: StageState) -> usize {
        let index = self.states.len();
        state.base = self.by_name.get(&state.stage.base).copied();
        if !state.stage.name.is_empty() {
            self.by_name.insert(state.stage.name.clone(), index);
        }
        self.states.push(state);
        index
    }

    pub fn stage_names(&self) -> Vec<&str> {
        self.states.iter().map(|s| s.label.as_str()).filter(|n| !n.is_empty()).collect()
    }

    pub fn target(&self) -> Result<usize> {
        let Some(name) = &self.input.target else { return Ok(self.states.len() - 1) };
        if let Some(&index) = self.by_name.get(&name.to_lowercase()) {
            return Ok(index);
        }
        // BuildKit takes numbers in --from only; docker's builder took them as target too.
        let number = name.parse::<usize>().ok().filter(|n| *n < self.states.len());
        number.ok_or_else(|| {
            let error = Error::new(format!("target stage {} could not be found", quote(name)));
            error.did_you_mean(name, self.stage_names())
        })
    }

    /// Finds for each instruction the stages that it takes files of.
    pub fn link_stages(&mut self) -> Result<()> {
        let mut errors = Errors::default();
        for index in 0..self.states.len() {
            let mut steps = std::mem::take(&mut self.states[index].steps);
            for planned in &mut steps {
                errors.take(self.link(index, planned));
            }
            self.states[index].steps = steps;
        }
        errors.finish()?;
        self.check_circles()?;
        if self.states.len() == 1 {
            self.states[0].label.clear();
        }
        Ok(())
    }

    /// True when the instruction needs another stage.
    fn link(&mut self, user: usize, planned: &mut Planned) -> Result<bool> {
        let step = planned.step.clone();
        let names: Vec<&str> = match &step.instruction {
            Instruction::Copy(copy) if !copy.from.is_empty() => {
                self.check_constant(&copy.from, &step)?;
                vec![&copy.from]
            }
            Instruction::Run(run) => run.mount_sources.iter().map(String::as_str).collect(),
            _ => return Ok(false),
        };
        let is_copy = matches!(step.instruction, Instruction::Copy(_));
        for name in names {
            if name.is_empty() || name == "scratch" && !is_copy {
                planned.sources.push(None);
                continue;
            }
            let source = self.find_source(name, is_copy, &step)?;
            planned.sources.push(Some(source));
            self.states[user].needs.entry(source).or_insert_with(|| step.lines.clone());
        }
        Ok(planned.sources.iter().any(Option::is_some))
    }

    fn check_constant(&self, from: &str, step: &Step) -> Result<()> {
        let empty = crate::frontend::variables::Variables::new();
        let place = self.source.place(step.lines.clone());
        let text = self.lexer.expand(from, &empty).map_err(|m| Error::new(m).at_word(&place, from))?.text;
        if text == from {
            return Ok(());
        }
        let message = "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround";
        Err(Error::new(message).at_word(&place, from))
    }

    /// A stage by name or (in a COPY) by number; else the image or context of that name becomes one.
    fn find_source(&mut self, name: &str, by_number: bool, step: &Step) -> Result<usize> {
        if by_number && let Some(number) = crate::frontend::go::parse_int(name, 64) {
            let stage = usize::try_from(number).ok().filter(|n| *n < self.written);
            return stage.ok_or_else(|| {
                let place = self.source.place(step.lines.clone());
                Error::new(format!("invalid stage index {number}")).at_word(&place, name)
            });
        }
        if let Some(&index) = self.by_name.get(&name.to_lowercase()) {
            return Ok(index);
        }
        // One image named twice is resolved once.
        let known = self.states.iter().position(|s| s.implied && s.stage.base == name);
        if let Some(index) = known {
            return Ok(index);
        }
        let state = StageState::implied(name, step.lines.clone(), self.platforms.target.clone());
        Ok(self.add_state(state))
    }

    fn check_circles(&self) -> Result<()> {
        #[derive(Clone, Copy, PartialEq)]
        enum Mark {
            New,
            Open,
            Closed,
        }
        let mut marks = vec![Mark::New; self.states.len()];
        for start in 0..self.states.len() {
            let mut stack = vec![(start, false)];
            while let Some((index, leave)) = stack.pop() {
                if leave {
                    marks[index] = Mark::Closed;
                    continue;
                }
                if marks[index] != Mark::New {
                    continue;
                }
                marks[index] = Mark::Open;
                stack.push((index, true));
                for (&need, lines) in &self.states[index].needs {
                    if marks[need] == Mark::Open {
                        let message = format!("circular dependency detected on stage: {}", self.states[need].label);
                        return Err(Error::new(message).at(&self.source.place(lines.clone())));
                    }
                    stack.push((need, false));
                }
            }
        }
        Ok(())
    }

    /// The target and all that it stands on or takes from.
    pub fn reachable(&self, target: usize) -> BTreeSet<usize> {
        if self.all_stages {
            return (0..self.states.len()).collect();
        }
        let mut reachable = BTreeSet::new();
        let mut stack = vec![target];
        while let Some(index) = stack.pop() {
            if reachable.insert(index) {
                let state = &self.states[index];
                stack.extend(state.base);
                stack.extend(state.needs.keys());
            }
        }
        reachable
    }

    /// Resolves the bases of what the target needs. Triggers of a base may need more stages, and so on.
    pub fn resolve_stages(&mut self, target: usize) -> Result<()> {
        loop {
            let reachable = self.reachable(target);
            self.resolve_bases(&reachable)?;
            let mut more = false;
            for &index in &reachable {
                more |= self.read_triggers(index)?;
            }
            if !more {
                return Ok(());
            }
        }
    }

    /// Puts the triggers of a stage's base before its own instructions.
    fn read_triggers(&mut self, index: usize) -> Result<bool> {
        if std::mem::replace(&mut self.states[index].triggers_read, true) {
            return Ok(false);
        }
        let mut triggers = match self.states[index].base {
            None => std::mem::take(&mut self.states[index].image.config.on_build),
            Some(base) => self.states[base]
                .steps
                .iter()
                .filter_map(|planned| match &planned.step.instruction {
                    Instruction::Onbuild(trigger) => Some(trigger.clone()),
                    _ => None,
                })
                .collect(),
        };
        if self.states[index].replaced_by.is_some() || self.states[index].implied {
            // Nothing is built on top of it here.
            triggers.clear();
        }
        let mut more = false;
        let mut steps = Vec::with_capacity(triggers.len());
        for trigger in triggers {
            let lines = self.states[index].stage.lines.clone();
            let base = self.states[index].stage.base.clone();
            let located = |mut error: Error| {
                error.place = None;
                error.message = of_trigger(&base, &trigger, &error.message);
                error.at(&self.source.place(lines.clone()))
            };
            let node = parser::parse_trigger(&trigger).map_err(located)?;
            let mut step = instruction::trigger(&node).map_err(located)?;
            step.lines = lines.clone();
            let mut planned = Planned { step: Rc::new(step), sources: Vec::new(), in_trigger: true };
            more |= self.link(index, &mut planned)?;
            steps.push(planned);
        }
        let state = &mut self.states[index];
        // Counted whatever they are, as BuildKit does.
        state.total += steps.len();
        steps.append(&mut state.steps);
        state.steps = steps;
        if more {
            self.check_circles()?;
        }
        Ok(more)
    }

    /// Works through the instructions of every stage that the target needs.
    pub fn run_stages(&mut self, target: usize) -> Result<()> {
        let mut errors = Errors::default();
        let reachable = self.reachable(target);
        // A stage uses only stages before it, and the implied ones, which are done already.
        for &index in &reachable {
            if self.states[index].done {
                continue;
            }
            let placeholder = StageState::placeholder(self.platforms.target.clone());
            let mut state = std::mem::replace(&mut self.states[index], placeholder);
            if let Some(base) = state.base {
                state.inherit(&self.states[base]);
            }
            state.done = true;
            self.run_stage(&mut state, &mut errors);
            self.states[index] = state;
        }
        errors.finish()?;
        // The result is all of it.
        self.use_all_below(self.states[target].ground);
        Ok(())
    }

    /// Goes on after a mistake, as far as what follows does not follow from it.
    fn run_stage(&mut self, state: &mut StageState, errors: &mut Errors) {
        if state.platform.is_none() {
            state.platform = Some(self.platforms.target.clone());
        }
        let has_path = state.image.config.env.iter().any(|e| e.split('=').next() == Some("PATH"));
        if !has_path {
            state.image.config.env.push(format!("PATH={}", stage::DEFAULT_PATH));
        }
        for line in state.image.config.env.clone() {
            let (name, value) = line.split_once('=').unwrap_or((&line, ""));
            state.env.set(name, value);
        }
        let dir = state.image.config.working_dir.clone();
        if !dir.is_empty() {
            state.change_dir(&dir);
        }
        state.user.clone_from(&state.image.config.user);
        let steps = state.steps.clone();
        for planned in &steps {
            state.in_trigger = planned.in_trigger;
            state.linter = self.linter.with_comments(&planned.step.comments);
            let place = self.source.place(planned.step.lines.clone());
            let Err(error) = self.run_step(state, planned) else { continue };
            let mut error = error.at(&place);
            if planned.in_trigger {
                error.message = of_trigger(&state.stage.base, &planned.step.code, &error.message);
            }
            errors.push(error);
            // Without these nobody knows what the rest of the stage says.
            if errors.is_full() || matches!(planned.step.instruction, Instruction::Arg(_) | Instruction::Env(_)) {
                return;
            }
        }
    }

    fn run_step(&mut self, state: &mut StageState, planned: &Planned) -> Result<()> {
        let step = &planned.step;
        match &step.instruction {
            Instruction::Run(run) => self.run(state, step, run, &planned.sources),
            Instruction::Copy(copy) => {
                let source = planned.sources.first().copied().flatten();
                if let Some(source) = source
                    && !self.states[source].done
                {
                    return Err(Error::new(format!(
                        "cannot copy from stage {}, it needs to be defined before current stage {}",
                        quote(&copy.from),
                        quote(&state.label)
                    ))
                    .at_word(&self.source.place(step.lines.clone()), &copy.from));
                }
                self.copy(state, step, copy, source)
            }
            other => self.configure(state, step, other),
        }
    }
}

/// A mistake in an instruction that is not in the file, but came with the base.
fn of_trigger(base: &str, trigger: &str, message: &str) -> String {
    format!("ONBUILD trigger {} of {base}: {message}", quote(trigger))
}

/// Whether an instruction shows up in progress.
fn counts(instruction: &Instruction) -> bool {
    matches!(instruction, Instruction::Copy(_) | Instruction::Run(_) | Instruction::Workdir(_))
}
