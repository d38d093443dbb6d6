//! `params` of `get` and `put` steps.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::source::text;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Get {
    /// `image`, an archive for `docker load`.
    pub save: bool,
    /// `rootfs.tar` beside `rootfs/`.
    pub rootfs: bool,
    pub skip_download: bool,
    /// registry-image's shape instead of docker-image's.
    pub format: Option<Format>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    Rootfs,
    Oci,
    OciLayout,
}

/// Where the image of a put comes from: at most one of the first five is looked at, in this order.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Put {
    pub load: Option<String>,
    pub build: Option<String>,
    pub load_file: Option<String>,
    pub import_file: Option<String>,
    pub pull_repository: Option<String>,
    /// registry-image: a glob that means one archive or layout.
    pub image: Option<String>,
    /// registry-image: the tag, to which the source's variant is added.
    #[serde(deserialize_with = "text")]
    pub version: Option<String>,
    /// registry-image: push the floating tags of `version` too.
    pub bump_aliases: bool,

    pub dockerfile: Option<String>,
    pub load_base: Option<String>,
    pub load_bases: Vec<String>,
    pub cache: Option<Value>,
    #[serde(deserialize_with = "text")]
    pub cache_tag: Option<String>,
    pub cache_from: Vec<String>,
    pub load_repository: Option<String>,
    #[serde(deserialize_with = "text")]
    pub load_tag: Option<String>,
    #[serde(deserialize_with = "text")]
    pub pull_tag: Option<String>,
    /// A file that holds the tag.
    pub tag_file: Option<String>,
    /// The same, from before it was called `tag_file`.
    pub tag: Option<String>,
    pub tag_prefix: Option<String>,
    pub tag_as_latest: bool,
    pub additional_tags: Option<String>,
    pub build_args: BTreeMap<String, Value>,
    pub build_args_file: Option<String>,
    pub labels: BTreeMap<String, Value>,
    pub labels_file: Option<String>,
    pub secrets: BTreeMap<String, SecretParam>,
    pub target_name: Option<String>,
    pub ssh_identity: Option<String>,
    /// There is one builder here, and it knows all that BuildKit's frontend does.
    #[serde(rename = "docker_buildkit", deserialize_with = "text")]
    pub _docker_buildkit: Option<String>,
    /// Concourse's own, of the get that follows; nothing is done with it here.
    #[serde(rename = "skip_download")]
    pub _skip_download: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretParam {
    pub env: Option<String>,
    pub source: Option<String>,
}

impl Put {
    pub fn wants_cache(&self) -> bool {
        // The original compares text: only a literal true counts.
        matches!(&self.cache, Some(Value::Bool(true))) || self.cache.as_ref().and_then(Value::as_str) == Some("true")
    }

    pub fn tag_file(&self) -> Option<&str> {
        [&self.tag_file, &self.tag].into_iter().flatten().map(String::as_str).find(|path| !path.is_empty())
    }
}

/// A value of a map of arguments as jq prints it: text as it is, all else as JSON.
pub fn printed(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_print_as_jq_prints_them() {
        for (json, expected) in
            [("\"a b\"", "a b"), ("1.5", "1.5"), ("null", "null"), ("false", "false"), ("[1,2]", "[1,2]")]
        {
            assert_eq!(printed(&serde_json::from_str(json).unwrap()), expected);
        }
    }

    #[test]
    fn unknown_params_are_refused_by_name() {
        let error = serde_json::from_str::<Put>(r#"{"bump_alias":true}"#).unwrap_err().to_string();
        assert!(error.contains("unknown field `bump_alias`"), "{error}");
        let error = serde_json::from_str::<Get>(r#"{"format":"tar"}"#).unwrap_err().to_string();
        assert!(error.contains("unknown variant `tar`"), "{error}");
    }
}
