//! One solve: who waits for what, and who works on it. Looking goes inputs first over the whole graph; making starts at
//! what is wanted and goes down no further than to what a record has.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Scope;

use super::vertex::{Cell, Looked};
use super::{Error, Graph, InputKey, Node, Solver};
use crate::base::{Cancel, VertexDigest};

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
    run.cells.iter().for_each(|cell| cell.report().leave());
    if let Some(error) = lock(&run.failed).take() {
        cancel.check()?;
        return Err(error);
    }
    let mut results = Vec::with_capacity(wanted.len());
    for (&position, (_, output)) in roots.iter().zip(wanted) {
        results.push(run.output((position, *output)).map_err(|source| run.failure(position, source))?);
    }
    Ok(results)
}

pub(super) struct Run<'a, R> {
    pub solver: &'a Solver<R>,
    graph: &'a Graph<R>,
    pub cancel: Cancel,
    pub cells: Vec<Cell<'a, R>>,
    /// Positions of the vertices that use this one.
    users: Vec<Vec<usize>>,
    /// What misses is made at once: where no record can be above a miss, nothing is won by looking first.
    eager: bool,
    queue: Mutex<Queue>,
    changed: Condvar,
    failed: Mutex<Option<Error>>,
}

/// The work there is on a vertex, in the order in which it may come.
#[derive(Clone, Copy)]
enum Task {
    /// Its inputs are known: is there a record?
    Look,
    /// What it reads of its inputs is made: is there a record of that?
    Read,
    /// It is wanted: are the results of its record still there?
    Load,
    /// Its inputs are made, and it is not.
    Make,
}

struct Queue {
    ready: VecDeque<(usize, Task)>,
    places: Vec<Place>,
    /// Roots that are not made.
    left: usize,
    workers: usize,
    /// Workers that wait for something to become ready.
    idle: usize,
    /// Workers that were brought and have not looked at the queue yet.
    starting: usize,
    stop: bool,
}

/// Where one vertex stands.
#[derive(Default)]
struct Place {
    /// Inputs that were not looked at.
    unlooked: usize,
    looked: bool,
    wanted: bool,
    /// Inputs that its next task waits for.
    unmade: usize,
    made: bool,
    root: bool,
    /// Who goes on when this one is made.
    waiting: Vec<(usize, Task)>,
}

impl<'a, R: Clone + Send + Sync> Run<'a, R> {
    fn new(solver: &'a Solver<R>, graph: &'a Graph<R>, roots: &[usize], cancel: Cancel) -> Result<Self, Error> {
        let nodes = graph.nodes();
        let mut users = vec![Vec::new(); nodes.len()];
        let mut below = vec![false; nodes.len()];
        let mut places: Vec<Place> = nodes.iter().map(|_| Place::default()).collect();
        let mut cells = Vec::with_capacity(nodes.len());
        for node in nodes {
            let inputs = node
                .inputs
                .iter()
                .map(|(vertex, output)| Ok((graph.position(*vertex)?, *output)))
                .collect::<Result<Vec<_>, Error>>()?;
            cells.push(Cell::new(inputs, node, &solver.progress, &cancel));
        }
        for &root in roots {
            below[root] = true;
            places[root].root = true;
            places[root].wanted = true;
        }
        // Users come after their inputs, so one pass from the end reaches everything below the roots.
        for position in (0..nodes.len()).rev() {
            if below[position] {
                cells[position].inputs.iter().for_each(|&(input, _)| below[input] = true);
            }
        }
        let mut ready = VecDeque::new();
        for position in (0..nodes.len()).filter(|&position| below[position]) {
            places[position].unlooked = cells[position].inputs.len();
            cells[position].inputs.iter().for_each(|&(input, _)| users[input].push(position));
            if places[position].unlooked == 0 {
                ready.push_back((position, Task::Look));
            }
        }
        let left = places.iter().filter(|place| place.root).count();
        let queue = Mutex::new(Queue { ready, places, left, workers: 1, idle: 0, starting: 0, stop: false });
        let eager = !solver.cache.has_gaps();
        let failed = Mutex::default();
        Ok(Self { solver, graph, cancel, cells, users, eager, queue, changed: Condvar::new(), failed })
    }

