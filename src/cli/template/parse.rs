//! Pieces into a tree.

use super::lex::{Piece, Word};
use super::{Result, wrong};

#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    Text(String),
    Show(Pipeline),
    If { condition: Pipeline, then: Vec<Node>, otherwise: Vec<Node> },
    With { value: Pipeline, then: Vec<Node>, otherwise: Vec<Node> },
    Range { over: Pipeline, body: Vec<Node>, otherwise: Vec<Node> },
}

/// Commands joined by `|`, their result given to variables.
#[derive(Debug, Clone, PartialEq)]
pub struct Pipeline {
    /// `$x :=`; `range` has up to two.
    pub variables: Vec<String>,
    /// Each command is its operands, the first of which may be a function.
    pub commands: Vec<Vec<Operand>>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    Field(Vec<String>),
    Variable(String, Vec<String>),
    Function(String),
    Value(serde_json::Value),
    Group(Pipeline, Vec<String>),
}

/// More of it is no template that a person wrote.
const DEPTH: usize = 64;

pub fn parse(pieces: Vec<Piece>) -> Result<Vec<Node>> {
    let mut parser = Parser { pieces: pieces.into_iter(), depth: 0 };
    let (nodes, end) = parser.block()?;
    match end {
        End::Eof => Ok(nodes),
        End::Block => wrong("unexpected {{end}}"),
        End::Else(_) => wrong("unexpected {{else}}"),
    }
}

struct Parser {
    pieces: std::vec::IntoIter<Piece>,
    depth: usize,
}

enum End {
    Eof,
    Block,
    /// With the words after `else`: `if …`, or nothing.
    Else(Vec<Word>),
}

impl Parser {
    fn block(&mut self) -> Result<(Vec<Node>, End)> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let words = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action(words) => words,
            };
            match words.first() {
                None => return wrong("missing value for command"),
                Some(Word::Name(name)) => match name.as_str() {
                    "end" => return Ok((nodes, End::Block)),
                    "else" => return Ok((nodes, End::Else(words[1..].to_vec()))),
                    "if" | "with" | "range" => nodes.push(self.control(name, &words[1..])?),
                    "define" | "template" | "block" | "break" | "continue" => {
                        return wrong(format!("{{{{{name}}}}} is not supported"));
                    }
                    _ => nodes.push(Node::Show(pipeline(&words)?)),
                },
                Some(_) => nodes.push(Node::Show(pipeline(&words)?)),
            }
        }
        Ok((nodes, End::Eof))
    }

    fn control(&mut self, keyword: &str, words: &[Word]) -> Result<Node> {
        self.depth += 1;
        if self.depth > DEPTH {
            return wrong("nested too deeply");
        }
        let subject = pipeline(words)?;
        let (then, end) = self.block()?;
        let otherwise = match end {
            End::Eof => return wrong(format!("unexpected EOF in {{{{{keyword}}}}}")),
            End::Block => Vec::new(),
            End::Else(more) => match more.first() {
                None => match self.block()? {
                    (nodes, End::Block) => nodes,
                    (_, End::Eof) => return wrong(format!("unexpected EOF in {{{{{keyword}}}}}")),
                    (_, End::Else(_)) => return wrong("unexpected {{else}}"),
                },
                // `else if` is an if inside, closed by the same end.
                Some(Word::Name(inner)) if inner == "if" || inner == "with" => {
                    vec![self.control(inner, &more[1..])?]
                }
                Some(_) => return wrong("unexpected words after {{else"),
            },
        };
        self.depth -= 1;
        Ok(match keyword {
            "if" => Node::If { condition: subject, then, otherwise },
            "with" => Node::With { value: subject, then, otherwise },
            _ => Node::Range { over: subject, body: then, otherwise },
        })
    }
}

fn pipeline(words: &[Word]) -> Result<Pipeline> {
    let mut at = 0;
    let pipeline = nested(words, &mut at, 0)?;
    if at < words.len() {
        return wrong("unexpected )");
    }
    Ok(pipeline)
}

/// Reads to the end, or to the bracket that closes this one.
fn nested(words: &[Word], at: &mut usize, depth: usize) -> Result<Pipeline> {
    if depth > DEPTH {
        return wrong("nested too deeply");
    }
    let variables = assigned(words, at)?;
    let mut commands = vec![Vec::new()];
    while let Some(word) = words.get(*at) {
        if matches!(word, Word::Close(_)) {
            break;
        }
        *at += 1;
        let operand = match word {
            Word::Pipe => {
                commands.push(Vec::new());
                continue;
            }
            Word::Open => {
                let inner = nested(words, at, depth + 1)?;
                let Some(Word::Close(fields)) = words.get(*at) else { return wrong("unclosed left paren") };
                *at += 1;
                Operand::Group(inner, fields.clone())
            }
            Word::Field(names) => Operand::Field(names.clone()),
            Word::Variable(name, names) => Operand::Variable(name.clone(), names.clone()),
            Word::Name(name) => match name.as_str() {
                "true" => Operand::Value(true.into()),
                "false" => Operand::Value(false.into()),
                "nil" => Operand::Value(serde_json::Value::Null),
                _ => Operand::Function(name.clone()),
            },
            Word::Text(text) => Operand::Value(text.clone().into()),
            Word::Integer(number) => Operand::Value((*number).into()),
            Word::Float(number) => Operand::Value((*number).into()),
            Word::Comma | Word::Assign => return wrong("unexpected , or = in a command"),
            Word::Close(_) => unreachable!("left the loop above"),
        };
        if let Some(command) = commands.last_mut() {
            command.push(operand);
        }
    }
    if commands.iter().any(Vec::is_empty) {
        return wrong("missing value for command");
    }
    Ok(Pipeline { variables, commands })
}

/// `$x :=` or `$i, $x :=` at the beginning.
fn assigned(words: &[Word], at: &mut usize) -> Result<Vec<String>> {
    let name = |word: Option<&Word>| match word {
        Some(Word::Variable(name, fields)) if fields.is_empty() && !name.is_empty() => Some(name.clone()),
        _ => None,
    };
    let rest = &words[*at..];
    let Some(first) = name(rest.first()) else { return Ok(Vec::new()) };
    match rest.get(1) {
        Some(Word::Assign) => {
            *at += 2;
            Ok(vec![first])
        }
        Some(Word::Comma) => match (name(rest.get(2)), rest.get(3)) {
            (Some(second), Some(Word::Assign)) => {
                *at += 4;
                Ok(vec![first, second])
            }
            _ => wrong("expected a second variable and :="),
        },
        _ => Ok(Vec::new()),
    }
}
