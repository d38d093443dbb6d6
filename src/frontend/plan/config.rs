//! Instructions that change the image's config or the variables, and no files (WORKDIR makes its directory).

use super::Planner;
use super::outline::Note;
use super::stage::{self, StageState, shouted};
use crate::base::clean;
use crate::frontend::error::{Error, Result};
use crate::frontend::go::{self, quote};
use crate::frontend::instruction::{Argument, CommandLine, Instruction, Pair, Step};
use crate::frontend::lint::rules;
use crate::image::config::Healthcheck;
use crate::llb::file::{self, FileActions};
use crate::llb::pb;

impl StageState {
    /// Sets the working directory; a relative one starts from the one before.
    pub fn change_dir(&mut self, path: &str) {
        let current = &self.image.config.working_dir;
        let dir = match path {
            "" => clean::join(&["/", current]),
            path if path.starts_with('/') => path.to_owned(),
            path => clean::join(&["/", current, path]),
        };
        self.image.config.working_dir.clone_from(&dir);
        self.dir = dir;
    }

    /// A command as the image stores it.
    pub fn with_shell(&self, words: &[String]) -> Vec<String> {
        let mut command = match &self.image.config.shell {
            Some(shell) if !shell.is_empty() => shell.clone(),
            _ => vec!["/bin/sh".to_owned(), "-c".to_owned()],
        };
        command.push(words.join(" "));
        command
    }
}

