//! The resource limits that a step can be given, by the names that `--ulimit` has for them.

use std::io;

use rustix::process::{Resource, Rlimit};

/// `nofile` and the like, as in setrlimit(2) without `RLIMIT_`.
pub fn by_name(name: &str) -> Option<Resource> {
    Some(match name {
        "as" => Resource::As,
        "core" => Resource::Core,
        "cpu" => Resource::Cpu,
        "data" => Resource::Data,
        "fsize" => Resource::Fsize,
        "locks" => Resource::Locks,
        "memlock" => Resource::Memlock,
        "msgqueue" => Resource::Msgqueue,
        "nice" => Resource::Nice,
        "nofile" => Resource::Nofile,
        "nproc" => Resource::Nproc,
        "rss" => Resource::Rss,
        "rtprio" => Resource::Rtprio,
        "rttime" => Resource::Rttime,
        "sigpending" => Resource::Sigpending,
        "stack" => Resource::Stack,
        _ => return None,
    })
}

/// Limits this process and what it will start. The largest number means no limit.
pub fn apply(name: &str, soft: u64, hard: u64) -> io::Result<()> {
    let resource = by_name(name).ok_or(io::ErrorKind::InvalidInput)?;
    let bound = |value: u64| (value != u64::MAX).then_some(value);
    rustix::process::setrlimit(resource, Rlimit { current: bound(soft), maximum: bound(hard) })?;
    Ok(())
}
