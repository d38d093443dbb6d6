//! Work that finds more work, such as a walk through directories: done by several threads once there is enough of it.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// From here on there is work for several.
const MANY: usize = 8;
const MAX_THREADS: usize = 8;

/// Does `first` and all jobs that this leads to, in no order. Each thread has a result of its own; all are the answer.
/// The first error ends it.
pub fn spread<J, R, E>(
    first: J,
    work: &(impl Fn(J, &mut VecDeque<J>, &mut R) -> Result<(), E> + Sync),
) -> Result<Vec<R>, E>
where
    J: Send,
    R: Default + Send,
    E: Send,
{
    let mut todo = VecDeque::from([first]);
    let mut result = R::default();
    while todo.len() < MANY {
        let Some(job) = todo.pop_front() else { return Ok(vec![result]) };
        work(job, &mut todo, &mut result)?;
    }
    let shared = Shared { state: Mutex::new(State { todo, working: 0, failed: None }), changed: Condvar::new() };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
    let results = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(|| shared.work(work, R::default()))).collect();
        let mut results = vec![shared.work(work, result)];
        for other in others {
            match other.join() {
                Ok(result) => results.push(result),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        results
    });
    let failed = shared.lock().failed.take();
    failed.map_or(Ok(results), Err)
}

struct Shared<J, E> {
    state: Mutex<State<J, E>>,
    changed: Condvar,
}

struct State<J, E> {
    todo: VecDeque<J>,
    working: usize,
    failed: Option<E>,
}

impl<J, E> Shared<J, E> {
    fn lock(&self) -> MutexGuard<'_, State<J, E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work<R>(&self, work: &impl Fn(J, &mut VecDeque<J>, &mut R) -> Result<(), E>, mut result: R) -> R {
        let mut state = self.lock();
        loop {
            if state.failed.is_some() {
                return result;
            }
            let Some(job) = state.todo.pop_back() else {
                if state.working == 0 {
                    return result;
                }
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            state.working += 1;
            drop(state);
            let mut found = VecDeque::new();
            let done = work(job, &mut found, &mut result);
            state = self.lock();
            state.working -= 1;
            if let Err(error) = done {
                state.failed = Some(error);
            }
            if !found.is_empty() || state.working == 0 || state.failed.is_some() {
                self.changed.notify_all();
            }
            state.todo.append(&mut found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts down from each number, along two ways.
    fn count(from: u32, fail_at: Option<u32>) -> Result<usize, u32> {
        let work = |job: u32, found: &mut VecDeque<u32>, seen: &mut Vec<u32>| {
            seen.push(job);
            found.extend((job > 0).then(|| [job - 1; 2]).into_iter().flatten());
            if fail_at == Some(job) { Err(job) } else { Ok(()) }
        };
        Ok(spread(from, &work)?.iter().map(Vec::len).sum())
    }

    #[test]
    fn everything_is_done_once() {
        for depth in [0, 1, 2, 3, 10] {
            assert_eq!(count(depth, None), Ok((1 << (depth + 1)) - 1));
        }
    }

    #[test]
    fn an_error_ends_it() {
        for at in [0, 5, 10] {
            assert_eq!(count(10, Some(at)), Err(at));
        }
    }
}