    pub fn node(&self, position: usize) -> &'a Node<R> {
        &self.graph.nodes()[position]
    }

    /// Takes what is ready until the roots are made, and brings helpers when more is ready than hands are free.
    fn work<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) {
        let _stop = StopOnPanic(self);
        let mut queue = lock(&self.queue);
        loop {
            if queue.stop || queue.left == 0 {
                return;
            }
            let Some((position, task)) = queue.ready.pop_front() else {
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
            let done = self.run(position, task);
            queue = lock(&self.queue);
            match done {
                Ok(next) => self.go_on(&mut queue, position, next),
                Err(source) => {
                    queue.stop = true;
                    self.cancel.cancel();
                    lock(&self.failed).get_or_insert_with(|| self.failure(position, source));
                }
            }
            self.changed.notify_all();
        }
    }

    fn run(&self, position: usize, task: Task) -> anyhow::Result<Next> {
        let done = self.cancel.check().map_err(Into::into).and_then(|()| match task {
            Task::Look => self.look(position).map(Next::Looked),
            Task::Read => self.read(position).map(Next::Looked),
            Task::Load => self.load(position).map(Next::Made),
            Task::Make => self.make(position).map(|()| Next::Made(true)),
        });
        done.inspect_err(|error| self.cells[position].report().fail(error))
    }

    /// What becomes possible, or needed, by what was found out.
    fn go_on(&self, queue: &mut Queue, position: usize, next: Next) {
        match next {
            Next::Looked(Looked::Unread(keys)) => {
                self.wait_for(queue, position, Task::Read, |index| keys.get(index) == Some(&InputKey::Content));
            }
            Next::Looked(looked) => {
                queue.places[position].looked = true;
                for &user in &self.users[position] {
                    queue.places[user].unlooked -= 1;
                    if queue.places[user].unlooked == 0 {
                        queue.ready.push_back((user, Task::Look));
                    }
                }
                if queue.places[position].wanted {
                    queue.ready.push_back((position, Task::Load));
                } else if matches!(looked, Looked::Needed) || (self.eager && matches!(looked, Looked::Missing)) {
                    queue.want(position);
                }
            }
            Next::Made(false) => self.wait_for(queue, position, Task::Make, |_| true),
            Next::Made(true) => {
                let place = &mut queue.places[position];
                place.made = true;
                queue.left -= usize::from(place.root);
                for (user, task) in std::mem::take(&mut queue.places[position].waiting) {
                    queue.places[user].unmade -= 1;
                    if queue.places[user].unmade == 0 {
                        queue.ready.push_back((user, task));
                    }
                }
            }
        }
    }

    /// Puts a task off until the inputs that it asks for are made.
    fn wait_for(&self, queue: &mut Queue, position: usize, task: Task, which: impl Fn(usize) -> bool) {
        for (index, &(input, _)) in self.cells[position].inputs.iter().enumerate() {
            if which(index) && !queue.places[input].made {
                queue.places[position].unmade += 1;
                queue.places[input].waiting.push((position, task));
                queue.want(input);
            }
        }
        if queue.places[position].unmade == 0 {
            queue.ready.push_back((position, task));
        }
    }

    fn failure(&self, position: usize, source: anyhow::Error) -> Error {
        let node = self.node(position);
        Error::Vertex { vertex: node.digest, name: node.name.clone(), source }
    }
}

/// What a task leads to.
enum Next {
    Looked(Looked),
    /// False when it has to be made of its inputs first.
    Made(bool),
}

impl Queue {
    fn want(&mut self, position: usize) {
        let place = &mut self.places[position];
        if !place.wanted {
            place.wanted = true;
            // One that was not looked at yet is loaded once it is.
            if place.looked {
                self.ready.push_back((position, Task::Load));
            }
        }
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

// What a panic leaves under these locks is looked at by nobody: the solve stops.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
