//! One flag that a Ctrl-C raises and everything long-running looks at.

use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::Duration;

/// Cancellation shared by all parts of one request. Cloning shares the flag.
#[derive(Clone, Default)]
pub struct Cancel(Arc<Inner>);

#[derive(Default)]
struct Inner {
    raised: Mutex<bool>,
    changed: Condvar,
    children: Mutex<Vec<Weak<Inner>>>,
}

/// The work was cancelled; it says nothing about why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cancelled")]
pub struct Cancelled;

impl Cancel {
    pub fn new() -> Self {
        Self::default()
    }

    /// Raises the flag; later calls change nothing.
    pub fn cancel(&self) {
        self.0.raise();
    }

    /// A flag of a part of this work: raised with this one, but raising it leaves this one alone.
    pub fn child(&self) -> Self {
        let child = Self::new();
        let mut children = lock(&self.0.children);
        children.retain(|known| known.strong_count() > 0);
        children.push(Arc::downgrade(&child.0));
        drop(children);
        // After the child is listed: a raise in between reaches it one way or the other.
        if self.is_cancelled() {
            child.cancel();
        }
        child
    }

    pub fn is_cancelled(&self) -> bool {
        *lock(&self.0.raised)
    }

    /// Ok while nobody has cancelled.
    pub fn check(&self) -> Result<(), Cancelled> {
        if self.is_cancelled() { Err(Cancelled) } else { Ok(()) }
    }

    /// Waits at most `limit`; true when cancelled within it.
    pub fn wait(&self, limit: Duration) -> bool {
        let raised = lock(&self.0.raised);
        *self
            .0
            .changed
            .wait_timeout_while(raised, limit, |raised| !*raised)
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .0
    }
}

impl Inner {
    fn raise(&self) {
        *lock(&self.raised) = true;
        self.changed.notify_all();
        for child in lock(&self.children).iter().filter_map(Weak::upgrade) {
            child.raise();
        }
    }
}

// Neither a bool nor the list can be half-written, so a panic elsewhere leaves them as good as before.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_shares_the_flag_and_wakes_a_waiter() {
        let cancel = Cancel::new();
        assert!(!cancel.wait(Duration::from_millis(1)));
        let other = cancel.clone();
        let waiter = std::thread::spawn(move || other.wait(Duration::from_secs(10)));
        cancel.cancel();
        assert!(waiter.join().unwrap());
        assert_eq!(cancel.check(), Err(Cancelled));
    }

    #[test]
    fn a_child_hears_its_parent_and_not_the_other_way_round() {
        let parent = Cancel::new();
        let (first, second) = (parent.child(), parent.child());
        first.cancel();
        assert!(!parent.is_cancelled() && !second.is_cancelled());
        let late = second.child();
        parent.cancel();
        assert!(second.is_cancelled() && late.is_cancelled());
        assert!(parent.child().is_cancelled(), "born after the raise");
    }
}
