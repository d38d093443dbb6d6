//! What takes up space in the folder of deltas, and may go.

use std::fs;
use std::io;
use std::time::SystemTime;

use super::active::Workplace;
use super::error::{At, Error, Result};
use super::stack::DeltaId;
use super::store::{Snapshots, list};
use super::waiting;
use crate::base::Cancel;
use crate::store::FileLock;
use crate::sys::disk;

/// What one delta takes, or one root directory that waits for a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    pub id: DeltaId,
    pub is_root: bool,
    pub bytes: u64,
    pub made: SystemTime,
}

/// What a prune removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    pub deltas: usize,
    pub bytes: u64,
}

impl Snapshots {
    /// What each delta takes, and each root directory that waits for a step.
    pub fn usage(&self) -> Result<Vec<Usage>> {
        let mut usages = Vec::new();
        for is_root in [false, true] {
            let folder = self.0.dir.join(if is_root { waiting::FOLDER } else { "deltas" });
            for name in list(&folder)? {
                let path = folder.join(&name);
                let made = match fs::symlink_metadata(&path).and_then(|meta| meta.modified()) {
                    Ok(time) => time,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(error).at(&path),
                };
                usages.push(Usage { id: DeltaId(name), is_root, bytes: disk::usage(&path).at(&path)?, made });
            }
        }
        Ok(usages)
    }

    /// Removes deltas and waiting root directories that nothing keeps, and what was left by processes that died. Fails with
    /// `Busy` while another process works in the folder.
    pub fn prune(&self, keep: &dyn Fn(&DeltaId) -> bool) -> Result<Pruned> {
        let path = self.0.dir.join("lock");
        let mut held = self.0.hold();
        // Ours stands in our own way.
        *held = None;
        self.0.found().clear();
        let alone = FileLock::try_exclusive(&path)?;
        let result = match &alone {
            Some(_) => self.prune_alone(keep),
            None => Err(Error::Busy { path: self.0.dir.clone() }),
        };
        drop(alone);
        *held = Some(FileLock::shared(&path, &Cancel::new())?);
        result
    }

    fn prune_alone(&self, keep: &dyn Fn(&DeltaId) -> bool) -> Result<Pruned> {
        let mut pruned = Pruned::default();
        let (deltas, active) = (self.0.dir.join("deltas"), self.0.dir.join("active"));
        for name in list(&deltas)? {
            let id = DeltaId(name);
            if keep(&id) {
                continue;
            }
            let from = deltas.join(&id.0);
            pruned.bytes += disk::usage(&from).at(&from)?;
            pruned.deltas += 1;
            // Away in one step, then removed at leisure.
            let to = active.join(&id.0);
            fs::rename(&from, &to).at(&from)?;
        }
        for kind in ["indexes", waiting::FOLDER, "locks"] {
            let folder = self.0.dir.join(kind);
            for name in list(&folder)? {
                let is_kept = match kind {
                    "indexes" => keep(&DeltaId(name.clone())),
                    "locks" => false,
                    _ => keep(&DeltaId(name.clone())) && waiting::is_of_use(self, &folder.join(&name)),
                };
                if is_kept {
                    continue;
                }
                let from = folder.join(&name);
                pruned.bytes += disk::usage(&from).at(&from)?;
                // A delta of the same name may be there already.
                fs::rename(&from, active.join(format!("{name}.{kind}"))).at(&from)?;
            }
        }
        for kind in ["chains", "squashed"] {
            let notes = self.0.dir.join(kind);
            for name in list(&notes)? {
                let path = notes.join(&name);
                if self.0.noted(&path)?.is_none() {
                    fs::remove_file(&path).at(&path)?;
                }
            }
        }
        let dead = Workplace::find_dead(&active)?;
        dead.into_iter().try_for_each(Workplace::discard)?;
        Ok(pruned)
    }
}
