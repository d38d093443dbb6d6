//! The step cache of one build: the state folder's records, what was imported beside them, and a note of every record
//! that the build met, for the caches that it exports.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::SharedCaches;
use super::document::Known;
use super::import::{Imported, Origin};
use crate::base::{Cancel, Digest, Progress};
use crate::engine::State;
use crate::image::{Descriptor, LayerBlob};
use crate::ops::{Ref, SnapshotResults};
use crate::snapshot::Snapshot;
use crate::solver::{CacheStore, Record, Results};

pub struct StepCache {
    pub(super) state: Arc<State>,
    disk: Arc<dyn CacheStore>,
    results: SnapshotResults,
    imported: Vec<Imported>,
    /// By the id of a result that an import led to: which import, and its layers.
    elsewhere: Mutex<HashMap<String, (usize, Vec<LayerBlob>)>>,
    /// None where nothing is exported.
    met: Option<Mutex<BTreeMap<Digest, Record>>>,
    progress: Progress,
    cancel: Cancel,
}

impl StepCache {
    /// Reads the caches to import. One that cannot be read makes the build slower, not wrong: a warning.
    pub fn new(
        state: &Arc<State>,
        shared: &SharedCaches,
        progress: &Progress,
        cancel: &Cancel,
    ) -> anyhow::Result<Self> {
        let mut imported = Vec::new();
        for source in &shared.from {
            let read = progress.step(&format!("importing cache manifest from {source}"), |step| {
                let read = Imported::read(source, state, step, cancel);
                if let Ok(found) = &read
                    && found.known.iter().all(|known| known.len() == 0)
                {
                    step.warn(format!("{source} holds no step cache of dockless"));
                }
                read
            });
            match read {
                Ok(found) => imported.push(found),
                Err(error) => {
                    cancel.check()?;
                    progress.warn(format!("cache {source}: {error:#}; building without it"));
                }
            }
        }
        Ok(Self {
            state: state.clone(),
            disk: state.cache().clone(),
            results: SnapshotResults(state.clone()),
            imported,
            elsewhere: Mutex::default(),
            met: (!shared.to.is_empty()).then(Mutex::default),
            progress: progress.clone(),
            cancel: cancel.clone(),
        })
    }

    /// Every record of the build that has one result: its key, its identity, its result. With other keys that imports
    /// know it by: the build found it by one of them and never made the rest.
    pub(super) fn met(&self) -> Vec<(Digest, Digest, String)> {
        let Some(met) = &self.met else { return Vec::new() };
        let mut found = BTreeMap::new();
        let mut results = HashMap::new();
        for (key, record) in lock(met).iter() {
            if let [result] = &record.results[..] {
                found.insert(*key, record.identity);
                results.insert(record.identity, result.clone());
            }
        }
        for (key, identity) in self.imported.iter().flat_map(|imported| &imported.known).flat_map(Known::keys) {
            if results.contains_key(&identity) {
                found.entry(key).or_insert(identity);
            }
        }
        found.into_iter().map(|(key, identity)| (key, identity, results[&identity].clone())).collect()
    }

    /// Where the layers of a result are that an import led to, and which.
    pub(super) fn elsewhere(&self, id: &str) -> Option<(&Origin, Vec<LayerBlob>)> {
        let (import, layers) = lock(&self.elsewhere).get(id).cloned()?;
        Some((&self.imported[import].origin, layers))
    }

    /// Brings layers here that only an imported cache has. False where none has them.
    pub(super) fn bring(&self, id: &str) -> anyhow::Result<bool> {
        let Some((origin, layers)) = self.elsewhere(id) else { return Ok(false) };
        let layers: Vec<Descriptor> = layers.into_iter().map(|layer| layer.descriptor).collect();
        let brought = self.progress.step(&format!("importing cache layers from {origin}"), |step| {
            origin.fetch(&layers, &self.state, step, &self.cancel)
        });
        if let Err(error) = brought {
            self.cancel.check()?;
            self.progress.warn(format!("cache {origin}: {error:#}; building without it"));
            return Ok(false);
        }
        Ok(true)
    }

    fn import(&self, key: &Digest) -> anyhow::Result<Option<Record>> {
        for (number, imported) in self.imported.iter().enumerate() {
            let Some((identity, layers)) = imported.known.iter().find_map(|known| known.get(key)) else { continue };
            let id = self.state.snapshots()?.save(&Snapshot::image(&layers));
            lock(&self.elsewhere).insert(id.clone(), (number, layers));
            return Ok(Some(Record { identity, results: vec![id] }));
        }
        Ok(None)
    }

    /// A record that an earlier build took over may have left its layers where they were.
    fn locate(&self, record: &Record) -> anyhow::Result<()> {
        // An identity is a key, too.
        if !self.imported.is_empty() {
            self.import(&record.identity)?;
        }
        Ok(())
    }

    fn note(&self, key: &Digest, record: &Record) {
        if let Some(met) = &self.met {
            lock(met).insert(*key, record.clone());
        }
    }
}

impl CacheStore for StepCache {
    fn get(&self, key: &Digest) -> anyhow::Result<Option<Record>> {
        let found = match self.disk.get(key)? {
            Some(record) => {
                self.locate(&record)?;
                Some(record)
            }
            None => self.import(key)?,
        };
        if let Some(record) = &found {
            self.note(key, record);
        }
        Ok(found)
    }

    fn put(&self, key: &Digest, record: &Record) -> anyhow::Result<()> {
        self.note(key, record);
        self.disk.put(key, record)
    }

    fn lock(&self, key: &Digest, cancel: &Cancel) -> anyhow::Result<Box<dyn Send>> {
        self.disk.lock(key, cancel)
    }

    /// A cache of `mode=min` holds the last stage and none before it.
    fn has_gaps(&self) -> bool {
        self.imported.iter().flat_map(|imported| &imported.known).any(|known| known.len() > 0)
    }
}

impl Results<Ref> for StepCache {
    fn save(&self, result: &Ref) -> anyhow::Result<String> {
        self.results.save(result)
    }

    fn load(&self, id: &str) -> anyhow::Result<Option<Ref>> {
        match self.results.load(id)? {
            None if self.bring(id)? => self.results.load(id),
            found => Ok(found),
        }
    }
}

impl Drop for StepCache {
    fn drop(&mut self) {
        self.state.cache().used().save();
    }
}

// Each change under these locks is one insertion.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
