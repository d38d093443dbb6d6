//! Shell words as Dockerfiles have them: quotes, escapes, `$name` and the forms of `${name…}`. Looks like a POSIX
//! shell, and differs from one in the places where BuildKit's does.

use std::collections::BTreeSet;
use std::str::Chars;

use regex::Regex;

use super::variables::Variables;

/// `${a:-${b:-…}}` nested deeper than any person writes is refused before it fills the stack.
const MAX_DEPTH: usize = 200;

/// One word may not grow beyond this: `ENV a=$a$a` thirty times over asks for a gigabyte.
const MAX_WORD: usize = 4 << 20;

/// How words are read.
#[derive(Debug, Clone, Copy)]
pub struct Lexer {
    pub escape: char,
    /// Quotes quote, and stay.
    pub raw_quotes: bool,
    /// Escapes escape, and stay.
    pub raw_escapes: bool,
    /// Quotes are letters like any other.
    pub plain_quotes: bool,
    /// Variables that are not set stay as they were written.
    pub keep_unset: bool,
}

/// A word after expansion.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expansion {
    pub text: String,
    /// The text split at spaces that were not quoted.
    pub words: Vec<String>,
    /// Variables that were looked up and found.
    pub found: BTreeSet<String>,
    /// Variables that were looked up and not found.
    pub missing: BTreeSet<String>,
}

impl Lexer {
    pub fn new(escape: char) -> Self {
        Self { escape, raw_quotes: false, raw_escapes: false, plain_quotes: false, keep_unset: false }
    }

    pub fn expand(&self, text: &str, variables: &Variables) -> Result<Expansion, String> {
        self.expand_masked(text, variables, &[])
    }

    /// As [`Lexer::expand`]; the masked names expand to asterisks.
    pub fn expand_masked(&self, text: &str, variables: &Variables, masked: &[&str]) -> Result<Expansion, String> {
        let plain = |c: char| c != '$' && c != '<' && c != self.escape && (self.plain_quotes || c != '\'' && c != '"');
        if text.chars().all(plain) {
            let words = text.split_whitespace().map(str::to_owned).collect();
            return Ok(Expansion { text: text.to_owned(), words, ..Expansion::default() });
        }
        let mut run = Run {
            lexer: self,
            rest: text.chars(),
            variables,
            masked,
            found: BTreeSet::new(),
            missing: BTreeSet::new(),
            depth: 0,
        };
        let mut words = Words::default();
        let expanded = run
            .until(None, self.raw_escapes, Some(&mut words))
            .map_err(|problem| format!("failed to process {}: {problem}", super::go::quote(&shortened(text))))?;
        Ok(Expansion { text: expanded, words: words.finish(), found: run.found, missing: run.missing })
    }
}

fn shortened(text: &str) -> String {
    const SHOWN: usize = 200;
    if text.chars().count() <= SHOWN { text.to_owned() } else { text.chars().take(SHOWN).chain(['…']).collect() }
}

struct Run<'a> {
    lexer: &'a Lexer,
    rest: Chars<'a>,
    variables: &'a Variables,
    masked: &'a [&'a str],
    found: BTreeSet<String>,
    missing: BTreeSet<String>,
    depth: usize,
}

#[derive(Default)]
struct Words {
    done: Vec<String>,
    word: String,
}

impl Words {
    fn split(&mut self, c: char) {
        if !c.is_whitespace() {
            self.word.push(c);
        } else if !self.word.is_empty() {
            self.done.push(std::mem::take(&mut self.word));
        }
    }

    fn finish(mut self) -> Vec<String> {
        if !self.word.is_empty() {
            self.done.push(self.word);
        }
        self.done
    }
}

