//! System V's shared memory, semaphores and queues of a step that has no IPC namespace: a step finds its own objects and no
//! others, and they end with it.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Mutex;

use super::call::Call;
use super::paths::Named;
use super::{CONTINUE, DONE, Reply, errno, lock, value};
use crate::sys::ipc::{self, Kind};

/// The objects of one step.
#[derive(Default)]
pub struct Shared(Mutex<Objects>);

#[derive(Default)]
struct Objects {
    /// Which key of the namespace a key of the step's stands for.
    keys: HashMap<(Kind, i32), i32>,
    own: HashSet<(Kind, i32)>,
}

/// What a control call is about.
#[derive(Debug, PartialEq, Eq)]
enum About {
    Everything,
    /// One object, by its place in the namespace's list: another's, as likely as not.
    Place,
    Object,
    /// Its end.
    Removal,
}

/// Commands carry a bit that says which version of a structure they mean.
const COMMAND: i32 = 0xff;

fn about(kind: Kind, command: i32) -> About {
    match (kind, command & COMMAND) {
        (_, libc::IPC_RMID) => About::Removal,
        (_, IPC_INFO) | (Kind::Memory, 14) | (Kind::Semaphores, 19) | (Kind::Messages, 12) => About::Everything,
        (Kind::Memory, 13 | 15) | (Kind::Semaphores, 18 | 20) | (Kind::Messages, 11 | 13) => About::Place,
        _ => About::Object,
    }
}

const IPC_INFO: i32 = 3;

impl Shared {
    fn get(&self, kind: Kind, key: i32, size: u64, flags: i32) -> io::Result<i32> {
        let mut objects = lock(&self.0);
        let id = if key == libc::IPC_PRIVATE {
            ipc::get(kind, key, size, flags)?
        } else if let Some(known) = objects.keys.get(&(kind, key)) {
            ipc::get(kind, *known, size, flags)?
        } else if flags & libc::IPC_CREAT == 0 {
            return Err(errno(libc::ENOENT));
        } else {
            // One that nobody has; nobody else comes by it.
            let (free, id) = loop {
                let free = RandomState::new().hash_one(key) as i32;
                match ipc::get(kind, free, size, flags | libc::IPC_EXCL) {
                    Ok(id) if free != libc::IPC_PRIVATE => break (free, id),
                    Ok(id) => ipc::remove(kind, id)?,
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    Err(error) => return Err(error),
                }
            };
            objects.keys.insert((kind, key), free);
            id
        };
        objects.own.insert((kind, id));
        Ok(id)
    }

    fn has(&self, kind: Kind, id: i32) -> bool {
        lock(&self.0).own.contains(&(kind, id))
    }

    fn remove(&self, kind: Kind, id: i32) -> io::Result<()> {
        ipc::remove(kind, id)?;
        lock(&self.0).own.remove(&(kind, id));
        Ok(())
    }

    /// Removes all that is left.
    pub fn clear(&self) {
        for (kind, id) in lock(&self.0).own.drain() {
            // The step may have had it removed in another way.
            let _ = ipc::remove(kind, id);
        }
    }
}

impl Named<'_> {
    pub(super) fn share(&self, call: Call) -> io::Result<Reply> {
        let shared = &self.supervisor.shared;
        match call {
            Call::GetShared { kind, key, size, flags } => {
                if !self.is_waiting() {
                    return DONE;
                }
                value(shared.get(kind, key, size, flags)?)
            }
            Call::UseShared { kind, id } if shared.has(kind, id) => CONTINUE,
            Call::ControlShared { kind, id, command } => match about(kind, command) {
                About::Everything => CONTINUE,
                About::Place => Err(errno(libc::EPERM)),
                About::Object if shared.has(kind, id) => CONTINUE,
                About::Removal if shared.has(kind, id) => {
                    shared.remove(kind, id)?;
                    DONE
                }
                _ => Err(errno(libc::EINVAL)),
            },
            _ => Err(errno(libc::EINVAL)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_do_not_meet_by_a_key_and_leave_nothing() {
        let (one, other) = (Shared::default(), Shared::default());
        let key = 0x0D0C_4E55;
        let make = |step: &Shared| step.get(Kind::Semaphores, key, 1, libc::IPC_CREAT | 0o600);
        let first = match make(&one) {
            // Containers may have no room for any.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::ENOSYS | libc::EPERM)) => {
                return eprintln!("skip: System V semaphores: {error}");
            }
            result => result.unwrap(),
        };
        assert_eq!(make(&one).unwrap(), first, "a step meets itself");
        assert_ne!(make(&other).unwrap(), first);
        assert!(one.has(Kind::Semaphores, first) && !other.has(Kind::Semaphores, first));
        assert!(!one.has(Kind::Memory, first), "each kind has numbers of its own");
        let missing = Shared::default().get(Kind::Semaphores, key, 1, 0o600).unwrap_err();
        assert_eq!(missing.raw_os_error(), Some(libc::ENOENT));
        one.clear();
        other.clear();
        assert!(ipc::remove(Kind::Semaphores, first).is_err(), "it is gone");
    }

    #[test]
    fn places_in_the_list_are_not_objects() {
        let stat = |kind| about(kind, libc::IPC_STAT | 0x100);
        assert_eq!(stat(Kind::Memory), About::Object);
        for (kind, command, expected) in [
            (Kind::Memory, 13, About::Place),
            (Kind::Messages, 13, About::Place),
            (Kind::Semaphores, 13, About::Object),
            (Kind::Semaphores, 18, About::Place),
            (Kind::Messages, 12, About::Everything),
            (Kind::Memory, 0, About::Removal),
        ] {
            assert_eq!(about(kind, command), expected, "{kind:?} {command}");
        }
    }
}
