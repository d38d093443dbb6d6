//! `buildx bake`: targets and groups of a file (JSON, or the build sections of a compose file), each a build of its own.

pub mod compose;
pub mod dotenv;
mod file;
mod overrides;
pub mod schedule;
mod spec;
mod target;
mod template;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

pub use file::{Text, Variable, read};
pub use overrides::Override;
pub use target::Target;
pub use words::words;

/// What files say together.
#[derive(Debug, Default)]
pub struct Definition {
    pub groups: BTreeMap<String, Group>,
    pub targets: BTreeMap<String, Target>,
    pub variables: BTreeMap<String, Variable>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(default)]
    pub targets: Vec<String>,
}

/// What is to be built: each target complete, in the order in which they need each other.
#[derive(Debug)]
pub struct Plan {
    pub groups: BTreeMap<String, Group>,
    pub targets: Vec<Planned>,
}

#[derive(Debug)]
pub struct Planned {
    pub name: String,
    pub target: Target,
    /// Not asked for, but another takes its result as a context.
    pub only_linked: bool,
    /// Another takes its result as a context.
    pub linked: bool,
}

impl Definition {
    /// Lays a further file over this.
    pub fn lay_over(&mut self, other: Self) {
        for (name, group) in other.groups {
            let own = self.groups.entry(name).or_default();
            own.description = group.description.or_else(|| own.description.take());
            for target in group.targets {
                if !own.targets.contains(&target) {
                    own.targets.push(target);
                }
            }
        }
        for (name, target) in other.targets {
            self.targets.entry(name).or_default().lay_over(target);
        }
        self.variables.extend(other.variables);
    }

    /// Completes what the names mean: groups and patterns to targets, what they inherit, what overrides change, and
    /// the targets that they take results of.
    pub fn plan(&self, names: &[String], overrides: &[Override]) -> Result<Plan, String> {
        let mut asked = Vec::new();
        let mut groups = BTreeMap::new();
        let mut top = Vec::new();
        for name in names {
            for name in self.matching(name)? {
                self.expand(&name, &mut asked, &mut groups, &mut Vec::new())?;
                top.push(name);
            }
        }
        // What is built is the default of what is printed.
        let has_default = groups.contains_key("default");
        let default = groups.entry("default".to_owned()).or_default();
        default.targets.extend(top.into_iter().filter(|name| !(has_default && name == "default")));
        default.targets.sort();
        default.targets.dedup();
        let mut plan = Plan { groups, targets: Vec::new() };
        for name in &asked {
            self.add(name, &asked, overrides, &mut plan.targets, &mut Vec::new())?;
        }
        Ok(plan)
    }

    /// A name as it is, or what a pattern fits.
    fn matching(&self, name: &str) -> Result<Vec<String>, String> {
        let all: BTreeSet<&String> = self.groups.keys().chain(self.targets.keys()).collect();
        if !name.contains(['*', '?', '[']) {
            return Ok(vec![name.to_owned()]);
        }
        let found: Vec<String> = all.into_iter().filter(|known| overrides::fits(name, known)).cloned().collect();
        if found.is_empty() { Err(format!("could not find any target matching '{name}'")) } else { Ok(found) }
    }

    fn expand(
        &self,
        name: &str,
        targets: &mut Vec<String>,
        groups: &mut BTreeMap<String, Group>,
        open: &mut Vec<String>,
    ) -> Result<(), String> {
        let Some(group) = self.groups.get(name) else {
            if !self.targets.contains_key(name) {
                let known: Vec<&str> = self.targets.keys().map(String::as_str).collect();
                return Err(format!("failed to find target {name} (there are {})", known.join(", ")));
            }
            if !targets.iter().any(|known| known == name) {
                targets.push(name.to_owned());
            }
            return Ok(());
        };
        if open.iter().any(|known| known == name) {
            return Ok(());
        }
        open.push(name.to_owned());
        groups.insert(name.to_owned(), group.clone());
        for member in &group.targets {
            self.expand(member, targets, groups, open)?;
        }
        Ok(())
    }

    /// A target with what it inherits and what overrides change.
    fn resolve(&self, name: &str, overrides: &[Override], open: &mut Vec<String>) -> Result<Target, String> {
        let Some(own) = self.targets.get(name) else { return Err(format!("failed to find target {name}")) };
        if open.iter().any(|known| known == name) {
            return Err(format!("target {name} inherits from itself"));
        }
        open.push(name.to_owned());
        let mut target = Target::default();
        for base in &own.inherits {
            target.lay_over(self.resolve(base, overrides, open)?);
        }
        open.pop();
        target.lay_over(own.clone());
        let mut changed = BTreeSet::new();
        for change in overrides.iter().filter(|change| change.is_for(name)) {
            change.apply(&mut target, !changed.insert(change.key()))?;
        }
        target.contexts.retain(|_, value| value.as_ref().is_some_and(|value| !value.is_empty()));
        Ok(target)
    }

