//! Files picked out of an image by path or glob.

use std::collections::BTreeSet;
use std::io::BufReader;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail};

use super::ledger::Ledger;
use crate::base::Cancel;
use crate::base::patterns::Matcher;
use crate::layer::{DirOptions, DirTarget, Entry, Lost, Target};
use crate::sys::{Kind, Root};

/// Files to pick out of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// A path or a glob inside the image.
    pub from: String,
    /// Where it goes, relative to the output folder; none: under its own name. A name that ends in a slash, and any
    /// name for a glob, is a folder to put the files into.
    pub to: Option<PathBuf>,
}

/// One file or folder of the image with its place in the output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pick {
    pub from: PathBuf,
    pub to: PathBuf,
}

/// Finds what the artifacts mean in an image. One that means nothing, or a place that leads out of the output, is an
/// error.
pub fn find(artifacts: &[Artifact], ledger: &Ledger) -> anyhow::Result<Vec<Pick>> {
    let mut picks: Vec<Pick> = Vec::new();
    for artifact in artifacts {
        for pick in of_one(artifact, ledger).with_context(|| format!("artifact {:?}", artifact.from))? {
            if let Some(other) = picks.iter().find(|other| other.to == pick.to && other.from != pick.from) {
                bail!("/{} and /{} would both be {}", other.from.display(), pick.from.display(), pick.to.display());
            }
            picks.push(pick);
        }
    }
    Ok(picks)
}

fn of_one(artifact: &Artifact, ledger: &Ledger) -> anyhow::Result<Vec<Pick>> {
    let to = artifact.to.as_deref();
    if let Some(to) = to
        && to.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir))
    {
        bail!("{} is not a path inside the output folder", to.display());
    }
    let is_glob = artifact.from.contains(['*', '?', '[']);
    let (names, into, along) = if is_glob {
        (globbed(&artifact.from, ledger)?, true, false)
    } else {
        let name = PathBuf::from(artifact.from.trim_start_matches('/'));
        // The output folder itself: a directory's content goes there, as `COPY dir .` has it.
        let here = to.is_some_and(|to| to.components().all(|part| part == Component::CurDir));
        let into = here || to.is_some_and(|to| to.as_os_str().as_encoded_bytes().ends_with(b"/"));
        match if here { content(&name, ledger)? } else { None } {
            Some(content) => (content, into, true),
            None => (vec![name], into, false),
        }
    };
    if names.is_empty() {
        bail!("nothing in the image matches");
    }
    names
        .into_iter()
        .map(|name| {
            // A symlink that was asked for by its name stands for what it leads to; one that comes along is a symlink.
            let from = ledger.resolve(&name, !along)?;
            if ledger.get(&from).is_none() {
                bail!("not in the image");
            }
            let own = name.file_name();
            let to = match (to, own) {
                (Some(to), Some(own)) if into => to.join(own),
                (Some(to), _) => to.to_owned(),
                (None, Some(own)) => own.into(),
                (None, None) => bail!("the whole image needs a name to go to"),
            };
            // Without trailing slashes and dots, so that places can be compared.
            let to: PathBuf = to.components().filter(|part| *part != Component::CurDir).collect();
            Ok(Pick { from, to })
        })
        .collect()
}

/// What is in a directory; none for what is none.
fn content(name: &Path, ledger: &Ledger) -> anyhow::Result<Option<Vec<PathBuf>>> {
    let top = ledger.resolve(name, true)?;
    if !matches!(ledger.get(&top), Some(node) if node.kind == Kind::Directory) {
        return Ok(None);
    }
    let below = ledger.subtree(&top).map(|(path, _)| path);
    Ok(Some(below.filter(|path| path.parent() == Some(&*top)).map(Path::to_owned).collect()))
}

/// The topmost paths that a glob means. The part before the first wildcard may lead through symlinks.
fn globbed(pattern: &str, ledger: &Ledger) -> anyhow::Result<Vec<PathBuf>> {
    let pattern = pattern.trim_start_matches('/');
    let literal = pattern.split('/').take_while(|part| !part.contains(['*', '?', '['])).count();
    let parts: Vec<&str> = pattern.split('/').collect();
    let start = ledger.resolve(&parts[..literal].iter().collect::<PathBuf>(), true)?;
    let rest = parts[literal..].join("/");
    let matcher = Matcher::new([&rest])?;
    let mut found: Vec<PathBuf> = Vec::new();
    for (path, _) in ledger.subtree(&start).skip(1) {
        if found.last().is_some_and(|top| path.starts_with(top)) {
            continue;
        }
        let Some(below) = path.strip_prefix(&start).ok().and_then(Path::to_str) else { continue };
        if matcher.matches(below)? {
            found.push(path.to_owned());
        }
    }
    Ok(found)
}

/// Everything that picks consist of: what must be unpacked for them.
pub fn wanted(picks: &[Pick], ledger: &Ledger) -> BTreeSet<PathBuf> {
    picks.iter().flat_map(|pick| ledger.subtree(&pick.from)).map(|(path, _)| path.to_owned()).collect()
}

