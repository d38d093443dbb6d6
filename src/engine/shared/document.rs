//! BuildKit's cache config, version 0 (its `cache/remotecache/v1`): records, which lead from keys to layers, and layers,
//! each with the one below it.
//!
//! Our keys are digests of an operation and of what its inputs are, so that a record needs no inputs: its digest is the
//! key. A key that another is known by (a file operation's, by its inputs instead of by their content) is a record
//! without layers whose only input is the other.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::base::{DiffId, Digest};
use crate::image::{Descriptor, LayerBlob, media_type};

/// Of a document that is a blob of its own.
pub const MEDIA_TYPE: &str = "application/vnd.buildkit.cacheconfig.v0";
/// Where an image's config holds records alone, in base64: the layers are the image's, by their place in it.
pub const INLINE: &str = "moby.buildkit.cache.v0";

/// Layers on one another; overlayfs takes 500, no image has a thousand.
const DEPTH: usize = 1024;

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Document {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<Layer>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<Record>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    pub blob: Digest,
    /// -1: none. What is not said is the first, as Go leaves out zeros.
    #[serde(default)]
    pub parent: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<Annotations>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Annotations {
    #[serde(default)]
    pub media_type: String,
    #[serde(rename = "diffID")]
    pub diff_id: Option<DiffId>,
    #[serde(default)]
    pub size: u64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<CacheResult>,
    pub digest: Digest,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<Vec<Input>>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct CacheResult {
    /// The topmost layer.
    pub layer: usize,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Input {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub selector: String,
    pub link: usize,
}

impl Layer {
    pub fn new(layer: &LayerBlob, parent: i64) -> Self {
        let annotations = Annotations {
            media_type: layer.descriptor.media_type.clone(),
            diff_id: Some(layer.diff_id),
            size: layer.descriptor.size,
        };
        Self { blob: layer.descriptor.digest, parent, annotations: Some(annotations) }
    }
}

impl Document {
    /// The cache inside of an image: its records, over the image's layers, lowest first.
    pub fn of_image(records: Vec<Record>, layers: impl IntoIterator<Item = LayerBlob>) -> Self {
        let layers = (-1..).zip(layers).map(|(below, layer)| Layer::new(&layer, below)).collect();
        Self { layers, records }
    }
}

/// A document in the making.
#[derive(Default)]
pub struct Writer {
    document: Document,
    layers: HashMap<(Digest, i64), i64>,
    /// Where each identity's record stands.
    records: BTreeMap<Digest, usize>,
}

impl Writer {
    /// Says that a key leads to a result, known by its identity, of these layers (lowest first).
    pub fn add(&mut self, key: Digest, identity: Digest, layers: &[LayerBlob]) {
        let mut below = -1;
        for layer in layers {
            let next = i64::try_from(self.document.layers.len()).unwrap_or(i64::MAX);
            let known = *self.layers.entry((layer.descriptor.digest, below)).or_insert(next);
            if known == next {
                self.document.layers.push(Layer::new(layer, below));
            }
            below = known;
        }
        let Ok(layer) = usize::try_from(below) else { return };
        let records = &mut self.document.records;
        let link = *self.records.entry(identity).or_insert_with(|| {
            records.push(Record { layers: vec![CacheResult { layer }], digest: identity, inputs: Vec::new() });
            records.len() - 1
        });
        if key != identity {
            let inputs = vec![vec![Input { selector: String::new(), link }]];
            records.push(Record { layers: Vec::new(), digest: key, inputs });
        }
    }

    pub fn finish(self) -> Document {
        self.document
    }
}

/// What a document says, checked.
#[derive(Debug, Default)]
pub struct Known {
    /// A key's identity and the topmost layer of its result.
    keys: HashMap<Digest, (Digest, usize)>,
    layers: Vec<(Option<LayerBlob>, Option<usize>)>,
}

impl Known {
    pub fn new(document: &Document) -> Self {
        let count = document.layers.len();
        let layers = document.layers.iter().map(|layer| {
            let parent = usize::try_from(layer.parent).ok();
            // A parent that is not there makes a layer of no use, like one that nobody describes.
            let blob = if parent.is_some_and(|parent| parent >= count) { None } else { described(layer) };
            (blob, parent)
        });
        let layers = layers.collect();
        let mut keys = HashMap::new();
        let top = |record: &Record| match (record.inputs.is_empty(), &record.layers[..]) {
            (true, [result, ..]) if result.layer < count => Some(result.layer),
            _ => None,
        };
        for record in &document.records {
            if let Some(layer) = top(record) {
                keys.insert(record.digest, (record.digest, layer));
            } else if let ([], [alternatives]) = (&record.layers[..], &record.inputs[..])
                && let [Input { selector, link }] = &alternatives[..]
                && let (true, Some(other)) = (selector.is_empty(), document.records.get(*link))
                && let Some(layer) = top(other)
            {
                keys.insert(record.digest, (other.digest, layer));
            }
        }
        Self { keys, layers }
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Every key with the identity behind it.
    pub fn keys(&self) -> impl Iterator<Item = (Digest, Digest)> {
        self.keys.iter().map(|(key, (identity, _))| (*key, *identity))
    }

    /// The identity behind a key, and the layers of its result, lowest first.
    pub fn get(&self, key: &Digest) -> Option<(Digest, Vec<LayerBlob>)> {
        let &(identity, top) = self.keys.get(key)?;
        let mut layers = Vec::new();
        let mut next = Some(top);
        while let Some(index) = next {
            let (blob, parent) = &self.layers[index];
            layers.push(blob.clone()?);
            if layers.len() > DEPTH {
                return None;
            }
            next = *parent;
        }
        layers.reverse();
        Some((identity, layers))
    }
}

fn described(layer: &Layer) -> Option<LayerBlob> {
    let annotations = layer.annotations.as_ref()?;
    media_type::compression(&annotations.media_type)?;
    let descriptor = Descriptor::new(&annotations.media_type, layer.blob, annotations.size);
    Some(LayerBlob { descriptor, diff_id: annotations.diff_id? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(name: &str) -> LayerBlob {
        let descriptor = Descriptor::new(media_type::OCI_LAYER, Digest::of(name), 7);
        LayerBlob { descriptor, diff_id: DiffId(Digest::of(format!("plain {name}"))) }
    }

    fn read(text: &str) -> Known {
        Known::new(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn what_is_written_is_read() {
        let key = |name: &str| Digest::of(name);
        let (a, b, c) = (blob("a"), blob("b"), blob("c"));
        let mut writer = Writer::default();
        writer.add(key("one"), key("one"), std::slice::from_ref(&a));
        writer.add(key("two by content"), key("two"), &[a.clone(), b.clone()]);
        writer.add(key("two"), key("two"), &[a.clone(), b.clone()]);
        writer.add(key("other base"), key("other base"), &[c.clone(), b.clone()]);
        writer.add(key("empty"), key("empty"), &[]);
        let text = serde_json::to_string(&writer.finish()).unwrap();
        let known = read(&text);
        assert_eq!(known.get(&key("one")), Some((key("one"), vec![a.clone()])));
        assert_eq!(known.get(&key("two")), Some((key("two"), vec![a.clone(), b.clone()])));
        assert_eq!(known.get(&key("two by content")), Some((key("two"), vec![a, b.clone()])));
        assert_eq!(known.get(&key("other base")), Some((key("other base"), vec![c, b])), "{text}");
        assert_eq!(known.get(&key("empty")), None, "no layers are no result");
        assert_eq!(known.len(), 4);
    }

    /// buildkitd refuses anything but a list of records.
    #[test]
    fn records_in_an_image_mean_its_layers_by_their_place() {
        let (key, image) = (Digest::of("k"), [blob("a"), blob("b"), blob("b")]);
        let mut writer = Writer::default();
        writer.add(key, key, &image[..3]);
        writer.add(Digest::of("below"), Digest::of("below"), &image[..1]);
        let text = serde_json::to_string(&writer.finish().records).unwrap();
        let expected = format!(
            r#"[{{"layers":[{{"layer":2}}],"digest":"{key}"}},{{"layers":[{{"layer":0}}],"digest":"{}"}}]"#,
            Digest::of("below")
        );
        assert_eq!(text, expected);
        // A push may have compressed what was plain when the image was made.
        let pushed = ["x", "y", "z"].map(blob);
        let read = |layers: &[LayerBlob]| {
            Known::new(&Document::of_image(serde_json::from_str(&text).unwrap(), layers.iter().cloned()))
        };
        assert_eq!(read(&pushed).get(&key), Some((key, pushed.to_vec())));
        assert_eq!(read(&pushed[..2]).get(&key), None, "a layer less than its records say");
    }

    #[test]
    fn documents_of_others_and_broken_ones_lead_nowhere() {
        let d = Digest::of("x");
        let annotations =
            format!(r#""annotations":{{"mediaType":"{}","diffID":"{d}","size":1}}"#, media_type::OCI_LAYER);
        for (why, text) in [
            ("nothing", "{}".to_owned()),
            (
                "a cycle",
                format!(
                    r#"{{"layers":[{{"blob":"{d}",{annotations}}}],"records":[{{"digest":"{d}","layers":[{{"layer":0}}]}}]}}"#
                ),
            ),
            ("no such layer", format!(r#"{{"records":[{{"digest":"{d}","layers":[{{"layer":9}}]}}]}}"#)),
            (
                "no such parent",
                format!(
                    r#"{{"layers":[{{"blob":"{d}","parent":5,{annotations}}}],"records":[{{"digest":"{d}","layers":[{{"layer":0}}]}}]}}"#
                ),
            ),
            ("no such record", format!(r#"{{"records":[{{"digest":"{d}","inputs":[[{{"link":4}}]]}}]}}"#)),
            ("itself", format!(r#"{{"records":[{{"digest":"{d}","inputs":[[{{"link":0}}]]}}]}}"#)),
            (
                "a key with inputs, as BuildKit's are",
                format!(
                    r#"{{"layers":[{{"blob":"{d}","parent":-1,{annotations}}}],"records":[{{"digest":"{d}","layers":[{{"layer":0,"createdAt":"2026-01-01T00:00:00Z"}}],"inputs":[[{{"link":0,"selector":"s"}}]]}}]}}"#
                ),
            ),
        ] {
            assert_eq!(read(&text).get(&d), None, "{why}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_points_wherever_ends(
            parents in proptest::collection::vec(-2i64..6, 0..6),
            tops in proptest::collection::vec((0usize..7, proptest::option::of(0usize..7)), 0..6),
        ) {
            let layers = parents.into_iter().map(|parent| Layer::new(&blob("b"), parent));
            let records = tops.iter().enumerate().map(|(index, (layer, link))| Record {
                layers: if link.is_some() { Vec::new() } else { vec![CacheResult { layer: *layer }] },
                digest: Digest::of(index.to_string()),
                inputs: link.iter().map(|&link| vec![Input { selector: String::new(), link }]).collect(),
            });
            let document = Document { layers: layers.collect(), records: records.collect() };
            let known = Known::new(&document);
            for index in 0..tops.len() {
                let found = known.get(&Digest::of(index.to_string()));
                proptest::prop_assert!(found.is_none_or(|(_, layers)| layers.len() <= document.layers.len()));
            }
        }
    }
}