    fn add(
        &self,
        name: &str,
        asked: &[String],
        overrides: &[Override],
        plan: &mut Vec<Planned>,
        open: &mut Vec<String>,
    ) -> Result<(), String> {
        if open.iter().any(|known| known == name) {
            return Err(format!("infinite loop from {} to {name}", open.join(" to ")));
        }
        if plan.iter().any(|planned| planned.name == name) {
            return Ok(());
        }
        let mut target = self.resolve(name, overrides, &mut Vec::new())?;
        target.inherits.clear();
        target.context.get_or_insert_with(|| ".".to_owned());
        target.dockerfile = target.dockerfile.filter(|file| !file.is_empty()).or_else(|| Some("Dockerfile".to_owned()));
        open.push(name.to_owned());
        for link in target.links().map(str::to_owned).collect::<Vec<_>>() {
            self.add(&link, asked, overrides, plan, open)?;
            if let Some(planned) = plan.iter_mut().find(|planned| planned.name == link) {
                planned.linked = true;
            }
        }
        open.pop();
        let only_linked = !asked.iter().any(|known| known == name);
        if only_linked {
            target.output = Some(vec![spec::Spec::of(&[("type", "cacheonly")])]);
        }
        plan.push(Planned { name: name.to_owned(), target, only_linked, linked: false });
        Ok(())
    }
}

impl Plan {
    /// As `--print` shows it: a bake file that says the same.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        #[derive(Serialize)]
        struct Printed<'a> {
            group: &'a BTreeMap<String, Group>,
            target: BTreeMap<&'a str, &'a Target>,
        }
        let target = self.targets.iter().map(|planned| (planned.name.as_str(), &planned.target)).collect();
        let text = serde_json::to_string_pretty(&Printed { group: &self.groups, target })?;
        // What is a text here must not become a variable when it is read again.
        Ok(text.replace("${", "$${").replace("%{", "%%{"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(json: &str) -> Definition {
        let text = Text { name: "docker-bake.json".to_owned(), text: json.to_owned() };
        read(&[text], &|_| None, &|_| None, &BTreeMap::new()).unwrap()
    }

    fn strings(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn printed(json: &str, names: &[&str], sets: &[&str]) -> serde_json::Value {
        let overrides: Vec<Override> = sets.iter().map(|set| Override::parse(set, &|_| None).unwrap()).collect();
        let plan = definition(json).plan(&strings(names), &overrides).unwrap();
        serde_json::from_str(&plan.to_json().unwrap()).unwrap()
    }

    const FILE: &str = r#"{
        "group": {"default": {"targets": ["app", "all"]}, "all": {"targets": ["tools"]}},
        "target": {
            "base": {"args": {"A": "1", "B": "2"}, "tags": ["base:1"], "platforms": ["linux/amd64"]},
            "app": {"inherits": ["base"], "args": {"B": 3}, "context": "app", "contexts": {"lib": "target:lib"}},
            "tools": {"dockerfile-inline": "FROM scratch"},
            "lib": {"tags": ["lib:1"]}
        }
    }"#;

    #[test]
    fn targets_are_completed_and_put_in_order() {
        let plan = definition(FILE).plan(&strings(&["default"]), &[]).unwrap();
        let order: Vec<(&str, bool, bool)> =
            plan.targets.iter().map(|p| (p.name.as_str(), p.only_linked, p.linked)).collect();
        assert_eq!(order, [("lib", true, true), ("app", false, false), ("tools", false, false)]);
        let value = printed(FILE, &["default"], &[]);
        assert_eq!(value["group"]["default"]["targets"], serde_json::json!(["all", "app"]));
        assert_eq!(
            value["target"]["app"],
            serde_json::json!({
                "context": "app", "contexts": {"lib": "target:lib"}, "dockerfile": "Dockerfile",
                "args": {"A": "1", "B": "3"}, "tags": ["base:1"], "platforms": ["linux/amd64"]
            })
        );
        assert_eq!(value["target"]["lib"]["output"], serde_json::json!([{"type": "cacheonly"}]));
    }

    #[test]
    fn overrides_beat_the_file() {
        let sets = [
            "*.platform=linux/arm64",
            "*.platform=linux/s390x",
            "app.args.A=x",
            "app.tags+=more:1",
            "tools.no-cache=true",
            "app.push=true",
        ];
        let value = printed(FILE, &["default"], &sets);
        assert_eq!(value["target"]["app"]["platforms"], serde_json::json!(["linux/arm64", "linux/s390x"]));
        assert_eq!(value["target"]["app"]["args"]["A"], "x");
        assert_eq!(value["target"]["app"]["tags"], serde_json::json!(["base:1", "more:1"]));
        assert_eq!(value["target"]["app"]["output"], serde_json::json!([{"push": "true", "type": "image"}]));
        assert_eq!(value["target"]["tools"]["no-cache"], true);
    }

    #[test]
    fn names_are_groups_targets_or_patterns() {
        let value = printed(FILE, &["t*"], &[]);
        assert_eq!(value["target"].as_object().unwrap().keys().collect::<Vec<_>>(), ["tools"]);
        let plan = |names: &[&str]| definition(FILE).plan(&strings(names), &[]).map(drop);
        assert_eq!(plan(&["nope"]), Err("failed to find target nope (there are app, base, lib, tools)".to_owned()));
        assert_eq!(plan(&["x*"]), Err("could not find any target matching 'x*'".to_owned()));
        let circle = r#"{"target": {"a": {"contexts": {"x": "target:b"}}, "b": {"contexts": {"x": "target:a"}}}}"#;
        assert_eq!(
            definition(circle).plan(&strings(&["a"]), &[]).map(drop),
            Err("infinite loop from a to b to a".to_owned())
        );
    }
}
