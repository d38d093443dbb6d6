//! Names in archives as relative, normalised paths.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// A name with `.`, `..` and doubled slashes resolved by text, and a leading slash taken off, as Docker and umoci
/// do. None for one that leaves the archive's root, or that no file can have.
pub fn normalise(name: &[u8]) -> Option<PathBuf> {
    if name.contains(&0) {
        return None;
    }
    let name = Path::new(OsStr::from_bytes(name));
    let absolute = name.has_root();
    let mut path = PathBuf::with_capacity(name.as_os_str().len());
    for part in name.components() {
        match part {
            Component::Normal(part) => path.push(part),
            // Above `/` there is `/`; above nothing there is the host.
            Component::ParentDir if !path.pop() && !absolute => return None,
            _ => {}
        }
    }
    Some(path)
}

/// A name of an archive for messages: untrusted bytes made harmless, not too long.
pub fn quote(name: &[u8]) -> String {
    const SHOWN: usize = 200;
    let text = String::from_utf8_lossy(&name[..name.len().min(SHOWN)]);
    if name.len() > SHOWN { format!("{text}…") } else { text.into_owned() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_stay_below_the_root_or_are_refused() {
        let cases: &[(&str, Option<&str>)] = &[
            ("a/b", Some("a/b")),
            ("./a//b/./c/", Some("a/b/c")),
            ("/etc/passwd", Some("etc/passwd")),
            ("/../../etc/passwd", Some("etc/passwd")),
            ("a/../b", Some("b")),
            ("./", Some("")),
            ("/", Some("")),
            ("..", None),
            ("../etc/passwd", None),
            ("a/../../etc", None),
            ("a\0b", None),
        ];
        for (name, path) in cases {
            assert_eq!(normalise(name.as_bytes()).as_deref(), path.map(Path::new), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn no_name_gets_out(name in proptest::collection::vec(prop_oneof![Just(b'.'), Just(b'/'), any::<u8>()], 0..40)) {
            if let Some(path) = normalise(&name) {
                prop_assert!(path.components().all(|part| matches!(part, Component::Normal(_))));
                prop_assert_eq!(normalise(path.as_os_str().as_bytes()), Some(path));
            }
        }
    }
}