impl Planner<'_> {
    /// Carries out everything but RUN, COPY and ADD.
    pub fn configure(&mut self, state: &mut StageState, step: &Step, instruction: &Instruction) -> Result<()> {
        match instruction {
            Instruction::Arg(arguments) => self.arg(state, step, arguments),
            Instruction::Env(pairs) => self.env(state, step, pairs),
            Instruction::Label(pairs) => self.label(state, step, pairs),
            Instruction::Workdir(path) => self.workdir(state, step, path),
            Instruction::Expose(ports) => self.expose(state, step, ports),
            Instruction::Volume(volumes) => self.volume(state, step, volumes),
            Instruction::StopSignal(signal) => self.stop_signal(state, step, signal),
            Instruction::User(user) => {
                let user = self.expand(state, user, &step.lines)?;
                state.user.clone_from(&user);
                state.image.config.user.clone_from(&user);
                self.note(state, format!("USER {user}"));
                Ok(())
            }
            Instruction::Cmd(command) => {
                self.cmd(state, step, command);
                Ok(())
            }
            Instruction::Entrypoint(command) => {
                self.entrypoint(state, step, command);
                Ok(())
            }
            Instruction::Healthcheck(check) => {
                self.healthcheck(state, step, check);
                Ok(())
            }
            Instruction::Maintainer(name) => {
                state.image.author = Some(name.clone());
                self.note(state, format!("MAINTAINER {name}"));
                Ok(())
            }
            Instruction::Onbuild(trigger) => {
                // It leaves no line in the history.
                state.image.config.on_build.push(trigger.clone());
                Ok(())
            }
            Instruction::Shell(shell) => {
                state.image.config.shell = Some(shell.clone());
                self.note(state, format!("SHELL {}", go::list(shell)));
                Ok(())
            }
            Instruction::Run(_) | Instruction::Copy(_) => Ok(()),
        }
    }

    /// A line in the history that made no layer.
    pub fn note(&self, state: &mut StageState, line: String) {
        state.commit(line, false, self.created());
    }

    fn arg(&mut self, state: &mut StageState, step: &Step, arguments: &[Argument]) -> Result<()> {
        let mut written = Vec::with_capacity(arguments.len());
        for argument in arguments {
            self.check_secret(state, "ARG", &argument.name, step);
            let given = self.given.get(&argument.name).cloned();
            // Without a value of its own it is the global argument of that name.
            let own = given.is_some() || argument.value.is_some() || self.globals.get(&argument.name).is_none();
            let value = match (given, &argument.value) {
                (Some(given), _) => Some(given),
                (None, Some(default)) => Some(self.expand(state, default, &step.lines)?),
                (None, None) => self.globals.get(&argument.name).map(str::to_owned),
            };
            if let Some(value) = &value
                && !stage::is_scan_argument(&argument.name)
            {
                state.env.set(&argument.name, value.as_str());
            }
            let note = || Note {
                description: argument.description.clone(),
                value: value.clone(),
                lines: step.lines.clone(),
                uses: Default::default(),
            };
            state.notes.argument(&argument.name, own.then(note));
            written.push(match &value {
                Some(value) => format!("{}={value}", argument.name),
                None => argument.name.clone(),
            });
            state.build_args.push(Argument { value, ..argument.clone() });
        }
        self.note(state, format!("ARG {}", written.join(" ")));
        Ok(())
    }

    /// All values are expanded with what was set before the line.
    fn expanded(&mut self, state: &StageState, step: &Step, pairs: &[Pair]) -> Result<Vec<Pair>> {
        let mut expanded = Vec::with_capacity(pairs.len());
        for pair in pairs {
            expanded.push(Pair {
                name: self.expand(state, &pair.name, &step.lines)?,
                value: self.expand(state, &pair.value, &step.lines)?,
                legacy: pair.legacy,
            });
        }
        Ok(expanded)
    }

    fn env(&mut self, state: &mut StageState, step: &Step, pairs: &[Pair]) -> Result<()> {
        let mut line = String::from("ENV");
        for Pair { name, value, legacy } in self.expanded(state, step, pairs)? {
            self.check_legacy(state, step, legacy);
            self.check_secret(state, "ENV", &name, step);
            line.push_str(&format!(" {name}={value}"));
            state.env.set(&name, value.as_str());
            state.set_image_env(&name, &value);
        }
        self.note(state, line);
        Ok(())
    }

    fn label(&mut self, state: &mut StageState, step: &Step, pairs: &[Pair]) -> Result<()> {
        let mut line = String::from("LABEL");
        for Pair { name, value, legacy } in self.expanded(state, step, pairs)? {
            self.check_legacy(state, step, legacy);
            line.push_str(&format!(" {name}={value}"));
            state.image.config.labels.insert(name, value);
        }
        self.note(state, line);
        Ok(())
    }

    fn check_legacy(&self, state: &StageState, step: &Step, legacy: bool) {
        if legacy {
            let name = &step.keyword;
            state.linter.report(&rules::LEGACY_KEY_VALUE_FORMAT, &step.lines, || {
                format!("\"{name} key=value\" should be used instead of legacy \"{name} key value\" format")
            });
        }
    }

    /// Warns of names that sound like secrets.
    fn check_secret(&self, state: &StageState, instruction: &str, name: &str, step: &Step) {
        const SECRET: [&str; 10] =
            ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
        const HARMLESS: [&str; 3] = ["public", "file", "version"];
        let lower = name.to_lowercase();
        let has = |words: &[&str]| lower.split('_').any(|part| words.contains(&part));
        if has(&SECRET) && !has(&HARMLESS) {
            state.linter.report(&rules::SECRETS_USED_IN_ARG_OR_ENV, &step.lines, || {
                format!("Do not use ARG or ENV instructions for sensitive data ({instruction} {})", quote(name))
            });
        }
    }

    fn workdir(&mut self, state: &mut StageState, step: &Step, path: &str) -> Result<()> {
        let path = self.expand(state, path, &step.lines)?;
        if !state.workdir_set && !path.starts_with('/') {
            state.linter.report(&rules::WORKDIR_RELATIVE_PATH, &step.lines, || {
                format!("Relative workdir {} can have unexpected results if the base image changes", quote(&path))
            });
        }
        state.workdir_set = true;
        state.change_dir(&path);
        let dir = state.dir.clone();
        let layer = dir != "/";
        if layer {
            let mut actions = FileActions::on(state.root);
            let owner =
                (!state.image.config.user.is_empty()).then(|| file::owner(&state.image.config.user, actions.base()));
            actions.mkdir(pb::FileActionMkDir {
                path: clean::join(&["/", &dir]),
                mode: 0o755,
                make_parents: true,
                owner,
                timestamp: self.epoch.map_or(file::NO_TIMESTAMP, |seconds| seconds.saturating_mul(1_000_000_000)),
            });
            let name = self.shown(state, &step.code)?;
            let mut draft = actions.into_draft();
            draft.name(self.step_name(state, &name));
            draft.lines = self.lines(&step.lines);
            state.root = Some(self.builder.output(draft));
        }
        state.commit(format!("WORKDIR {dir}"), layer, self.created());
        Ok(())
    }

    /// An instruction as progress shows it: variables expanded as far as that works.
    pub fn shown(&mut self, state: &StageState, code: &str) -> Result<String> {
        let shown = match self.lexer.expand(code, &state.env) {
            Ok(expansion) => shouted(&expansion.text),
            Err(_) => shouted(code),
        };
        self.spend(shown.len())?;
        Ok(shown)
    }

    pub fn step_name(&self, state: &mut StageState, command: &str) -> String {
        let platform = state.platform().clone();
        state.step_name(command, self.input.multi_platform.then_some(&platform))
    }

    fn volume(&mut self, state: &mut StageState, step: &Step, volumes: &[String]) -> Result<()> {
        let mut expanded = Vec::with_capacity(volumes.len());
        for volume in volumes {
            let path = self.expand(state, volume, &step.lines)?;
            if path.is_empty() {
                return Err(Error::new("VOLUME specified can not be an empty string"));
            }
            state.image.config.volumes.insert(path.clone(), serde_json::json!({}));
            expanded.push(path);
        }
        self.note(state, format!("VOLUME {}", go::list(&expanded)));
        Ok(())
    }

    fn stop_signal(&mut self, state: &mut StageState, step: &Step, signal: &str) -> Result<()> {
        let signal = self.expand(state, signal, &step.lines)?;
        if !is_signal(&signal) {
            let error =
                Error::new(format!("invalid signal: {signal}")).hint("write a name such as SIGTERM, or a number");
            return Err(error.at_word(&self.source.place(step.lines.clone()), &signal));
        }
        state.image.config.stop_signal = Some(signal.clone());
        self.note(state, format!("STOPSIGNAL {signal}"));
        Ok(())
    }

    fn cmd(&self, state: &mut StageState, step: &Step, command: &CommandLine) {
        let before = state.cmd.replace(step.lines.clone());
        self.check_once(state, step, before);
        let words = self.command(state, step, command);
        state.image.config.extra.insert("ArgsEscaped".to_owned(), true.into());
        self.note(state, format!("CMD {}", go::quoted_list(&words)));
        state.image.config.cmd = (!words.is_empty()).then_some(words);
    }

    fn entrypoint(&self, state: &mut StageState, step: &Step, command: &CommandLine) {
        let before = state.entrypoint.replace(step.lines.clone());
        self.check_once(state, step, before);
        let words = self.command(state, step, command);
        if state.cmd.is_none() {
            // The base image's arguments are not for this entry point.
            state.image.config.cmd = None;
        }
        self.note(state, format!("ENTRYPOINT {}", go::quoted_list(&words)));
        state.image.config.entrypoint = (!words.is_empty()).then_some(words);
    }

    fn command(&self, state: &StageState, step: &Step, command: &CommandLine) -> Vec<String> {
        if !command.shell {
            return command.words.clone();
        }
        if state.image.config.shell.as_ref().is_none_or(Vec::is_empty) {
            state.linter.report(&rules::JSON_ARGS_RECOMMENDED, &step.lines, || {
                format!(
                    "JSON arguments recommended for {} to prevent unintended behavior related to OS signals",
                    step.keyword
                )
            });
        }
        state.with_shell(&command.words)
    }

    fn healthcheck(&self, state: &mut StageState, step: &Step, check: &Healthcheck) {
        let before = state.healthcheck.replace(step.lines.clone());
        self.check_once(state, step, before);
        let line = format!(
            "HEALTHCHECK {{Test:{} Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
            go::list(&check.test),
            go::duration(check.interval),
            go::duration(check.timeout),
            go::duration(check.start_period),
            go::duration(check.start_interval),
            check.retries
        );
        state.image.config.healthcheck = Some(check.clone());
        self.note(state, line);
    }

    /// Only the last CMD, ENTRYPOINT or HEALTHCHECK of a stage counts: the one before is pointed at.
    fn check_once(&self, state: &StageState, step: &Step, before: Option<std::ops::RangeInclusive<usize>>) {
        let Some(before) = before else { return };
        state.linter.report(&rules::MULTIPLE_INSTRUCTIONS_DISALLOWED, &before, || {
            format!(
                "Multiple {} instructions should not be used in the same stage because only the last one will be used",
                step.keyword
            )
        });
    }
}

/// A number above 0, or a name with or without `SIG`.
fn is_signal(text: &str) -> bool {
    const NAMES: [&str; 36] = [
        "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE", "POLL",
        "PROF", "PWR", "QUIT", "RTMAX", "RTMIN", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN",
        "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
    ];
    if let Some(number) = go::parse_int(text, 64) {
        return number > 0;
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |prefix: &str, range: std::ops::RangeInclusive<u32>| {
        name.strip_prefix(prefix).and_then(|n| n.parse().ok()).is_some_and(|n: u32| range.contains(&n))
    };
    NAMES.contains(&name) || offset("RTMIN+", 1..=15) || offset("RTMAX-", 1..=14)
}

#[cfg(test)]
mod tests {
    use super::is_signal;

    #[test]
    fn signals_are_numbers_or_names() {
        for text in ["9", "SIGTERM", "term", "SIGRTMIN+3", "RTMAX-14"] {
            assert!(is_signal(text), "{text}");
        }
        for text in ["", "0", "-1", "SIGNOPE", "RTMIN+16", "RTMAX+1"] {
            assert!(!is_signal(text), "{text}");
        }
    }
}
