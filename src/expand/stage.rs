//! The folder in which an output is laid out before anybody sees it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::sys::Root;

/// Removed with all that is in it when dropped, unless it was put in place.
pub struct Stage {
    dir: PathBuf,
    output: PathBuf,
    placed: bool,
}

/// What the stage replaces is moved here first.
const REPLACED: &str = ".replaced";

impl Stage {
    /// Beside an output that is not there yet; inside one that is, because that may be a mount of its own.
    pub fn new(output: &Path) -> anyhow::Result<Self> {
        let name = format!(".dockless-{}.part", std::process::id());
        let dir = if output.is_dir() {
            output.join(name)
        } else {
            let parent = output.parent().with_context(|| format!("{} has no folder to be in", output.display()))?;
            fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
            let mut unique = OsString::from(".");
            unique.push(output.file_name().with_context(|| format!("{} has no name", output.display()))?);
            unique.push(name);
            parent.join(unique)
        };
        // Left by a process of this number that was killed.
        remove(&dir)?;
        fs::create_dir(&dir).with_context(|| format!("make {}", dir.display()))?;
        Ok(Self { dir, output: output.to_owned(), placed: false })
    }

    pub fn path(&self) -> &Path {
        &self.dir
    }

    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.join(name)
    }

    /// Makes a folder in the stage.
    pub fn make_dir(&self, name: &str) -> anyhow::Result<PathBuf> {
        let dir = self.join(name);
        fs::create_dir(&dir).with_context(|| format!("make {}", dir.display()))?;
        Ok(dir)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> anyhow::Result<()> {
        let path = self.join(name);
        fs::write(&path, content).with_context(|| format!("write {}", path.display()))
    }

    /// Removes a part of the stage that was needed for the rest alone.
    pub fn discard(&self, name: &str) -> anyhow::Result<()> {
        remove(&self.join(name))
    }

    /// Puts everything in place; what was there under the same names is replaced. Says what was put.
    pub fn place(mut self) -> anyhow::Result<Vec<PathBuf>> {
        let names = listed(&self.dir)?;
        if !self.output.exists() {
            fs::rename(&self.dir, &self.output).with_context(|| format!("make {}", self.output.display()))?;
            self.placed = true;
            return Ok(names);
        }
        let replaced = self.make_dir(REPLACED)?;
        let mut undo: Vec<(PathBuf, PathBuf)> = Vec::new();
        let mut step = |from: PathBuf, to: PathBuf| {
            fs::rename(&from, &to).with_context(|| format!("make {}", to.display()))?;
            undo.push((to, from));
            anyhow::Ok(())
        };
        let done = names.iter().try_for_each(|name| {
            let place = self.output.join(name);
            if place.symlink_metadata().is_ok() {
                step(place.clone(), replaced.join(name))?;
            }
            step(self.dir.join(name), place)
        });
        if let Err(error) = done {
            for (from, to) in undo.into_iter().rev() {
                fs::rename(&from, &to).with_context(|| format!("put {} back", to.display()))?;
            }
            return Err(error);
        }
        remove(&self.dir)?;
        self.placed = true;
        Ok(names)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if !self.placed
            && let Err(error) = remove(&self.dir)
        {
            tracing::warn!("{error:#}");
        }
    }
}

fn listed(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let entries = entries.with_context(|| format!("list {}", dir.display()))?;
    let mut names: Vec<PathBuf> = entries.into_iter().map(|entry| entry.file_name().into()).collect();
    names.sort();
    Ok(names)
}

/// Removes a folder with all below it, whatever modes an image gave what is in there.
fn remove(dir: &Path) -> anyhow::Result<()> {
    let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else { return Ok(()) };
    if !parent.is_dir() {
        return Ok(());
    }
    let remove = || Root::open(parent)?.remove(Path::new(name));
    remove().with_context(|| format!("remove {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(output: &Path, name: &str, content: &str) -> Vec<PathBuf> {
        let stage = Stage::new(output).unwrap();
        stage.write(name, content).unwrap();
        stage.place().unwrap()
    }

    #[test]
    fn appears_at_once_and_leaves_the_neighbours_alone() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("out");
        assert_eq!(put(&output, "tag", "1"), [Path::new("tag")]);
        fs::write(output.join("other"), "mine").unwrap();
        put(&output, "tag", "2");
        assert_eq!(fs::read_to_string(output.join("tag")).unwrap(), "2");
        assert_eq!(fs::read_to_string(output.join("other")).unwrap(), "mine");
        assert_eq!(listed(&output).unwrap(), [Path::new("other"), Path::new("tag")]);
        assert_eq!(listed(dir.path()).unwrap(), [Path::new("out")]);
    }

    #[test]
    fn nothing_stays_of_a_stage_that_was_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("out");
        drop(Stage::new(&output).unwrap());
        assert!(listed(dir.path()).unwrap().is_empty());
    }
}
