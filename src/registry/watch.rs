//! How long anything may take: patience with a registry, the user's Ctrl-C, a peer that drips.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::base::Cancel;
use crate::base::cancel::Cancelled;

/// How soon a Ctrl-C is noticed.
pub(super) const TICK: Duration = Duration::from_millis(50);
/// Below this many bytes per second, over the whole patience, a peer is dripping.
pub(super) const SLOWEST: u64 = 1024;

/// How long we try.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Attempts at one request, the first included.
    pub tries: u32,
    /// Before the second attempt; doubled for each further one.
    pub delay: Duration,
    /// Without an answer, or with hardly a byte, for this long: the attempt failed.
    pub stall: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        // Together some 15 seconds of waiting: longer than a proxy's reload, shorter than a person's patience.
        Self { tries: 6, delay: Duration::from_millis(500), stall: Duration::from_secs(60) }
    }
}

/// What ends a request early: the user, or a sibling that failed.
#[derive(Clone, Copy)]
pub(super) struct Watch<'a> {
    pub cancel: &'a Cancel,
    pub stop: Option<&'a AtomicBool>,
}

impl<'a> Watch<'a> {
    pub fn new(cancel: &'a Cancel) -> Self {
        Self { cancel, stop: None }
    }

    pub fn with_stop(self, stop: &'a AtomicBool) -> Self {
        Self { stop: Some(stop), ..self }
    }

    pub fn check(&self) -> Result<(), Cancelled> {
        if self.stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) { Err(Cancelled) } else { self.cancel.check() }
    }

    pub fn sleep(&self, time: Duration) -> Result<(), Cancelled> {
        let end = Instant::now() + time;
        loop {
            self.check()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.cancel.wait(left.min(TICK));
        }
    }
}

/// Watches over how fast a body comes.
pub(super) struct Pace {
    since: Instant,
    bytes: u64,
}

impl Pace {
    pub fn new() -> Self {
        Self { since: Instant::now(), bytes: 0 }
    }

    pub fn is_dripping(&mut self, bytes: usize, window: Duration) -> bool {
        self.bytes += bytes as u64;
        if self.bytes >= SLOWEST * window.as_secs().max(1) {
            *self = Self::new();
            return false;
        }
        self.since.elapsed() > window
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drip_is_noticed_and_a_stream_is_not() {
        let mut pace = Pace::new();
        assert!(!pace.is_dripping(1, Duration::from_millis(20)));
        std::thread::sleep(Duration::from_millis(30));
        assert!(pace.is_dripping(1, Duration::from_millis(20)));
        assert!(!pace.is_dripping(4096, Duration::from_millis(20)));
    }
}
