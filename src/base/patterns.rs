//! Ignore patterns with the semantics of moby's patternmatcher: `.dockerignore` lines, COPY's `--exclude`, the
//! exclude patterns of a local source. The last matching line wins, `!` takes back, a matched directory matches
//! everything below it.

pub mod glob;

use std::sync::OnceLock;

use regex::Regex;

use super::clean;

/// A list of patterns, in order.
#[derive(Debug, Default)]
pub struct Matcher {
    patterns: Vec<Pattern>,
    exclusions: bool,
}

/// One pattern, cleaned: no `!`, no trailing slash.
#[derive(Debug)]
pub struct Pattern {
    text: String,
    exclusion: bool,
    rule: OnceLock<Result<Rule, BadPattern>>,
}

/// What is known of a directory when its children are asked about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parents(Vec<bool>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("pattern {pattern:?} is malformed: {reason}")]
pub struct BadPattern {
    pub pattern: String,
    pub reason: &'static str,
}

#[derive(Debug)]
enum Rule {
    Exact,
    /// The text without a trailing `**`.
    Prefix(usize),
    /// The text without a leading `**`.
    Suffix,
    Regex(Regex),
}

impl Matcher {
    /// Reads patterns as they were written; empty ones are skipped.
    pub fn new<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>) -> Result<Self, BadPattern> {
        let mut matcher = Self::default();
        for written in patterns {
            let written = written.as_ref().trim();
            if written.is_empty() {
                continue;
            }
            let cleaned = clean::path(written);
            let (text, exclusion) = match cleaned.strip_prefix('!') {
                Some("") => return Err(BadPattern { pattern: cleaned, reason: "nothing follows the !" }),
                Some(rest) => (rest.to_owned(), true),
                None => (cleaned, false),
            };
            glob::check(&text)?;
            matcher.exclusions |= exclusion;
            matcher.patterns.push(Pattern { text, exclusion, rule: OnceLock::new() });
        }
        Ok(matcher)
    }

    /// Whether the path, or a directory above it, matches and no later pattern takes it back.
    ///
    /// The path is relative, separated by slashes, and cleaned.
    pub fn matches(&self, path: &str) -> Result<bool, BadPattern> {
        let mut matched = false;
        for pattern in &self.patterns {
            // A pattern of the kind that cannot change the answer is not looked at.
            if pattern.exclusion == matched && pattern.matches_or_parent(path)? {
                matched = !pattern.exclusion;
            }
        }
        Ok(matched)
    }

    /// As [`Matcher::matches`], for a walk from the top: `parents` is what this returned for the directory that
    /// holds the path, so that no directory is tried twice. The default is for a path without a directory.
    pub fn matches_below(&self, path: &str, parents: &Parents) -> Result<(bool, Parents), BadPattern> {
        let known = parents.0.len() == self.patterns.len();
        let mut matched = false;
        let mut found = vec![false; self.patterns.len()];
        for (i, pattern) in self.patterns.iter().enumerate() {
            let mut hit = known && parents.0[i];
            if !hit {
                if pattern.exclusion != matched {
                    continue;
                }
                hit = if known { pattern.matches(path)? } else { pattern.matches_or_parent(path)? };
            }
            found[i] = hit;
            if hit {
                matched = !pattern.exclusion;
            }
        }
        Ok((matched, Parents(found)))
    }

    /// Whether some `!` pattern could take back something below a directory that matched, so that a walk must
    /// go into it all the same.
    pub fn may_take_back_below(&self, dir: &str) -> bool {
        let mut taken_back = self.exclusions().map(|p| without_trailing_glob(&p.text));
        taken_back.any(|path| {
            // Nobody can tell where a pattern leads.
            path.contains(['*', '?', '[', '\\', '^'])
                || (path.starts_with(dir) && (path.len() == dir.len() || path[dir.len()..].starts_with('/')))
        })
    }

    /// Whether any pattern starts with `!`.
    pub fn has_exclusions(&self) -> bool {
        self.exclusions
    }

    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    pub fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }

    /// The last pattern that decides about the path: what to name to a user who wonders why a file is hidden.
    pub fn decisive(&self, path: &str) -> Option<&Pattern> {
        let mut last = None;
        for pattern in &self.patterns {
            let matched = last.is_some_and(|p: &Pattern| !p.exclusion);
            if pattern.exclusion == matched && pattern.matches_or_parent(path).unwrap_or(false) {
                last = Some(pattern);
            }
        }
        last
    }

    fn exclusions(&self) -> impl Iterator<Item = &Pattern> {
        self.patterns.iter().filter(|p| p.exclusion)
    }
}

