//! Which paths of a tree a copy is about: wildcards, followed symlinks, and the error for what is not there.

use std::io;
use std::path::{Path, PathBuf};

use crate::base::patterns::{BadPattern, glob};
use crate::snapshot::{Tree, clean, resolve};

#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    /// What the user named does not exist; `path` is absolute inside the tree.
    #[error("{path}: not found")]
    NotFound { path: String },
    #[error(transparent)]
    Pattern(#[from] BadPattern),
    #[error("{path}: {source}")]
    Io { path: String, source: io::Error },
}

/// A path as it was written, cleaned, with a trailing `/` or `/.` kept: it says that a directory is meant.
pub fn written(path: &str) -> String {
    let cleaned = format!("/{}", clean(Path::new(path)).display());
    let suffix = match () {
        () if cleaned == "/" => "",
        () if path.ends_with("/.") => "/.",
        () if path.ends_with('/') => "/",
        () => "",
    };
    format!("{cleaned}{suffix}")
}

pub fn shown(path: &Path) -> String {
    format!("/{}", path.display())
}

pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> SelectError + '_ {
    move |source| SelectError::Io { path: shown(path), source }
}

/// Whether any part of a path is a pattern, by the rules of copy: an escaped character is none.
pub fn has_wildcards(path: &str) -> bool {
    let mut chars = path.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            '*' | '?' | '[' => return true,
            _ => {}
        }
    }
    false
}

/// The paths that a pattern matches, in the order of a walk, with the symlinks before the first wildcard resolved (the last of them only when
/// `follow`). A path without wildcards is itself, and need not exist.
pub fn expand(tree: &dyn Tree, pattern: &str, follow: bool) -> Result<Vec<PathBuf>, SelectError> {
    let cleaned = clean(Path::new(pattern));
    let parts: Vec<String> = cleaned.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    let Some(first) = parts.iter().position(|part| has_wildcards(part)) else { return Ok(vec![cleaned]) };
    let prefix: PathBuf = parts[..first].iter().collect();
    let base = resolve(tree, &prefix, follow).map_err(at(&prefix))?;
    let Some(node) = tree.lookup(&base).map_err(at(&base))? else {
        return Err(SelectError::NotFound { path: shown(&prefix) });
    };
    let mut matches = Vec::new();
    if node.is_dir() {
        descend(tree, &base, &parts[first..], &mut matches)?;
    } else {
        glob::check(&parts[first..].join("/"))?;
    }
    Ok(matches)
}

/// A wildcard never reaches over a `/`, so each part is matched with the names of one directory.
fn descend(tree: &dyn Tree, dir: &Path, parts: &[String], matches: &mut Vec<PathBuf>) -> Result<(), SelectError> {
    let Some((part, rest)) = parts.split_first() else { return Ok(()) };
    glob::check(part)?;
    for name in tree.read_dir(dir).map_err(at(dir))? {
        // A name that is no text can only be matched by what matches any text; Go compares bytes, and so it can there.
        if !glob::matches(part, &name.to_string_lossy())? {
            continue;
        }
        let path = dir.join(&name);
        if rest.is_empty() {
            matches.push(path);
        } else if tree.lookup(&path).map_err(at(&path))?.is_some_and(|node| node.is_dir()) {
            descend(tree, &path, rest, matches)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::testing::{dir, file, link, memory};

    #[test]
    fn patterns_match_names_part_by_part() {
        let tree = memory(&[
            dir("a"),
            file("a/x.c", ""),
            file("a/y.c", ""),
            file("a/z.h", ""),
            dir("a/sub"),
            file("a/sub/w.c", ""),
            dir("b"),
            file("b/x.c", ""),
            file("b/[k]", ""),
            link("l", "a"),
        ]);
        let cases: [(&str, &[&str], &str); 9] = [
            ("/a/x.c", &["a/x.c"], "no wildcard"),
            ("none", &["none"], "a plain path need not exist"),
            ("a/*.c", &["a/x.c", "a/y.c"], "one directory"),
            ("*/x.c", &["a/x.c", "b/x.c"], "a directory part; a symlink is not walked into"),
            ("a/s*", &["a/sub"], "a directory as it is"),
            ("*/*/*", &["a/sub/w.c"], "exactly as deep as written"),
            ("l/*.h", &["a/z.h"], "a symlink before the wildcard is followed when asked"),
            ("b/\\[k]", &["b/\\[k]"], "an escaped bracket is no wildcard"),
            ("a/*.none", &[], "nothing"),
        ];
        for (pattern, expected, why) in cases {
            let got = expand(&*tree, pattern, true).unwrap();
            assert_eq!(got, expected.iter().map(PathBuf::from).collect::<Vec<_>>(), "{why}");
        }
        assert_eq!(expand(&*tree, "nowhere/*", true).unwrap_err().to_string(), "/nowhere: not found");
        assert!(expand(&*tree, "a/[", true).is_err());
        assert!(expand(&*tree, "l/*.h", false).unwrap().is_empty(), "not followed, and a symlink holds no names");
    }

    #[test]
    fn a_trailing_slash_stays() {
        for (path, expected) in
            [("a/b/", "/a/b/"), ("/a/.", "/a/."), ("/", "/"), ("", "/"), ("../x", "/x"), (".", "/"), ("./", "/")]
        {
            assert_eq!(written(path), expected);
        }
    }
}
