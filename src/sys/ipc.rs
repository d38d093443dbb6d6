//! System V's shared memory, semaphores and message queues: objects of an IPC namespace, found by a key or by a number.

use std::io;

/// A kind of object. Each has numbers of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Memory,
    Semaphores,
    Messages,
}

/// Finds or makes the object with a key, as shmget(2), semget(2) and msgget(2) do. `size` is in bytes, or a count of
/// semaphores; queues have none.
pub fn get(kind: Kind, key: i32, size: u64, flags: i32) -> io::Result<i32> {
    // SAFETY: all arguments are numbers.
    #[expect(unsafe_code, reason = "no wrapper offers System V IPC")]
    let id = unsafe {
        match kind {
            Kind::Memory => libc::syscall(libc::SYS_shmget, key, size, flags),
            Kind::Semaphores => libc::syscall(libc::SYS_semget, key, size, flags),
            Kind::Messages => libc::syscall(libc::SYS_msgget, key, flags),
        }
    };
    if id < 0 { Err(io::Error::last_os_error()) } else { Ok(i32::try_from(id).unwrap_or(i32::MAX)) }
}

/// Removes an object. Memory lives on until nobody has it attached.
pub fn remove(kind: Kind, id: i32) -> io::Result<()> {
    const NOTHING: usize = 0;
    // SAFETY: this command reads nothing behind the last argument, which is null.
    #[expect(unsafe_code, reason = "no wrapper offers System V IPC")]
    let result = unsafe {
        match kind {
            Kind::Memory => libc::syscall(libc::SYS_shmctl, id, libc::IPC_RMID, NOTHING),
            Kind::Semaphores => libc::syscall(libc::SYS_semctl, id, 0, libc::IPC_RMID, NOTHING),
            Kind::Messages => libc::syscall(libc::SYS_msgctl, id, libc::IPC_RMID, NOTHING),
        }
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
