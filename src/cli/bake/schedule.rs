//! In which order targets are built: each as soon as those are done whose results it takes, several at once.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc;

use anyhow::Context as _;

use super::Planned;
use crate::base::Cancel;

/// How to begin and end the work of a target. Both are called by the thread that began everything.
pub trait Targets {
    type Work: Send;
    type Result: Send;

    /// What there is to do, now that all is done whose results this takes; none where nothing is left to do.
    fn begin(&mut self, target: &Planned) -> anyhow::Result<Option<Self::Work>>;

    fn end(&mut self, target: &Planned, result: Self::Result) -> anyhow::Result<()>;
}

/// Works on all targets of a plan, `at_once` beside each other. When one fails, no other is begun, `cancel` stops those
/// that are on the way, and the first error is what is told.
pub fn run<T: Targets>(
    plan: &[Planned],
    targets: &mut T,
    at_once: usize,
    cancel: &Cancel,
    work: impl Fn(&Planned, T::Work) -> anyhow::Result<T::Result> + Sync,
) -> anyhow::Result<()> {
    let (sender, receiver) = mpsc::channel();
    let work = &work;
    std::thread::scope(|scope| {
        let mut waiting: Vec<&Planned> = plan.iter().collect();
        let mut done = BTreeSet::new();
        let mut running = 0;
        let mut failed = None;
        loop {
            let can_begin = |planned: &&Planned| planned.target.links().all(|link| done.contains(link));
            let next = waiting.iter().position(can_begin).filter(|_| failed.is_none() && running < at_once);
            let (planned, outcome) = if let Some(next) = next {
                let planned = waiting.remove(next);
                match targets.begin(planned) {
                    Ok(Some(what)) => {
                        running += 1;
                        let sender = sender.clone();
                        scope.spawn(move || {
                            // A panic must not leave the others waiting for this one's result.
                            let result = catch_unwind(AssertUnwindSafe(|| work(planned, what)));
                            // Whoever listens waits for all that run.
                            let _ = sender.send((planned, result));
                        });
                        continue;
                    }
                    Ok(None) => (planned, Ok(())),
                    Err(error) => (planned, Err(error)),
                }
            } else {
                if running == 0 {
                    break;
                }
                let Ok((planned, result)) = receiver.recv() else { break };
                running -= 1;
                let result = result.unwrap_or_else(|panic| {
                    cancel.cancel();
                    resume_unwind(panic)
                });
                (planned, result.and_then(|result| targets.end(planned, result)))
            };
            match outcome.with_context(|| format!("target {}", planned.name)) {
                Ok(()) => drop(done.insert(planned.name.as_str())),
                Err(error) => {
                    // Those that stop because of this one have nothing to add.
                    failed.get_or_insert(error);
                    cancel.cancel();
                }
            }
        }
        failed.map_or(Ok(()), Err)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::time::Duration;

    use super::*;
    use crate::cli::bake::Target;

    /// `app<base,lib`: a name, and the targets it takes results of.
    fn plan(words: &str) -> Vec<Planned> {
        words
            .split(' ')
            .map(|word| {
                let (name, links) = word.split_once('<').unwrap_or((word, ""));
                let contexts = links.split(',').filter(|link| !link.is_empty());
                let contexts = contexts.map(|link| (link.to_owned(), Some(format!("target:{link}")))).collect();
                let target = Target { contexts, ..Target::default() };
                Planned { name: name.to_owned(), target, only_linked: false, linked: false }
            })
            .collect()
    }

    #[derive(Default)]
    struct Told(Vec<String>);

    impl Targets for Told {
        type Work = String;
        type Result = String;

        fn begin(&mut self, target: &Planned) -> anyhow::Result<Option<String>> {
            self.0.push(format!("{} begins", target.name));
            Ok((target.name != "nothing").then(|| target.name.clone()))
        }

        fn end(&mut self, _: &Planned, result: String) -> anyhow::Result<()> {
            self.0.push(format!("{result} ends"));
            Ok(())
        }
    }

    #[test]
    fn a_target_waits_for_what_it_takes_and_for_nothing_else() {
        let mut told = Told::default();
        // Both must be on the way before either ends: one after another this would never end.
        let barrier = Barrier::new(2);
        let result = run(&plan("a b app<a,b nothing"), &mut told, 2, &Cancel::new(), |planned, work| {
            if planned.name != "app" {
                barrier.wait();
            }
            Ok(work)
        });
        result.unwrap();
        let place = |what: &str| told.0.iter().position(|line| line == what).unwrap_or_else(|| panic!("{what}"));
        assert!(place("a ends") < place("app begins") && place("b ends") < place("app begins"), "{:?}", told.0);
        assert!(place("nothing begins") < told.0.len());
    }

    #[test]
    fn no_more_than_asked_for_run_at_once() {
        let running = std::sync::atomic::AtomicUsize::new(0);
        let work = |_: &Planned, work| {
            assert_eq!(running.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
            std::thread::yield_now();
            running.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
            Ok(work)
        };
        run(&plan("a b c d"), &mut Told::default(), 1, &Cancel::new(), work).unwrap();
    }

    #[test]
    fn the_first_to_fail_stops_the_others_and_is_told() {
        let cancel = Cancel::new();
        let mut told = Told::default();
        let result = run(&plan("bad long late<long"), &mut told, 2, &cancel, |planned, work| {
            if planned.name == "bad" {
                anyhow::bail!("broken");
            }
            assert!(cancel.wait(Duration::from_secs(60)), "nobody stopped it");
            cancel.check()?;
            Ok(work)
        });
        assert_eq!(format!("{:#}", result.unwrap_err()), "target bad: broken");
        assert!(!told.0.contains(&"late begins".to_owned()), "{:?}", told.0);
    }

    #[test]
    #[should_panic(expected = "at the disco")]
    fn a_panic_is_no_hang() {
        let _ = run(&plan("a b<a"), &mut Told::default(), 2, &Cancel::new(), |_, _| panic!("at the disco"));
    }
}
