//! The file op: copy, mkdir, mkfile, rm and symlink on snapshots, with no mount and no process, meaning what
//! BuildKit's `solver/llbsolver/file` means.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use prost::Message as _;

use super::content::{self, Selector};
use super::copy::{Copy, Making};
use super::owner;
use super::select::{SelectError, at, expand, has_wildcards, shown, written};
use crate::base::{Cancel, Digest, clean};
use crate::llb::pb;
use crate::llb::pb::file_action::Action;
use crate::snapshot::{Active, Copier, DeltaWriter, FileData, Snapshot, Snapshots, Tree};
use crate::solver::InputKey;
use crate::sys::{Kind, Meta, Mtime};

/// One input of a file op.
#[derive(Clone)]
pub struct Input {
    /// What to look at.
    pub tree: Arc<dyn Tree>,
    /// What to build on, where it is a snapshot; a build context is imported when something is written on it.
    pub snapshot: Option<Snapshot>,
}

/// Carries out all actions. The results are the op's outputs, by index. An action whose input is -1 starts from
/// scratch.
pub fn exec(
    snapshots: &Snapshots,
    op: &pb::FileOp,
    inputs: &[Input],
    cancel: &Cancel,
) -> anyhow::Result<Vec<Snapshot>> {
    let mut run = Run {
        snapshots,
        op,
        inputs,
        uses: count_uses(op, inputs.len())?,
        states: op.actions.iter().map(|_| State::Waiting).collect(),
        cancel,
    };
    let mut outputs = Vec::new();
    while let Some(action) = op.actions.iter().position(|action| action.output == outputs.len() as i64) {
        outputs.push(run.snapshot(inputs.len() + action)?);
    }
    if outputs.is_empty() || op.actions.iter().any(|action| action.output >= outputs.len() as i64) {
        bail!("a file op's outputs are not numbered from 0 on");
    }
    Ok(outputs)
}

/// How each of `inputs` inputs decides the result: those that files are only copied from, by what is copied.
pub fn input_keys(op: &pb::FileOp, inputs: usize) -> Vec<InputKey> {
    let is_base = |index| op.actions.iter().any(|action| action.input == index);
    (0..inputs as i64).map(|index| if is_base(index) { InputKey::Identity } else { InputKey::Content }).collect()
}

/// The digest of the op itself for its cache key. A copy's source counts by its last name alone: where it was found is
/// told by its content.
pub fn digest(op: &pb::FileOp) -> Digest {
    let mut op = op.clone();
    for action in &mut op.actions {
        if let Some(Action::Copy(copy)) = &mut action.action {
            copy.src = clean::base(&copy.src).to_owned();
        }
    }
    Digest::of(op.encode_to_vec())
}

/// The checksum of everything that the op reads of an input.
pub fn content(op: &pb::FileOp, input: usize, tree: &dyn Tree, cancel: &Cancel) -> anyhow::Result<Digest> {
    content::checksum(tree, &selectors(op, input as i64), cancel)
}

/// A whole tree as a snapshot of one delta: for mounting a build context into a step.
pub fn import(snapshots: &Snapshots, tree: Arc<dyn Tree>, cancel: &Cancel) -> anyhow::Result<Snapshot> {
    let mut active = snapshots.prepare(&Snapshot::scratch())?;
    let copied = Copier::new(tree).everything(active.writer()?, cancel);
    cancel.check()?;
    copied.context("copy the build context")?;
    Ok(active.commit(cancel)?)
}

fn selectors(op: &pb::FileOp, input: i64) -> Vec<Selector> {
    let mut selectors = Vec::new();
    for action in &op.actions {
        let owner = match &action.action {
            Some(Action::Copy(copy)) => {
                if action.secondary_input == input {
                    selectors.push(Selector {
                        path: copy.src.clone(),
                        wildcard: copy.allow_wildcard,
                        allow_empty: copy.allow_empty_wildcard,
                        follow: copy.follow_symlink,
                        include: copy.include_patterns.clone(),
                        exclude: copy.exclude_patterns.clone(),
                        required: copy.required_paths.clone(),
                    });
                }
                copy.owner.as_ref()
            }
            Some(Action::Mkfile(mkfile)) => mkfile.owner.as_ref(),
            Some(Action::Mkdir(mkdir)) => mkdir.owner.as_ref(),
            Some(Action::Symlink(symlink)) => symlink.owner.as_ref(),
            Some(Action::Rm(_)) | None => None,
        };
        let Some(owner) = owner else { continue };
        for (who, path) in [(&owner.user, "/etc/passw[d]"), (&owner.group, "/etc/grou[p]")] {
            if let Some(pb::UserOpt { user: Some(pb::user_opt::User::ByName(named)) }) = who
                && named.input == input
            {
                // As a wildcard: an image without the file is no error.
                selectors.push(Selector {
                    path: path.into(),
                    wildcard: true,
                    allow_empty: true,
                    follow: true,
                    ..Selector::default()
                });
            }
        }
    }
    selectors
}

