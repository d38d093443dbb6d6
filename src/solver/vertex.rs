//! One vertex of a solve: how it is recognised, and how its results come to be there.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use anyhow::{bail, ensure};

use super::report::Report;
use super::run::{Run, lock};
use super::{CacheMap, GraphError, InputKey, Node, Policy, Record};
use crate::base::{Cancel, Digest, Hasher, Progress};

/// What this solve knows of one vertex.
pub(super) struct Cell<'a, R> {
    /// The position of each input, and which of its outputs.
    pub inputs: Vec<(usize, usize)>,
    known: Mutex<Known<R>>,
    report: Mutex<Report<'a>>,
}

struct Known<R> {
    /// Set once, before any user of this vertex is looked at.
    identity: Option<Digest>,
    /// Where the record is or will be; empty for what is never stored.
    keys: Vec<Digest>,
    /// Made anew whatever is stored.
    fresh: bool,
    results: Found<R>,
    /// Kept from the first look until what it reads is there.
    unread: Option<CacheMap>,
}

enum Found<R> {
    /// Not here; it has to be made.
    Absent,
    /// In a record, not loaded yet.
    Stored(Vec<String>),
    Ready(Arc<[R]>),
}

/// What a look for records led to.
pub(super) enum Looked {
    /// There is a record, or nothing to keep one of.
    Known,
    /// There is no record: it is made if somebody wants it.
    Missing,
    /// There is none, and it is made in any case.
    Needed,
    /// The inputs that are read have to be there for another look.
    Unread(Vec<InputKey>),
}

impl<'a, R> Cell<'a, R> {
    pub fn new(inputs: Vec<(usize, usize)>, node: &Node<R>, progress: &'a Progress, cancel: &Cancel) -> Self {
        let known = Known { identity: None, keys: Vec::new(), fresh: false, results: Found::Absent, unread: None };
        Self { inputs, known: Mutex::new(known), report: Mutex::new(Report::new(progress, cancel, node)) }
    }

    pub fn report(&self) -> MutexGuard<'_, Report<'a>> {
        lock(&self.report)
    }

    fn learn(&self, identity: Digest, keys: Vec<Digest>, fresh: bool, results: Found<R>) {
        *lock(&self.known) = Known { identity: Some(identity), keys, fresh, results, unread: None };
    }
}

