//! Lines to nodes: comments, directives, continuations, here-documents, and each instruction's words in its own
//! notation. What the words mean is read later, in `instruction`.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::directive;
use super::error::{Error, Errors, Place, Result};
use super::heredoc::{self, Heredoc};
use super::words;

/// One instruction as it was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// As it was typed.
    pub keyword: String,
    /// `--name=value` words, unquoted.
    pub flags: Vec<String>,
    /// The rest, cut into words as the instruction wants it.
    pub args: Vec<String>,
    /// The words came from a JSON list.
    pub json: bool,
    /// The instruction after ONBUILD.
    pub inner: Option<Box<Node>>,
    pub heredocs: Vec<Heredoc>,
    /// The whole line, continuations joined.
    pub original: String,
    /// From 1.
    pub lines: std::ops::Range<usize>,
    /// Comment lines directly above.
    pub comments: Vec<String>,
}

/// A file that was cut into instructions.
#[derive(Debug, Clone)]
pub struct Parsed {
    pub nodes: Vec<Node>,
    pub escape: char,
    pub source: Source,
    /// Last lines of instructions in which a continued line is empty.
    pub empty_continuations: Vec<usize>,
}

/// A Dockerfile's name and text.
#[derive(Debug, Clone)]
pub struct Source {
    pub name: Arc<str>,
    pub text: Arc<str>,
}

impl Source {
    /// Bytes that are not UTF-8 (a Latin-1 comment, mostly) become replacement characters.
    pub fn new(name: &str, text: &[u8]) -> Self {
        Self { name: name.into(), text: String::from_utf8_lossy(text).into() }
    }

    pub fn place(&self, lines: RangeInclusive<usize>) -> Place {
        Place { file: self.name.clone(), text: self.text.clone(), lines, span: None }
    }
}

impl Node {
    /// First and last line.
    pub fn span(&self) -> RangeInclusive<usize> {
        self.lines.start..=self.lines.end.saturating_sub(1).max(self.lines.start)
    }

    /// Whether here-documents may follow: not after a JSON list.
    fn takes_heredocs(&self) -> bool {
        let node = if self.keyword.eq_ignore_ascii_case("onbuild") { self.inner.as_deref() } else { Some(self) };
        node.is_some_and(|n| !n.json && ["add", "copy", "run"].iter().any(|name| n.keyword.eq_ignore_ascii_case(name)))
    }
}

/// Cuts a file into instructions. A file without any is an error.
pub fn parse(source: &Source) -> Result<Parsed> {
    let (parsed, errors) = parse_all(source)?;
    errors.finish()?;
    Ok(parsed)
}

/// As [`parse`]; lines that cannot be cut are told beside those that can.
pub fn parse_all(source: &Source) -> Result<(Parsed, Errors)> {
    let mut errors = Errors::default();
    let mut parser = Parser {
        source,
        lines: source.text.split_inclusive('\n'),
        number: 0,
        escape: '\\',
        directives: directive::Reader::default(),
    };
    let mut nodes = Vec::new();
    let mut empty_continuations = Vec::new();
    let mut comments = Vec::new();
    while let Some(raw) = parser.next_line() {
        let raw = if parser.number == 1 { raw.strip_prefix('\u{feff}').unwrap_or(raw) } else { raw };
        let line = without_newline(raw).trim_start();
        if let Some(comment) = comment(raw) {
            match comment {
                "" => comments.clear(),
                text => comments.push(text.to_owned()),
            }
        }
        if parser.directive(line)? {
            comments.pop();
        }
        if is_comment(line) {
            continue;
        }
        let start = parser.number;
        let (text, continued) = parser.continuation(line);
        if !continued && text.is_empty() {
            continue;
        }
        let mut joined = text.to_owned();
        if continued {
            parser.join(&mut joined, &mut empty_continuations);
        }
        nodes.extend(errors.take(parser.node(joined, start, std::mem::take(&mut comments))));
    }
    if nodes.is_empty() {
        errors.finish()?;
        let last = parser.number.max(1);
        return Err(Error::new("file with no instructions").at(&source.place(last..=last)));
    }
    Ok((Parsed { nodes, escape: parser.escape, source: source.clone(), empty_continuations }, errors))
}

