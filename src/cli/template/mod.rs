//! The part of Go's text/template that `--format` is used with: fields, pipelines, `range`, `if`, `with`, variables,
//! and Docker's functions, over JSON values.

mod eval;
mod functions;
mod lex;
mod parse;

use serde_json::Value;

pub use eval::Template;

/// Why a template is refused, in words that follow "template parsing error:".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("template parsing error: {0}")]
pub struct Error(pub String);

pub type Result<T> = std::result::Result<T, Error>;

fn wrong<T>(message: impl Into<String>) -> Result<T> {
    Err(Error(message.into()))
}

/// A value as Go's `{{.}}` prints it: a map as `map[a:1 b:2]`, a list as `[a b]`.
pub fn show(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let mut pairs: Vec<_> = map.iter().collect();
            pairs.sort_by_key(|(key, _)| *key);
            format!("map[{}]", pairs.iter().map(|(k, v)| format!("{k}:{}", show(v))).collect::<Vec<_>>().join(" "))
        }
        other => other.to_string(),
    }
}

/// What `if` and `and` take for true: all but false, zero, and what is empty.
fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn run(template: &str) -> std::result::Result<String, String> {
        let value = json!({
            "Id": "sha256:abc",
            "RepoTags": ["app:1", "app:2"],
            "RepoDigests": [],
            "Size": 42,
            "Config": {"Env": ["A=1", "B=2"], "User": "", "Labels": {"b": "2", "a": "<1>"}, "Cmd": null},
        });
        Template::parse(template).and_then(|t| t.execute(&value)).map_err(|e| e.to_string())
    }

    #[test]
    fn gives_what_go_gives() {
        let cases = [
            ("{{.Id}}", "sha256:abc"),
            ("{{ .Config.Env }}", "[A=1 B=2]"),
            ("{{.Config.Labels}}", "map[a:<1> b:2]"),
            ("{{json .Config.Labels}}", "{\"a\":\"<1>\",\"b\":\"2\"}"),
            ("{{json .}}x", ""),
            ("{{index .RepoTags 0}}", "app:1"),
            ("{{index .Config.Labels \"a\"}}", "<1>"),
            ("{{index .Config.Labels \"zz\"}}", ""),
            ("{{range .Config.Env}}{{.}};{{end}}", "A=1;B=2;"),
            ("{{range $i, $e := .RepoTags}}{{$i}}={{$e}} {{end}}", "0=app:1 1=app:2 "),
            ("{{range $k, $v := .Config.Labels}}{{$k}}={{$v}} {{end}}", "a=<1> b=2 "),
            ("{{range .RepoDigests}}x{{else}}none{{end}}", "none"),
            ("{{if .Config.User}}{{.Config.User}}{{else}}root{{end}}", "root"),
            ("{{if .Config.User}}a{{else if .Size}}b{{end}}", "b"),
            ("{{with .Config}}{{index .Env 1}}{{end}}", "B=2"),
            ("{{len .RepoTags}}", "2"),
            ("{{.RepoTags | len}}", "2"),
            ("{{join .RepoTags \",\"}}", "app:1,app:2"),
            ("{{index (split .Id \":\") 1}}", "abc"),
            ("{{upper .Id}} {{lower \"ABC\"}} {{title \"abc\"}}", "SHA256:ABC abc Abc"),
            ("{{printf \"%s-%d-%v-%q\" .Id .Size .RepoTags \"x\"}}", "sha256:abc-42-[app:1 app:2]-\"x\""),
            ("{{println .Size}}", "42\n"),
            ("{{eq .Size 42}} {{ne .Id \"x\"}} {{gt .Size 1}} {{le .Size 1}}", "true true true false"),
            ("{{and .Id .Config.User}}|{{or .Config.User \"d\"}}|{{not .Id}}", "|d|false"),
            ("{{$x := .Id}}{{$x}}", "sha256:abc"),
            ("{{range .RepoTags}}{{$.Size}}{{end}}", "4242"),
            ("a {{- \" b \" -}} c", "a b c"),
            ("{{/* nothing */}}x", "x"),
            ("{{truncate .Id 6}}", "sha256"),
            ("{{pad \"x\" 1 2}}", " x  "),
            ("{{slice .Id 7 10}}", "abc"),
            ("{{.Config.Cmd}}", "<nil>"),
            ("{{`raw \\n`}}{{\"a\\tb\"}}", "raw \\na\tb"),
            ("{{break_is_text}}", ""),
        ];
        for (template, expected) in cases {
            match template {
                "{{json .}}x" => assert!(run(template).unwrap().starts_with("{\"Config\":")),
                "{{break_is_text}}" => {
                    assert!(run(template).unwrap_err().contains("function \"break_is_text\" not defined"))
                }
                _ => assert_eq!(run(template).as_deref(), Ok(expected), "{template}"),
            }
        }
    }

    #[test]
    fn refuses_as_docker_does() {
        let cases = [
            ("{{.Nope}}", "map has no entry for key \"Nope\""),
            ("{{.Id", "unclosed action"),
            ("{{if .Id}}", "unexpected EOF"),
            ("{{end}}", "unexpected {{end}}"),
            ("{{.Id.X}}", "can't evaluate field X"),
            ("{{index .RepoDigests 0}}", "index out of range: 0"),
            ("{{$y}}", "undefined variable \"$y\""),
            ("{{range .Size}}x{{end}}", "range can't iterate over 42"),
        ];
        for (template, words) in cases {
            let error = run(template).unwrap_err();
            assert!(error.starts_with("template parsing error: ") && error.contains(words), "{template}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_template_panics(text in "(\\{\\{|\\}\\}|[.$ a-z\"|()-]|range|if|end|printf|index|slice|pad|[0-9]){0,24}") {
            let _ = run(&text);
        }
    }
}
