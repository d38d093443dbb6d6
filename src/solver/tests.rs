//! The solver on integers: an operation adds its own number to its inputs.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::*;
use crate::base::Event;

type Log = Arc<Mutex<Vec<String>>>;

struct Sum {
    name: String,
    number: i64,
    keys: Vec<InputKey>,
    policy: Policy,
    log: Log,
    meet: Option<Arc<Meeting>>,
    fails: bool,
}

impl Op<i64> for Sum {
    fn cache_map(&self, _: &Cancel) -> anyhow::Result<CacheMap> {
        Ok(CacheMap { digest: Digest::of(self.number.to_string()), inputs: self.keys.clone(), policy: self.policy })
    }

    fn content(&self, _: usize, result: &i64, _: &Cancel) -> anyhow::Result<Digest> {
        self.log.lock().unwrap().push(format!("read for {}", self.name));
        // The lowest digit does not count, as files that a COPY does not read.
        Ok(Digest::of((result / 10).to_string()))
    }

    fn exec(&self, inputs: &[i64], cancel: &Cancel) -> anyhow::Result<Vec<i64>> {
        self.log.lock().unwrap().push(self.name.clone());
        if let Some(meeting) = &self.meet {
            meeting.wait(cancel)?;
        }
        anyhow::ensure!(!self.fails, "{} is broken", self.name);
        let sum = inputs.iter().sum::<i64>() + self.number;
        Ok(vec![sum, -sum])
    }
}

/// Lets nobody pass before all are there; proves that vertices run at the same time.
struct Meeting {
    expected: usize,
    here: Mutex<usize>,
    changed: Condvar,
}

impl Meeting {
    fn of(expected: usize) -> Arc<Self> {
        Arc::new(Self { expected, here: Mutex::new(0), changed: Condvar::new() })
    }

    fn wait(&self, cancel: &Cancel) -> anyhow::Result<()> {
        let mut here = self.here.lock().unwrap();
        *here += 1;
        self.changed.notify_all();
        for _ in 0..1000 {
            if *here >= self.expected {
                return Ok(());
            }
            cancel.check()?;
            here = self.changed.wait_timeout(here, Duration::from_millis(10)).unwrap().0;
        }
        anyhow::bail!("the others never came")
    }
}

#[derive(Default)]
struct Memory {
    records: Mutex<HashMap<Digest, Record>>,
    held: Arc<(Mutex<HashSet<Digest>>, Condvar)>,
    pruned: Mutex<HashSet<String>>,
    loads: Mutex<usize>,
    gaps: bool,
}

impl Memory {
    /// Of a chain of which only the results in `kept` have records, as a cache that was brought from elsewhere.
    fn with_gaps(of: &Self, kept: &[i64]) -> Arc<Self> {
        let mut records = of.records.lock().unwrap().clone();
        records.retain(|_, record| kept.iter().any(|kept| record.results[0] == kept.to_string()));
        Arc::new(Self { records: Mutex::new(records), gaps: true, ..Self::default() })
    }
}

struct Held(Digest, Arc<(Mutex<HashSet<Digest>>, Condvar)>);

impl Drop for Held {
    fn drop(&mut self) {
        self.1.0.lock().unwrap().remove(&self.0);
        self.1.1.notify_all();
    }
}

impl CacheStore for Memory {
    fn get(&self, key: &Digest) -> anyhow::Result<Option<Record>> {
        Ok(self.records.lock().unwrap().get(key).cloned())
    }

    fn put(&self, key: &Digest, record: &Record) -> anyhow::Result<()> {
        self.records.lock().unwrap().insert(*key, record.clone());
        Ok(())
    }

    fn lock(&self, key: &Digest, cancel: &Cancel) -> anyhow::Result<Box<dyn Send>> {
        let mut held = self.held.0.lock().unwrap();
        while !held.insert(*key) {
            cancel.check()?;
            held = self.held.1.wait_timeout(held, Duration::from_millis(10)).unwrap().0;
        }
        Ok(Box::new(Held(*key, self.held.clone())))
    }

    fn has_gaps(&self) -> bool {
        self.gaps
    }
}

impl Results<i64> for Memory {
    fn save(&self, result: &i64) -> anyhow::Result<String> {
        self.pruned.lock().unwrap().remove(&result.to_string());
        Ok(result.to_string())
    }

    fn load(&self, id: &str) -> anyhow::Result<Option<i64>> {
        *self.loads.lock().unwrap() += 1;
        Ok((!self.pruned.lock().unwrap().contains(id)).then(|| id.parse().unwrap()))
    }
}