impl Pattern {
    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn is_exclusion(&self) -> bool {
        self.exclusion
    }

    fn matches_or_parent(&self, path: &str) -> Result<bool, BadPattern> {
        if self.matches(path)? {
            return Ok(true);
        }
        for (slash, _) in path.match_indices('/') {
            if self.matches(&path[..slash])? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn matches(&self, path: &str) -> Result<bool, BadPattern> {
        match self.rule.get_or_init(|| compile(&self.text)) {
            Err(e) => Err(e.clone()),
            Ok(Rule::Exact) => Ok(path == self.text),
            Ok(Rule::Prefix(len)) => Ok(path.starts_with(&self.text[..*len])),
            Ok(Rule::Suffix) => {
                let suffix = &self.text[2..];
                // `**/foo` is `foo` at any depth, the top included.
                Ok(path.ends_with(suffix) || suffix.strip_prefix('/') == Some(path))
            }
            Ok(Rule::Regex(regex)) => Ok(regex.is_match(path)),
        }
    }
}

/// `dir`, `dir/*`, `dir/**` all speak of what is below `dir`.
fn without_trailing_glob(pattern: &str) -> &str {
    let pattern = pattern.strip_suffix("/**").unwrap_or(pattern);
    pattern.strip_suffix("/*").unwrap_or(pattern)
}

/// Finds the cheapest rule that does what moby's regular expression for the pattern would do.
fn compile(text: &str) -> Result<Rule, BadPattern> {
    #[derive(PartialEq)]
    enum Kind {
        Exact,
        Prefix,
        Suffix,
        Regex,
    }
    let mut kind = Kind::Exact;
    let mut regex = String::from("^");
    let mut chars = text.chars().peekable();
    let mut first = true;
    while let Some(c) = chars.next() {
        match c {
            '*' if chars.peek() == Some(&'*') => {
                chars.next();
                chars.next_if_eq(&'/');
                if chars.peek().is_some() {
                    regex.push_str("(.*/)?");
                    kind = Kind::Regex;
                } else if kind == Kind::Exact {
                    kind = Kind::Prefix;
                } else {
                    regex.push_str(".*");
                    kind = Kind::Regex;
                }
                if first {
                    kind = Kind::Suffix;
                }
            }
            '*' => {
                regex.push_str("[^/]*");
                kind = Kind::Regex;
            }
            '?' => {
                regex.push_str("[^/]");
                kind = Kind::Regex;
            }
            '\\' => {
                regex.push('\\');
                if let Some(next) = chars.next() {
                    regex.push(next);
                    kind = Kind::Regex;
                }
            }
            '[' | ']' => {
                regex.push(c);
                kind = Kind::Regex;
            }
            '.' | '+' | '(' | ')' | '|' | '{' | '}' | '$' => {
                regex.push('\\');
                regex.push(c);
            }
            _ => regex.push(c),
        }
        first = false;
    }
    Ok(match kind {
        Kind::Exact => Rule::Exact,
        Kind::Prefix => Rule::Prefix(text.len() - 2),
        Kind::Suffix => Rule::Suffix,
        Kind::Regex => {
            regex.push('$');
            let bad = |reason| BadPattern { pattern: text.to_owned(), reason };
            let regex = in_our_dialect(&regex).ok_or_else(|| bad("unknown escape or unclosed ["))?;
            Rule::Regex(Regex::new(&regex).map_err(|_| bad("not a valid expression"))?)
        }
    })
}

/// Go's regular expression in the dialect of the `regex` crate: they differ in what a character class and an
/// escape may hold (`[[a]`, `[a&&b]`, `\<`), and patterns reach them unfiltered.
fn in_our_dialect(go: &str) -> Option<String> {
    let mut out = String::with_capacity(go.len());
    let mut rest = go;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '\\' => {
                let escaped = rest.chars().next()?;
                rest = &rest[escaped.len_utf8()..];
                out.push_str(&match escape(escaped)? {
                    Escape::Char(c) => regex::escape(c.encode_utf8(&mut [0; 4])),
                    Escape::Class(set) => format!("[{set}]"),
                    Escape::Assert(text) => text.to_owned(),
                });
            }
            '[' => rest = class(rest, &mut out)?,
            ']' => out.push_str("\\]"),
            _ => out.push(c),
        }
    }
    Some(out)
}

