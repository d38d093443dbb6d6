//! Pairs of times as programs write them.

use std::io;

use rustix::fs::{Timespec, Timestamps, UTIME_NOW};

use super::call::TimeFormat;
use super::{errno, memory};

/// Reads a time of access and one of change; without any, both are now.
pub fn read(thread: i32, address: u64, format: TimeFormat) -> io::Result<Timestamps> {
    if address == 0 {
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        return Ok(Timestamps { last_access: now, last_modification: now });
    }
    let words = if format == TimeFormat::Seconds { 2 } else { 4 };
    let mut bytes = vec![0; words * 8];
    memory::read(thread, address, &mut bytes)?;
    let numbers: Vec<i64> =
        bytes.chunks_exact(8).map(|word| i64::from_ne_bytes(word.try_into().unwrap_or_default())).collect();
    parse(&numbers, format).ok_or_else(|| errno(libc::EINVAL))
}

fn parse(numbers: &[i64], format: TimeFormat) -> Option<Timestamps> {
    let time = |at: usize| {
        Some(match format {
            TimeFormat::Seconds => Timespec { tv_sec: *numbers.get(at)?, tv_nsec: 0 },
            TimeFormat::Micros => {
                let micros = numbers.get(2 * at + 1).filter(|micros| (0..1_000_000).contains(*micros))?;
                Timespec { tv_sec: *numbers.get(2 * at)?, tv_nsec: micros * 1000 }
            }
            TimeFormat::Nanos => Timespec { tv_sec: *numbers.get(2 * at)?, tv_nsec: *numbers.get(2 * at + 1)? },
        })
    };
    Some(Timestamps { last_access: time(0)?, last_modification: time(1)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_every_format_are_read() {
        let pair = |numbers: &[i64], format| {
            parse(numbers, format).map(|times| {
                let (a, m) = (times.last_access, times.last_modification);
                [a.tv_sec, a.tv_nsec, m.tv_sec, m.tv_nsec]
            })
        };
        assert_eq!(pair(&[1, 2], TimeFormat::Seconds), Some([1, 0, 2, 0]));
        assert_eq!(pair(&[1, 2, 3, 4], TimeFormat::Micros), Some([1, 2000, 3, 4000]));
        assert_eq!(pair(&[1, 2, 3, 4], TimeFormat::Nanos), Some([1, 2, 3, 4]));
        assert_eq!(pair(&[1, 1_000_000, 3, 4], TimeFormat::Micros), None, "more than a second");
    }
}