/// A graph in the making.
#[derive(Default)]
struct Plan {
    nodes: Vec<Node<i64>>,
    log: Log,
}

impl Plan {
    fn add(&mut self, name: &str, number: i64, inputs: &[(&str, InputKey)], set: impl FnOnce(&mut Sum)) -> &mut Self {
        let mut op = Sum {
            name: name.to_owned(),
            number,
            keys: inputs.iter().map(|(_, key)| *key).collect(),
            policy: Policy::Shared,
            log: self.log.clone(),
            meet: None,
            fails: false,
        };
        set(&mut op);
        self.nodes.push(Node {
            digest: vertex(name),
            name: name.to_owned(),
            op: Arc::new(op),
            inputs: inputs.iter().map(|(input, _)| (vertex(input), 0)).collect(),
        });
        self
    }

    fn solve(&mut self, memory: &Arc<Memory>, root: &str) -> Result<i64, Error> {
        self.log.lock().unwrap().clear();
        let graph = Graph::new(std::mem::take(&mut self.nodes)).unwrap();
        Solver::new(memory.clone(), memory.clone(), Progress::none())
            .solve(&graph, &[(vertex(root), 0)], &Cancel::new())
            .map(|results| results[0])
    }

    fn ran(&self) -> Vec<String> {
        let mut ran = self.log.lock().unwrap().clone();
        ran.sort();
        ran
    }
}

fn vertex(name: &str) -> VertexDigest {
    VertexDigest(Digest::of(name))
}

use InputKey::{Content, Identity};

#[test]
fn a_second_solve_looks_at_nothing_but_keys() {
    let memory = Arc::new(Memory::default());
    let mut plan = Plan::default();
    let chain = |plan: &mut Plan| {
        plan.add("a", 1, &[], |_| ()).add("b", 10, &[("a", Identity)], |_| ()).add(
            "c",
            100,
            &[("b", Identity)],
            |_| (),
        );
    };
    chain(&mut plan);
    assert_eq!(plan.solve(&memory, "c").unwrap(), 111);
    assert_eq!(plan.ran(), ["a", "b", "c"]);
    *memory.loads.lock().unwrap() = 0;
    chain(&mut plan);
    assert_eq!(plan.solve(&memory, "c").unwrap(), 111);
    assert_eq!(plan.ran(), [""; 0]);
    assert_eq!(*memory.loads.lock().unwrap(), 2, "both outputs of the root, and nothing below");
}

#[test]
fn what_is_not_below_the_root_is_not_built() {
    let mut plan = Plan::default();
    plan.add("a", 1, &[], |_| ()).add("unused", 10, &[("a", Identity)], |op| op.fails = true);
    assert_eq!(plan.solve(&Arc::default(), "a").unwrap(), 1);
}

#[test]
fn a_changed_input_with_the_same_content_is_a_hit_and_the_next_look_is_by_key() {
    let memory = Arc::new(Memory::default());
    let mut plan = Plan::default();
    // 70 and 71 differ in what the content checksum does not see.
    let build = |plan: &mut Plan, context: i64| {
        plan.add("context", context, &[], |op| op.policy = Policy::Transient)
            .add("base", 500, &[], |_| ())
            .add("copy", 2000, &[("base", Identity), ("context", Content)], |_| ())
            .add("run", 10_000, &[("copy", Identity)], |_| ());
    };
    build(&mut plan, 70);
    assert_eq!(plan.solve(&memory, "run").unwrap(), 12_570);
    assert_eq!(plan.ran(), ["base", "context", "copy", "read for copy", "run"]);
    build(&mut plan, 71);
    assert_eq!(plan.solve(&memory, "run").unwrap(), 12_570);
    assert_eq!(plan.ran(), ["context", "read for copy"], "content is the same: nothing is built above");
    build(&mut plan, 71);
    assert_eq!(plan.solve(&memory, "run").unwrap(), 12_570);
    assert_eq!(plan.ran(), [""; 0], "the alias is found without reading");
    build(&mut plan, 90);
    assert_eq!(plan.solve(&memory, "run").unwrap(), 12_590);
    assert_eq!(plan.ran(), ["context", "copy", "read for copy", "run"]);
}

#[test]
fn independent_vertices_run_at_the_same_time_even_behind_content_keys() {
    // As in a final stage with `COPY --from=left` and `COPY --from=right` on top of it.
    let meeting = Meeting::of(2);
    let mut plan = Plan::default();
    for name in ["left", "right"] {
        let meeting = meeting.clone();
        plan.add(name, name.len() as i64, &[], |op| op.meet = Some(meeting));
    }
    plan.add("copy left", 20, &[("left", Content)], |_| ()).add(
        "copy right",
        300,
        &[("copy left", Identity), ("right", Content)],
        |_| (),
    );
    assert_eq!(plan.solve(&Arc::default(), "copy right").unwrap(), 329);
}

