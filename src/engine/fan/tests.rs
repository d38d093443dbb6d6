//! Builds shared between engines: peers of our own, one of which does not last.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::UNIX_EPOCH;

use tokio::sync::Notify;
use tonic::Status;

use super::*;
use crate::base::progress::Event;
use crate::base::{Cancel, Env, Epoch, Progress};
use crate::engine::{Context, DockerfilePlan, DockerfileSource, Given, Settings, SharedCaches};
use crate::llb::{build::Builder, source};
use crate::remote::{Address, tests::peer::Peer};

fn places(names: &[&str]) -> Vec<Place> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

fn first(places: &[Place], what: usize) -> String {
    ranked(places, &Digest::of(what.to_string()))[0].to_string()
}

#[test]
fn builds_are_spread_and_stay_where_they_were() {
    let three = places(&["local", "buildkit://a", "unix:///b"]);
    let reversed: Vec<Place> = three.iter().rev().cloned().collect();
    let two = places(&["local", "unix:///b"]);
    let mut counts = BTreeMap::new();
    for what in 0..300 {
        let chosen = first(&three, what);
        assert_eq!(first(&reversed, what), chosen, "the order in which they are named does not count");
        if chosen != "buildkit://a:1234" {
            assert_eq!(first(&two, what), chosen, "an engine that goes takes no other's builds along");
        }
        *counts.entry(chosen).or_insert(0) += 1;
    }
    assert!(counts.len() == 3 && counts.values().all(|count| *count > 60), "{counts:?}");
}

#[derive(Clone, Copy)]
enum Role {
    Works,
    /// A step fails.
    Fails,
    /// Is told to stop, and cancels what it does.
    Stops,
    /// Its connections break.
    Dies,
}

/// An engine that does as it is told.
struct Member {
    peer: Peer,
    role: Arc<Mutex<Role>>,
    asked: Arc<AtomicUsize>,
}

impl Member {
    fn new() -> Self {
        let (role, asked) = (Arc::new(Mutex::new(Role::Works)), Arc::new(AtomicUsize::new(0)));
        let dead: Arc<OnceLock<Arc<Notify>>> = Arc::default();
        let (own_role, own_asked, own_dead) = (role.clone(), asked.clone(), dead.clone());
        let peer = Peer::solving(move |_| {
            own_asked.fetch_add(1, Ordering::SeqCst);
            let (role, dead) = (*own_role.lock().unwrap(), own_dead.clone());
            async move {
                match role {
                    Role::Works => Ok(()),
                    Role::Fails => Err(Status::unknown("process \"false\" did not complete: exit code: 1")),
                    Role::Stops => Err(Status::cancelled("context canceled")),
                    Role::Dies => {
                        dead.wait().notify_one();
                        std::future::pending().await
                    }
                }
            }
        });
        dead.set(peer.dead.clone()).unwrap();
        Self { peer, role, asked }
    }