/// How often each input and action is built on, looked at, or asked for.
fn count_uses(op: &pb::FileOp, inputs: usize) -> anyhow::Result<Vec<usize>> {
    let mut uses = vec![0; inputs + op.actions.len()];
    for (i, action) in op.actions.iter().enumerate() {
        for index in [action.input, action.secondary_input] {
            match usize::try_from(index) {
                Ok(index) if index < uses.len() && index != inputs + i => uses[index] += 1,
                Err(_) if index == -1 => {}
                _ => bail!("action {i} of a file op has input {index}, which is none"),
            }
        }
        if action.output >= 0 {
            // An output must be a snapshot of its own, even where an action goes on from it.
            uses[inputs + i] += 1;
        }
    }
    Ok(uses)
}

enum State {
    Waiting,
    Busy,
    Writing(Box<Active>),
    Done(Snapshot),
    /// Another action went on from it, the only one that wanted it.
    Taken,
}

struct Run<'a> {
    snapshots: &'a Snapshots,
    op: &'a pb::FileOp,
    inputs: &'a [Input],
    uses: Vec<usize>,
    states: Vec<State>,
    cancel: &'a Cancel,
}

impl Run<'_> {
    /// Carries an action out, unless that was done.
    fn solve(&mut self, action: usize) -> anyhow::Result<()> {
        match self.states[action] {
            State::Waiting => {}
            State::Busy => bail!("action {action} of a file op stands on itself"),
            State::Writing(_) | State::Done(_) | State::Taken => return Ok(()),
        }
        self.states[action] = State::Busy;
        let active = self.act(&self.op.actions[action])?;
        self.states[action] = State::Writing(Box::new(active));
        Ok(())
    }

    /// An input or an action's result as a snapshot.
    fn snapshot(&mut self, index: usize) -> anyhow::Result<Snapshot> {
        let Some(action) = index.checked_sub(self.inputs.len()) else {
            let input = &self.inputs[index];
            return match &input.snapshot {
                Some(snapshot) => Ok(snapshot.clone()),
                None => import(self.snapshots, Arc::clone(&input.tree), self.cancel),
            };
        };
        self.solve(action)?;
        let snapshot = match std::mem::replace(&mut self.states[action], State::Busy) {
            State::Writing(active) => active.commit(self.cancel)?,
            State::Done(snapshot) => snapshot,
            State::Waiting | State::Busy | State::Taken => bail!("action {action} of a file op has no result"),
        };
        self.states[action] = State::Done(snapshot.clone());
        Ok(snapshot)
    }

    fn tree(&mut self, index: i64) -> anyhow::Result<Arc<dyn Tree>> {
        match usize::try_from(index) {
            Ok(index) if index < self.inputs.len() => Ok(Arc::clone(&self.inputs[index].tree)),
            Ok(index) if index < self.uses.len() => Ok(self.snapshots.tree(&self.snapshot(index)?)),
            Err(_) if index == -1 => Ok(self.snapshots.tree(&Snapshot::scratch())),
            _ => bail!("a file op has no input {index}"),
        }
    }

    /// Something to write in on top of an input or an action's result.
    fn start(&mut self, index: i64) -> anyhow::Result<Active> {
        let Ok(index) = usize::try_from(index) else { return Ok(self.snapshots.prepare(&Snapshot::scratch())?) };
        if let Some(action) = index.checked_sub(self.inputs.len())
            && self.uses[index] == 1
        {
            self.solve(action)?;
            if let State::Writing(active) = std::mem::replace(&mut self.states[action], State::Taken) {
                return Ok(*active);
            }
            bail!("action {action} of a file op was used before");
        }
        let base = self.snapshot(index)?;
        Ok(self.snapshots.prepare(&base)?)
    }

    fn act(&mut self, action: &pb::FileAction) -> anyhow::Result<Active> {
        let (owner, timestamp) = match &action.action {
            Some(Action::Copy(copy)) => (copy.owner.as_ref(), copy.timestamp),
            Some(Action::Mkfile(mkfile)) => (mkfile.owner.as_ref(), mkfile.timestamp),
            Some(Action::Mkdir(mkdir)) => (mkdir.owner.as_ref(), mkdir.timestamp),
            Some(Action::Symlink(symlink)) => (symlink.owner.as_ref(), symlink.timestamp),
            Some(Action::Rm(_)) => (None, -1),
            None => bail!("a file op has an action of an unknown kind"),
        };
        let owner = owner::resolve(owner, |index| self.tree(index))?;
        let from = match &action.action {
            Some(Action::Copy(_)) => Some(self.tree(action.secondary_input)?),
            _ => None,
        };
        let mut active = self.start(action.input)?;
        let making = Making { owner, mtime: time(timestamp), now: active.started()? };
        let writer = active.writer()?;
        match (&action.action, from) {
            (Some(Action::Copy(copy)), Some(from)) => {
                Copy { action: copy, from, making, cancel: self.cancel }
                    .run(writer)
                    .with_context(|| format!("copy {} to {}", copy.src, copy.dest))?;
            }
            (Some(Action::Mkdir(action)), _) => {
                mkdir(writer, action, &making).with_context(|| format!("make directory {}", action.path))?;
            }
            (Some(Action::Mkfile(action)), _) => {
                mkfile(writer, action, &making).with_context(|| format!("make file {}", action.path))?;
            }
            (Some(Action::Symlink(action)), _) => {
                symlink(writer, action, &making).with_context(|| format!("make symlink {}", action.newpath))?;
            }
            (Some(Action::Rm(action)), _) => {
                rm(writer, action).with_context(|| format!("remove {}", action.path))?;
            }
            _ => {}
        }
        Ok(active)
    }
}