#[test]
fn a_pruned_result_is_built_again_and_its_users_stay_known() {
    let memory = Arc::new(Memory::default());
    let mut plan = Plan::default();
    let build = |plan: &mut Plan, last: i64| {
        plan.add("a", 1, &[], |_| ())
            .add("b", 10, &[("a", Identity)], |_| ())
            .add("c", 100, &[("b", Identity)], |_| ())
            .add("d", last, &[("c", Identity)], |_| ());
    };
    build(&mut plan, 1000);
    plan.solve(&memory, "d").unwrap();
    memory.pruned.lock().unwrap().extend(["11", "-11", "111"].map(String::from));
    build(&mut plan, 1000);
    assert_eq!(plan.solve(&memory, "d").unwrap(), 1111);
    assert_eq!(plan.ran(), [""; 0], "nobody asked for what was pruned");
    build(&mut plan, 2000);
    assert_eq!(plan.solve(&memory, "d").unwrap(), 2111);
    assert_eq!(plan.ran(), ["b", "c", "d"], "a is still there");
}

#[test]
fn where_records_have_gaps_nothing_is_built_that_is_not_needed() {
    let full = Arc::new(Memory::default());
    let mut plan = Plan::default();
    let build = |plan: &mut Plan, last: i64| {
        plan.add("base", 1, &[], |_| ())
            .add("compile", 10, &[("base", Identity)], |_| ())
            .add("copy", 100, &[("base", Identity), ("compile", Content)], |_| ())
            .add("run", last, &[("copy", Identity)], |_| ());
    };
    build(&mut plan, 1000);
    assert_eq!(plan.solve(&full, "run").unwrap(), 1112);

    let whole = Memory::with_gaps(&full, &[1112, 112]);
    build(&mut plan, 1000);
    assert_eq!(plan.solve(&whole, "run").unwrap(), 1112);
    assert_eq!(plan.ran(), [""; 0], "the last stage is known, and what it copies from is not made");
    build(&mut plan, 2000);
    assert_eq!(plan.solve(&whole, "run").unwrap(), 2112);
    assert_eq!(plan.ran(), ["run"], "what it stands on is known");

    let top = Memory::with_gaps(&full, &[1112]);
    build(&mut plan, 1000);
    assert_eq!(plan.solve(&top, "run").unwrap(), 1112);
    assert_eq!(plan.ran(), ["base", "compile", "read for copy"], "the copy is known by what it copies");
}

#[test]
fn a_source_that_is_looked_at_and_not_needed_ends() {
    let (memory, mut plan) = (Arc::new(Memory::default()), Plan::default());
    let build = |plan: &mut Plan| {
        plan.add("a", 1, &[], |_| ()).add("b", 10, &[("a", Identity)], |_| ());
    };
    build(&mut plan);
    plan.solve(&memory, "b").unwrap();
    build(&mut plan);
    assert_eq!(told(plan, &Memory::with_gaps(&memory, &[11])), ["a started", "b cached", "a done"]);
}

#[test]
fn a_fresh_vertex_is_built_again_with_all_above_it_and_found_by_the_next_solve() {
    let memory = Arc::new(Memory::default());
    let mut plan = Plan::default();
    let build = |plan: &mut Plan, policy: Policy| {
        plan.add("a", 1, &[], |_| ()).add("b", 10, &[("a", Content)], |op| op.policy = policy).add(
            "c",
            100,
            &[("b", Identity)],
            |_| (),
        );
    };
    build(&mut plan, Policy::Shared);
    plan.solve(&memory, "c").unwrap();
    build(&mut plan, Policy::Fresh);
    plan.solve(&memory, "c").unwrap();
    assert_eq!(plan.ran(), ["b", "c", "read for b"]);
    build(&mut plan, Policy::Shared);
    plan.solve(&memory, "c").unwrap();
    assert_eq!(plan.ran(), [""; 0]);
}

#[test]
fn one_key_in_two_solves_is_built_once() {
    let memory = Arc::new(Memory::default());
    let log = Log::default();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut plan = Plan { log: log.clone(), ..Plan::default() };
                plan.add("a", 1, &[], |_| ()).add("b", 10, &[("a", Identity)], |_| ());
                let graph = Graph::new(plan.nodes).unwrap();
                let solver = Solver::new(memory.clone(), memory.clone(), Progress::none());
                assert_eq!(solver.solve(&graph, &[(vertex("b"), 0)], &Cancel::new()).unwrap(), [11]);
            });
        }
    });
    let mut ran = log.lock().unwrap().clone();
    ran.sort();
    assert_eq!(ran, ["a", "b"]);
}

