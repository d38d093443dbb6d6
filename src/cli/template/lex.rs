//! A template as text and actions, and an action as words.

use super::{Result, wrong};

/// A piece of a template.
#[derive(Debug, PartialEq)]
pub enum Piece {
    Text(String),
    Action(Vec<Word>),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Word {
    /// `.`, `.A.B`: the names after the dots.
    Field(Vec<String>),
    /// `$`, `$x.A`
    Variable(String, Vec<String>),
    Name(String),
    Text(String),
    Integer(i64),
    Float(f64),
    Pipe,
    Open,
    /// Closing bracket, with the fields taken of what was inside: `(index .X 0).Y`.
    Close(Vec<String>),
    Comma,
    /// `:=` or `=`
    Assign,
}

/// Cuts a template into pieces; trim marks have done their work in the result.
pub fn pieces(template: &str) -> Result<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut rest = template;
    let mut trim = false;
    while let Some(start) = rest.find("{{") {
        let mut text = &rest[..start];
        let mut action = &rest[start + 2..];
        if trim {
            text = text.trim_start();
        }
        if let Some(after) = action.strip_prefix('-')
            && after.starts_with(char::is_whitespace)
        {
            text = text.trim_end();
            action = after;
        }
        if !text.is_empty() {
            pieces.push(Piece::Text(text.to_owned()));
        }
        let end = action_end(action)?;
        rest = &action[end + 2..];
        let mut inside = &action[..end];
        trim = inside.ends_with('-') && inside[..inside.len() - 1].ends_with(char::is_whitespace);
        if trim {
            inside = &inside[..inside.len() - 1];
        }
        let inside = inside.trim();
        if !(inside.starts_with("/*") && inside.ends_with("*/")) {
            pieces.push(Piece::Action(words(inside)?));
        }
    }
    let text = if trim { rest.trim_start() } else { rest };
    if !text.is_empty() {
        pieces.push(Piece::Text(text.to_owned()));
    }
    Ok(pieces)
}

/// Where the action's `}}` is: not one inside a string or a comment.
fn action_end(action: &str) -> Result<usize> {
    let bytes = action.as_bytes();
    let mut at = 0;
    if action.trim_start().starts_with("/*") {
        at = action.find("*/").ok_or_else(|| super::Error("unclosed comment".to_owned()))?;
    }
    while at < bytes.len() {
        match bytes[at] {
            b'}' if bytes[at..].starts_with(b"}}") => return Ok(at),
            quote @ (b'"' | b'`' | b'\'') => {
                at += 1;
                while bytes.get(at).is_some_and(|&b| b != quote) {
                    at += if bytes[at] == b'\\' && quote != b'`' { 2 } else { 1 };
                }
                at += 1;
            }
            _ => at += 1,
        }
    }
    wrong("unclosed action")
}

fn words(action: &str) -> Result<Vec<Word>> {
    let mut words = Vec::new();
    let mut rest = action.trim_start();
    while let Some(c) = rest.chars().next() {
        let (word, used) = match c {
            '|' => (Word::Pipe, 1),
            '(' => (Word::Open, 1),
            ',' => (Word::Comma, 1),
            '=' => (Word::Assign, 1),
            ':' if rest.starts_with(":=") => (Word::Assign, 2),
            ')' => {
                let (fields, used) = fields(&rest[1..]);
                (Word::Close(fields), used + 1)
            }
            '.' => {
                let (fields, used) = fields(rest);
                (Word::Field(fields), used.max(1))
            }
            '$' => {
                let name = identifier(&rest[1..]);
                let (fields, used) = fields(&rest[1 + name.len()..]);
                (Word::Variable(name.to_owned(), fields), 1 + name.len() + used)
            }
            '"' => quoted(rest)?,
            '`' => match rest[1..].find('`') {
                Some(end) => (Word::Text(rest[1..=end].to_owned()), end + 2),
                None => return wrong("unterminated raw quoted string"),
            },
            c if c.is_ascii_digit() || c == '-' || c == '+' => number(rest)?,
            c if c.is_alphabetic() || c == '_' => {
                let name = identifier(rest);
                (Word::Name(name.to_owned()), name.len())
            }
            other => return wrong(format!("unexpected {other:?} in action")),
        };
        words.push(word);
        rest = rest[used..].trim_start();
    }
    Ok(words)
}

fn identifier(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    &text[..end]
}

/// `.A.B` at the beginning of a text, and how much of it that was.
fn fields(text: &str) -> (Vec<String>, usize) {
    let mut fields = Vec::new();
    let mut used = 0;
    while let Some(after) = text[used..].strip_prefix('.') {
        let name = identifier(after);
        if name.is_empty() {
            break;
        }
        fields.push(name.to_owned());
        used += 1 + name.len();
    }
    (fields, used)
}

fn quoted(text: &str) -> Result<(Word, usize)> {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((Word::Text(value), at + 1)),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 't')) => value.push('\t'),
                Some((_, 'r')) => value.push('\r'),
                Some((_, c @ ('"' | '\\' | '\''))) => value.push(c),
                Some((_, other)) => return wrong(format!("unknown escape \\{other} in a string")),
                None => break,
            },
            c => value.push(c),
        }
    }
    wrong("unterminated quoted string")
}

fn number(text: &str) -> Result<(Word, usize)> {
    let end = text[1..].find(|c: char| !(c.is_ascii_digit() || c == '.')).map_or(text.len(), |end| end + 1);
    let digits = &text[..end];
    if let Ok(integer) = digits.parse() {
        return Ok((Word::Integer(integer), end));
    }
    match digits.parse() {
        Ok(float) => Ok((Word::Float(float), end)),
        Err(_) => wrong(format!("bad number syntax: {digits:?}")),
    }
}