impl Run<'_> {
    fn peek(&self) -> Option<char> {
        self.rest.clone().next()
    }

    fn next_if(&mut self, wanted: char) -> bool {
        let is = self.peek() == Some(wanted);
        if is {
            self.rest.next();
        }
        is
    }

    /// Expands up to and without the stop character, or to the end.
    fn until(
        &mut self,
        stop: Option<char>,
        raw_escapes: bool,
        mut words: Option<&mut Words>,
    ) -> Result<String, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("too many substitutions inside each other".to_owned());
        }
        let mut out = String::new();
        while let Some(c) = self.rest.next() {
            if stop == Some(c) {
                self.depth -= 1;
                return Ok(out);
            }
            let (text, splits) = match c {
                '$' => (self.dollar()?, true),
                '<' => (self.less_than(), false),
                '\'' if !self.lexer.plain_quotes => (self.single_quoted()?, false),
                '"' if !self.lexer.plain_quotes => (self.double_quoted(raw_escapes)?, false),
                c if c == self.lexer.escape => {
                    let mut text = String::new();
                    if raw_escapes {
                        text.push(c);
                    }
                    // An escape at the very end stands for nothing.
                    text.extend(self.rest.next());
                    (text, false)
                }
                c => {
                    if let Some(words) = words.as_deref_mut() {
                        words.split(c);
                    }
                    out.push(c);
                    continue;
                }
            };
            if let Some(words) = words.as_deref_mut() {
                if splits {
                    text.chars().for_each(|c| words.split(c));
                } else {
                    words.word.push_str(&text);
                }
            }
            out.push_str(&text);
            if out.len() > MAX_WORD {
                return Err(format!("the result is longer than {MAX_WORD} bytes"));
            }
        }
        self.depth -= 1;
        match stop {
            None => Ok(out),
            Some(stop) => Err(format!("unexpected end of statement while looking for matching {stop}")),
        }
    }

    /// Nothing is special up to the next single quote.
    fn single_quoted(&mut self) -> Result<String, String> {
        let mut out = String::new();
        if self.lexer.raw_quotes {
            out.push('\'');
        }
        loop {
            match self.rest.next() {
                None => return Err("unexpected end of statement while looking for matching single-quote".to_owned()),
                Some('\'') => break,
                Some(c) => out.push(c),
            }
        }
        if self.lexer.raw_quotes {
            out.push('\'');
        }
        Ok(out)
    }

    fn double_quoted(&mut self, raw_escapes: bool) -> Result<String, String> {
        let mut out = String::new();
        if self.lexer.raw_quotes {
            out.push('"');
        }
        loop {
            match self.rest.next() {
                None => return Err("unexpected end of statement while looking for matching double-quote".to_owned()),
                Some('"') => break,
                Some('$') => out.push_str(&self.dollar()?),
                Some(c) if c == self.lexer.escape => {
                    if raw_escapes {
                        out.push(c);
                    }
                    match self.peek() {
                        // The missing quote is found missing in the next round.
                        None => {}
                        Some(next) if next == '"' || next == '$' || next == c => {
                            out.push(next);
                            self.rest.next();
                        }
                        // Before any other character the escape is itself.
                        Some(_) => out.push(c),
                    }
                }
                Some(c) => out.push(c),
            }
            if out.len() > MAX_WORD {
                return Err(format!("the result is longer than {MAX_WORD} bytes"));
            }
        }
        if self.lexer.raw_quotes {
            out.push('"');
        }
        Ok(out)
    }

    /// `<<` keeps the blanks that follow it, so that `<< EOF` stays one word.
    fn less_than(&mut self) -> String {
        let mut out = String::from("<");
        if self.next_if('<') {
            out.push('<');
            while let Some(blank) = self.peek().filter(|c| matches!(c, '\t' | '\r' | ' ')) {
                out.push(blank);
                self.rest.next();
            }
        }
        out
    }

    /// What follows a dollar sign.
    fn dollar(&mut self) -> Result<String, String> {
        if !self.next_if('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok(match self.look_up(&name) {
                Some(value) => value,
                None if self.lexer.keep_unset => format!("${name}"),
                None => String::new(),
            });
        }
        match self.peek() {
            None => return Err("syntax error: missing '}'".to_owned()),
            Some('{' | '}' | ':') => return Err("syntax error: bad substitution".to_owned()),
            Some(_) => {}
        }
        let name = self.name();
        match self.rest.next() {
            None => Err("syntax error: missing '}'".to_owned()),
            Some('}') => Ok(match self.look_up(&name) {
                Some(value) => value,
                None if self.lexer.keep_unset => format!("${{{name}}}"),
                None => String::new(),
            }),
            Some(':') => match self.rest.next() {
                Some(kind @ ('+' | '-' | '?')) => self.conditional(&name, kind, true),
                kind => Err(unsupported(&format!(":{}", kind.map(String::from).unwrap_or_default()))),
            },
            Some(kind @ ('+' | '-' | '?')) => self.conditional(&name, kind, false),
            Some(kind @ ('#' | '%')) => self.trimmed(&name, kind),
            Some('/') => self.replaced(&name),
            Some(other) => Err(unsupported(&other.to_string())),
        }
    }

    /// `${x:-y}` and its kin.
    fn conditional(&mut self, name: &str, kind: char, empty_is_unset: bool) -> Result<String, String> {
        let word = self.braced('}', false, "'}'")?;
        let value = self.look_up(name);
        if value.is_none() && self.lexer.keep_unset {
            let colon = if empty_is_unset { ":" } else { "" };
            return Ok(format!("${{{name}{colon}{kind}{word}}}"));
        }
        let usable = value.filter(|v| !(empty_is_unset && v.is_empty()));
        match kind {
            '-' => Ok(usable.unwrap_or(word)),
            '+' => Ok(if usable.is_some() { word } else { String::new() }),
            _ => match usable {
                Some(value) => Ok(value),
                None if !word.is_empty() => Err(format!("{name}: {word}")),
                None if self.variables.get(name).is_some() => Err(format!("{name}: is not allowed to be empty")),
                None => Err(format!("{name}: is not allowed to be unset")),
            },
        }
    }

    /// `${x#p}`, `${x##p}`, `${x%p}`, `${x%%p}`
    fn trimmed(&mut self, name: &str, kind: char) -> Result<String, String> {
        let word = self.braced('}', true, "'}'")?;
        let Some(value) = self.look_up(name) else {
            return Ok(if self.lexer.keep_unset { format!("${{{name}{kind}{word}}}") } else { String::new() });
        };
        let (pattern, greedy) = match word.strip_prefix(kind) {
            Some(pattern) => (pattern, true),
            None => (word.as_str(), false),
        };
        if kind == '#' {
            return trim_start(pattern, &value, greedy);
        }
        // The shortest match at the end is the shortest one at the start of the reversed text.
        let trimmed = trim_start(&reversed_pattern(pattern), &value.chars().rev().collect::<String>(), greedy)?;
        Ok(trimmed.chars().rev().collect())
    }

    /// `${x/p/r}`, `${x//p/r}`
    fn replaced(&mut self, name: &str) -> Result<String, String> {
        let all = self.next_if('/');
        let pattern = self.braced('/', true, "'/' in ${}")?;
        let replacement = self.braced('}', true, "'}'")?;
        let Some(value) = self.look_up(name) else {
            // BuildKit writes one slash here even where two were read.
            return Ok(if self.lexer.keep_unset {
                format!("${{{name}/{pattern}/{replacement}}}")
            } else {
                String::new()
            });
        };
        let regex = pattern_regex(&pattern, true, false)?;
        let replaced = if all {
            // The number of results is bounded by the value, their size by the replacement.
            if value.len().saturating_add(1).saturating_mul(replacement.len().max(1)) > 64 * MAX_WORD {
                return Err(format!("the result is longer than {MAX_WORD} bytes"));
            }
            regex.replace_all(&value, replacement.as_str())
        } else {
            regex.replacen(&value, 1, regex::NoExpand(&replacement))
        };
        Ok(replaced.into_owned())
    }

    fn braced(&mut self, stop: char, raw_escapes: bool, missing: &str) -> Result<String, String> {
        self.until(Some(stop), raw_escapes, None)
            .map_err(|problem| if self.peek().is_none() { format!("syntax error: missing {missing}") } else { problem })
    }

    /// Letters, digits and underscores; only digits after a first digit; or one of the shell's special letters.
    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.peek() {
            Some(c) if is_digit(c) => {
                while let Some(c) = self.peek().filter(|c| is_digit(*c)) {
                    name.push(c);
                    self.rest.next();
                }
            }
            Some(c @ ('@' | '*' | '#' | '?' | '-' | '$' | '!')) => {
                name.push(c);
                self.rest.next();
            }
            _ => {
                while let Some(c) = self.peek().filter(|c| c.is_alphabetic() || is_digit(*c) || *c == '_') {
                    name.push(c);
                    self.rest.next();
                }
            }
        }
        name
    }

    fn look_up(&mut self, name: &str) -> Option<String> {
        if self.masked.contains(&name) {
            return Some("****".to_owned());
        }
        let value = self.variables.get(name);
        if value.is_some() { &mut self.found } else { &mut self.missing }.insert(name.to_owned());
        value.map(str::to_owned)
    }
}

