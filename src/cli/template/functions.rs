//! Go's built-in functions and those that Docker's CLI adds.

use std::cmp::Ordering;

use serde_json::Value;

use super::{Result, show, truth, wrong};

pub fn call(name: &str, arguments: &[Value]) -> Result<Value> {
    let count = |expected: usize| {
        if arguments.len() == expected {
            Ok(())
        } else {
            wrong(format!("wrong number of args for {name}: want {expected} got {}", arguments.len()))
        }
    };
    Ok(match name {
        "json" => {
            count(1)?;
            arguments[0].to_string().into()
        }
        "len" => {
            count(1)?;
            match &arguments[0] {
                Value::String(text) => text.len().into(),
                Value::Array(items) => items.len().into(),
                Value::Object(map) => map.len().into(),
                Value::Null => 0.into(),
                other => return wrong(format!("len of type {}", show(other))),
            }
        }
        "index" => index(arguments)?,
        "slice" => slice(arguments)?,
        "join" => {
            count(2)?;
            let Value::Array(items) = &arguments[0] else { return wrong("join of what is no list") };
            items.iter().map(show).collect::<Vec<_>>().join(&text(name, &arguments[1])?).into()
        }
        "split" => {
            count(2)?;
            let (subject, separator) = (text(name, &arguments[0])?, text(name, &arguments[1])?);
            let parts: Vec<Value> = if separator.is_empty() {
                subject.chars().map(|c| c.to_string().into()).collect()
            } else {
                subject.split(&separator).map(Into::into).collect()
            };
            parts.into()
        }
        "upper" | "lower" | "title" => {
            count(1)?;
            let text = text(name, &arguments[0])?;
            match name {
                "upper" => text.to_uppercase(),
                "lower" => text.to_lowercase(),
                _ => title(&text),
            }
            .into()
        }
        "truncate" => {
            count(2)?;
            let keep = size(name, &arguments[1])?;
            text(name, &arguments[0])?.chars().take(keep).collect::<String>().into()
        }
        "pad" => {
            count(3)?;
            let text = text(name, &arguments[0])?;
            if text.is_empty() {
                return Ok(text.into());
            }
            let (before, after) = (size(name, &arguments[1])?, size(name, &arguments[2])?);
            format!("{}{text}{}", " ".repeat(before), " ".repeat(after)).into()
        }
        "print" => arguments.iter().map(show).collect::<Vec<_>>().join(" ").into(),
        "println" => (arguments.iter().map(show).collect::<Vec<_>>().join(" ") + "\n").into(),
        "printf" => printf(arguments)?.into(),
        "and" => arguments.iter().find(|v| !truth(v)).or(arguments.last()).cloned().unwrap_or(Value::Null),
        "or" => arguments.iter().find(|v| truth(v)).or(arguments.last()).cloned().unwrap_or(Value::Null),
        "not" => {
            count(1)?;
            (!truth(&arguments[0])).into()
        }
        "eq" => {
            let [first, rest @ ..] = arguments else { return wrong("missing argument for comparison") };
            if rest.is_empty() {
                return wrong("missing argument for comparison");
            }
            rest.iter().any(|other| same(first, other)).into()
        }
        "ne" => {
            count(2)?;
            (!same(&arguments[0], &arguments[1])).into()
        }
        "lt" | "le" | "gt" | "ge" => {
            count(2)?;
            let order = order(&arguments[0], &arguments[1])?;
            match name {
                "lt" => order.is_lt(),
                "le" => order.is_le(),
                "gt" => order.is_gt(),
                _ => order.is_ge(),
            }
            .into()
        }
        _ => return wrong(format!("function \"{name}\" not defined")),
    })
}

/// So wide a padding is a mistake, or an attempt to fill the memory.
const WIDEST: usize = 4096;

fn size(name: &str, value: &Value) -> Result<usize> {
    match value.as_u64().and_then(|n| usize::try_from(n).ok()) {
        Some(size) if size <= WIDEST => Ok(size),
        _ => wrong(format!("{name}: {} is no number of characters", show(value))),
    }
}

