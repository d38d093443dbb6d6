//! One target of a bake file: what can be said of it, and how one saying goes over another.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;

use super::spec::{Attest, Cache, Output, Secret, Spec, Ssh, scalar};

/// In the order in which buildx prints it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Target {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "many")]
    pub inherits: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "many")]
    pub annotations: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "many")]
    pub attest: Vec<Spec<Attest>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "texts")]
    pub contexts: Texts,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dockerfile: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dockerfile_inline: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "texts")]
    pub args: Texts,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "texts")]
    pub labels: Texts,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "some_many")]
    pub tags: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "many")]
    pub cache_from: Vec<Spec<Cache>>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "some_many")]
    pub cache_to: Option<Vec<Spec<Cache>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "many")]
    pub secret: Vec<Spec<Secret>>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "many")]
    pub ssh: Vec<Spec<Ssh>>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "some_many")]
    pub platforms: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "some_many")]
    pub output: Option<Vec<Spec<Output>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_cache: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "many")]
    pub no_cache_filter: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shm_size: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "many")]
    pub ulimits: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "many")]
    pub entitlements: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "texts")]
    pub extra_hosts: Texts,
}

/// By name; none for a name alone, whose value is found elsewhere.
pub type Texts = BTreeMap<String, Option<String>>;

impl Target {
    /// Lays another saying over this one. Names are looked at one by one; lists that say where and for what are
    /// replaced, those that only add are joined.
    pub fn lay_over(&mut self, other: Self) {
        fn replace<T>(own: &mut Option<T>, other: Option<T>) {
            if other.is_some() {
                *own = other;
            }
        }
        fn join<T: PartialEq>(own: &mut Vec<T>, other: Vec<T>) {
            for item in other {
                if !own.contains(&item) {
                    own.push(item);
                }
            }
        }
        // A name without a value takes none away.
        let merge = |own: &mut Texts, other: Texts| own.extend(other.into_iter().filter(|(_, value)| value.is_some()));
        replace(&mut self.description, other.description);
        join(&mut self.inherits, other.inherits);
        join(&mut self.annotations, other.annotations);
        join(&mut self.attest, other.attest);
        replace(&mut self.context, other.context);
        self.contexts.extend(other.contexts);
        replace(&mut self.dockerfile, other.dockerfile);
        replace(&mut self.dockerfile_inline, other.dockerfile_inline);
        for (name, value) in other.args {
            match value {
                None => drop(self.args.entry(name).or_insert(None)),
                value => drop(self.args.insert(name, value)),
            }
        }
        merge(&mut self.labels, other.labels);
        replace(&mut self.tags, other.tags);
        join(&mut self.cache_from, other.cache_from);
        replace(&mut self.cache_to, other.cache_to);
        replace(&mut self.target, other.target);
        join(&mut self.secret, other.secret);
        join(&mut self.ssh, other.ssh);
        replace(&mut self.platforms, other.platforms);
        replace(&mut self.output, other.output);
        replace(&mut self.pull, other.pull);
        replace(&mut self.no_cache, other.no_cache);
        replace(&mut self.network, other.network);
        join(&mut self.no_cache_filter, other.no_cache_filter);
        replace(&mut self.shm_size, other.shm_size);
        join(&mut self.ulimits, other.ulimits);
        replace(&mut self.call, other.call);
        join(&mut self.entitlements, other.entitlements);
        merge(&mut self.extra_hosts, other.extra_hosts);
    }

    /// Targets whose results it takes as contexts.
    pub fn links(&self) -> impl Iterator<Item = &str> {
        self.contexts.values().flatten().filter_map(|value| value.strip_prefix("target:"))
    }
}

/// A list, or its only item.
fn many<'de, D: Deserializer<'de>, T: de::DeserializeOwned>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(some_many(deserializer)?.unwrap_or_default())
}

fn some_many<'de, D: Deserializer<'de>, T: de::DeserializeOwned>(deserializer: D) -> Result<Option<Vec<T>>, D::Error> {
    let items = match Value::deserialize(deserializer)? {
        Value::Null => return Ok(None),
        Value::Array(items) => items,
        item => vec![item],
    };
    let items = items.into_iter().filter(|item| !item.is_null()).map(serde_json::from_value);
    items.collect::<Result<_, _>>().map(Some).map_err(de::Error::custom)
}

/// A map, or a list of `name=value` (`host:ip` too, which compose writes).
pub fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Texts, D::Error> {
    let text = |value: &Value| scalar(value).ok_or_else(|| de::Error::custom(format!("{value} is no text")));
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(Texts::new()),
        Value::Object(object) => object.into_iter().map(|(key, value)| Ok((key, value_of(&value, text)?))).collect(),
        Value::Array(list) => list
            .iter()
            .map(|item| {
                let line = text(item)?;
                Ok(match line.split_once('=') {
                    Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                    None => (line, None),
                })
            })
            .collect(),
        other => Err(de::Error::custom(format!("{other} has no names"))),
    }
}

fn value_of<E>(value: &Value, text: impl Fn(&Value) -> Result<String, E>) -> Result<Option<String>, E> {
    match value {
        Value::Null => Ok(None),
        Value::Array(list) => {
            let words = list.iter().map(&text).collect::<Result<Vec<_>, _>>()?;
            Ok(Some(words.join(",")))
        }
        value => text(value).map(Some),
    }
}
