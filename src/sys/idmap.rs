//! Maps of user and group ids between a user namespace and its parent: subordinate ranges, and the text that
//! /proc/PID/uid_map takes.

/// A run of ids: `inside`.. in the namespace are `outside`.. in its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    pub inside: u32,
    pub outside: u32,
    pub count: u32,
}

/// Ids that an image may use: below this, all must be mapped for a namespace to count as one with many ids.
pub const ENOUGH: u32 = 65536;

/// The map that gives an ordinary user root and, above, all subordinate ids that the system lends to them.
pub fn map_of(own: u32, subordinate: &[(u32, u32)]) -> Vec<Range> {
    let mut ranges = vec![Range { inside: 0, outside: own, count: 1 }];
    let mut next = 1u32;
    for &(outside, count) in subordinate {
        let count = count.min(u32::MAX - next);
        if count > 0 {
            ranges.push(Range { inside: next, outside, count });
            next += count;
        }
    }
    ranges
}

/// How many ids from 0 up, without a gap, a map covers.
pub fn covered(ranges: &[Range]) -> u32 {
    let mut end = 0u32;
    let mut sorted = ranges.to_vec();
    sorted.sort_by_key(|range| range.inside);
    for range in sorted {
        if range.inside > end {
            break;
        }
        end = end.max(range.inside.saturating_add(range.count));
    }
    end
}

/// Every id of this process's own namespace, each as itself.
pub fn identity(own: &[Range]) -> Vec<Range> {
    own.iter().map(|range| Range { outside: range.inside, ..*range }).collect()
}

/// As /proc/PID/uid_map takes it.
pub fn text(ranges: &[Range]) -> String {
    ranges.iter().map(|range| format!("{} {} {}\n", range.inside, range.outside, range.count)).collect()
}

/// Reads /proc/PID/uid_map. Lines that are not three numbers are left out.
pub fn parse(text: &str) -> Vec<Range> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace().map(str::parse);
            let (inside, outside, count) = (words.next()?.ok()?, words.next()?.ok()?, words.next()?.ok()?);
            words.next().is_none().then_some(Range { inside, outside, count })
        })
        .collect()
}

/// The ranges that /etc/subuid or /etc/subgid lends to a user, who may stand there by name or by number.
pub fn subordinate(table: &str, user: Option<&str>, uid: u32) -> Vec<(u32, u32)> {
    table
        .lines()
        .filter_map(|line| {
            let mut words = line.trim().split(':');
            let (owner, start, count) = (words.next()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            let ours = user == Some(owner) || owner.parse() == Ok(uid);
            (ours && words.next().is_none()).then_some((start, count))
        })
        .collect()
}

/// The name of a user in the text of /etc/passwd.
pub fn user_name(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut words = line.split(':');
        let (name, _password, id) = (words.next()?, words.next()?, words.next()?);
        (id.parse() == Ok(uid)).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn subordinate_ranges_are_found_by_name_and_by_number() {
        let table = "# comment\nroot:1:2\nada:100000:65536\n1000:300000:10\nada:1:x\nadam:5:5\nada:7:7:7\n";
        assert_eq!(subordinate(table, Some("ada"), 1000), [(100_000, 65536), (300_000, 10)]);
        assert_eq!(subordinate(table, None, 1000), [(300_000, 10)]);
        assert_eq!(subordinate(table, Some("eve"), 7), []);
    }

    #[test]
    fn a_user_becomes_root_and_gets_the_rest_in_order() {
        let map = map_of(1000, &[(100_000, 65536), (300_000, 10)]);
        assert_eq!(text(&map), "0 1000 1\n1 100000 65536\n65537 300000 10\n");
        assert_eq!(covered(&map), 65547);
        assert_eq!(parse(&text(&map)), map);
    }

    #[test]
    fn coverage_stops_at_the_first_gap() {
        let range = |inside, count| Range { inside, outside: 0, count };
        assert_eq!(covered(&[range(10, 5), range(0, 10)]), 15);
        assert_eq!(covered(&[range(0, 10), range(11, 5)]), 10);
        assert_eq!(covered(&[range(0, u32::MAX)]), u32::MAX);
        assert_eq!(covered(&[]), 0);
    }

    #[test]
    fn a_name_comes_from_the_passwd_text() {
        let passwd = "root:x:0:0::/root:/bin/sh\nbroken\nada:x:1000:1000::/home/ada:/bin/sh\n";
        assert_eq!(user_name(passwd, 1000), Some("ada"));
        assert_eq!(user_name(passwd, 1), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in ".{0,200}") {
            let _ = (parse(&text), subordinate(&text, Some("a"), 1), user_name(&text, 1));
        }
    }
}
