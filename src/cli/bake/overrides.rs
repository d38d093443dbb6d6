//! `--set target.key=value`: what the command line changes in targets.

use super::spec::{Kind, Output, Spec};
use super::target::Target;
use crate::base::patterns::glob;

/// One change of the targets that a pattern fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    pattern: String,
    key: String,
    /// `args.NAME`
    name: Option<String>,
    value: String,
    /// `+=`
    append: bool,
}

/// Keys with a name of their own.
const NAMED: [&str; 5] = ["args", "labels", "contexts", "extra-hosts", "secret"];

const KEYS: [&str; 26] = [
    "annotations",
    "args",
    "attest",
    "cache-from",
    "cache-to",
    "call",
    "context",
    "contexts",
    "dockerfile",
    "entitlements",
    "extra-hosts",
    "labels",
    "load",
    "network",
    "no-cache",
    "no-cache-filter",
    "output",
    "platform",
    "pull",
    "push",
    "secret",
    "secrets",
    "shm-size",
    "ssh",
    "tags",
    "target",
];

impl Override {
    pub fn parse(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, String> {
        let (left, value) = match text.split_once('=') {
            Some((left, value)) => (left, Some(value.to_owned())),
            None => (text, None),
        };
        let (left, append) = match left.strip_suffix('+') {
            Some(left) => (left, true),
            None => (left, false),
        };
        let mut parts = left.splitn(3, '.');
        let (Some(pattern), Some(key)) = (parts.next(), parts.next()) else {
            return Err(format!("invalid override key {left}, expected target.name"));
        };
        let name = parts.next().map(str::to_owned);
        if !KEYS.contains(&key) && key != "ulimits" {
            return Err(format!("unknown key: {key} (there are {}, ulimits)", KEYS.join(", ")));
        }
        if NAMED.contains(&key) != name.is_some() {
            return Err(match name {
                Some(_) => format!("invalid key {left}: {key} takes no name"),
                None => format!("invalid key {left}, {key} requires name"),
            });
        }
        let value = match (value, &name) {
            (Some(value), _) => value,
            (None, Some(name)) if key == "args" => env(name).unwrap_or_default(),
            (None, _) => return Err(format!("invalid override {text}, expected target.name=value")),
        };
        Ok(Self { pattern: pattern.to_owned(), key: key.to_owned(), name, value, append })
    }

    /// For every target.
    pub fn all(key: &str, value: &str) -> Self {
        Self { pattern: "*".to_owned(), key: key.to_owned(), name: None, value: value.to_owned(), append: false }
    }

    pub fn is_for(&self, target: &str) -> bool {
        fits(&self.pattern, target)
    }

    /// What several of these have in common that add up instead of replacing each other.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// `again`: another change of the same key came before.
    pub fn apply(&self, target: &mut Target, again: bool) -> Result<(), String> {
        let value = || self.value.clone();
        let switch = || match self.value.as_str() {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            other => Err(format!("invalid value {other} for boolean key {}", self.key)),
        };
        let name = self.name.clone().unwrap_or_default();
        match self.key.as_str() {
            "context" => target.context = Some(value()),
            "dockerfile" => target.dockerfile = Some(value()),
            "target" => target.target = Some(value()),
            "call" => target.call = Some(value()),
            "network" => target.network = Some(value()),
            "shm-size" => target.shm_size = Some(value()),
            "args" => drop(target.args.insert(name, Some(value()))),
            "labels" => drop(target.labels.insert(name, Some(value()))),
            "contexts" => drop(target.contexts.insert(name, Some(value()))),
            "extra-hosts" => drop(target.extra_hosts.insert(name, Some(value()))),
            "pull" => target.pull = Some(switch()?),
            "no-cache" => target.no_cache = Some(switch()?),
            "tags" => self.texts(target.tags.get_or_insert_default(), again),
            "platform" => self.texts(target.platforms.get_or_insert_default(), again),
            "no-cache-filter" => self.texts(&mut target.no_cache_filter, again),
            "ulimits" => self.texts(&mut target.ulimits, again),
            "annotations" => target.annotations.push(value()),
            "entitlements" => target.entitlements.push(value()),
            "output" => self.specs(target.output.get_or_insert_default(), again)?,
            "cache-from" => self.specs(&mut target.cache_from, again)?,
            "cache-to" => self.specs(target.cache_to.get_or_insert_default(), again)?,
            "secrets" => self.specs(&mut target.secret, again)?,
            "ssh" => self.specs(&mut target.ssh, again)?,
            "attest" => target.attest.push(self.spec()?),
            "secret" => {
                let spec = match self.value.contains('=') {
                    true => Spec::parse(&format!("id={name},{}", self.value))?,
                    false => Spec::of(&[("id", &name), ("src", &self.value)]),
                };
                target.secret.retain(|known| known.get("id") != name);
                target.secret.push(spec);
            }
            "push" => push(target.output.get_or_insert_default(), switch()?),
            _ => load(target.output.get_or_insert_default(), switch()?),
        }
        Ok(())
    }

    /// The first of several `--set` of a key takes the place of what the file says; the others follow it.
    fn texts(&self, list: &mut Vec<String>, again: bool) {
        if !self.append && !again {
            list.clear();
        }
        if !list.contains(&self.value) {
            list.push(self.value.clone());
        }
    }

    fn specs<K: Kind>(&self, list: &mut Vec<Spec<K>>, again: bool) -> Result<(), String> {
        if !self.append && !again {
            list.clear();
        }
        list.push(self.spec()?);
        Ok(())
    }

    fn spec<K: Kind>(&self) -> Result<Spec<K>, String> {
        Spec::parse(&self.value).map_err(|error| format!("invalid value for {}: {error}", self.key))
    }
}

/// Whether a name fits a pattern, as Go's `path.Match` has it.
pub fn fits(pattern: &str, name: &str) -> bool {
    pattern == name || glob::matches(pattern, name).unwrap_or(false)
}

fn push(outputs: &mut Vec<Spec<Output>>, on: bool) {
    let is_image = |output: &Spec<Output>| matches!(output.get("type"), "image" | "registry");
    if !on {
        outputs.retain(|output| output.get("type") != "registry");
        outputs
            .iter_mut()
            .filter(|output| output.get("type") == "image")
            .for_each(|output| output.set("push", "false"));
    } else if outputs.iter().any(is_image) {
        outputs.iter_mut().filter(|output| output.get("type") == "image").for_each(|output| output.set("push", "true"));
    } else {
        outputs.push(Spec::of(&[("type", "image"), ("push", "true")]));
    }
}

fn load(outputs: &mut Vec<Spec<Output>>, on: bool) {
    let is_load = |output: &Spec<Output>| output.get("type") == "docker" && output.get("dest").is_empty();
    match on {
        true if outputs.iter().any(is_load) => {}
        true => outputs.push(Spec::of(&[("type", "docker")])),
        false => outputs.retain(|output| !is_load(output)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let parse = |text: &str| Override::parse(text, &|_| None).map(drop);
        for (text, part) in [
            ("app", "invalid override key app"),
            ("app.nope=1", "unknown key: nope"),
            ("app.args=1", "args requires name"),
            ("app.tags.x=1", "tags takes no name"),
            ("app.tags", "expected target.name=value"),
        ] {
            assert!(parse(text).unwrap_err().contains(part), "{text}");
        }
        assert!(parse("app.args.X").is_ok(), "an argument alone is the variable of its name");
        let wrong = Override::parse("a.pull=perhaps", &|_| None).unwrap();
        assert!(wrong.apply(&mut Target::default(), false).unwrap_err().contains("boolean key pull"));
    }

    #[test]
    fn secrets_and_outputs_are_changed_one_by_one() {
        let mut target = Target::default();
        for text in ["a.secret.token=./file", "a.secret.token=env=TOKEN", "a.load=true", "a.push=true", "a.push=false"]
        {
            Override::parse(text, &|_| None).unwrap().apply(&mut target, false).unwrap();
        }
        assert_eq!(target.secret, [Spec::of(&[("id", "token"), ("env", "TOKEN")])]);
        let outputs: Vec<String> = target.output.unwrap().iter().map(Spec::to_word).collect();
        assert_eq!(outputs, ["type=docker", "push=false,type=image"]);
    }
}