impl<R: Clone + Send + Sync> Run<'_, R> {
    /// Looks by what is known of the inputs without reading them.
    pub fn look(&self, position: usize) -> anyhow::Result<Looked> {
        let (node, cell) = (self.node(position), &self.cells[position]);
        // A source's key is its work: it walks a directory, or asks a server.
        if node.inputs.is_empty() {
            cell.report().start();
        }
        let map = node.op.cache_map(&self.cancel)?;
        ensure!(
            map.inputs.len() == node.inputs.len(),
            "operation has {} inputs and keys for {}",
            node.inputs.len(),
            map.inputs.len()
        );
        let first = self.key(position, &map, None);
        if map.policy == Policy::Transient {
            cell.learn(first, Vec::new(), true, Found::Absent);
            // To look was all the work.
            cell.report().end(false);
            return Ok(Looked::Known);
        }
        if map.policy == Policy::Shared && self.stored(position, &[first])? {
            return Ok(Looked::Known);
        }
        if map.inputs.contains(&InputKey::Content) {
            let inputs = map.inputs.clone();
            lock(&cell.known).unread = Some(map);
            return Ok(Looked::Unread(inputs));
        }
        Ok(self.missing(position, &map, vec![first]))
    }

    /// Looks by the content of the inputs that are read. They are made.
    pub fn read(&self, position: usize) -> anyhow::Result<Looked> {
        let (node, cell) = (self.node(position), &self.cells[position]);
        let Some(map) = lock(&cell.known).unread.take() else { return Ok(Looked::Missing) };
        let contents = map.inputs.iter().zip(&cell.inputs).enumerate().map(|(index, (kind, edge))| match kind {
            InputKey::Identity => Ok(None),
            InputKey::Content => node.op.content(index, &self.output(*edge)?, &self.cancel).map(Some),
        });
        let contents = contents.collect::<anyhow::Result<Vec<_>>>()?;
        let keys = vec![self.key(position, &map, Some(&contents)), self.key(position, &map, None)];
        if map.policy == Policy::Shared && self.stored(position, &keys)? {
            return Ok(Looked::Known);
        }
        Ok(self.missing(position, &map, keys))
    }

    /// Looks under the surest key; a hit is remembered under the others, so that the next look is one read.
    fn stored(&self, position: usize, keys: &[Digest]) -> anyhow::Result<bool> {
        let Some(record) = self.solver.cache.get(&keys[0])? else { return Ok(false) };
        for alias in &keys[1..] {
            self.solver.cache.put(alias, &record)?;
        }
        let cell = &self.cells[position];
        cell.learn(record.identity, keys.to_vec(), false, Found::Stored(record.results));
        cell.report().end(true);
        Ok(true)
    }

    fn missing(&self, position: usize, map: &CacheMap, keys: Vec<Digest>) -> Looked {
        let fresh = map.policy == Policy::Fresh;
        let identity = if fresh { unique(&keys[0]) } else { keys[0] };
        self.cells[position].learn(identity, keys, fresh, Found::Absent);
        if fresh { Looked::Needed } else { Looked::Missing }
    }

    /// The key of a vertex: its own digest and, input by input, the checksum given or the identity.
    fn key(&self, position: usize, map: &CacheMap, contents: Option<&[Option<Digest>]>) -> Digest {
        let mut hasher = Hasher::new();
        // Changing what goes in here makes old caches miss; the word tells generations apart.
        hasher.field("dockless key 1");
        hasher.field(map.digest.as_bytes());
        for (index, &(input, output)) in self.cells[position].inputs.iter().enumerate() {
            if let Some(content) = contents.and_then(|contents| contents[index]) {
                hasher.field("content");
                hasher.field(content.as_bytes());
                continue;
            }
            // Inputs are looked at before their users; without identity nothing could have been looked up.
            let identity = lock(&self.cells[input].known).identity.unwrap_or(self.node(input).digest.0);
            hasher.field("identity");
            hasher.field(identity.as_bytes());
            hasher.field((output as u64).to_le_bytes());
        }
        hasher.finish()
    }

    /// Whether the results are in memory or could be loaded. A record without its results is no record.
    pub fn load(&self, position: usize) -> anyhow::Result<bool> {
        let cell = &self.cells[position];
        // Loading may take long; meanwhile the users of this vertex ask for its identity.
        let ids = match &lock(&cell.known).results {
            Found::Ready(_) => return Ok(true),
            Found::Absent => return Ok(false),
            Found::Stored(ids) => ids.clone(),
        };
        let loaded = ids.iter().map(|id| self.solver.results.load(id)).collect::<anyhow::Result<Option<Vec<R>>>>()?;
        let there = loaded.is_some();
        lock(&cell.known).results = loaded.map_or(Found::Absent, |results| Found::Ready(results.into()));
        Ok(there)
    }

    /// Runs the operation on its inputs, which are made, and stores what comes out under all its keys.
    pub fn make(&self, position: usize) -> anyhow::Result<()> {
        let (node, cell) = (self.node(position), &self.cells[position]);
        let (identity, keys, fresh) = {
            let known = lock(&cell.known);
            (known.identity, known.keys.clone(), known.fresh)
        };
        // What is never stored costs nothing to make, and was told of when it was looked at.
        let told = !keys.is_empty();
        if told {
            cell.report().start();
        }
        // Whoever holds the lock makes this very vertex; when it is ours, the record may have come meanwhile.
        let _lock = match keys.first() {
            Some(key) if !fresh => {
                let held = self.solver.cache.lock(key, &self.cancel)?;
                if self.made_elsewhere(position, &keys)? {
                    cell.report().end(true);
                    return Ok(());
                }
                Some(held)
            }
            _ => None,
        };
        let inputs = cell.inputs.iter().map(|edge| self.output(*edge)).collect::<anyhow::Result<Vec<R>>>()?;
        self.cancel.check()?;
        let results: Arc<[R]> = node.op.exec(&inputs, &self.cancel)?.into();
        if let (Some(identity), false) = (identity, keys.is_empty()) {
            let ids = results.iter().map(|result| self.solver.results.save(result));
            let record = Record { identity, results: ids.collect::<anyhow::Result<_>>()? };
            for key in &keys {
                self.solver.cache.put(key, &record)?;
            }
        }
        lock(&cell.known).results = Found::Ready(results);
        if told {
            cell.report().end(false);
        }
        Ok(())
    }

    /// True when another solve stored what this one was about to make. The identity stays: users have seen it.
    fn made_elsewhere(&self, position: usize, keys: &[Digest]) -> anyhow::Result<bool> {
        let Some(record) = self.solver.cache.get(&keys[0])? else { return Ok(false) };
        lock(&self.cells[position].known).results = Found::Stored(record.results.clone());
        if !self.load(position)? {
            return Ok(false);
        }
        for alias in &keys[1..] {
            self.solver.cache.put(alias, &record)?;
        }
        Ok(true)
    }

    /// One result of a vertex that is made.
    pub fn output(&self, (input, output): (usize, usize)) -> anyhow::Result<R> {
        let vertex = self.node(input).digest;
        match &lock(&self.cells[input].known).results {
            Found::Ready(results) => Ok(results.get(output).ok_or(GraphError::Output { vertex, output })?.clone()),
            Found::Absent | Found::Stored(_) => bail!("{vertex} is asked for and was not made"),
        }
    }
}

/// An identity that no other build has.
fn unique(key: &Digest) -> Digest {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut hasher = Hasher::new();
    hasher.field(key.as_bytes());
    hasher.field(format!("{:?} {} {}", SystemTime::now(), std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
    hasher.finish()
}