enum Escape {
    Char(char),
    /// The inside of a character class.
    Class(&'static str),
    Assert(&'static str),
}

fn escape(c: char) -> Option<Escape> {
    Some(match c {
        'd' => Escape::Class("0-9"),
        's' => Escape::Class("\\t\\n\\f\\r "),
        'w' => Escape::Class("0-9A-Za-z_"),
        'D' => Escape::Class("^0-9"),
        'S' => Escape::Class("^\\t\\n\\f\\r "),
        'W' => Escape::Class("^0-9A-Za-z_"),
        'a' => Escape::Char('\x07'),
        'f' => Escape::Char('\x0c'),
        'n' => Escape::Char('\n'),
        'r' => Escape::Char('\r'),
        't' => Escape::Char('\t'),
        'v' => Escape::Char('\x0b'),
        'A' => Escape::Assert("\\A"),
        'z' => Escape::Assert("\\z"),
        'b' => Escape::Assert("(?-u:\\b)"),
        c if c.is_ascii() && !c.is_ascii_alphanumeric() => Escape::Char(c),
        _ => return None,
    })
}

/// Rewrites one class, whose `[` is already taken; what follows it is returned.
fn class<'a>(text: &'a str, out: &mut String) -> Option<&'a str> {
    let mut rest = text;
    out.push('[');
    if let Some(after) = rest.strip_prefix('^') {
        out.push('^');
        rest = after;
    }
    let mut first = true;
    loop {
        if let Some(after) = rest.strip_prefix(']')
            && !first
        {
            out.push(']');
            return Some(after);
        }
        first = false;
        if let Some(end) = rest.strip_prefix("[:").and_then(|r| r.find(":]")) {
            let (name, after) = rest.split_at(end + 4);
            out.push_str(name);
            rest = after;
            continue;
        }
        let (low, after) = member(rest)?;
        rest = after;
        let low = match low {
            Escape::Char(c) => c,
            Escape::Class(set) => {
                // A class inside a class: the dialect spells both alike.
                out.push_str(&format!("[{set}]"));
                continue;
            }
            Escape::Assert(_) => return None,
        };
        push_member(out, low);
        if let Some(after) = rest.strip_prefix('-').filter(|r| !r.starts_with(']')) {
            let (Escape::Char(high), after) = member(after)? else { return None };
            out.push('-');
            push_member(out, high);
            rest = after;
        }
    }
}

fn member(text: &str) -> Option<(Escape, &str)> {
    let c = text.chars().next()?;
    let rest = &text[c.len_utf8()..];
    if c != '\\' {
        return Some((Escape::Char(c), rest));
    }
    let escaped = rest.chars().next()?;
    Some((escape(escaped)?, &rest[escaped.len_utf8()..]))
}

