//! What `docker inspect` and `docker history` say of an image.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::config::{ImageConfig, RunConfig};
use super::{Image, LayerBlob};
use crate::base::Reference;

/// The object that `docker image inspect` prints, one element of its array. Sizes are those of the layers as stored.
pub fn inspect(image: &Image, references: &[Reference]) -> Value {
    let ImageConfig { created, author, platform, config, .. } = &image.config;
    let tags: Vec<String> =
        references.iter().filter(|r| r.tag().is_some() && r.digest().is_none()).map(Reference::familiar).collect();
    let digest = image.manifest_descriptor.digest;
    let digests: BTreeSet<String> = references.iter().map(|r| format!("{}@{digest}", r.familiar_name())).collect();
    let layers: Vec<String> = image.layers.iter().map(|layer| layer.diff_id.to_string()).collect();
    let comment = image.config.history.last().and_then(|line| line.comment.clone()).unwrap_or_default();
    let mut object = json!({
        "Id": image.config_digest.to_string(),
        "RepoTags": tags,
        "RepoDigests": digests,
        "Parent": "",
        "Comment": comment,
        "Created": created,
        "DockerVersion": "",
        "Author": author.as_deref().unwrap_or_default(),
        "Config": run_config(config),
        "Architecture": platform.arch,
        "Os": platform.os,
        "Size": image.stored_size(),
        "RootFS": {"Type": "layers", "Layers": layers},
    });
    if !platform.variant.is_empty() {
        object["Variant"] = platform.variant.as_str().into();
    }
    object
}

/// With the fields that Docker always prints, `null` where it prints that.
fn run_config(config: &RunConfig) -> Value {
    let mut object = Map::new();
    for name in ["AttachStdin", "AttachStdout", "AttachStderr", "Tty", "OpenStdin", "StdinOnce"] {
        object.insert(name.to_owned(), false.into());
    }
    for name in ["Hostname", "Domainname", "Image", "User", "WorkingDir"] {
        object.insert(name.to_owned(), "".into());
    }
    for name in ["Env", "Cmd", "Volumes", "Entrypoint", "OnBuild", "Labels"] {
        object.insert(name.to_owned(), Value::Null);
    }
    if let Ok(Value::Object(own)) = serde_json::to_value(config) {
        object.extend(own);
    }
    Value::Object(object)
}

/// One line of `docker history`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryLine {
    pub created: Option<String>,
    pub created_by: String,
    pub comment: String,
    /// Of the layer as it is stored; none for an instruction that made no layer.
    pub size: Option<u64>,
}

/// The newest instruction first, as Docker lists them. Layers that the history does not tell of come as lines without text.
pub fn history(image: &Image) -> Vec<HistoryLine> {
    let mut sizes = image.layers.iter().map(|layer: &LayerBlob| layer.descriptor.size);
    let mut lines: Vec<_> = image
        .config
        .history
        .iter()
        .map(|line| HistoryLine {
            created: line.created.clone(),
            created_by: line.created_by.clone().unwrap_or_default(),
            comment: line.comment.clone().unwrap_or_default(),
            size: if line.empty_layer { None } else { sizes.next() },
        })
        .collect();
    lines.extend(sizes.map(|size| HistoryLine {
        created: None,
        created_by: String::new(),
        comment: String::new(),
        size: Some(size),
    }));
    lines.reverse();
    lines
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::base::{DiffId, Digest, Platform};
    use crate::image::config::History;
    use crate::image::{Descriptor, Dialect, media_type};
    use crate::store::MemoryBlobs;

    fn image() -> Image {
        let mut config = ImageConfig::new(Platform::new("linux", "arm64", ""));
        config.config.env = vec!["A=b".to_owned()];
        let diff_id = DiffId(Digest::of("layer"));
        config.rootfs.diff_ids = vec![diff_id];
        let line =
            |by: &str, empty_layer| History { created_by: Some(by.to_owned()), empty_layer, ..History::default() };
        config.history = vec![line("COPY", false), line("ENV", true)];
        let layer = LayerBlob { descriptor: Descriptor::new(media_type::OCI_LAYER, diff_id.0, 5), diff_id };
        Image::write(&MemoryBlobs::new(), &config.to_bytes(), vec![layer], Dialect::Oci, BTreeMap::new()).unwrap()
    }

    #[test]
    fn inspect_has_docker_s_fields() {
        let image = image();
        let names = ["acct/app:v1".parse().unwrap(), "app".parse::<Reference>().unwrap().or_latest()];
        let object = inspect(&image, &names);
        assert_eq!(object["Id"], image.config_digest.to_string());
        assert_eq!(object["RepoTags"], json!(["acct/app:v1", "app:latest"]));
        assert_eq!(object["RepoDigests"][1], format!("app@{}", image.manifest_descriptor.digest));
        assert_eq!(object["Config"]["Env"], json!(["A=b"]));
        assert_eq!(object["Config"]["Cmd"], Value::Null);
        assert_eq!(object["Config"]["User"], "");
        assert_eq!(object["RootFS"]["Layers"][0], Digest::of("layer").to_string());
        assert_eq!((&object["Size"], &object["Architecture"]), (&json!(5), &json!("arm64")));
    }

    #[test]
    fn history_gives_sizes_to_the_instructions_that_made_layers() {
        let lines = history(&image());
        assert_eq!(
            lines.iter().map(|l| (l.created_by.as_str(), l.size)).collect::<Vec<_>>(),
            [("ENV", None), ("COPY", Some(5))]
        );
    }
}
