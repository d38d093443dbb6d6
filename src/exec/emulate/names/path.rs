//! Paths as bytes: taken apart and put together, no file looked at.

/// The names of a path, without `.` and what lies between doubled slashes.
pub fn names(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".")
}

/// The same, the last first.
pub fn reversed(path: &[u8]) -> Vec<Vec<u8>> {
    let mut names: Vec<_> = names(path).map(<[u8]>::to_vec).collect();
    names.reverse();
    names
}

/// An absolute path without `.` and doubled slashes. A slash at the end stays: it asks for a directory.
pub fn clean(path: &[u8]) -> Vec<u8> {
    let mut clean = joined(names(path));
    if clean != b"/" && (path.ends_with(b"/") || path.ends_with(b"/.")) {
        clean.push(b'/');
    }
    clean
}

/// The absolute path of these names.
pub fn joined<'a>(names: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut path = Vec::new();
    for name in names {
        path.push(b'/');
        path.extend(name);
    }
    if path.is_empty() { b"/".to_vec() } else { path }
}

/// What of a path is below a base, starting with a slash unless it is nothing; none when it is not at or below it.
pub fn below<'a>(path: &'a [u8], base: &[u8]) -> Option<&'a [u8]> {
    if base == b"/" {
        return Some(if path == b"/" { b"" } else { path });
    }
    let rest = path.strip_prefix(base)?;
    matches!(rest.first(), None | Some(b'/')).then_some(rest)
}

/// The directory and the last name of an absolute path.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
    match path[..end].iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..=slash], &path[slash + 1..end]),
        None => (b"/", &path[..end]),
    }
}

/// What the kernel says to whoever wants to remove what a path ends in, if that is no name.
pub fn irremovable(path: &[u8], directory: bool) -> Option<i32> {
    match split(path).1 {
        b"." | b".." | b"" if !directory => Some(libc::EISDIR),
        b"." => Some(libc::EINVAL),
        b".." => Some(libc::ENOTEMPTY),
        b"" => Some(libc::EBUSY),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned() {
        for (path, expected) in [
            ("/", "/"),
            ("//a///b/./c", "/a/b/c"),
            ("/a/b/", "/a/b/"),
            ("/a/.", "/a/"),
            ("/a/../b", "/a/../b"),
            ("/./", "/"),
        ] {
            assert_eq!(clean(path.as_bytes()), expected.as_bytes(), "{path}");
        }
    }

    #[test]
    fn below_ends_at_a_slash() {
        for (path, base, expected) in [
            ("/proc/self", "/proc", Some("/self")),
            ("/proc", "/proc", Some("")),
            ("/process", "/proc", None),
            ("/a", "/", Some("/a")),
            ("/", "/", Some("")),
        ] {
            assert_eq!(below(path.as_bytes(), base.as_bytes()), expected.map(str::as_bytes), "{path} {base}");
        }
    }

    #[test]
    fn dots_are_not_removed() {
        for (path, directory, expected) in [
            ("a/b", true, None),
            ("a/", true, None),
            ("a/.", true, Some(libc::EINVAL)),
            ("..", true, Some(libc::ENOTEMPTY)),
            ("//", true, Some(libc::EBUSY)),
            ("a/..", false, Some(libc::EISDIR)),
            ("..a", false, None),
        ] {
            assert_eq!(irremovable(path.as_bytes(), directory), expected, "{path}");
        }
    }

    #[test]
    fn the_last_name_is_split_off() {
        for (path, head, name) in [("/a/b", "/a/", "b"), ("/a/b//", "/a/", "b"), ("/a", "/", "a"), ("/", "/", "")] {
            assert_eq!(split(path.as_bytes()), (head.as_bytes(), name.as_bytes()), "{path}");
        }
    }
}
