//! `metadata.json`: what Concourse starts a container of a root file system with.

use serde::Serialize;

use crate::image::ImageConfig;

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
}