fn is_digit(c: char) -> bool {
    c.is_ascii_digit()
}

fn unsupported(modifier: &str) -> String {
    format!("unsupported modifier ({}) in substitution", modifier.escape_debug())
}

/// A wildcard pattern (`*`, `?`, backslash) as a regular expression.
fn pattern_regex(pattern: &str, greedy: bool, anchored: bool) -> Result<Regex, String> {
    let problem = |what: String| format!("invalid pattern ({pattern}) in substitution: {what}");
    let mut out = String::from(if anchored { "^" } else { "" });
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' => out.push_str(if greedy { ".*" } else { ".*?" }),
            '?' => out.push('.'),
            // The braces' own delimiters are escaped to get here, and mean themselves.
            '\\' if matches!(chars.peek(), Some('}' | '/')) => {}
            '\\' => match chars.next() {
                Some(c @ ('*' | '?' | '\\')) => {
                    out.push('\\');
                    out.push(c);
                }
                Some(c) => return Err(problem(format!("invalid escape '\\{c}'"))),
                None => return Err(problem("nothing follows the last backslash".to_owned())),
            },
            c => out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    Regex::new(&out).map_err(|e| problem(e.to_string()))
}

fn trim_start(pattern: &str, value: &str, greedy: bool) -> Result<String, String> {
    let regex = pattern_regex(pattern, greedy, true)?;
    Ok(value[regex.find(value).map_or(0, |m| m.end())..].to_owned())
}

/// Back to front, each escape still before what it escapes.
fn reversed_pattern(pattern: &str) -> String {
    let mut units: Vec<String> = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        let mut unit = c.to_string();
        if c == '\\' {
            unit.extend(chars.next());
        }
        units.push(unit);
    }
    units.reverse();
    units.concat()
}

#[cfg(test)]
mod tests;
