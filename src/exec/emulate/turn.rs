//! Taking turns in waiting for calls. The kernel wakes every thread that waits for one, whatever the number: so one waits,
//! and goes on with the call that it gets, unless that takes long or others have come meanwhile.

use std::cell::{Cell, RefCell};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use super::lock;

thread_local! {
    /// The turn that this thread has.
    static HELD: RefCell<Option<Arc<Turn>>> = const { RefCell::new(None) };
    /// Calls that this thread will answer before it looks whether others wait.
    static UNTIL_A_LOOK: Cell<u32> = const { Cell::new(0) };
}

/// To look costs a twentieth of an answer, and where several processes make calls all the time it pays after any.
const BETWEEN_LOOKS: u32 = 7;

#[derive(Default)]
pub struct Turn {
    state: Mutex<State>,
    free: Condvar,
}

#[derive(Default)]
struct State {
    taken: bool,
    /// Threads that wait for the turn, or are about to.
    idle: usize,
}

impl Turn {
    /// A thread has been started, or has time again.
    pub fn expect_one_more(&self) {
        self.state().idle += 1;
    }

    /// Waits for the turn, unless this thread has it. Whether there is nobody else who could take it.
    pub fn take(self: &Arc<Self>) -> bool {
        if HELD.with_borrow(Option::is_some) {
            return false;
        }
        let mut state = self.state();
        while state.taken {
            state = self.free.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        state.taken = true;
        state.idle -= 1;
        HELD.set(Some(Arc::clone(self)));
        state.idle == 0
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// Leaves the turn to another thread, if this one has it: what comes next may take long.
pub fn give_way() {
    if let Some(turn) = HELD.take() {
        turn.state().taken = false;
        turn.free.notify_one();
    }
}

/// Leaves the turn to another thread if `others_wait`, which is asked now and then, and at each call while they do.
pub fn share<E>(others_wait: impl FnOnce() -> Result<bool, E>) -> Result<(), E> {
    match UNTIL_A_LOOK.get() {
        0 if others_wait()? => give_way(),
        0 => UNTIL_A_LOOK.set(BETWEEN_LOOKS),
        left => UNTIL_A_LOOK.set(left - 1),
    }
    Ok(())
}

/// Leaves the turn at the end of a thread, however that comes: else nobody would hear of another call.
pub struct UntilTheEnd;

impl Drop for UntilTheEnd {
    fn drop(&mut self) {
        give_way();
    }
}

/// Whether this thread has the turn.
pub fn is_held() -> bool {
    HELD.with_borrow(Option::is_some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waits_is_looked_for_now_and_then() {
        let turn = Arc::new(Turn::default());
        turn.expect_one_more();
        turn.take();
        let mut looks = 0;
        for _ in 0..3 * (BETWEEN_LOOKS + 1) {
            share(|| {
                looks += 1;
                Ok::<_, ()>(false)
            })
            .unwrap();
        }
        assert_eq!((looks, is_held()), (3, true));
        share(|| Ok::<_, ()>(true)).unwrap();
        assert!(!is_held(), "and gets the turn");
    }

    #[test]
    fn one_has_the_turn_and_the_last_to_take_it_is_told() {
        let turn = Arc::new(Turn::default());
        turn.expect_one_more();
        assert!(turn.take(), "nobody else is there");
        assert!(!turn.take() && is_held(), "it has it already");
        turn.expect_one_more();
        std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                let last = turn.take();
                give_way();
                last
            });
            give_way();
            assert!(other.join().unwrap(), "the first has not come back");
        });
        assert!(!is_held());
        turn.expect_one_more();
        assert!(turn.take());
        give_way();
    }
}
