//! COPY and ADD: files from a context, a stage, an address, a repository, or the Dockerfile itself.

use std::ops::RangeInclusive;

use super::Planner;
use super::stage::StageState;
use crate::base::{Digest, clean};
use crate::frontend::error::{Error, Result};
use crate::frontend::git::{self, GitRef};
use crate::frontend::go::quote;
use crate::frontend::instruction::{Copy, Step};
use crate::frontend::lint::rules;
use crate::frontend::shell::Lexer;
use crate::llb::build::Draft;
use crate::llb::file::{self, FileActions};
use crate::llb::{Output, merge, pb, source};

/// `--chmod`
struct Mode {
    bits: i32,
    /// Symbolic, such as `u+x`; empty for none.
    symbolic: String,
}

impl Planner<'_> {
    pub fn copy(&mut self, state: &mut StageState, step: &Step, copy: &Copy, from: Option<usize>) -> Result<()> {
        let copy = self.expanded_copy(state, copy, &step.lines)?;
        let dest = kept_slash(&state.absolute(&copy.dest));
        let mode = mode(&copy.chmod)?;
        check_checksum(&copy)?;
        let keyword = if copy.is_add { "ADD" } else { "COPY" };
        let shown = self.shown(state, &step.code)?;
        let name = self.step_name(state, &shown);

        // `--link` makes a layer of its own, with nothing below; a mode needs nothing below either, but BuildKit
        // does not link then.
        let linked = copy.link && copy.chmod.is_empty();
        let mut actions = FileActions::on(if linked { None } else { state.root });
        let owner = (!copy.chown.is_empty()).then(|| file::owner(&copy.chown, actions.base()));
        let action = pb::FileActionCopy {
            dest,
            owner,
            mode: mode.bits,
            mode_str: mode.symbolic,
            create_dest_path: true,
            exclude_patterns: copy.exclude.clone(),
            timestamp: file::NO_TIMESTAMP,
            ..pb::FileActionCopy::default()
        };
        for path in &copy.sources {
            match git::parse(path)? {
                Some(repository) if !repository.could_be_local => {
                    let output = self.add_git(&copy, repository, step, &name)?;
                    actions.copy(Some(output), pb::FileActionCopy { src: "/".to_owned(), ..action.clone() });
                }
                _ if is_http(path) => {
                    let (output, file) = self.add_http(&copy, path, step, &name)?;
                    actions.copy(
                        Some(output),
                        pb::FileActionCopy {
                            src: format!("/{file}"),
                            attempt_unpack_docker_compatibility: copy.unpack.unwrap_or(false),
                            ..action.clone()
                        },
                    );
                }
                _ => {
                    if from.is_none() {
                        self.check_ignored(state, &copy, path, &step.lines);
                    }
                    let (src, include, required) = selection(&copy, path);
                    let output = match from {
                        Some(stage) => {
                            self.use_stage(stage, path);
                            self.states[stage].root
                        }
                        None => {
                            self.use_context(path);
                            self.main_context()?
                        }
                    };
                    actions.copy(
                        output,
                        pb::FileActionCopy {
                            src,
                            follow_symlink: true,
                            dir_copy_contents: true,
                            attempt_unpack_docker_compatibility: copy.unpack.unwrap_or(copy.is_add),
                            allow_wildcard: true,
                            allow_empty_wildcard: true,
                            include_patterns: include,
                            required_paths: required,
                            ..action.clone()
                        },
                    );
                }
            }
        }
        for inline in &copy.inline {
            let output = self.inline_file(&inline.name, 0o644, &inline.content);
            let src = clean::join(&["/", &inline.name]);
            actions.copy(Some(output), pb::FileActionCopy { src, ..action.clone() });
        }
        let mut draft = actions.into_draft();
        draft.lines = self.lines(&step.lines);
        draft.meta.ignore_cache = state.no_cache;
        draft.name(name.clone());
        state.root =
            if linked { self.link_over(state, draft, &shown, &name) } else { Some(self.builder.output(draft)) };
        let line = format!("{keyword}{} # buildkit", history_words(&copy));
        self.spend(line.len())?;
        state.commit(line, true, self.created());
        Ok(())
    }

    fn expanded_copy(&mut self, state: &StageState, copy: &Copy, lines: &RangeInclusive<usize>) -> Result<Copy> {
        let mut copy = copy.clone();
        copy.chown = self.expand(state, &copy.chown, lines)?;
        copy.chmod = self.expand(state, &copy.chmod, lines)?;
        copy.checksum = self.expand(state, &copy.checksum, lines)?;
        for path in &mut copy.sources {
            *path = self.expand(state, path, lines)?;
        }
        copy.dest = self.expand(state, &copy.dest, lines)?;
        // In a here-document only variables are special, whatever the file's escape character.
        let lexer = Lexer { plain_quotes: true, ..Lexer::new('\\') };
        for inline in copy.inline.iter_mut().filter(|i| i.expand) {
            inline.content = self.expand_with(lexer, state, &inline.content, lines)?;
        }
        Ok(copy)
    }

    /// The copy as a layer on its own, merged over what is below.
    fn link_over(&mut self, state: &mut StageState, mut draft: Draft, shown: &str, name: &str) -> Option<Output> {
        // Counted once, though two ops carry the name.
        state.index -= usize::from(state.total > 0);
        let merged_name = self.step_name(state, &format!("LINK {shown}"));
        // BuildKit's is random; equal steps group equally here, so that two builds give the same definition.
        let id = format!("link:{}", Digest::of(name).short());
        let group = |weak| Some(pb::ProgressGroup { id: id.clone(), name: name.to_owned(), weak });
        draft.meta.progress_group = group(true);
        let (lines, ignore_cache) = (draft.lines.clone(), draft.meta.ignore_cache);
        let copied = self.builder.output(draft);
        merge::merge(&mut self.builder, &[state.root, Some(copied)], |draft| {
            draft.lines = lines;
            draft.meta.ignore_cache = ignore_cache;
            draft.meta.progress_group = group(false);
            draft.name(merged_name);
        })
    }

    fn add_git(&mut self, copy: &Copy, repository: GitRef, step: &Step, name: &str) -> Result<Output> {
        if !copy.is_add {
            return Err(Error::new("source can't be a git ref for COPY").about(&repository.git.remote).hint("use ADD"));
        }
        let mut git = repository.git;
        if let (Some(flag), Some(query)) = (copy.keep_git_dir, repository.keep_git_dir)
            && flag != query
        {
            return Err(Error::new("inconsistent keep-git-dir configuration"));
        }
        git.keep_git_dir = repository.keep_git_dir.or(copy.keep_git_dir).unwrap_or(false);
        if git.checksum.is_empty() {
            git.checksum.clone_from(&copy.checksum);
        } else if !copy.checksum.is_empty() && copy.checksum != git.checksum {
            return Err(Error::new(format!("checksum mismatch {} != {}", quote(&copy.checksum), quote(&git.checksum))));
        }
        // For a context only.
        git.mtime.clear();
        let mut draft = git.draft();
        draft.lines = self.lines(&step.lines);
        draft.name(name);
        Ok(self.builder.output(draft))
    }

    /// The file at an address, and the name it gets.
    fn add_http(&mut self, copy: &Copy, address: &str, step: &Step, name: &str) -> Result<(Output, String)> {
        if !copy.is_add {
            return Err(Error::new("source can't be a URL for COPY").about(address).hint("use ADD"));
        }
        if !copy.checksum.is_empty() {
            copy.checksum.parse::<Digest>().map_err(|e| Error::new(format!("--checksum: {e}")))?;
        }
        let path = url::Url::parse(address).map(|u| decoded_path(&u)).unwrap_or_default();
        let file = match clean::base(&path) {
            "." | "/" => "__unnamed__".to_owned(),
            base => base.to_owned(),
        };
        let mut draft = source::http(address, &file, &copy.checksum);
        draft.lines = self.lines(&step.lines);
        draft.name(name);
        Ok((self.builder.output(draft), file))
    }

    /// Warns of a source that the ignore file hides.
    fn check_ignored(&self, state: &StageState, copy: &Copy, path: &str, lines: &RangeInclusive<usize>) {
        // With exclusions nobody can tell without looking at the files.
        let Some(matcher) = self.ignore.as_ref().filter(|m| !m.has_exclusions()) else { return };
        let path = clean::path(path);
        let root = path == "." || path == "/";
        if root && !matcher.patterns().iter().any(|p| matches!(p.text(), "*" | "**" | "**/*")) {
            return;
        }
        if matcher.matches(&path).unwrap_or(false) {
            let command = if copy.is_add { "Add" } else { "Copy" };
            state.linter.report(&rules::COPY_IGNORED_FILE, lines, || {
                format!("Attempting to {command} file {} that is excluded by .dockerignore", quote(&path))
            });
        }
    }
}