fn push_member(out: &mut String, c: char) {
    if c.is_ascii_punctuation() {
        out.push('\\');
    }
    out.push(c);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(path: &str, patterns: &[&str]) -> bool {
        Matcher::new(patterns).unwrap().matches(path).unwrap()
    }

    #[test]
    fn one_pattern_against_one_path() {
        let yes = [
            ("**", "file"),
            ("**", "dir/file"),
            ("**/", "dir/file"),
            ("**/**", "dir/file"),
            ("dir/**", "dir/file"),
            ("dir/**", "dir/dir2/file"),
            ("**/dir", "dir"),
            ("**/dir", "dir/file"),
            ("**/dir2/*", "dir/dir2/file"),
            ("**/dir2/**", "dir/dir2/dir2/file"),
            ("**file", "dir/file"),
            ("**/file", "dir/dir/file"),
            ("**/file*", "dir/dir/file.txt"),
            ("**/file*txt", "dir/dir/file.txt"),
            ("**/**/*.txt", "dir/dir/file.txt"),
            ("a**/*.txt", "a/dir/file.txt"),
            ("a/*.txt", "a/file.txt"),
            ("a[b-d]e", "ace"),
            ("a[^b-d]e", "aze"),
            ("a\\*b", "a*b"),
            ("a\\?", "a?"),
            ("abc.def", "abc.def"),
            ("abc?def", "abcZdef"),
            ("a(b)c/def", "a(b)c/def"),
            ("a.|)$(}+{bc", "a.|)$(}+{bc"),
            ("/nowhere/../dir", "/dir"),
            ("dir", "dir/file"),
            ("*/c", "b/c/d"),
            ("[[a]x", "[x"),
            ("[a&&b]", "&"),
            ("**/foo/bar", "foo/bar"),
            ("foo**", "foobar/baz"),
            ("\\d", "7"),
        ];
        for (pattern, path) in yes {
            assert!(matches(path, &[pattern]), "{pattern:?} matches {path:?}");
        }
        let no = [
            ("file", "other"),
            ("*.txt", "dir/file.txt"),
            ("**/foo/bar", "a/foo/b/bar"),
            ("a[b-d]e", "aae"),
            ("a[^b-d]e", "ace"),
            ("a\\*b", "axb"),
            ("abc.def", "abcZdef"),
            ("a**/*.txt", "b/a/file.txt"),
            ("a/*.txt", "a/b/file.txt"),
            ("/dir", "dir"),
            ("dir/**", "dir"),
        ];
        for (pattern, path) in no {
            assert!(!matches(path, &[pattern]), "{pattern:?} does not match {path:?}");
        }
    }

    #[test]
    fn the_last_matching_line_wins() {
        let cases = [
            (&["**", "!util/docker/web"][..], "util/docker/web/foo", false),
            (&["**", "!util/docker/web", "util/docker/web/foo"], "util/docker/web/foo", true),
            (&["!file", "file"], "file", true),
            (&["*", "!*.md"], "README.md", false),
            (&["*.md", "!README.md"], "README.md", false),
            (&["docs", "!docs/keep"], "docs/keep/a", false),
            (&["docs", "!docs/keep"], "docs/drop/a", true),
            (&["  a  ", "", "b/"], "b", true),
        ];
        for (patterns, path, expected) in cases {
            assert_eq!(matches(path, patterns), expected, "{patterns:?} on {path}");
        }
    }

    #[test]
    fn malformed_patterns_are_refused_by_name() {
        for pattern in ["!", "[", "[^", "[^]", "a[", "[]a]", "[-]", "[x-]", "a\\"] {
            assert!(Matcher::new([pattern]).is_err(), "{pattern:?}");
        }
        assert_eq!(Matcher::new(["!"]).unwrap_err().to_string(), "pattern \"!\" is malformed: nothing follows the !");
    }

    #[test]
    fn a_walk_goes_into_a_hidden_directory_only_when_something_may_come_back() {
        let matcher = Matcher::new(["*", "!src/keep"]).unwrap();
        assert!(matcher.may_take_back_below("src"));
        assert!(!matcher.may_take_back_below("target"));
        assert!(Matcher::new(["*", "!**/*.rs"]).unwrap().may_take_back_below("target"));
        assert!(Matcher::new(["*", "!src/**"]).unwrap().may_take_back_below("src"));
        assert!(Matcher::new(["*", "!src*"]).unwrap().may_take_back_below("srcs"));
        assert!(!Matcher::new(["*"]).unwrap().may_take_back_below("src"));
    }

    #[test]
    fn the_decisive_line_is_the_one_that_hid_the_file() {
        let matcher = Matcher::new(["*.o", "build", "!build/keep"]).unwrap();
        assert_eq!(matcher.decisive("build/x").unwrap().text(), "build");
        assert!(matcher.decisive("build/keep").unwrap().is_exclusion());
        assert!(matcher.decisive("src").is_none());
    }

    fn pattern() -> impl Strategy<Value = String> {
        prop::collection::vec(
            prop::sample::select(vec![
                "a", "b", "/", "*", "**", "?", "[ab]", "[^a]", "!", ".", "\\*", "]", "[", "^", "é",
            ]),
            1..8,
        )
        .prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn walking_down_gives_the_same_answer_as_asking_at_once(
            patterns in prop::collection::vec(pattern(), 0..5),
            parts in prop::collection::vec("[ab.é]{1,2}", 1..5),
        ) {
            let Ok(matcher) = Matcher::new(&patterns) else { return Ok(()) };
            let mut parents = Parents::default();
            let mut path = String::new();
            for part in parts.iter().filter(|p| *p != "." && *p != "..") {
                if !path.is_empty() { path.push('/'); }
                path.push_str(part);
                let Ok((below, next)) = matcher.matches_below(&path, &parents) else { return Ok(()) };
                if let Ok(whole) = matcher.matches(&path) {
                    // Only a `!` that was skipped above may be seen differently (moby keeps this too).
                    if !matcher.has_exclusions() { prop_assert_eq!(below, whole, "{:?} on {}", patterns, path); }
                }
                parents = next;
            }
        }

        #[test]
        fn no_pattern_makes_it_panic(pattern in ".{0,24}", path in ".{0,24}") {
            if let Ok(matcher) = Matcher::new([&pattern]) {
                let _ = matcher.matches(&path);
                let _ = matcher.decisive(&path);
            }
        }
    }
}
