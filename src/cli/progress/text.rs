//! What the displays write in the same words: sizes, times, and lines out of bytes that come in any pieces.

use std::time::{Duration, SystemTime};

/// `1.5s`, `1m02s`.
pub fn seconds(time: Duration) -> String {
    if time < Duration::from_secs(100) {
        format!("{:.1}s", time.as_secs_f64())
    } else {
        format!("{}m{:02}s", time.as_secs() / 60, time.as_secs() % 60)
    }
}

/// How long from one moment to another; none of it where a clock went back.
pub fn between(start: SystemTime, end: SystemTime) -> Duration {
    end.duration_since(start).unwrap_or_default()
}

/// Decimal units with three digits, as Docker's tables have them: `12.3MB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut size = count as f64;
    let mut unit = 0;
    while size >= 1000.0 && unit + 1 < UNITS.len() {
        size /= 1000.0;
        unit += 1;
    }
    let decimals = if unit == 0 || size >= 100.0 {
        0
    } else if size >= 10.0 {
        1
    } else {
        2
    };
    format!("{size:.decimals$}{}", UNITS[unit])
}

/// What a counter says; none where it counts nothing, as `exporting layers` does.
pub fn amount(current: u64, total: u64) -> Option<String> {
    match (current, total) {
        (0, 0) => None,
        (current, 0) => Some(bytes(current)),
        (current, total) => Some(format!("{} / {}", bytes(current), bytes(total))),
    }
}

/// Cuts a stream into lines. A carriage return alone starts the line again, as a terminal does; what is in it last
/// is what counts.
#[derive(Default)]
pub struct Lines(Vec<u8>);

impl Lines {
    /// Adds bytes and gives the lines that are now complete, without their ends.
    pub fn push(&mut self, data: &[u8]) -> Vec<String> {
        self.0.extend_from_slice(data);
        let mut lines = Vec::new();
        let mut start = 0;
        while let Some(length) = self.0[start..].iter().position(|&b| b == b'\n') {
            lines.push(line(&self.0[start..start + length]));
            start += length + 1;
        }
        self.0.drain(..start);
        lines
    }

    /// The line that has no end yet.
    pub fn rest(&mut self) -> Option<String> {
        let rest = std::mem::take(&mut self.0);
        (!rest.is_empty()).then(|| line(&rest))
    }
}

fn line(bytes: &[u8]) -> String {
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    let last = bytes.rsplit(|&b| b == b'\r').find(|part| !part.is_empty()).unwrap_or_default();
    String::from_utf8_lossy(last).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_are_whole_however_the_bytes_come() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(b"a\nb"), ["a"]);
        assert_eq!(lines.push(b"c\r\n10%\r20%\n"), ["bc", "20%"]);
        assert_eq!(lines.push(b"\nend"), [""]);
        assert_eq!(lines.rest().as_deref(), Some("end"));
        assert_eq!(lines.rest(), None);
    }

    #[test]
    fn sizes_and_times_are_short() {
        for (count, expected) in
            [(0, "0B"), (999, "999B"), (1_234_000, "1.23MB"), (45_600, "45.6kB"), (456_000_000, "456MB")]
        {
            assert_eq!(bytes(count), expected);
        }
        assert_eq!(amount(5, 10).as_deref(), Some("5B / 10B"));
        assert_eq!(seconds(Duration::from_millis(1250)), "1.2s");
        assert_eq!(seconds(Duration::from_secs(125)), "2m05s");
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            data in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'a'), Just(b'b')], 0..40),
            cut in 0usize..40,
        ) {
            let mut whole = Lines::default();
            let mut expected = whole.push(&data);
            expected.extend(whole.rest());
            let (first, second) = data.split_at(cut.min(data.len()));
            let mut pieces = Lines::default();
            let mut got = pieces.push(first);
            got.extend(pieces.push(second));
            got.extend(pieces.rest());
            prop_assert_eq!(got, expected);
        }
    }
}
