//! Copies between file system states with BuildKit's meaning (`fsutil/copy`): where a directory's contents go, what
//! happens to what is there already, who owns what is made.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};

use super::mode::ModeChange;
use super::select::{SelectError, at, expand, has_wildcards, shown, written};
use super::unpack;
use crate::base::Cancel;
use crate::base::patterns::{Matcher, Parents};
use crate::llb::pb;
use crate::snapshot::{Copier, DeltaWriter, Node, Tree, clean};
use crate::sys::{Kind, Meta, Mtime};

/// Permissions of folders that are made because something goes into them.
const PARENT_MODE: u32 = 0o755;

/// What is the same for everything that one action makes.
#[derive(Debug, Clone, Default)]
pub(super) struct Making {
    /// Ids to give; none keeps a copy's own, and makes new things root's.
    pub owner: Option<(u32, u32)>,
    /// The time that the action asks for.
    pub mtime: Option<Mtime>,
    /// When the action runs: the time of what is new.
    pub now: Mtime,
}

impl Making {
    /// The metadata of something new.
    pub fn new_meta(&self, mode: u32) -> Meta {
        let (uid, gid) = self.owner.unwrap_or((0, 0));
        Meta { mode, uid, gid, mtime: self.mtime.unwrap_or(self.now), ..Meta::default() }
    }

    /// Makes a directory and those above it where they are missing. The path is resolved already.
    pub fn mkdir_all(&self, writer: &mut DeltaWriter, path: &Path, mode: u32) -> anyhow::Result<()> {
        match writer.lookup(path).map_err(at(path))? {
            Some(node) if node.is_dir() => return Ok(()),
            Some(_) => bail!("{}: not a directory", shown(path)),
            None => {}
        }
        if let Some(parent) = path.parent() {
            self.mkdir_all(writer, parent, mode)?;
        }
        writer.make(path, &Kind::Directory, &self.new_meta(mode)).map_err(at(path))?;
        Ok(())
    }
}

/// One copy action.
pub(super) struct Copy<'a> {
    pub action: &'a pb::FileActionCopy,
    pub from: Arc<dyn Tree>,
    pub making: Making,
    pub cancel: &'a Cancel,
}

impl Copy<'_> {
    pub fn run(&self, writer: &mut DeltaWriter) -> anyhow::Result<()> {
        let action = self.action;
        let (src, dest) = (written(&action.src), written(&action.dest));
        if !action.create_dest_path {
            let resolved = writer.resolve(Path::new(&dest), true).map_err(at(Path::new(&dest)))?;
            let parent = resolved.parent().unwrap_or(Path::new(""));
            if writer.lookup(parent).map_err(at(parent))?.is_none() {
                return Err(SelectError::NotFound { path: shown(parent) }.into());
            }
        }
        let sources = if action.allow_wildcard && has_wildcards(&src) {
            let sources = expand(&*self.from, &src, action.follow_symlink)?;
            if sources.is_empty() && !action.allow_empty_wildcard {
                return Err(SelectError::NotFound { path: src }.into());
            }
            sources
        } else {
            vec![clean(Path::new(&src))]
        };
        let chmod = match (&*action.mode_str, action.mode) {
            ("", -1) => None,
            ("", mode) => Some(ModeChange::absolute(mode.cast_unsigned())),
            (text, _) => Some(ModeChange::parse(text)?),
        };
        let matcher = |patterns: &[String]| match patterns {
            [] => Ok(None),
            patterns => Matcher::new(patterns).map(Some),
        };
        let (include, exclude) = (matcher(&action.include_patterns)?, matcher(&action.exclude_patterns)?);
        let mut one = One {
            copier: Copier::new(Arc::clone(&self.from)),
            copy: self,
            chmod,
            include,
            exclude,
            waiting: Vec::new(),
            writer,
        };
        for source in sources {
            if action.attempt_unpack_docker_compatibility
                && unpack::attempt(&self.from, &source, one.writer, &dest, &self.making)
                    .with_context(|| format!("unpack {}", shown(&source)))?
            {
                continue;
            }
            one.source(&source, &dest)?;
            // The next source may write where this one did.
            one.writer.flush()?;
        }
        Ok(())
    }

    fn new_dir_mode(&self) -> u32 {
        match self.action.mode {
            // Letters change what the source has, and a folder that is made here has no source.
            _ if !self.action.mode_str.is_empty() => PARENT_MODE,
            -1 => PARENT_MODE,
            mode => mode.cast_unsigned() & 0o777,
        }
    }
}