/// Nanoseconds since 1970; -1 is none.
fn time(timestamp: i64) -> Option<Mtime> {
    (timestamp != -1).then(|| Mtime {
        seconds: timestamp.div_euclid(1_000_000_000),
        nanos: u32::try_from(timestamp.rem_euclid(1_000_000_000)).unwrap_or(0),
    })
}

fn permissions(mode: i32) -> u32 {
    mode.cast_unsigned() & 0o777
}

fn mkdir(writer: &mut DeltaWriter, action: &pb::FileActionMkDir, making: &Making) -> anyhow::Result<()> {
    let path = Path::new(&action.path);
    let path = writer.resolve(path, true).map_err(at(path))?;
    let mode = permissions(action.mode);
    if action.make_parents {
        return making.mkdir_all(writer, &path, mode);
    }
    if writer.lookup(&path).map_err(at(&path))?.is_none() {
        writer.make(&path, &Kind::Directory, &making.new_meta(mode)).map_err(at(&path))?;
    }
    Ok(())
}

fn mkfile(writer: &mut DeltaWriter, action: &pb::FileActionMkFile, making: &Making) -> anyhow::Result<()> {
    let path = Path::new(&action.path);
    let path = writer.resolve(path, true).map_err(at(path))?;
    let mut meta = making.new_meta(permissions(action.mode));
    if let Some(there) = writer.lookup(&path).map_err(at(&path))? {
        if !matches!(there.kind, Kind::File { .. }) {
            bail!("{} is there and is no file", shown(&path));
        }
        // What is written anew keeps its permissions, and its owner unless another is named.
        let (uid, gid) = making.owner.unwrap_or((there.meta.uid, there.meta.gid));
        meta = Meta { mode: there.meta.mode, uid, gid, ..meta };
    }
    let data = std::io::Cursor::new(action.data.clone());
    let size = action.data.len() as u64;
    Ok(writer.file(&path, &meta, size, FileData::Stream(Box::new(data))).map_err(at(&path))?)
}

fn symlink(writer: &mut DeltaWriter, action: &pb::FileActionSymlink, making: &Making) -> anyhow::Result<()> {
    let path = Path::new(&action.newpath);
    let path = writer.resolve(path, true).map_err(at(path))?;
    if writer.lookup(&path).map_err(at(&path))?.is_some() {
        bail!("{} is there already", shown(&path));
    }
    let kind = Kind::Symlink { target: action.oldpath.clone().into() };
    Ok(writer.make(&path, &kind, &making.new_meta(0o777)).map_err(at(&path))?)
}

fn rm(writer: &mut DeltaWriter, action: &pb::FileActionRm) -> anyhow::Result<()> {
    let path = written(&action.path);
    let paths = if action.allow_wildcard && has_wildcards(&path) {
        expand(writer.tree(), &path, false)?
    } else {
        vec![crate::snapshot::clean(Path::new(&path))]
    };
    for path in paths {
        let name = path.file_name().ok_or_else(|| anyhow!("the root directory cannot be removed"))?;
        let parent = path.parent().unwrap_or(Path::new(""));
        let target = writer.resolve(parent, true).map_err(at(parent))?.join(name);
        if !action.allow_not_found {
            // As stat does: a symlink to nothing is not found.
            let followed = writer.resolve(&target, true).map_err(at(&target))?;
            if writer.lookup(&followed).map_err(at(&followed))?.is_none() {
                return Err(SelectError::NotFound { path: shown(&path) }.into());
            }
        }
        writer.remove(&target).map_err(at(&target))?;
    }
    Ok(())
}
