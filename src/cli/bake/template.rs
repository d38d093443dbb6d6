//! Variables in bake and compose files: HCL's `${NAME}` in JSON, and compose's shell forms.

use std::collections::BTreeMap;

use serde_json::Value;

use super::spec::scalar;

/// Variables of a bake file with their defaults; what the caller gives beats them.
pub struct Variables<'a> {
    pub defaults: BTreeMap<String, Value>,
    /// From the command line, else from the environment.
    pub given: &'a dyn Fn(&str) -> Option<String>,
}

/// A default may be made of other variables, and those of others.
const MAX_DEPTH: usize = 50;

impl Variables<'_> {
    /// Replaces variables in every text of a value.
    pub fn fill(&self, value: Value) -> Result<Value, String> {
        self.fill_at(value, 0)
    }

    fn fill_at(&self, value: Value, depth: usize) -> Result<Value, String> {
        Ok(match value {
            Value::String(text) => self.text(&text, depth)?,
            Value::Array(list) => {
                Value::Array(list.into_iter().map(|item| self.fill_at(item, depth)).collect::<Result<_, _>>()?)
            }
            Value::Object(object) => {
                let field = |(key, value)| Ok::<_, String>((key, self.fill_at(value, depth)?));
                Value::Object(object.into_iter().map(field).collect::<Result<_, _>>()?)
            }
            other => other,
        })
    }

    fn get_at(&self, name: &str, depth: usize) -> Result<Option<Value>, String> {
        if depth > MAX_DEPTH {
            return Err(format!("variable {name} is made of itself"));
        }
        let Some(default) = self.defaults.get(name) else { return Ok(None) };
        match (self.given)(name) {
            Some(given) => Ok(Some(Value::String(given))),
            None => self.fill_at(default.clone(), depth + 1).map(Some),
        }
    }

    /// A text that is one variable and nothing else has its type.
    fn text(&self, text: &str, depth: usize) -> Result<Value, String> {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find("${").into_iter().chain(rest.find("%{")).min() {
            let (before, from) = rest.split_at(at);
            let sign = &from[..1];
            // Doubled, the sign is a sign.
            if let Some(plain) = before.strip_suffix(sign) {
                out.push_str(plain);
                out.push_str(&from[..2]);
                rest = &from[2..];
                continue;
            }
            out.push_str(before);
            let end = from.find('}').ok_or_else(|| format!("{text:?}: a {sign}{{ is not closed"))?;
            let name = from[2..end].trim();
            let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
            if sign == "%" || !is_name {
                return Err(format!(
                    "{text:?}: {sign}{{{name}}} is an expression of HCL; only names of variables are read"
                ));
            }
            let value = self
                .get_at(name, depth)?
                .ok_or_else(|| format!("{text:?}: there is no variable {name} in the file"))?;
            rest = &from[end + 1..];
            if out.is_empty() && rest.is_empty() {
                return Ok(value);
            }
            out.push_str(&scalar(&value).ok_or_else(|| format!("{text:?}: variable {name} is no text"))?);
        }
        out.push_str(rest);
        Ok(Value::String(out))
    }
}

/// Replaces `$NAME`, `${NAME}`, `${NAME:-default}` and their like, as compose does it.
pub fn interpolate(text: &str, get: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let from = &rest[at + 1..];
        if let Some(after) = from.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(body) = from.strip_prefix('{') {
            let end = closing(body).ok_or_else(|| format!("{text:?}: a ${{ is not closed"))?;
            out.push_str(&braced(&body[..end], get)?);
            rest = &body[end + 1..];
        } else {
            let end = from.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(from.len());
            match &from[..end] {
                "" => out.push('$'),
                name => out.push_str(&get(name).unwrap_or_default()),
            }
            rest = &from[end..];
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// Where the brace closes that is open.
fn closing(body: &str) -> Option<usize> {
    let mut open = 1;
    body.char_indices().find_map(|(at, c)| {
        match c {
            '{' => open += 1,
            '}' => open -= 1,
            _ => {}
        }
        (open == 0).then_some(at)
    })
}

fn braced(body: &str, get: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let end = body.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(body.len());
    let (name, operator) = body.split_at(end);
    let value = get(name);
    let set = value.clone().filter(|value| !operator.starts_with(':') || !value.is_empty());
    let operator = operator.strip_prefix(':').unwrap_or(operator);
    match operator.chars().next() {
        None => Ok(value.unwrap_or_default()),
        Some('-') => set.map_or_else(|| interpolate(&operator[1..], get), Ok),
        Some('+') => set.map_or_else(|| Ok(String::new()), |_| interpolate(&operator[1..], get)),
        Some('?') => set.ok_or_else(|| format!("variable {name} must be set: {}", &operator[1..])),
        Some(_) => Err(format!("${{{body}}} cannot be read")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn variables_are_names_and_nothing_more() {
        let given = |name: &str| (name == "GIVEN").then(|| "env".to_owned());
        let defaults = [
            ("TAG", json!("1")),
            ("GIVEN", json!("default")),
            ("MADE", json!("v${TAG}")),
            ("FLAG", json!(true)),
            ("LOOP", json!("${LOOP}")),
        ];
        let defaults = defaults.map(|(name, value)| (name.to_owned(), value)).into();
        let variables = Variables { defaults, given: &given };
        let fill = |text: &str| variables.fill(json!(text));
        assert_eq!(fill("app:${TAG}-${GIVEN}"), Ok(json!("app:1-env")));
        assert_eq!(fill("${MADE}"), Ok(json!("v1")));
        assert_eq!(fill("${FLAG}"), Ok(json!(true)), "alone it keeps its type");
        assert_eq!(fill("$${TAG} %%{x}"), Ok(json!("${TAG} %{x}")));
        for (text, part) in [
            ("${upper(TAG)}", "is an expression of HCL"),
            ("${NOPE}", "there is no variable NOPE"),
            ("${TAG", "is not closed"),
            ("${LOOP}", "is made of itself"),
        ] {
            assert!(fill(text).unwrap_err().contains(part), "{text}");
        }
    }

    #[test]
    fn compose_reads_as_a_shell_does() {
        let get = |name: &str| match name {
            "A" => Some("a".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let cases = [
            ("$A-${A}$$", "a-a$"),
            ("${N:-x}${N-y}${EMPTY:-z}${EMPTY-w}", "xyz"),
            ("${N:-${A:-b}}", "a"),
            ("${A:+yes}${N:+no}", "yes"),
            ("100%$", "100%$"),
        ];
        for (text, expected) in cases {
            assert_eq!(interpolate(text, &get).as_deref(), Ok(expected), "{text}");
        }
        assert_eq!(interpolate("${N:?tell}", &get), Err("variable N must be set: tell".to_owned()));
        assert!(interpolate("${A", &get).is_err() && interpolate("${A!}", &get).is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[${}%A:é?+-]{0,20}") {
            let variables = Variables { defaults: BTreeMap::new(), given: &|_| None };
            let _ = (variables.fill(json!(text)), interpolate(&text, &|_| None));
        }
    }
}