/// A copy at work.
struct One<'a> {
    copy: &'a Copy<'a>,
    copier: Copier,
    chmod: Option<ModeChange>,
    include: Option<Matcher>,
    exclude: Option<Matcher>,
    /// Directories on the way down that no pattern took: made when something in them is copied.
    waiting: Vec<Option<Waiting>>,
    writer: &'a mut DeltaWriter,
}

struct Waiting {
    source: Node,
    dest: PathBuf,
    inside: bool,
}

impl One<'_> {
    /// Copies one source to a destination, both as written.
    fn source(&mut self, source: &Path, dest: &str) -> anyhow::Result<()> {
        let from = self.find(source)?;
        let from_node = self.look(&from)?.ok_or_else(|| SelectError::NotFound { path: shown(source) })?;
        let contents = self.copy.action.dir_copy_contents;
        let mode = self.copy.new_dir_mode();

        // "dest/" and "dest/." name a directory; "dest" may be the new name of the copy.
        let names_dir = dest.ends_with('/') || dest.ends_with("/.");
        let dest = clean(Path::new(dest));
        let folder = if names_dir { &*dest } else { dest.parent().unwrap_or(Path::new("")) };
        let folder = self.writer.resolve(folder, true).map_err(at(folder))?;
        self.copy.making.mkdir_all(self.writer, &folder, mode)?;

        let mut target = self.writer.resolve(&dest, true).map_err(at(&dest))?;
        let there = self.writer.lookup(&target).map_err(at(&target))?;
        let into_dir =
            if from_node.is_dir() { !contents && there.is_some() } else { there.as_ref().is_some_and(Node::is_dir) };
        if into_dir && let Some(name) = source.file_name() {
            target.push(name);
        }
        let folder = if contents && from_node.is_dir() && there.is_none() {
            &*target
        } else {
            target.parent().unwrap_or(Path::new(""))
        };
        self.copy.making.mkdir_all(self.writer, folder, mode)?;
        let place = Place { from, inside: PathBuf::new(), target, node: from_node };
        self.entry(place, false, &Parents::default(), &Parents::default())
    }

    /// The source's path with its symlinks resolved, the last only when the action follows it.
    fn find(&self, source: &Path) -> anyhow::Result<PathBuf> {
        Ok(crate::snapshot::resolve(&*self.copy.from, source, self.copy.action.follow_symlink).map_err(at(source))?)
    }

    fn look(&self, path: &Path) -> anyhow::Result<Option<Node>> {
        Ok(self.copy.from.lookup(path).map_err(at(path))?)
    }

    /// Copies an entry that the patterns take or may take in part. `inside`: it is below what was asked for.
    fn entry(&mut self, place: Place, inside: bool, included: &Parents, excluded: &Parents) -> anyhow::Result<()> {
        self.copy.cancel.check()?;
        let text = place.inside.to_string_lossy();
        let (include, included) = match &self.include {
            Some(matcher) if inside => matcher.matches_below(&text, included)?,
            _ => (true, Parents::default()),
        };
        let (exclude, excluded) = match &self.exclude {
            Some(matcher) if inside => matcher.matches_below(&text, excluded)?,
            _ => (false, Parents::default()),
        };
        let take = include && !exclude;
        if !take && !place.node.is_dir() {
            return Ok(());
        }
        if take {
            if self.copy.action.always_replace_existing_dest_paths {
                self.replace(&place)?;
            }
            self.make_waiting()?;
        }
        if !place.node.is_dir() {
            return self.leaf(place);
        }
        let waiting = Waiting { source: place.node, dest: place.target.clone(), inside };
        let waiting = if take { self.directory(waiting)? } else { Some(waiting) };
        // A directory that is excluded may still hold something that a `!` takes back.
        if exclude && !self.exclude.as_ref().is_some_and(Matcher::has_exclusions) {
            return Ok(());
        }
        self.waiting.push(waiting);
        for name in self.copy.from.read_dir(&place.from).map_err(at(&place.from))? {
            let from = place.from.join(&name);
            let Some(node) = self.look(&from)? else { continue };
            let child = Place { from, inside: place.inside.join(&name), target: place.target.join(&name), node };
            self.entry(child, true, &included, &excluded)?;
        }
        self.waiting.pop();
        Ok(())
    }

    fn replace(&mut self, place: &Place) -> anyhow::Result<()> {
        let there = self.writer.lookup(&place.target).map_err(at(&place.target))?;
        if there.is_some_and(|there| !(there.is_dir() && place.node.is_dir())) {
            self.writer.remove(&place.target).map_err(at(&place.target))?;
        }
        Ok(())
    }

    fn make_waiting(&mut self) -> anyhow::Result<()> {
        for i in 0..self.waiting.len() {
            if let Some(waiting) = self.waiting[i].take() {
                let Waiting { source, dest, .. } = waiting;
                // Such a parent gets the source's metadata only when it is new.
                if self.existing_dir(&dest)?.is_none() {
                    self.make_dir(&dest, &source)?;
                }
            }
        }
        Ok(())
    }

    /// Makes a directory that is copied itself; nothing is left waiting.
    fn directory(&mut self, dir: Waiting) -> anyhow::Result<Option<Waiting>> {
        let Waiting { source, dest, inside } = dir;
        match self.existing_dir(&dest)? {
            // What the user named stays what it is; only its time tells of the copy.
            Some(there) if !inside => {
                let mtime = self.copy.making.mtime.unwrap_or(source.meta.mtime);
                if there.meta.mtime != mtime {
                    self.writer.set_meta(&dest, &Meta { mtime, ..there.meta }).map_err(at(&dest))?;
                }
            }
            _ => self.make_dir(&dest, &source)?,
        }
        Ok(None)
    }

    fn existing_dir(&self, dest: &Path) -> anyhow::Result<Option<Node>> {
        match self.writer.lookup(dest).map_err(at(dest))? {
            Some(node) if !node.is_dir() => Err(anyhow!("cannot copy to non-directory: {}", shown(dest))),
            there => Ok(there),
        }
    }

    fn make_dir(&mut self, dest: &Path, source: &Node) -> anyhow::Result<()> {
        let meta = self.meta(source);
        Ok(self.writer.make(dest, &Kind::Directory, &meta).map_err(at(dest))?)
    }

    fn leaf(&mut self, place: Place) -> anyhow::Result<()> {
        let Place { from, target, mut node, .. } = place;
        if self.writer.is_dir(&target).map_err(at(&target))? {
            bail!("cannot replace to directory {} with file", shown(&target));
        }
        node.meta = self.meta(&node);
        if node.kind == Kind::Socket {
            // Nobody listens on a copy: an empty file stands for it.
            let data = crate::snapshot::FileData::Stream(Box::new(io::empty()));
            return Ok(self.writer.file(&target, &node.meta, 0, data).map_err(at(&target))?);
        }
        Ok(self.copier.leaf(self.writer, &from, &target, node).map_err(at(&target))?)
    }

    /// The metadata of a copy.
    fn meta(&self, source: &Node) -> Meta {
        let mut meta = source.meta.clone();
        if let Some((uid, gid)) = self.copy.making.owner {
            (meta.uid, meta.gid) = (uid, gid);
        }
        if let Some(mtime) = self.copy.making.mtime {
            meta.mtime = mtime;
        }
        if let Some(chmod) = &self.chmod
            && !matches!(source.kind, Kind::Symlink { .. })
        {
            meta.mode = chmod.apply(meta.mode, source.is_dir());
        }
        meta
    }
}

/// What is copied, and where to.
struct Place {
    from: PathBuf,
    /// Relative to what was asked for: what patterns speak of.
    inside: PathBuf,
    target: PathBuf,
    node: Node,
}