fn text(name: &str, value: &Value) -> Result<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        other => wrong(format!("{name}: expected a string, got {}", show(other))),
    }
}

fn title(text: &str) -> String {
    let mut start = true;
    text.chars()
        .flat_map(|c| {
            let upper = start;
            start = !c.is_alphanumeric();
            if upper { c.to_uppercase().collect::<Vec<_>>() } else { vec![c] }
        })
        .collect()
}

fn index(arguments: &[Value]) -> Result<Value> {
    let [subject, keys @ ..] = arguments else { return wrong("wrong number of args for index") };
    let mut value = subject.clone();
    for key in keys {
        value = match &value {
            Value::Array(items) => {
                let found = key.as_u64().and_then(|n| items.get(usize::try_from(n).ok()?));
                match found {
                    Some(item) => item.clone(),
                    None => return wrong(format!("error calling index: index out of range: {}", show(key))),
                }
            }
            // Go gives the zero value of a map's type; Docker's maps hold strings.
            Value::Object(map) => map.get(&text("index", key)?).cloned().unwrap_or_else(|| "".into()),
            Value::Null => return wrong("error calling index: index of untyped nil"),
            other => return wrong(format!("error calling index: can't index item of {}", show(other))),
        };
    }
    Ok(value)
}

fn slice(arguments: &[Value]) -> Result<Value> {
    let [subject, bounds @ ..] = arguments else { return wrong("wrong number of args for slice") };
    let length = match subject {
        Value::String(text) => text.len(),
        Value::Array(items) => items.len(),
        other => return wrong(format!("slice of {}", show(other))),
    };
    let bound = |n: usize, default: usize| match bounds.get(n) {
        None => Ok(default),
        Some(value) => match value.as_u64().and_then(|n| usize::try_from(n).ok()) {
            Some(n) if n <= length => Ok(n),
            _ => wrong(format!("error calling slice: index out of range: {}", show(value))),
        },
    };
    let (start, end) = (bound(0, 0)?, bound(1, length)?);
    if start > end {
        return wrong(format!("error calling slice: invalid slice index: {start} > {end}"));
    }
    match subject {
        Value::String(text) => match text.get(start..end) {
            Some(part) => Ok(part.into()),
            None => wrong("error calling slice: inside a character"),
        },
        Value::Array(items) => Ok(items[start..end].to_vec().into()),
        _ => Ok(Value::Null),
    }
}

fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

fn order(a: &Value, b: &Value) -> Result<Ordering> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => Ok(a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal)),
        (Value::String(a), Value::String(b)) => Ok(a.cmp(b)),
        _ => wrong("incompatible types for comparison"),
    }
}

/// `%s`, `%v`, `%d`, `%q`, `%t`, `%x`, `%%`, with a width and `-`.
fn printf(arguments: &[Value]) -> Result<String> {
    let [format, rest @ ..] = arguments else { return wrong("wrong number of args for printf") };
    let format = text("printf", format)?;
    let mut out = String::new();
    let mut values = rest.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let left = chars.next_if_eq(&'-').is_some();
        let mut digits = String::new();
        while let Some(digit) = chars.next_if(char::is_ascii_digit) {
            digits.push(digit);
        }
        let width = match digits.as_str() {
            "" => 0,
            digits => digits.parse().ok().filter(|w| *w <= WIDEST).map_or_else(|| wrong("printf: too wide"), Ok)?,
        };
        let verb = chars.next();
        if verb == Some('%') {
            out.push('%');
            continue;
        }
        let Some(value) = values.next() else {
            out.push_str(&format!("%!{}(MISSING)", verb.unwrap_or(' ')));
            continue;
        };
        let shown = match verb {
            Some('s' | 'v' | 'd' | 't') => show(value),
            Some('q') => format!("{:?}", show(value)),
            Some('x') => match value.as_i64() {
                Some(number) => format!("{number:x}"),
                None => hex::encode(show(value)),
            },
            other => return wrong(format!("printf: %{} is not supported", other.unwrap_or(' '))),
        };
        if left {
            out.push_str(&format!("{shown:<width$}"));
        } else {
            out.push_str(&format!("{shown:>width$}"));
        }
    }
    Ok(out)
}
