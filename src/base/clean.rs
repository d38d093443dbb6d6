//! Lexical path arithmetic with the results of Go's `path` package, which LLB is written in: slashes only, no disk.

/// The shortest path that means the same: no doubled slash, no `.`, no `..` that can be resolved; `.` when empty.
pub fn path(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(&last) if last != ".." => {
                    parts.pop();
                }
                // Above the root there is only the root.
                _ if rooted => {}
                _ => parts.push(".."),
            },
            name => parts.push(name),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

/// Joins the parts that are not empty, and cleans; empty when all are.
pub fn join(parts: &[&str]) -> String {
    let parts: Vec<&str> = parts.iter().copied().filter(|p| !p.is_empty()).collect();
    if parts.is_empty() { String::new() } else { path(&parts.join("/")) }
}

/// The last part: `/` for the root, `.` for the empty path.
pub fn base(path: &str) -> &str {
    if path.is_empty() {
        return ".";
    }
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() { "/" } else { trimmed.rsplit('/').next().unwrap_or(trimmed) }
}

/// All but the last part, cleaned.
pub fn dir(text: &str) -> String {
    path(text.rfind('/').map_or("", |slash| &text[..=slash]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behaves_as_go_does() {
        let cases = [
            ("", "."),
            (".", "."),
            ("/", "/"),
            ("//", "/"),
            ("a/", "a"),
            ("a//b", "a/b"),
            ("a/./b", "a/b"),
            ("a/../b", "b"),
            ("a/..", "."),
            ("../a", "../a"),
            ("../../a", "../../a"),
            ("a/../../b", "../b"),
            ("/..", "/"),
            ("/../a", "/a"),
            ("!a/", "!a"),
        ];
        for (text, expected) in cases {
            assert_eq!(path(text), expected, "{text:?}");
        }
        assert_eq!(join(&["/", "", "a", "../b"]), "/b");
        assert_eq!(join(&["", ""]), "");
        assert_eq!((base("/a/b/"), base("/"), base("")), ("b", "/", "."));
        assert_eq!((dir("/a/b"), dir("a"), dir("/a"), dir("")), ("/a".into(), ".".into(), "/".into(), ".".into()));
    }
}
