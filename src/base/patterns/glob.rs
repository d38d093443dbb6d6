//! One glob as Go's `filepath.Match` has it: `*`, `?`, `[a-z]`, `[^a]`, backslash; none of them crosses a slash.

use super::BadPattern;

enum Token {
    Char(char),
    /// `?`
    Any,
    /// `*`
    Star,
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

/// Whether the whole name matches. A malformed pattern is an error even when the name could never match.
pub fn matches(pattern: &str, name: &str) -> Result<bool, BadPattern> {
    let tokens = parse(pattern)?;
    let name: Vec<char> = name.chars().collect();
    let (mut t, mut n) = (0, 0);
    // Where to go on when what follows the last star fails. A star never crosses a slash, so no earlier star
    // could do better than the last one.
    let mut retry: Option<(usize, usize)> = None;
    while t < tokens.len() || n < name.len() {
        match tokens.get(t) {
            Some(Token::Star) => {
                retry = Some((t + 1, n));
                t += 1;
                continue;
            }
            Some(token) if n < name.len() && token.accepts(name[n]) => {
                t += 1;
                n += 1;
                continue;
            }
            _ => {}
        }
        match retry {
            Some((after_star, from)) if from < name.len() && name[from] != '/' => {
                retry = Some((after_star, from + 1));
                t = after_star;
                n = from + 1;
            }
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// Ok when [`matches`] would understand the pattern.
pub fn check(pattern: &str) -> Result<(), BadPattern> {
    parse(pattern).map(drop)
}

/// Whether a path holds any of the characters that make it a pattern.
pub fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?', '[', '\\'])
}

impl Token {
    fn accepts(&self, c: char) -> bool {
        match self {
            Self::Char(own) => *own == c,
            Self::Any => c != '/',
            Self::Star => false,
            Self::Class { negated, ranges } => ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated,
        }
    }
}

fn parse(pattern: &str) -> Result<Vec<Token>, BadPattern> {
    let bad = |reason| BadPattern { pattern: pattern.to_owned(), reason };
    let mut chars = pattern.chars().peekable();
    let mut tokens = Vec::new();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            '*' => Token::Star,
            '?' => Token::Any,
            '\\' => Token::Char(chars.next().ok_or_else(|| bad("nothing follows the last backslash"))?),
            '[' => {
                let negated = chars.next_if_eq(&'^').is_some();
                let mut ranges = Vec::new();
                let member = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| {
                    let c = match chars.next() {
                        None | Some('-' | ']') => return Err(bad("a [ is not closed, or empty")),
                        Some('\\') => chars.next().ok_or_else(|| bad("a [ is not closed"))?,
                        Some(c) => c,
                    };
                    // Every member is followed by another or by the end.
                    chars.peek().is_some().then_some(c).ok_or_else(|| bad("a [ is not closed"))
                };
                while ranges.is_empty() || chars.next_if_eq(&']').is_none() {
                    let low = member(&mut chars)?;
                    let high = if chars.next_if_eq(&'-').is_some() { member(&mut chars)? } else { low };
                    ranges.push((low, high));
                }
                Token::Class { negated, ranges }
            }
            c => Token::Char(c),
        });
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn behaves_as_go_does() {
        let cases = [
            ("abc", "abc", Some(true)),
            ("*", "abc", Some(true)),
            ("*c", "abc", Some(true)),
            ("a*", "a", Some(true)),
            ("a*", "ab/c", Some(false)),
            ("a*/b", "abc/b", Some(true)),
            ("a*/b", "a/c/b", Some(false)),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", Some(true)),
            ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", Some(false)),
            ("a*b?c*x", "abxbbxdbxebxczzx", Some(true)),
            ("ab[c]", "abc", Some(true)),
            ("ab[b-d]", "abc", Some(true)),
            ("ab[e-g]", "abc", Some(false)),
            ("ab[^c]", "abc", Some(false)),
            ("a\\*b", "a*b", Some(true)),
            ("a?b", "a☺b", Some(true)),
            ("a[^a]b", "a☺b", Some(true)),
            ("a???b", "a☺b", Some(false)),
            ("[a-ζ]*", "α", Some(true)),
            ("*[a-ζ]", "A", Some(false)),
            ("a?b", "a/b", Some(false)),
            ("[\\]a]", "]", Some(true)),
            ("[\\-x]", "-", Some(true)),
            ("[]a]", "]", None),
            ("[-]", "-", None),
            ("[x-]", "x", None),
            ("[-x]", "x", None),
            ("[a-b-c]", "a", None),
            ("[", "a", None),
            ("[^bc", "a", None),
            ("a[", "ab", None),
            ("a\\", "a", None),
            ("*x", "xxx", Some(true)),
            ("", "", Some(true)),
            ("", "a", Some(false)),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(matches(pattern, name).ok(), expected, "{pattern:?} on {name:?}");
        }
    }

    proptest! {
        #[test]
        fn ends_quickly_and_never_panics(pattern in "[a*?\\[\\]^\\\\/-]{0,40}", name in "[a/]{0,60}") {
            let _ = matches(&pattern, &name);
        }

        #[test]
        fn a_name_matches_itself_escaped(name in ".{0,20}") {
            let pattern: String = name.chars().flat_map(|c| ['\\', c]).collect();
            prop_assert_eq!(matches(&pattern, &name), Ok(true));
        }
    }
}
