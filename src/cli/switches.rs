//! Switches with a value, as Go's flags have them: `--rm=true`, `--pull=false`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use clap::builder::ArgAction;
use clap::{Arg, Command};

/// The words with `--switch=true` as `--switch`, and without `--switch=false`. What follows the first word that is
/// neither a verb nor an option's value, or follows `--`, is not ours to change when it may be another program's.
pub fn plain(command: &Command, words: &[OsString]) -> Vec<OsString> {
    let mut here = command;
    let mut parents = Vec::new();
    let mut plain = Vec::with_capacity(words.len());
    let mut left = words.iter();
    plain.extend(left.next().cloned());
    while let Some(word) = left.next() {
        let text = word.as_bytes();
        if text == b"--" || !text.starts_with(b"-") && !is_verb(here, word) && hands_on(here) {
            plain.push(word.clone());
            break;
        }
        if !text.starts_with(b"-") {
            plain.push(word.clone());
            if let Some(verb) = here.find_subcommand(word) {
                parents.push(here);
                here = verb;
            }
            continue;
        }
        let known = || here.get_arguments().chain(parents.iter().flat_map(|parent| parent.get_arguments()));
        match switch(known(), word) {
            Some((name, true)) => plain.push(name),
            Some((_, false)) => {}
            None => {
                plain.push(word.clone());
                // The next word is this option's value, whatever it looks like.
                if known().any(|option| wants_next(option, word)) {
                    plain.extend(left.next().cloned());
                }
            }
        }
    }
    plain.extend(left.cloned());
    plain
}

fn is_verb(command: &Command, word: &OsStr) -> bool {
    command.find_subcommand(word).is_some()
}

/// Whether words after the first positional ones belong to a program that is started.
fn hands_on(command: &Command) -> bool {
    command.get_arguments().any(Arg::is_trailing_var_arg_set)
}

/// A switch that is told what to be.
fn switch<'a>(mut known: impl Iterator<Item = &'a Arg>, word: &OsStr) -> Option<(OsString, bool)> {
    let (name, value) = word.to_str()?.strip_prefix("--")?.split_once('=')?;
    // What Go's strconv.ParseBool takes.
    let value = match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
        "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
        _ => return None,
    };
    let is_switch = known.any(|arg| matches!(arg.get_action(), ArgAction::SetTrue) && is_long(arg, name));
    is_switch.then(|| (format!("--{name}").into(), value))
}

fn is_long(arg: &Arg, name: &str) -> bool {
    arg.get_long() == Some(name) || arg.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
}

/// Whether a word is an option whose value is the next word.
fn wants_next(arg: &Arg, word: &OsStr) -> bool {
    if !arg.get_action().takes_values() || arg.is_require_equals_set() {
        return false;
    }
    match word.to_str().map(|text| (text.strip_prefix("--"), text)) {
        Some((Some(long), _)) => is_long(arg, long),
        // `-f FILE`, and `-itv SPEC`: the last letter of a cluster.
        Some((None, cluster)) => cluster.chars().last() == arg.get_short() && cluster.len() > 1,
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::faces::docker::Docker;

    #[test]
    fn switches_lose_their_value_and_other_programs_words_stay() {
        let cases = [
            ("docker build --pull=false --no-cache=true .", "docker build --no-cache ."),
            ("docker build --pull=maybe .", "docker build --pull=maybe ."),
            ("docker build -t --pull=false .", "docker build -t --pull=false ."),
            ("docker --debug=1 image build --quiet=t .", "docker --debug image build --quiet ."),
            ("docker build --build-arg a=true --label=b=true .", "docker build --build-arg a=true --label=b=true ."),
            ("docker run --rm=true -itv a:b image ls --rm=true", "docker run --rm -itv a:b image ls --rm=true"),
            ("docker run --read-only=false -e X=1 image --rm=true", "docker run -e X=1 image --rm=true"),
            ("docker rm --force=true a b", "docker rm --force a b"),
            ("docker build -- --pull=true", "docker build -- --pull=true"),
        ];
        for (typed, expected) in cases {
            let words: Vec<OsString> = typed.split(' ').map(OsString::from).collect();
            let plain = plain(&Docker::command(), &words);
            assert_eq!(plain.join(OsStr::new(" ")), expected, "{typed}");
        }
    }
}
