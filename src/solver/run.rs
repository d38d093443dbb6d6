//! One solve: vertices run inputs first, as many at once as are ready. A vertex is looked up by its key; what has to
//! be built is built at once, because everything above a miss has to be built, too.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Scope;
use std::time::SystemTime;

use anyhow::ensure;

use super::{CacheMap, Error, Graph, InputKey, Node, Policy, Record, Solver};
use crate::base::progress::{Event, Vertex};
use crate::base::{Cancel, Digest, Hasher, Progress, VertexDigest, cancel::Cancelled};

/// Vertices at work at one time. Most of them wait for a process of theirs, so this is not the number of cores.
const MAX_WORKERS: usize = 64;

pub fn solve<R: Clone + Send + Sync>(
    solver: &Solver<R>,
    graph: &Graph<R>,
    wanted: &[(VertexDigest, usize)],
    cancel: &Cancel,
) -> Result<Vec<R>, Error> {
    let roots = wanted.iter().map(|(vertex, _)| graph.position(*vertex)).collect::<Result<Vec<_>, _>>()?;
    let run = Run::new(solver, graph, &roots, cancel.child())?;
    std::thread::scope(|scope| run.work(scope));
    if let Some(error) = lock(&run.failed).take() {
        cancel.check()?;
        return Err(error);
    }
    let mut results = Vec::with_capacity(wanted.len());
    for (&position, (vertex, output)) in roots.iter().zip(wanted) {
        let outputs = run.results(position).map_err(|source| {
            if cancel.is_cancelled() { Error::Cancelled(Cancelled) } else { run.failure(position, source) }
        })?;
        let result = outputs.get(*output).ok_or(super::GraphError::Output { vertex: *vertex, output: *output })?;
        results.push(result.clone());
    }
    Ok(results)
}

struct Run<'a, R> {
    solver: &'a Solver<R>,
    graph: &'a Graph<R>,
    cancel: Cancel,
    cells: Vec<Cell<R>>,
    /// Positions of the vertices that use this one.
    users: Vec<Vec<usize>>,
    queue: Mutex<Queue>,
    changed: Condvar,
    failed: Mutex<Option<Error>>,
}

/// What this solve knows of one vertex.
struct Cell<R> {
    inputs: Vec<(usize, usize)>,
    known: Mutex<Known<R>>,
}

struct Known<R> {
    /// Set once, before any user of this vertex is looked at.
    identity: Option<Digest>,
    /// Where the record is or will be; empty for what is never stored.
    keys: Vec<Digest>,
    results: Found<R>,
}

enum Found<R> {
    /// Not here; it has to be made.
    Absent,
    /// In a record, not loaded yet.
    Stored(Vec<String>),
    Ready(Arc<[R]>),
}

struct Queue {
    ready: VecDeque<usize>,
    /// Inputs that are not done, by vertex.
    pending: Vec<usize>,
    left: usize,
    workers: usize,
    /// Workers that wait for something to become ready.
    idle: usize,
    /// Workers that were brought and have not looked at the queue yet.
    starting: usize,
    stop: bool,
}