fn decoded_path(url: &url::Url) -> String {
    let path = url.path();
    let query = format!("x={}", path.replace('+', "%2B"));
    let decoded = url::form_urlencoded::parse(query.as_bytes()).next().map(|(_, value)| value.into_owned());
    decoded.unwrap_or_else(|| path.to_owned())
}

/// Cleaned, but a slash or `/.` at the end stays: it says that the destination is a directory.
fn kept_slash(path: &str) -> String {
    let mut cleaned = clean::join(&["/", path]);
    if path.ends_with('/') && !cleaned.ends_with('/') {
        cleaned.push('/');
    } else if path.ends_with("/.") {
        if cleaned != "/" {
            cleaned.push('/');
        }
        cleaned.push('.');
    }
    cleaned
}

/// What of the source is copied: the path, and with `--parents` the patterns below it and what must exist.
fn selection(copy: &Copy, path: &str) -> (String, Vec<String>, Vec<String>) {
    if !copy.parents {
        return (clean::join(&["/", path]), Vec::new(), Vec::new());
    }
    // What stands before the pivot does not come along.
    let (base, pattern) = path.split_once("/./").unwrap_or(("/", path));
    // An absolute pattern is taken as it stands; only a relative one is cleaned.
    let pattern = if pattern.starts_with('/') { pattern.to_owned() } else { clean::join(&["/", pattern]) };
    let required = if has_wildcard(base) || has_wildcard(&pattern) {
        Vec::new()
    } else {
        vec![clean::join(&["/", base, &pattern])]
    };
    let include = pattern.strip_prefix('/').unwrap_or(&pattern).to_owned();
    (clean::join(&["/", base]), vec![include], required)
}

