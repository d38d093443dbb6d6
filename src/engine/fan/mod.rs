//! Several engines: every build goes to one of them, chosen by what is built, so that the same build finds its own
//! cache the next time, and no process need ask another. When an engine is lost, its builds move to the others.

mod identity;
mod run;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use super::{Engine, Place, Plan, SolveOutcome, SolveRequest, State};
use crate::base::Digest;
use crate::remote;

pub use run::Run;

/// Engines that do the builds of one run between them.
pub struct FanOut {
    state: Arc<State>,
    places: Vec<Place>,
    run: Arc<Run>,
}

impl FanOut {
    pub fn new(state: Arc<State>, places: Vec<Place>, run: Arc<Run>) -> Self {
        Self { state, places, run }
    }

    /// The engines in the order in which this build asks them. Those that were lost come last: should all be, they are
    /// tried again.
    fn order(&self, plan: &Plan, root: &Path) -> Vec<&Place> {
        let mut order = ranked(&self.places, &identity::of(plan, root));
        if order.iter().any(|place| is_able(place, plan)) {
            order.retain(|place| is_able(place, plan));
        }
        order.sort_by_key(|place| self.run.has_lost(place));
        order
    }
}

/// By rendezvous hashing: an engine that comes or goes moves its own share of the builds and no other.
fn ranked<'a>(places: &'a [Place], identity: &Digest) -> Vec<&'a Place> {
    let mut order: Vec<&Place> = places.iter().collect();
    order.sort_by_cached_key(|place| Digest::of(format!("{identity} {place}")).hex());
    order
}

/// Whether an engine can do all that is asked for. What none can, each refuses in its own words.
fn is_able(place: &Place, plan: &Plan) -> bool {
    match (place, plan) {
        (Place::Here, Plan::Dockerfile(plan)) => !identity::is_foreign(plan),
        (Place::Here, Plan::Frontend(_)) => false,
        _ => true,
    }
}

/// Why the engine is gone, where that is what kept it from building. A step that failed would fail elsewhere, too.
fn lost(error: &anyhow::Error) -> Option<&remote::Error> {
    error.chain().find_map(|cause| cause.downcast_ref::<remote::Error>()).filter(|error| error.is_lost())
}

impl Engine for FanOut {
    fn solve(&self, request: &SolveRequest) -> anyhow::Result<SolveOutcome> {
        let order = self.order(&request.plan, self.run.root());
        let mut left = order.iter().peekable();
        loop {
            let Some(place) = left.next() else { anyhow::bail!("no engine is named") };
            let name = format!("[internal] building on {place}");
            let Ok(()) = request.progress.step(&name, |_| Ok::<_, Infallible>(()));
            let error = match place.engine(&self.state).solve(request) {
                Ok(outcome) => return Ok(SolveOutcome { engine: Some(place.to_string()), ..outcome }),
                Err(error) => error,
            };
            let Some(why) = lost(&error) else { return Err(error) };
            self.run.note_lost(place);
            let Some(next) = left.peek() else { return Err(error) };
            request.progress.warn(format!("{place} is lost: {why}; its work moves to {next}"));
        }
    }
}
