//! What a build can be given: the arguments, secrets and agents that the target and the stages below it use.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use super::Planner;
use crate::frontend::input::{Needed, Outline, Parameter};

/// What one stage uses of what may be given from outside.
#[derive(Debug, Clone, Default)]
pub struct Notes {
    /// Arguments with a value of the stage's own.
    arguments: Arguments,
    used: BTreeSet<String>,
    secrets: Wanted,
    ssh: Wanted,
}

/// Arguments by name.
pub type Arguments = BTreeMap<String, Note>;

type Wanted = BTreeMap<String, (bool, RangeInclusive<usize>)>;

/// One ARG.
#[derive(Debug, Clone)]
pub struct Note {
    pub description: String,
    pub value: Option<String>,
    pub lines: RangeInclusive<usize>,
    /// Arguments that its default value is made of.
    pub uses: BTreeSet<String>,
}

impl Notes {
    pub fn uses<'a>(&mut self, names: impl IntoIterator<Item = &'a String>) {
        self.used.extend(names.into_iter().cloned());
    }

    /// An ARG of the stage; without a note, the global one of that name.
    pub fn argument(&mut self, name: &str, note: Option<Note>) {
        self.used.insert(name.to_owned());
        if let Some(note) = note {
            self.arguments.insert(name.to_owned(), note);
        }
    }

    /// The first one of a name stays.
    pub fn secret(&mut self, id: &str, required: bool, lines: &RangeInclusive<usize>) {
        self.secrets.entry(id.to_owned()).or_insert_with(|| (required, lines.clone()));
    }

    pub fn ssh(&mut self, id: &str, required: bool, lines: &RangeInclusive<usize>) {
        self.ssh.entry(id.to_owned()).or_insert_with(|| (required, lines.clone()));
    }
}

impl Planner<'_> {
    /// Of the target and all that it stands on or takes from; in the order of the file.
    pub fn outline(&self, target: usize) -> Outline {
        let (mut arguments, mut secrets, mut ssh) = (Arguments::new(), Wanted::new(), Wanted::new());
        let mut seen = BTreeSet::new();
        let mut stack = vec![target];
        while let Some(index) = stack.pop() {
            if !seen.insert(index) {
                continue;
            }
            let state = &self.states[index];
            self.collect_arguments(&state.notes, &mut arguments);
            for (all, own) in [(&mut secrets, &state.notes.secrets), (&mut ssh, &state.notes.ssh)] {
                for (id, wanted) in own {
                    all.entry(id.clone()).or_insert_with(|| wanted.clone());
                }
            }
            // What a stage stands on is looked at before what it takes files of.
            stack.extend(state.needs.keys().rev());
            stack.extend(state.base);
        }
        let parameter = |(name, note): (String, Note)| Parameter {
            name,
            description: note.description,
            value: note.value.unwrap_or_default(),
            place: self.source.place(note.lines),
        };
        let mut arguments: Vec<Parameter> = arguments.into_iter().map(parameter).collect();
        arguments.sort_by_key(|a| *a.place.lines.start());
        let stage = &self.states[target].stage;
        Outline {
            name: stage.name.clone(),
            description: stage.description.clone(),
            arguments,
            secrets: self.needed(secrets),
            ssh: self.needed(ssh),
            source: self.source.text.clone(),
        }
    }

    /// What a stage uses, and what the defaults of that are made of.
    fn collect_arguments(&self, notes: &Notes, found: &mut Arguments) {
        let mut stack: Vec<&String> = notes.used.iter().collect();
        let mut seen = BTreeSet::new();
        while let Some(name) = stack.pop() {
            if !seen.insert(name) {
                continue;
            }
            let Some(note) = notes.arguments.get(name).or_else(|| self.arguments.get(name)) else { continue };
            found.entry(name.clone()).or_insert_with(|| note.clone());
            stack.extend(&note.uses);
        }
    }

    fn needed(&self, wanted: Wanted) -> Vec<Needed> {
        let needed =
            |(name, (required, lines)): (String, _)| Needed { name, required, place: self.source.place(lines) };
        let mut needed: Vec<Needed> = wanted.into_iter().map(needed).collect();
        needed.sort_by_key(|n| *n.place.lines.start());
        needed
    }
}