impl<'a, R: Clone + Send + Sync> Run<'a, R> {
    fn new(solver: &'a Solver<R>, graph: &'a Graph<R>, roots: &[usize], cancel: Cancel) -> Result<Self, Error> {
        let nodes = graph.nodes();
        let mut users = vec![Vec::new(); nodes.len()];
        let mut needed = vec![false; nodes.len()];
        let mut cells = Vec::with_capacity(nodes.len());
        roots.iter().for_each(|&root| needed[root] = true);
        for node in nodes {
            let inputs = node
                .inputs
                .iter()
                .map(|(vertex, output)| Ok((graph.position(*vertex)?, *output)))
                .collect::<Result<Vec<_>, Error>>()?;
            let known = Known { identity: None, keys: Vec::new(), results: Found::Absent };
            cells.push(Cell { inputs, known: Mutex::new(known) });
        }
        // Users come after their inputs, so one pass from the end reaches everything below the roots.
        for position in (0..nodes.len()).rev() {
            if needed[position] {
                cells[position].inputs.iter().for_each(|&(input, _)| needed[input] = true);
            }
        }
        let mut pending = vec![0; nodes.len()];
        let mut ready = VecDeque::new();
        let mut left = 0;
        for position in (0..nodes.len()).filter(|&position| needed[position]) {
            left += 1;
            pending[position] = cells[position].inputs.len();
            cells[position].inputs.iter().for_each(|&(input, _)| users[input].push(position));
            if pending[position] == 0 {
                ready.push_back(position);
            }
        }
        let queue = Mutex::new(Queue { ready, pending, left, workers: 1, idle: 0, starting: 0, stop: false });
        Ok(Self { solver, graph, cancel, cells, users, queue, changed: Condvar::new(), failed: Mutex::new(None) })
    }

    fn node(&self, position: usize) -> &Node<R> {
        &self.graph.nodes()[position]
    }