    fn place(&self) -> Place {
        Place::At(self.peer.address.clone())
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// A build of nothing but a source.
fn request(told: &Arc<Mutex<Vec<String>>>) -> SolveRequest {
    let mut builder = Builder::new();
    let source = builder.output(source::local("context", "", "", ""));
    let told = told.clone();
    SolveRequest {
        plan: Plan::Llb { definition: builder.finish(Some(source)), given: Given::default() },
        secrets: BTreeMap::new(),
        ssh: BTreeMap::new(),
        exports: Vec::new(),
        caches: SharedCaches::default(),
        allow: Vec::new(),
        epoch: Epoch::new(UNIX_EPOCH, None).unwrap(),
        progress: Progress::new(move |event| match event {
            Event::Warning { message, .. } => told.lock().unwrap().push(message),
            Event::Vertex(vertex) if vertex.completed.is_some() => told.lock().unwrap().push(vertex.name),
            _ => {}
        }),
        cancel: Cancel::new(),
    }
}

/// Engines in the order in which they are asked, and one that asks them.
struct Fleet {
    members: Vec<Member>,
    fan: FanOut,
    told: Arc<Mutex<Vec<String>>>,
    _dir: tempfile::TempDir,
}

impl Fleet {
    fn of(roles: &[Role]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(&dir.path().join("state"), &Env::default(), Settings::default()).unwrap();
        let mut members: Vec<Member> = roles.iter().map(|_| Member::new()).collect();
        let places = members.iter().map(Member::place).collect();
        let fan = FanOut::new(state, places, Arc::new(Run::new("/".into(), None)));
        let told = Arc::default();
        let order: Vec<String> =
            fan.order(&request(&told).plan, Path::new("/")).iter().map(ToString::to_string).collect();
        members.sort_by_key(|member| order.iter().position(|name| *name == member.place().to_string()));
        for (member, role) in members.iter().zip(roles) {
            *member.role.lock().unwrap() = *role;
        }
        Self { members, fan, told, _dir: dir }
    }

    fn asked(&self) -> Vec<usize> {
        self.members.iter().map(Member::asked).collect()
    }
}

#[test]
fn what_a_lost_engine_was_doing_moves_to_another() {
    for role in [Role::Dies, Role::Stops] {
        let fleet = Fleet::of(&[role, Role::Works, Role::Works]);
        let request = request(&fleet.told);
        let names: Vec<String> = fleet.members.iter().map(|member| member.place().to_string()).collect();
        let outcome = fleet.fan.solve(&request).unwrap();
        assert_eq!(outcome.engine.as_ref(), Some(&names[1]));
        assert_eq!(fleet.asked(), [1, 1, 0]);
        let told = fleet.told.lock().unwrap().join("\n");
        let begun = [&names[0], &names[1]].map(|name| format!("[internal] building on {name}"));
        assert!(begun.iter().all(|line| told.contains(line)), "{told}");
        assert!(told.contains(&format!("{} is lost: build at", names[0])), "{told}");
        assert!(told.contains(&format!("its work moves to {}", names[1])), "{told}");
        // The next build of the run does not ask it again.
        fleet.fan.solve(&request).unwrap();
        assert_eq!(fleet.asked(), [1, 2, 0]);
    }
}

#[test]
fn an_engine_that_is_not_there_is_passed_over() {
    let fleet = Fleet::of(&[Role::Works, Role::Works]);
    let Place::At(Address::Unix(socket)) = fleet.members[0].place() else { panic!() };
    std::fs::remove_file(socket).unwrap();
    let outcome = fleet.fan.solve(&request(&fleet.told)).unwrap();
    assert_eq!(outcome.engine, Some(fleet.members[1].place().to_string()));
    assert_eq!(fleet.asked(), [0, 1]);
}

#[test]
fn a_step_that_fails_is_no_lost_engine() {
    let fleet = Fleet::of(&[Role::Fails, Role::Works]);
    let error = fleet.fan.solve(&request(&fleet.told)).unwrap_err();
    assert!(format!("{error:#}").contains("exit code: 1"), "{error:#}");
    assert_eq!(fleet.asked(), [1, 0]);
}

#[test]
fn when_all_are_lost_the_build_fails_and_the_next_one_tries_again() {
    let fleet = Fleet::of(&[Role::Dies, Role::Stops]);
    let error = fleet.fan.solve(&request(&fleet.told)).unwrap_err();
    assert!(lost(&error).is_some(), "{error:#}");
    assert_eq!(fleet.asked(), [1, 1]);
    for member in &fleet.members {
        *member.role.lock().unwrap() = Role::Works;
    }
    fleet.fan.solve(&request(&fleet.told)).unwrap();
    assert_eq!(fleet.asked(), [2, 1]);
}

#[test]
fn what_only_some_can_do_goes_to_them() {
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(&dir.path().join("state"), &Env::default(), Settings::default()).unwrap();
    let fan = FanOut::new(state, places(&["unix:///a", "local"]), Arc::new(Run::new("/".into(), None)));
    let order = |text: &str| {
        let source = DockerfileSource::Text { name: "-".to_owned(), text: text.to_owned() };
        let plan = DockerfilePlan::new(Context::Empty, source);
        let order = fan.order(&Plan::Dockerfile(Box::new(plan)), Path::new("/"));
        order.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(order("FROM a").len(), 2);
    assert_eq!(order("# syntax=r.example/other\nFROM a"), ["unix:///a"]);
}
