//! An OCI archive as a picture that can be held against another: its config, and every entry of every layer.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::Value;
use sha2::Digest;

/// Entries of one layer, in the order of the archive: path, and what is there in words.
type Layer = Vec<(String, String)>;

#[derive(Debug, PartialEq)]
pub struct Picture {
    /// Of the manifest: when it is the same, so is all else.
    digest: String,
    config: Value,
    layers: Vec<(String, Layer)>,
}

impl Picture {
    /// Reads an archive whose layers are not compressed.
    pub fn of(path: &Path) -> Self {
        let mut blobs = BTreeMap::new();
        let mut index = None;
        let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for entry in tar::Archive::new(file).entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            if name == "index.json" {
                index = Some(json(&bytes));
            } else if let Some(hex) = name.strip_prefix("blobs/sha256/") {
                blobs.insert(format!("sha256:{hex}"), bytes);
            }
        }
        let digest_in = |value: &Value| value["digest"].as_str().expect("a digest").to_owned();
        let digest = digest_in(&index.expect("an index.json")["manifests"][0]);
        let manifest = json(&blobs[&digest]);
        let layers = manifest["layers"].as_array().expect("layers").iter().map(digest_in);
        Self {
            config: json(&blobs[&digest_in(&manifest["config"])]),
            layers: layers
                .map(|digest| {
                    let entries = entries(&blobs[&digest]);
                    (digest, entries)
                })
                .collect(),
            digest,
        }
    }

    /// How another picture differs from this one, in lines that name the layer and the file; none when it does not.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        if self.digest == other.digest {
            return Vec::new();
        }
        let mut lines = Vec::new();
        let mut config = other.config.clone();
        // Told below, file by file.
        config["rootfs"] = self.config["rootfs"].clone();
        if config != self.config {
            lines.push(format!("config: {}\n     is: {config}", self.config));
        }
        if self.layers.len() != other.layers.len() {
            lines.push(format!("{} layers, and there are {}", self.layers.len(), other.layers.len()));
        }
        for (number, ((digest, ours), (other_digest, theirs))) in self.layers.iter().zip(&other.layers).enumerate() {
            if digest != other_digest {
                let before = lines.len();
                compare(number, ours, theirs, &mut lines);
                if lines.len() == before {
                    lines.push(format!("layer {number}: the same entries, but {digest} is {other_digest}"));
                }
            }
        }
        if lines.is_empty() {
            lines.push(format!("manifest {} is {}", self.digest, other.digest));
        }
        lines
    }
}

fn compare(number: usize, ours: &Layer, theirs: &Layer, lines: &mut Vec<String>) {
    let [mine, other] = [ours, theirs].map(|layer| layer.iter().cloned().collect::<BTreeMap<_, _>>());
    let names: BTreeSet<_> = mine.keys().chain(other.keys()).collect();
    for name in names {
        match (mine.get(name), other.get(name)) {
            (Some(mine), Some(other)) if mine == other => {}
            (Some(mine), Some(other)) => lines.push(format!("layer {number}: {name}: {mine}\n     is: {other}")),
            (Some(mine), None) => lines.push(format!("layer {number}: {name}: missing ({mine})")),
            (None, Some(other)) => lines.push(format!("layer {number}: {name}: too much ({other})")),
            (None, None) => {}
        }
    }
    let order = |layer: &Layer| layer.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    if mine == other && order(ours) != order(theirs) {
        lines.push(format!("layer {number}: the same entries in another order"));
    }
}

fn entries(layer: &[u8]) -> Layer {
    let mut archive = tar::Archive::new(layer);
    let describe = |entry: std::io::Result<tar::Entry<&[u8]>>| {
        let mut entry = entry.unwrap();
        let mut extensions = BTreeMap::new();
        if let Some(records) = entry.pax_extensions().unwrap() {
            for record in records {
                let record = record.unwrap();
                // The path and link have their places below; a capability is not text.
                extensions.insert(
                    String::from_utf8_lossy(record.key_bytes()).into_owned(),
                    hex::encode(record.value_bytes()),
                );
            }
        }
        extensions.retain(|key, _| key != "path" && key != "linkpath");
        let header = entry.header();
        let link = entry.link_name().unwrap().map(|link| format!(" -> {}", link.display())).unwrap_or_default();
        let what = format!(
            "{:?}{link} {:o} {}:{} {}",
            header.entry_type(),
            header.mode().unwrap(),
            header.uid().unwrap(),
            header.gid().unwrap(),
            header.mtime().unwrap(),
        );
        let device = match header.entry_type() {
            tar::EntryType::Char | tar::EntryType::Block => {
                format!(" {:?}:{:?}", header.device_major().unwrap(), header.device_minor().unwrap())
            }
            _ => String::new(),
        };
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let content = if content.len() < 100 {
            format!("{:?}", String::from_utf8_lossy(&content))
        } else {
            format!("{} bytes {}", content.len(), &hex::encode(sha2::Sha256::digest(&content))[..12])
        };
        (name, format!("{what}{device} {content} {extensions:?}"))
    };
    archive.entries().unwrap().map(describe).collect()
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}