/// Copies picks from where the image is unpacked into the output. All belong to the caller; modes and times are the
/// image's.
pub fn copy(picks: &[Pick], ledger: &Ledger, unpacked: &Path, output: &Path, cancel: &Cancel) -> anyhow::Result<Lost> {
    let source = Root::open(unpacked).with_context(|| format!("open {}", unpacked.display()))?;
    let target = Root::open(output).with_context(|| format!("open {}", output.display()))?;
    let mut target = DirTarget::new(target, DirOptions { owners: false, devices: false, xattrs: true });
    target.start()?;
    for pick in picks {
        for (path, node) in ledger.subtree(&pick.from) {
            cancel.check()?;
            let below = path.strip_prefix(&pick.from).unwrap_or(path);
            let to: PathBuf = pick.to.join(below).components().collect();
            let entry = Entry { path: to, kind: node.kind.clone(), meta: node.meta.clone() };
            let copied = if matches!(node.kind, Kind::File { .. }) {
                let file = source.open_file(path).with_context(|| format!("open {path:?}"))?;
                target.entry(&entry, &mut BufReader::with_capacity(64 << 10, file))
            } else {
                target.entry(&entry, &mut std::io::empty())
            };
            copied.with_context(|| format!("write {}", entry.path.display()))?;
        }
    }
    target.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Meta;

    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        let file = || Kind::File { size: 0 };
        let entries = [
            ("usr/lib/a.so", file()),
            ("usr/lib/b.so", file()),
            ("usr/lib/c.txt", file()),
            ("lib", Kind::Symlink { target: "usr/lib".into() }),
            ("app/bin/tool", file()),
            ("app/current", Kind::Symlink { target: "/app/bin/tool".into() }),
        ];
        for (path, kind) in entries {
            let meta = Meta::default();
            ledger.entry(&Entry { path: path.into(), kind, meta }, &mut std::io::empty()).unwrap();
        }
        ledger
    }

    fn picked(from: &str, to: Option<&str>) -> anyhow::Result<Vec<(String, String)>> {
        let artifact = Artifact { from: from.to_owned(), to: to.map(PathBuf::from) };
        let picks = find(&[artifact], &ledger())?;
        Ok(picks.into_iter().map(|p| (p.from.display().to_string(), p.to.display().to_string())).collect())
    }

    #[test]
    fn a_path_goes_where_it_is_sent_and_a_glob_into_a_folder() {
        type Picked = &'static [(&'static str, &'static str)];
        let cases: &[(&str, Option<&str>, Picked)] = &[
            ("/app/bin/tool", None, &[("app/bin/tool", "tool")]),
            ("app/bin/tool", Some("x/y"), &[("app/bin/tool", "x/y")]),
            ("/app/bin/tool", Some("x/"), &[("app/bin/tool", "x/tool")]),
            ("/app/current", None, &[("app/bin/tool", "current")]),
            ("/app", None, &[("app", "app")]),
            ("/", Some("all"), &[("", "all")]),
            ("/", Some("."), &[("app", "app"), ("lib", "lib"), ("usr", "usr")]),
            ("/lib", Some("./"), &[("usr/lib/a.so", "a.so"), ("usr/lib/b.so", "b.so"), ("usr/lib/c.txt", "c.txt")]),
            ("/app/bin/tool", Some("."), &[("app/bin/tool", "tool")]),
            ("/lib/*.so", Some("so"), &[("usr/lib/a.so", "so/a.so"), ("usr/lib/b.so", "so/b.so")]),
            ("**/*.txt", None, &[("usr/lib/c.txt", "c.txt")]),
            ("/app/*", None, &[("app/bin", "bin"), ("app/bin/tool", "current")]),
            ("../../app/bin/tool", None, &[("app/bin/tool", "tool")]),
        ];
        for (from, to, expected) in cases {
            let found = picked(from, *to).unwrap_or_else(|error| panic!("{from}: {error:#}"));
            let found: Vec<_> = found.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
            assert_eq!(&found, expected, "{from} to {to:?}");
        }
    }

    #[test]
    fn refuses_what_is_not_there_and_what_leads_out() {
        let cases = [
            ("/nope", None, "artifact \"/nope\": not in the image"),
            ("/x*", None, "artifact \"/x*\": nothing in the image matches"),
            ("/app", Some("../up"), "artifact \"/app\": ../up is not a path inside the output folder"),
            ("/app", Some("/abs"), "artifact \"/app\": /abs is not a path inside the output folder"),
            ("/", None, "artifact \"/\": the whole image needs a name to go to"),
        ];
        for (from, to, message) in cases {
            assert_eq!(format!("{:#}", picked(from, to).unwrap_err()), message);
        }
        let artifacts =
            ["/usr/lib/a.so", "/app/bin/tool"].map(|from| Artifact { from: from.into(), to: Some("x".into()) });
        let error = find(&artifacts, &ledger()).unwrap_err();
        assert_eq!(error.to_string(), "/usr/lib/a.so and /app/bin/tool would both be x");
    }
}