/// Reads the one instruction that a text consists of, here-documents included: an ONBUILD trigger.
pub fn parse_trigger(text: &str) -> Result<Node> {
    let source = Source::new("ONBUILD trigger", text.as_bytes());
    let mut parsed = parse(&source)?;
    match parsed.nodes.len() {
        1 => Ok(parsed.nodes.remove(0)),
        _ => Err(Error::new("onbuild trigger should be a single expression")),
    }
}

struct Parser<'a> {
    source: &'a Source,
    lines: std::str::SplitInclusive<'a, char>,
    number: usize,
    escape: char,
    directives: directive::Reader,
}

impl<'a> Parser<'a> {
    fn next_line(&mut self) -> Option<&'a str> {
        let line = self.lines.next()?;
        self.number += 1;
        Some(line)
    }

    fn directive(&mut self, line: &str) -> Result<bool> {
        let here = self.source.place(self.number..=self.number);
        let found = self.directives.line(line).map_err(|m| Error::new(m).at(&here))?;
        if let Some(directive) = &found
            && directive.name == "escape"
        {
            self.escape = match directive.value.as_str() {
                "`" => '`',
                "\\" => '\\',
                other => {
                    return Err(Error::new(format!("invalid escape token '{other}' does not match ` or \\"))
                        .at_word(&here, other));
                }
            };
        }
        Ok(found.is_some())
    }

    /// The line without a continuation at its end, and whether there was one. An escape that is itself escaped
    /// does not continue the line.
    fn continuation<'b>(&self, line: &'b str) -> (&'b str, bool) {
        match line.trim_end_matches([' ', '\t']).strip_suffix(self.escape) {
            Some(text) if !text.ends_with(self.escape) => (text, true),
            _ => (line, false),
        }
    }

    /// Appends the lines that continue the joined one. Comments between them are dropped, empty lines are too.
    fn join(&mut self, joined: &mut String, empty_continuations: &mut Vec<usize>) {
        let mut empty = false;
        while let Some(raw) = self.next_line() {
            let line = without_newline(raw);
            if is_comment(line) {
                continue;
            }
            if line.trim_start().is_empty() {
                empty = true;
                continue;
            }
            let (text, continued) = self.continuation(line);
            joined.push_str(text);
            if !continued {
                break;
            }
        }
        if empty {
            empty_continuations.push(self.number);
        }
    }

    fn node(&mut self, line: String, start: usize, comments: Vec<String>) -> Result<Node> {
        let located = |e: Error, end: usize| e.at(&self.source.place(start..=end));
        let mut node = words::node(&line, self.escape, 0).map_err(|e| located(e, self.number))?;
        if line.contains("<<") && node.takes_heredocs() {
            let announced = heredoc::in_line(&line).map_err(|m| located(Error::new(m), self.number))?;
            for heredoc in announced {
                let content = self.heredoc(&heredoc, start)?;
                node.heredocs.push(Heredoc { content, ..heredoc });
            }
        }
        node.original = line;
        node.lines = start..self.number + 1;
        node.comments = comments;
        Ok(node)
    }

    /// The lines up to the one that is the here-document's name.
    fn heredoc(&mut self, heredoc: &Heredoc, start: usize) -> Result<String> {
        let mut content = String::new();
        while let Some(line) = self.next_line() {
            let mut end = line.trim_end_matches(['\r', '\n']);
            if heredoc.chomp {
                end = end.trim_start_matches('\t');
            }
            if end == heredoc.name {
                return Ok(content);
            }
            content.push_str(line);
        }
        let place = self.source.place(start..=start).word(&heredoc.name);
        let hint = format!("no line after this one is just {}", heredoc.name);
        Err(Error::new("unterminated heredoc").at(&place).hint(hint))
    }
}

fn without_newline(line: &str) -> &str {
    line.trim_end_matches(['\r', '\n'])
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

/// The text of a comment line. Only the first byte is taken off, so an indented `#` stays in the text.
fn comment(line: &str) -> Option<&str> {
    if !is_comment(line) {
        return None;
    }
    let mut chars = line.chars();
    chars.next();
    Some(chars.as_str().trim())
}
