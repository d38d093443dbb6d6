//! Manifests and indexes (image-spec, manifest.md and image-index.md; Docker's schema 2 is the same in other words).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::config::null_is_default;
use super::{Descriptor, media_type};
use crate::base::Platform;

/// One image: its config and its layers, lowest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    pub config: Descriptor,
    #[serde(default, deserialize_with = "null_is_default")]
    pub layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A list of manifests or of further indexes: one image for several platforms, or a layout's table of contents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub manifests: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Manifest {
    /// The bytes to store: fields in the order of the spec, maps sorted.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

impl Index {
    pub fn new(manifests: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: media_type::OCI_INDEX.to_owned(),
            manifests,
            annotations: BTreeMap::new(),
            extra: Map::new(),
        }
    }

    /// The bytes to store: fields in the order of the spec, maps sorted.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The entry made for a platform. An exact variant wins over one that merely runs there.
    pub fn choose(&self, platform: &Platform) -> Option<&Descriptor> {
        let of = |descriptor: &Descriptor| descriptor.platform.as_ref().map(normal);
        self.images().find(|d| of(d).as_ref() == Some(platform)).or_else(|| {
            // The newest variant that still runs, as containerd chooses.
            let running = self.images().filter(|d| of(d).is_some_and(|p| platform.accepts(&p)));
            running.max_by(|a, b| variant(a).cmp(variant(b)))
        })
    }

    /// The only image, whatever it is made for; none where there are several.
    pub fn sole(&self) -> Option<&Descriptor> {
        let mut all = self.images();
        all.next().filter(|_| all.next().is_none())
    }

    /// Attestations stand beside the images that they are about, for a platform that is none.
    fn images(&self) -> impl Iterator<Item = &Descriptor> {
        self.manifests
            .iter()
            .filter(|d| media_type::is_manifest(&d.media_type) || media_type::is_index(&d.media_type))
            .filter(|d| d.platform.as_ref().is_none_or(|p| p.os != "unknown"))
    }
}

fn normal(platform: &Platform) -> Platform {
    Platform::new(&platform.os, &platform.arch, &platform.variant)
}

fn variant(descriptor: &Descriptor) -> &str {
    descriptor.platform.as_ref().map_or("", |p| &p.variant)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Digest;

    fn entry(platform: Option<(&str, &str, &str)>) -> Descriptor {
        let mut descriptor = Descriptor::new(media_type::OCI_MANIFEST, Digest::of(format!("{platform:?}")), 1);
        descriptor.platform =
            platform.map(|(os, arch, variant)| Platform { os: os.into(), arch: arch.into(), variant: variant.into() });
        descriptor
    }

    #[test]
    fn chooses_the_entry_for_the_platform() {
        let amd64 = Platform::new("linux", "amd64", "");
        let v7 = Platform::new("linux", "arm", "v7");
        let index = Index::new(vec![
            entry(Some(("unknown", "unknown", ""))),
            entry(Some(("linux", "arm", "v5"))),
            entry(Some(("linux", "arm", "v6"))),
            entry(Some(("linux", "arm64", "v8"))),
            entry(Some(("linux", "amd64", ""))),
        ]);
        assert_eq!(index.choose(&amd64), Some(&index.manifests[4]));
        assert_eq!(index.choose(&v7), Some(&index.manifests[2]), "the newest variant that runs");
        assert_eq!(index.choose(&Platform::new("linux", "arm64", "")), Some(&index.manifests[3]));
        assert_eq!(index.choose(&Platform::new("linux", "s390x", "")), None);
        assert_eq!(index.sole(), None);
        let lone = Index::new(vec![entry(Some(("unknown", "unknown", ""))), entry(None)]);
        assert_eq!((lone.choose(&amd64), lone.sole()), (None, Some(&lone.manifests[1])));
    }

    /// buildkitd's exporter writes the manifest of an empty image so.
    #[test]
    fn no_layers_are_an_empty_list_or_null() {
        let config = r#""config":{"mediaType":"c","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0}"#;
        for layers in ["", r#","layers":[]"#, r#","layers":null"#] {
            let manifest: Manifest =
                serde_json::from_str(&format!(r#"{{"schemaVersion":2,{config}{layers}}}"#)).unwrap();
            assert_eq!(manifest.layers, [], "{layers}");
        }
        assert_eq!(serde_json::from_str::<Index>(r#"{"schemaVersion":2,"manifests":null}"#).unwrap().manifests, []);
        let config =
            r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":null},"history":null}"#;
        assert_eq!(serde_json::from_str::<crate::image::ImageConfig>(config).unwrap().history, []);
    }

    #[test]
    fn keeps_what_it_does_not_know() {
        let json = r#"{"schemaVersion":2,"config":{"mediaType":"c","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0},"layers":[],"subject":{"a":1}}"#;
        let manifest: Manifest = serde_json::from_str(json).unwrap();
        assert_eq!(String::from_utf8(manifest.to_bytes()).unwrap(), json);
    }
}