    /// Takes ready vertices until none is left, and brings helpers when more are ready than hands are free.
    fn work<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) {
        let _stop = StopOnPanic(self);
        let mut queue = lock(&self.queue);
        loop {
            if queue.stop || queue.left == 0 {
                return;
            }
            let Some(position) = queue.ready.pop_front() else {
                queue.idle += 1;
                queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
                queue.idle -= 1;
                continue;
            };
            while queue.ready.len() > queue.idle + queue.starting && queue.workers < MAX_WORKERS {
                queue.workers += 1;
                queue.starting += 1;
                scope.spawn(move || {
                    lock(&self.queue).starting -= 1;
                    self.work(scope);
                });
            }
            drop(queue);
            let done = self.vertex(position);
            queue = lock(&self.queue);
            match done {
                Ok(()) => {
                    queue.left -= 1;
                    for &user in &self.users[position] {
                        queue.pending[user] -= 1;
                        if queue.pending[user] == 0 {
                            queue.ready.push_back(user);
                        }
                    }
                }
                Err(source) => {
                    queue.stop = true;
                    self.cancel.cancel();
                    lock(&self.failed).get_or_insert_with(|| self.failure(position, source));
                }
            }
            self.changed.notify_all();
        }
    }

    /// Brings one vertex to where its identity is known; builds it when no record has it.
    fn vertex(&self, position: usize) -> anyhow::Result<()> {
        self.cancel.check()?;
        let node = self.node(position);
        let mut report = Report::new(&self.solver.progress, &self.cancel, node);
        // A source's key is its work: it walks a directory, or asks a server.
        if node.inputs.is_empty() {
            report.start();
        }
        let done = self.look_up(position, node, &mut report);
        report.end(&done);
        done.map(drop)
    }

    /// True when the result was there.
    fn look_up(&self, position: usize, node: &Node<R>, report: &mut Report<'_, R>) -> anyhow::Result<bool> {
        let map = node.op.cache_map(&self.cancel)?;
        ensure!(
            map.inputs.len() == node.inputs.len(),
            "operation has {} inputs and keys for {}",
            node.inputs.len(),
            map.inputs.len()
        );
        let first = self.key(position, &map, None);
        if map.policy == Policy::Transient {
            self.learn(position, first, Vec::new(), Found::Absent);
            return Ok(false);
        }
        let fresh = map.policy == Policy::Fresh;
        if !fresh && let Some(record) = self.solver.cache.get(&first)? {
            self.learn(position, record.identity, vec![first], Found::Stored(record.results));
            return Ok(true);
        }
        let keys = match self.content_key(position, node, &map)? {
            Some(content) => vec![content, first],
            None => vec![first],
        };
        if !fresh && keys.len() > 1 && self.stored(position, &keys)? {
            return Ok(true);
        }
        report.start();
        if fresh {
            self.learn(position, unique(&first), keys, Found::Absent);
            self.build(position, node)?;
            return Ok(false);
        }
        // Whoever holds the lock builds this very vertex; when it is ours, the record may have come meanwhile.
        let _lock = self.solver.cache.lock(&keys[0], &self.cancel)?;
        if self.stored(position, &keys)? {
            return Ok(true);
        }
        self.learn(position, keys[0], keys, Found::Absent);
        self.build(position, node)?;
        Ok(false)
    }

    /// Looks under the surest key; a hit is remembered under the others, so that the next look is one read.
    fn stored(&self, position: usize, keys: &[Digest]) -> anyhow::Result<bool> {
        let Some(record) = self.solver.cache.get(&keys[0])? else { return Ok(false) };
        for alias in &keys[1..] {
            self.solver.cache.put(alias, &record)?;
        }
        self.learn(position, record.identity, keys.to_vec(), Found::Stored(record.results));
        Ok(true)
    }

    fn learn(&self, position: usize, identity: Digest, keys: Vec<Digest>, results: Found<R>) {
        *lock(&self.cells[position].known) = Known { identity: Some(identity), keys, results };
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
            // Inputs are done before their users start; without identity nothing could have been looked up.
            let identity = lock(&self.cells[input].known).identity.unwrap_or(self.node(input).digest.0);
            hasher.field("identity");
            hasher.field(identity.as_bytes());
            hasher.field((output as u64).to_le_bytes());
        }
        hasher.finish()
    }

    /// The key by what the operation reads of its inputs; none when no input is read.
    fn content_key(&self, position: usize, node: &Node<R>, map: &CacheMap) -> anyhow::Result<Option<Digest>> {
        if !map.inputs.contains(&InputKey::Content) {
            return Ok(None);
        }
        let contents = map
            .inputs
            .iter()
            .zip(&self.cells[position].inputs)
            .enumerate()
            .map(|(index, (kind, edge))| match kind {
                InputKey::Identity => Ok(None),
                InputKey::Content => node.op.content(index, &self.output(*edge)?, &self.cancel).map(Some),
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Some(self.key(position, map, Some(&contents))))
    }

    fn output(&self, (input, output): (usize, usize)) -> anyhow::Result<R> {
        let results = self.results(input)?;
        let vertex = self.node(input).digest;
        Ok(results.get(output).ok_or(super::GraphError::Output { vertex, output })?.clone())
    }

    /// The results of a vertex whose identity is known: loaded, or made again where a record has lost them.
    ///
    /// Goes down with a stack of its own, so that a pruned chain of any length is no recursion.
    fn results(&self, position: usize) -> anyhow::Result<Arc<[R]>> {
        let mut stack = vec![position];
        loop {
            let top = *stack.last().unwrap_or(&position);
            if let Some(results) = self.load(top)? {
                stack.pop();
                if stack.is_empty() {
                    return Ok(results);
                }
                continue;
            }
            let before = stack.len();
            for &(input, _) in &self.cells[top].inputs {
                if self.load(input)?.is_none() {
                    stack.push(input);
                }
            }
            if stack.len() == before {
                self.rebuild(top)?;
            }
        }
    }

    /// What is in memory or can be loaded. A record without its results is no record.
    fn load(&self, position: usize) -> anyhow::Result<Option<Arc<[R]>>> {
        let mut known = lock(&self.cells[position].known);
        let ids = match &known.results {
            Found::Ready(results) => return Ok(Some(results.clone())),
            Found::Absent => return Ok(None),
            Found::Stored(ids) => ids,
        };
        let loaded = ids.iter().map(|id| self.solver.results.load(id)).collect::<anyhow::Result<Option<Vec<R>>>>()?;
        let loaded = loaded.map(Arc::from);
        known.results = loaded.clone().map_or(Found::Absent, Found::Ready);
        Ok(loaded)
    }

    /// Builds a vertex that was taken for known. Two users may ask at once: the second finds the results.
    fn rebuild(&self, position: usize) -> anyhow::Result<()> {
        let node = self.node(position);
        let keys = lock(&self.cells[position].known).keys.clone();
        let Some(key) = keys.first() else { return self.build(position, node) };
        let mut report = Report::new(&self.solver.progress, &self.cancel, node);
        report.start();
        let done = (|| {
            let _lock = self.solver.cache.lock(key, &self.cancel)?;
            if let Some(record) = self.solver.cache.get(key)? {
                let mut known = lock(&self.cells[position].known);
                if matches!(known.results, Found::Absent) {
                    known.results = Found::Stored(record.results);
                }
            }
            if self.load(position)?.is_some() {
                return Ok(true);
            }
            self.build(position, node).map(|()| false)
        })();
        report.end(&done);
        done.map(drop)
    }

    /// Runs the operation and stores what came out under all its keys.
    fn build(&self, position: usize, node: &Node<R>) -> anyhow::Result<()> {
        let inputs = self.cells[position].inputs.iter().map(|edge| self.output(*edge));
        let inputs = inputs.collect::<anyhow::Result<Vec<R>>>()?;
        self.cancel.check()?;
        let results: Arc<[R]> = node.op.exec(&inputs, &self.cancel)?.into();
        let cell = &self.cells[position];
        let (identity, keys) = {
            let known = lock(&cell.known);
            (known.identity, known.keys.clone())
        };
        if let (Some(identity), false) = (identity, keys.is_empty()) {
            let ids = results.iter().map(|result| self.solver.results.save(result));
            let record = Record { identity, results: ids.collect::<anyhow::Result<_>>()? };
            for key in &keys {
                self.solver.cache.put(key, &record)?;
            }
        }
        lock(&cell.known).results = Found::Ready(results);
        Ok(())
    }

    fn failure(&self, position: usize, source: anyhow::Error) -> Error {
        let node = self.node(position);
        Error::Vertex { vertex: node.digest, name: node.name.clone(), source }
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

/// Tells the progress of one vertex: started at most once, ended at most once.
struct Report<'a, R> {
    progress: &'a Progress,
    cancel: &'a Cancel,
    node: &'a Node<R>,
    started: Option<SystemTime>,
}

impl<'a, R> Report<'a, R> {
    fn new(progress: &'a Progress, cancel: &'a Cancel, node: &'a Node<R>) -> Self {
        Self { progress, cancel, node, started: None }
    }

    fn start(&mut self) {
        if self.started.is_none() {
            self.started = Some(SystemTime::now());
            self.send(None, false, None);
        }
    }

    fn end(&mut self, done: &anyhow::Result<bool>) {
        let now = SystemTime::now();
        self.started.get_or_insert(now);
        // What fails after the flag was raised was stopped: it is not why the build failed.
        let error = done.as_ref().err().map(|error| match self.cancel.check() {
            Err(cancelled) => cancelled.to_string(),
            Ok(()) => format!("{error:#}"),
        });
        self.send(Some(now), *done.as_ref().unwrap_or(&false), error);
    }

    fn send(&self, completed: Option<SystemTime>, cached: bool, error: Option<String>) {
        self.progress.send(Event::Vertex(Vertex {
            digest: self.node.digest,
            name: self.node.name.clone(),
            inputs: self.node.inputs.iter().map(|(vertex, _)| *vertex).collect(),
            started: self.started,
            completed,
            cached,
            error,
        }));
    }
}

/// A panic in one vertex must not leave the others waiting for it.
struct StopOnPanic<'a, 'b, R>(&'a Run<'b, R>);

impl<R> Drop for StopOnPanic<'_, '_, R> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            lock(&self.0.queue).stop = true;
            self.0.cancel.cancel();
            self.0.changed.notify_all();
        }
    }
}

// No update under these locks can be left half-done: each is one assignment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