#[test]
fn the_first_failure_is_told_and_stops_the_others() {
    let mut plan = Plan::default();
    let never = Meeting::of(2);
    plan.add("waits", 1, &[], |op| op.meet = Some(never)).add("breaks", 2, &[], |op| op.fails = true).add(
        "root",
        3,
        &[("waits", Identity), ("breaks", Identity)],
        |_| (),
    );
    let Error::Vertex { name, source, .. } = plan.solve(&Arc::default(), "root").unwrap_err() else { panic!() };
    assert_eq!((name.as_str(), source.to_string().as_str()), ("breaks", "breaks is broken"));
    assert!(!plan.ran().contains(&"root".to_owned()));
}

#[test]
fn a_cancelled_solve_says_so() {
    let mut plan = Plan::default();
    plan.add("waits", 1, &[], |op| op.meet = Some(Meeting::of(2)));
    let graph = Graph::new(plan.nodes).unwrap();
    let (memory, cancel) = (Arc::new(Memory::default()), Cancel::new());
    let solver = Solver::new(memory.clone(), memory, Progress::none());
    std::thread::scope(|scope| {
        let solving = scope.spawn(|| solver.solve(&graph, &[(vertex("waits"), 0)], &cancel));
        cancel.cancel();
        assert!(matches!(solving.join().unwrap(), Err(Error::Cancelled(_))));
    });
}

#[test]
fn a_chain_of_ten_thousand_is_no_recursion() {
    let memory = Arc::new(Memory::default());
    let build = |plan: &mut Plan, last: i64| {
        plan.add("0", 1, &[], |_| ());
        for n in 1..10_000 {
            plan.add(&n.to_string(), 1, &[(&(n - 1).to_string(), Identity)], |_| ());
        }
        plan.add("last", last, &[("9999", Identity)], |_| ());
    };
    let mut plan = Plan::default();
    build(&mut plan, 1);
    assert_eq!(plan.solve(&memory, "last").unwrap(), 10_001);
    memory.pruned.lock().unwrap().extend((1..=10_000).map(|n: i64| n.to_string()));
    build(&mut plan, 2);
    assert_eq!(plan.solve(&memory, "last").unwrap(), 10_002);
    assert_eq!(plan.ran().len(), 10_001);
}

#[test]
fn a_graph_refuses_what_it_cannot_run() {
    let refuse = |set: fn(&mut Plan)| {
        let mut plan = Plan::default();
        set(&mut plan);
        Graph::new(plan.nodes).err()
    };
    assert_eq!(
        refuse(|plan| {
            plan.add("a", 1, &[("b", Identity)], |_| ()).add("b", 1, &[("a", Identity)], |_| ());
        }),
        Some(GraphError::Cycle { vertex: vertex("a") })
    );
    assert_eq!(
        refuse(|plan| {
            plan.add("a", 1, &[("b", Identity)], |_| ());
        }),
        Some(GraphError::Missing { vertex: vertex("b") })
    );
    assert_eq!(
        refuse(|plan| {
            plan.add("a", 1, &[], |_| ()).add("a", 1, &[], |_| ());
        }),
        Some(GraphError::Twice { vertex: vertex("a") })
    );
}

/// The events of a solve of "b".
fn told(plan: Plan, memory: &Arc<Memory>) -> Vec<String> {
    let events: Log = Arc::default();
    let sink = events.clone();
    let progress = Progress::new(move |event| {
        let Event::Vertex(vertex) = event else { return };
        let what = match (vertex.completed, vertex.cached) {
            (None, _) => "started",
            (_, true) => "cached",
            (_, false) => "done",
        };
        sink.lock().unwrap().push(format!("{} {what}", vertex.name));
    });
    let graph = Graph::new(plan.nodes).unwrap();
    let solver = Solver::new(memory.clone(), memory.clone(), progress);
    solver.solve(&graph, &[(vertex("b"), 0)], &Cancel::new()).unwrap();
    let events = events.lock().unwrap();
    events.clone()
}

#[test]
fn every_vertex_is_reported_once_as_started_and_once_as_done() {
    let memory = Arc::new(Memory::default());
    let run = || {
        let mut plan = Plan::default();
        plan.add("a", 1, &[], |_| ()).add("b", 10, &[("a", Identity)], |_| ());
        told(plan, &memory)
    };
    assert_eq!(run(), ["a started", "a done", "b started", "b done"]);
    assert_eq!(run(), ["a started", "a cached", "b cached"]);
}
