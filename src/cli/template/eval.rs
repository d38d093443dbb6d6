//! Runs a template over a value.

use serde_json::Value;

use super::parse::{Node, Operand, Pipeline, parse};
use super::{Result, functions, lex, show, truth, wrong};

/// A parsed template.
#[derive(Debug, Clone, PartialEq)]
pub struct Template(Vec<Node>);

impl Template {
    pub fn parse(text: &str) -> Result<Self> {
        Ok(Self(parse(lex::pieces(text)?)?))
    }

    pub fn execute(&self, value: &Value) -> Result<String> {
        let mut run = Run { root: value, variables: Vec::new(), out: String::new() };
        run.nodes(&self.0, value)?;
        Ok(run.out)
    }
}

struct Run<'a> {
    root: &'a Value,
    variables: Vec<(String, Value)>,
    out: String,
}

impl Run<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<()> {
        let scope = self.variables.len();
        for node in nodes {
            match node {
                Node::Text(text) => self.out.push_str(text),
                Node::Show(pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    match &pipeline.variables[..] {
                        [name] => self.variables.push((name.clone(), value)),
                        _ => self.out.push_str(&show(&value)),
                    }
                }
                Node::If { condition, then, otherwise } => {
                    let value = self.pipeline(condition, dot)?;
                    self.nodes(if truth(&value) { then } else { otherwise }, dot)?;
                }
                Node::With { value, then, otherwise } => {
                    let inner = self.pipeline(value, dot)?;
                    if truth(&inner) {
                        let scope = self.variables.len();
                        self.variables.extend(value.variables.first().map(|name| (name.clone(), inner.clone())));
                        self.nodes(then, &inner)?;
                        self.variables.truncate(scope);
                    } else {
                        self.nodes(otherwise, dot)?;
                    }
                }
                Node::Range { over, body, otherwise } => self.range(over, body, otherwise, dot)?,
            }
        }
        self.variables.truncate(scope);
        Ok(())
    }

    fn range(&mut self, over: &Pipeline, body: &[Node], otherwise: &[Node], dot: &Value) -> Result<()> {
        let items: Vec<(Value, Value)> = match self.pipeline(over, dot)? {
            Value::Array(items) => items.into_iter().enumerate().map(|(n, item)| (n.into(), item)).collect(),
            Value::Object(map) => {
                let mut items: Vec<_> = map.into_iter().collect();
                items.sort_by(|a, b| a.0.cmp(&b.0));
                items.into_iter().map(|(key, item)| (key.into(), item)).collect()
            }
            Value::Null => Vec::new(),
            other => return wrong(format!("range can't iterate over {}", show(&other))),
        };
        if items.is_empty() {
            return self.nodes(otherwise, dot);
        }
        for (key, item) in items {
            let scope = self.variables.len();
            match &over.variables[..] {
                [] => {}
                [name] => self.variables.push((name.clone(), item.clone())),
                [first, second, ..] => {
                    self.variables.push((first.clone(), key));
                    self.variables.push((second.clone(), item.clone()));
                }
            }
            self.nodes(body, &item)?;
            self.variables.truncate(scope);
        }
        Ok(())
    }

    fn pipeline(&self, pipeline: &Pipeline, dot: &Value) -> Result<Value> {
        let mut piped = None;
        for command in &pipeline.commands {
            piped = Some(self.command(command, piped, dot)?);
        }
        Ok(piped.unwrap_or(Value::Null))
    }

    fn command(&self, operands: &[Operand], piped: Option<Value>, dot: &Value) -> Result<Value> {
        let Some((first, rest)) = operands.split_first() else { return wrong("missing value for command") };
        if let Operand::Function(name) = first {
            let mut arguments = rest.iter().map(|operand| self.operand(operand, dot)).collect::<Result<Vec<_>>>()?;
            arguments.extend(piped);
            return functions::call(name, &arguments);
        }
        if !rest.is_empty() || piped.is_some() {
            return wrong("can't give argument to non-function");
        }
        self.operand(first, dot)
    }

    fn operand(&self, operand: &Operand, dot: &Value) -> Result<Value> {
        match operand {
            Operand::Field(names) => fields(dot, names),
            Operand::Variable(name, names) if name.is_empty() => fields(self.root, names),
            Operand::Variable(name, names) => match self.variables.iter().rev().find(|(known, _)| known == name) {
                Some((_, value)) => fields(value, names),
                None => wrong(format!("undefined variable \"${name}\"")),
            },
            Operand::Function(name) => functions::call(name, &[]),
            Operand::Value(value) => Ok(value.clone()),
            Operand::Group(pipeline, names) => fields(&self.pipeline(pipeline, dot)?, names),
        }
    }
}

fn fields(value: &Value, names: &[String]) -> Result<Value> {
    let mut value = value;
    for name in names {
        value = match value {
            Value::Object(map) => match map.get(name) {
                Some(field) => field,
                None => return wrong(format!("map has no entry for key \"{name}\"")),
            },
            Value::Null => return wrong(format!("nil data; no entry for key \"{name}\"")),
            other => return wrong(format!("can't evaluate field {name} in {}", show(other))),
        };
    }
    Ok(value.clone())
}
