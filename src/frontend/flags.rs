//! The `--name=value` words of an instruction.

use super::error::{Error, Result};
use super::suggest;

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `--link`, `--link=false`
    Bool,
    /// `--from=x`, once.
    Text,
    /// `--exclude=x`, as often as one likes.
    List,
}

/// The flags that were given, checked against those that an instruction has.
#[derive(Debug, Default)]
pub struct Flags {
    given: Vec<(&'static str, String)>,
}

impl Flags {
    pub fn parse(words: &[String], known: &[(&'static str, Kind)]) -> Result<Self> {
        let mut flags = Self::default();
        for word in words {
            if word == "--" {
                break;
            }
            let Some(body) = word.strip_prefix("--") else {
                return Err(about(word, format!("arg should start with -- : {word}")));
            };
            let (name, value) = match body.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (body, None),
            };
            let Some(&(known_name, kind)) = known.iter().find(|(known, _)| *known == name) else {
                let mut error = Error::new(format!("unknown flag: --{name}")).about(&format!("--{name}"));
                let nearest = suggest::nearest(name, known.iter().map(|(known, _)| *known));
                error.hint = nearest.map(|nearest| format!("did you mean --{nearest}?"));
                return Err(error);
            };
            if kind != Kind::List && flags.text(known_name).is_some() {
                return Err(about(word, format!("duplicate flag specified: --{name}")));
            }
            let value = match (kind, value) {
                (Kind::Bool, None) => "true".to_owned(),
                (Kind::Bool, Some("")) | (Kind::Text | Kind::List, None) => {
                    return Err(about(word, format!("missing a value on flag: --{name}")));
                }
                (Kind::Bool, Some(value)) => match value.to_ascii_lowercase().as_str() {
                    bool @ ("true" | "false") => bool.to_owned(),
                    _ => {
                        return Err(about(word, format!("expecting boolean value for flag --{name}, not: {value}")));
                    }
                },
                (Kind::Text | Kind::List, Some(value)) => value.to_owned(),
            };
            flags.given.push((known_name, value));
        }
        Ok(flags)
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.given.iter().find(|(given, _)| *given == name).map(|(_, value)| value.as_str())
    }

    /// The value, or nothing.
    pub fn text_or_empty(&self, name: &str) -> String {
        self.text(name).unwrap_or_default().to_owned()
    }

    pub fn bool(&self, name: &str) -> Option<bool> {
        self.text(name).map(|value| value == "true")
    }

    pub fn list(&self, name: &str) -> Vec<String> {
        self.given.iter().filter(|(given, _)| *given == name).map(|(_, value)| value.clone()).collect()
    }
}

fn about(word: &str, message: String) -> Error {
    Error::new(message).about(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[(&str, Kind)] = &[("link", Kind::Bool), ("from", Kind::Text), ("exclude", Kind::List)];

    fn parse(words: &[&str]) -> Result<Flags, String> {
        let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
        Flags::parse(&words, KNOWN).map_err(|e| e.to_string())
    }

    #[test]
    fn reads_each_kind() {
        let flags = parse(&["--link", "--from=a=b", "--exclude=x", "--exclude="]).unwrap();
        assert_eq!((flags.bool("link"), flags.text("from")), (Some(true), Some("a=b")));
        assert_eq!(flags.list("exclude"), ["x", ""]);
        assert_eq!(parse(&["--link=FALSE"]).unwrap().bool("link"), Some(false));
        assert_eq!(parse(&["--", "x"]).unwrap().bool("link"), None);
    }

    #[test]
    fn refuses_with_the_reason() {
        let cases = [
            (&["--fron=a"][..], "unknown flag: --fron"),
            (&["--from"], "missing a value on flag: --from"),
            (&["--link="], "missing a value on flag: --link"),
            (&["--link=yes"], "expecting boolean value for flag --link, not: yes"),
            (&["--from=a", "--from=b"], "duplicate flag specified: --from"),
        ];
        for (words, message) in cases {
            assert_eq!(parse(words).unwrap_err(), message);
        }
    }
}