fn has_wildcard(path: &str) -> bool {
    let mut chars = path.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' | '?' | '[' => return true,
            '\\' => {
                chars.next();
            }
            _ => {}
        }
    }
    false
}

pub fn is_http(path: &str) -> bool {
    path.starts_with("http://") || path.starts_with("https://")
}

fn check_checksum(copy: &Copy) -> Result<()> {
    if copy.checksum.is_empty() {
        return Ok(());
    }
    let [source] = &copy.sources[..] else {
        return Err(Error::new("checksum can't be specified for multiple sources"));
    };
    if !is_http(source) && git::parse(source)?.is_none_or(|g| g.could_be_local) {
        return Err(Error::new("checksum requires HTTP(S) or Git sources"));
    }
    Ok(())
}

fn mode(chmod: &str) -> Result<Mode> {
    if chmod.is_empty() {
        return Ok(Mode { bits: file::NO_MODE, symbolic: String::new() });
    }
    let invalid = || {
        let problem = format!("invalid chmod parameter: '{chmod}'. it should be octal string and between 0 and 07777");
        Error::new(problem).about(chmod)
    };
    if chmod.bytes().all(|b| b.is_ascii_digit()) {
        let bits = i32::from_str_radix(chmod, 8).ok().filter(|bits| *bits <= 0o7777).ok_or_else(invalid)?;
        return Ok(Mode { bits, symbolic: String::new() });
    }
    if !is_symbolic(chmod) {
        return Err(invalid());
    }
    Ok(Mode { bits: 0, symbolic: chmod.to_owned() })
}

/// `u+rwX,go-w`, `a=r`, `g=u`
fn is_symbolic(mode: &str) -> bool {
    mode.split(',').all(|clause| {
        let actions = clause.trim_start_matches(['u', 'g', 'o', 'a']);
        let mut parts = actions.split(['+', '-', '=']);
        let starts_with_operator = parts.next() == Some("");
        let permissions = |p: &str| {
            matches!(p, "u" | "g" | "o") || p.bytes().all(|b| matches!(b, b'r' | b'w' | b'x' | b'X' | b's' | b't'))
        };
        starts_with_operator && !actions.is_empty() && parts.all(permissions)
    })
}

/// The words after the keyword, as history shows them.
fn history_words(copy: &Copy) -> String {
    let mut words = String::new();
    let mut push = |word: String| {
        words.push(' ');
        words.push_str(&word);
    };
    if copy.parents {
        push("--parents".to_owned());
    }
    if !copy.chown.is_empty() {
        push(format!("--chown={}", copy.chown));
    }
    if !copy.chmod.is_empty() {
        push(format!("--chmod={}", copy.chmod));
    }
    copy.sources.iter().for_each(|s| push(s.clone()));
    copy.inline.iter().for_each(|i| push(format!("<<{}", i.name)));
    push(copy.dest.clone());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal_or_symbolic() {
        for (text, bits) in [("755", 0o755), ("0644", 0o644), ("7777", 0o7777), ("0", 0)] {
            assert_eq!(mode(text).unwrap().bits, bits, "{text}");
        }
        for text in ["u+x", "go-w,u=rw", "a=r", "=", "+X", "g=u", "u+s,+t", "u=rwx-x"] {
            assert_eq!(mode(text).unwrap().symbolic, text);
        }
        for text in ["8", "10000", "foo", "u", "u+y", "x+u", "-1x", "u+x,"] {
            assert!(mode(text).is_err(), "{text}");
        }
    }

    #[test]
    fn parents_turn_at_the_pivot() {
        let copy = Copy { parents: true, ..Copy::default() };
        let select = |path| selection(&copy, path);
        let strings = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        assert_eq!(select("a/b"), ("/".into(), strings(&["a/b"]), strings(&["/a/b"])));
        assert_eq!(select("a/./b/c"), ("/a".into(), strings(&["b/c"]), strings(&["/a/b/c"])));
        assert_eq!(select("a/./*.c"), ("/a".into(), strings(&["*.c"]), strings(&[])));
    }

    #[test]
    fn a_slash_at_the_end_says_directory() {
        let cases =
            [("/a", "/a"), ("/a/", "/a/"), ("/a/.", "/a/."), ("/", "/"), ("/.", "/."), ("/a//b/../c/", "/a/c/")];
        for (path, expected) in cases {
            assert_eq!(kept_slash(path), expected);
        }
    }
}
