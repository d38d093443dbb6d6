//! One flag that a Ctrl-C raises and everything long-running looks at.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// Cancellation shared by all parts of one request. Cloning shares the flag.
#[derive(Clone, Default)]
pub struct Cancel(Arc<Inner>);

#[derive(Default)]
struct Inner {
    raised: Mutex<bool>,
    changed: Condvar,
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
        *lock(&self.0.raised) = true;
        self.0.changed.notify_all();
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

// A bool cannot be half-written, so a panic elsewhere leaves it as good as before.
fn lock(mutex: &Mutex<bool>) -> std::sync::MutexGuard<'_, bool> {
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
}
