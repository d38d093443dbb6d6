//! `metadata.json`: what Concourse starts a container of a root file system with.

use serde::{Deserialize, Serialize};

use crate::image::ImageConfig;
use crate::image::config::RunConfig;

/// Concourse reads these four; every dialect of the file that its resources write is a part of it.
#[derive(Serialize)]
struct Metadata<'a> {
    user: &'a str,
    env: &'a [String],
    entrypoint: &'a [String],
    cmd: &'a [String],
}

/// The file's bytes: lists never `null`, and a user always, because one that is absent means root.
pub fn metadata(image: &ImageConfig) -> Vec<u8> {
    let config = &image.config;
    let metadata = Metadata {
        user: if config.user.is_empty() { "root" } else { &config.user },
        env: &config.env,
        entrypoint: config.entrypoint.as_deref().unwrap_or_default(),
        cmd: config.cmd.as_deref().unwrap_or_default(),
    };
    let mut bytes = serde_json::to_vec(&metadata).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

/// The file as any of the tools that write it has it: keys that are missing or `null`, and further ones.
#[derive(Deserialize)]
struct Given {
    user: Option<String>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
}

/// What the file says of an image's config.
pub fn parse(json: &[u8]) -> serde_json::Result<RunConfig> {
    let given: Given = serde_json::from_slice(json)?;
    Ok(RunConfig {
        user: given.user.unwrap_or_default(),
        env: given.env.unwrap_or_default(),
        entrypoint: given.entrypoint.filter(|words| !words.is_empty()),
        cmd: given.cmd.filter(|words| !words.is_empty()),
        ..RunConfig::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Platform;

    #[test]
    fn lists_are_never_null() {
        let mut config = ImageConfig::new(Platform::host());
        let text = |config: &ImageConfig| String::from_utf8(metadata(config)).unwrap();
        assert_eq!(text(&config), "{\"user\":\"root\",\"env\":[],\"entrypoint\":[],\"cmd\":[]}\n");
        config.config.user = "app:1000".to_owned();
        config.config.env = vec!["A=b".to_owned()];
        config.config.cmd = Some(vec!["sh".to_owned()]);
        assert_eq!(text(&config), "{\"user\":\"app:1000\",\"env\":[\"A=b\"],\"entrypoint\":[],\"cmd\":[\"sh\"]}\n");
    }

    #[test]
    fn every_dialect_is_read() {
        let config = |json: &str| parse(json.as_bytes()).unwrap();
        assert_eq!(config("{}"), RunConfig::default());
        assert_eq!(config(r#"{"env":null,"user":"","labels":{"a":"b"}}"#), RunConfig::default());
        let read = config(r#"{"user":"app","env":["A=b"],"entrypoint":[],"cmd":["sh"]}"#);
        assert_eq!((read.user.as_str(), read.env.len(), read.entrypoint), ("app", 1, None));
        assert_eq!(read.cmd.as_deref(), Some(&["sh".to_owned()][..]));
        assert!(parse(br#"{"env":"A=b"}"#).is_err());
    }
}
