//! `type=…,key=value` words of a bake file, in short or as objects.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Value, json};

use crate::base::csv;

/// What the words are about: it decides what a text without any key means.
pub trait Kind {
    const NAME: &'static str;
    fn short(text: &str) -> Option<Vec<(&'static str, String)>>;
}

macro_rules! kinds {
    ($($name:ident: $word:literal, $short:expr;)*) => {$(
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name;

        impl Kind for $name {
            const NAME: &'static str = $word;
            fn short(text: &str) -> Option<Vec<(&'static str, String)>> {
                let short: fn(&str) -> Option<Vec<(&'static str, String)>> = $short;
                short(text)
            }
        }
    )*};
}

kinds! {
    Output: "output", |text| {
        let kind = if text == "-" { "tar" } else { "local" };
        (!text.contains('=')).then(|| vec![("type", kind.to_owned()), ("dest", text.to_owned())])
    };
    Cache: "cache", |text| {
        (!text.contains('=')).then(|| vec![("type", "registry".to_owned()), ("ref", text.to_owned())])
    };
    Secret: "secret", |_| None;
    Attest: "attest", |_| None;
    // `default=/socket` is an id and paths, and no key.
    Ssh: "ssh", |text| Some(match text.split_once('=') {
        Some((id, paths)) => vec![("id", id.to_owned()), ("paths", paths.to_owned())],
        None => vec![("id", text.to_owned())],
    });
}

/// One `-o`, `--secret` or the like: values by key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec<K> {
    fields: BTreeMap<String, String>,
    kind: PhantomData<K>,
}

impl<K: Kind> Spec<K> {
    pub fn parse(text: &str) -> Result<Self, String> {
        let fields = match K::short(text) {
            Some(fields) => fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
            None => csv::pairs(text)?.into_iter().map(|(key, value)| (key, value.unwrap_or_default())).collect(),
        };
        Ok(Self { fields, kind: PhantomData })
    }

    pub fn of(fields: &[(&str, &str)]) -> Self {
        let fields = fields.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Self { fields, kind: PhantomData }
    }

    pub fn get(&self, key: &str) -> &str {
        self.fields.get(key).map(String::as_str).unwrap_or_default()
    }

    pub fn set(&mut self, key: &str, value: &str) {
        self.fields.insert(key.to_owned(), value.to_owned());
    }

    /// As the flag of that name takes it.
    pub fn to_word(&self) -> String {
        let fields: Vec<String> = self.fields.iter().map(|(key, value)| format!("{key}={value}")).collect();
        csv::line(fields.iter().map(String::as_str))
    }
}

impl<'de, K: Kind> Deserialize<'de> for Spec<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Self::parse(&text).map_err(de::Error::custom),
            Value::Object(object) => {
                let field = |(key, value): (String, Value)| match value {
                    Value::Array(list) => {
                        let words: Option<Vec<&str>> = list.iter().map(Value::as_str).collect();
                        words.map(|words| (key, words.join(",")))
                    }
                    value => scalar(&value).map(|text| (key, text)),
                };
                let fields: Option<_> = object.into_iter().map(field).collect();
                let fields = fields.ok_or_else(|| de::Error::custom(format!("a value of {} is no text", K::NAME)))?;
                Ok(Self { fields, kind: PhantomData })
            }
            other => Err(de::Error::custom(format!("{other} is no {}", K::NAME))),
        }
    }
}

impl<K: Kind> Serialize for Spec<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut value = json!(self.fields);
        if let Some(paths) = self.fields.get("paths") {
            value["paths"] = json!(paths.split(',').collect::<Vec<_>>());
        }
        value.serialize(serializer)
    }
}

/// A text, a number or a switch, as text.
pub fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(switch) => Some(switch.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_objects_mean_the_same() {
        let output = |text: &str| serde_json::to_string(&Spec::<Output>::parse(text).unwrap()).unwrap();
        assert_eq!(output("type=docker,dest=a.tar"), r#"{"dest":"a.tar","type":"docker"}"#);
        assert_eq!(output("./out"), r#"{"dest":"./out","type":"local"}"#);
        assert_eq!(output("-"), r#"{"dest":"-","type":"tar"}"#);
        let ssh: Spec<Ssh> = serde_json::from_str(r#"{"id":"k","paths":["/a","/b"]}"#).unwrap();
        assert_eq!(ssh, Spec::parse("k=/a,/b").unwrap());
        assert_eq!(serde_json::to_string(&ssh).unwrap(), r#"{"id":"k","paths":["/a","/b"]}"#);
        let secret: Spec<Secret> = serde_json::from_str(r#"{"id":"x","src":"a,b"}"#).unwrap();
        assert_eq!(secret.to_word(), "id=x,\"src=a,b\"");
        assert!(serde_json::from_str::<Spec<Cache>>("[1]").is_err());
    }
}
