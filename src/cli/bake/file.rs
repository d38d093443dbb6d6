//! Bake files: which kind a text is, and the JSON kind.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::template::Variables;
use super::{Definition, Group, Target, compose};

/// A file that was read.
pub struct Text {
    pub name: String,
    pub text: String,
}

/// A variable of a file.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Variable {
    pub default: Value,
    pub description: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Json {
    variable: BTreeMap<String, Variable>,
    group: BTreeMap<String, Value>,
    target: BTreeMap<String, Value>,
    /// HCL only.
    function: BTreeMap<String, Value>,
}

/// Reads files one over the other. `env` is the caller's environment, `vars` what the command line says. Compose files
/// see `compose_env`, which has the `.env` file too.
pub fn read(
    files: &[Text],
    env: &dyn Fn(&str) -> Option<String>,
    compose_env: &dyn Fn(&str) -> Option<String>,
    vars: &BTreeMap<String, String>,
) -> Result<Definition, String> {
    let mut definition = Definition::default();
    let mut project = compose::Project::default();
    let mut json = Vec::new();
    for file in files {
        let at = |error: String| format!("{}: {error}", file.name);
        match kind(file).map_err(at)? {
            Kind::Json => {
                let read: Json = serde_json::from_str(&file.text).map_err(|error| at(error.to_string()))?;
                if let Some(name) = read.function.keys().next() {
                    return Err(at(format!("function {name} is an expression of HCL, which is not read here")));
                }
                definition.variables.extend(read.variable.clone());
                json.push((file, read));
            }
            Kind::Compose => project.lay_over(compose::read(&file.text, compose_env).map_err(at)?),
        }
    }
    definition.lay_over(project.definition());
    // A variable of one file may be used in another.
    let given = |name: &str| vars.get(name).cloned().or_else(|| env(name));
    let defaults = definition.variables.iter().map(|(name, variable)| (name.clone(), variable.default.clone()));
    let variables = Variables { defaults: defaults.chain(built_in()).collect(), given: &given };
    for (file, read) in json {
        let at = |what: &str, name: &str, error: String| format!("{}: {what} {name}: {error}", file.name);
        let mut layer = Definition::default();
        for (name, value) in read.group {
            let value = variables.fill(value).map_err(|error| at("group", &name, error))?;
            let group: Group = serde_json::from_value(value).map_err(|error| at("group", &name, error.to_string()))?;
            layer.groups.insert(name, group);
        }
        for (name, value) in read.target {
            let value = variables.fill(value).map_err(|error| at("target", &name, error))?;
            for key in ["matrix", "name"] {
                if value.get(key).is_some() {
                    let error = format!("{key} makes targets by expressions of HCL, which is not read here");
                    return Err(at("target", &name, error));
                }
            }
            let target: Target =
                serde_json::from_value(value).map_err(|error| at("target", &name, error.to_string()))?;
            layer.targets.insert(name, target);
        }
        definition.lay_over(layer);
    }
    Ok(definition)
}

/// What is there without being said.
fn built_in() -> [(String, Value); 2] {
    let platform = crate::base::Platform::host().to_string();
    [("BAKE_LOCAL_PLATFORM".to_owned(), platform.into()), ("BAKE_CMD_CONTEXT".to_owned(), ".".into())]
}

enum Kind {
    Json,
    Compose,
}

/// By the name; a text without one (standard input) by how it begins.
fn kind(file: &Text) -> Result<Kind, String> {
    match file.name.rsplit('.').next() {
        Some("json") => Ok(Kind::Json),
        Some("yml" | "yaml") => Ok(Kind::Compose),
        Some("hcl") => Err("it is HCL, which is not read here".to_owned()),
        _ if file.text.trim_start().starts_with('{') => Ok(Kind::Json),
        _ if file.text.lines().any(|line| line.starts_with("services:")) => Ok(Kind::Compose),
        _ => Err("it is neither JSON nor a compose file".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn one(name: &str, text: &str) -> Result<Definition, String> {
        let env = |name: &str| (name == "FROM_ENV").then(|| "env".to_owned());
        let vars = BTreeMap::from([("FROM_LINE".to_owned(), "line".to_owned())]);
        read(&[Text { name: name.to_owned(), text: text.to_owned() }], &env, &env, &vars)
    }

    #[test]
    fn variables_come_from_the_line_the_environment_or_the_file() {
        let file = json!({
            "variable": {"FROM_ENV": {"default": "x"}, "FROM_LINE": {}, "HERE": {"default": "${FROM_ENV}-y"}},
            "target": {"app": {"tags": ["a:${FROM_ENV}", "b:${FROM_LINE}", "c:${HERE}"], "platforms": "${BAKE_LOCAL_PLATFORM}"}}
        });
        let definition = one("docker-bake.json", &file.to_string()).unwrap();
        let app = &definition.targets["app"];
        assert_eq!(app.tags.as_deref(), Some(["a:env", "b:line", "c:env-y"].map(str::to_owned).as_slice()));
        assert_eq!(app.platforms.as_deref(), Some([crate::base::Platform::host().to_string()].as_slice()));
    }

    #[test]
    fn what_is_not_read_is_refused_by_name() {
        let cases = [
            ("docker-bake.hcl", "target \"x\" {}", "docker-bake.hcl: it is HCL, which is not read here"),
            ("x.json", r#"{"target": {"a": {"matrix": {"v": []}}}}"#, "x.json: target a: matrix makes targets by"),
            ("x.json", r#"{"target": {"a": {"contxt": "."}}}"#, "x.json: target a: unknown field `contxt`"),
            ("x.json", r#"{"function": {"f": {}}}"#, "x.json: function f is an expression of HCL"),
            (
                "x.json",
                r#"{"target": {"a": {"tags": "${x(1)}"}}}"#,
                "x.json: target a: \"${x(1)}\": ${x(1)} is an expression",
            ),
            ("-", "target \"x\" {}", "-: it is neither JSON nor a compose file"),
        ];
        for (name, text, part) in cases {
            let error = one(name, text).unwrap_err();
            assert!(error.starts_with(part), "{error}");
        }
    }
}
