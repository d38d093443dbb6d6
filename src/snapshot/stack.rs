//! A snapshot as a value: an ordered list of deltas, cheap to clone, compare and put under or over another.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::error::{Error, Result};
use crate::base::{ChainId, Digest, Hasher};
use crate::image::LayerBlob;

/// A file system state: deltas from the lowest to the topmost.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    pub(super) deltas: Arc<[StackDelta]>,
}

/// The folder name of a delta: the chain ID's hex digits for an image's layer, random for what was made here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeltaId(pub(super) String);

impl fmt::Display for DeltaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum StackDelta {
    /// A layer of an image, on the layers below it in that image; perhaps never unpacked.
    Layer(Arc<ImageLayer>),
    /// Made here, by a step.
    Made(DeltaId),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct ImageLayer {
    pub blob: LayerBlob,
    /// Of this layer on those below it: the same blob unpacks differently on other layers, where parents are
    /// implied, links lead into lower layers, or folders are symlinks.
    pub chain: ChainId,
    pub below: Option<Arc<ImageLayer>>,
}

impl StackDelta {
    pub fn id(&self) -> DeltaId {
        match self {
            Self::Layer(layer) => DeltaId(layer.chain.0.hex()),
            Self::Made(id) => id.clone(),
        }
    }
}

impl Snapshot {
    /// The empty file system.
    pub fn scratch() -> Self {
        Self::default()
    }

    /// How many deltas there are: as many layers as an image of this snapshot would have.
    pub fn len(&self) -> usize {
        self.deltas.len()
    }

    pub fn is_empty(&self) -> bool {
        self.deltas.is_empty()
    }

    /// Names of the deltas, lowest first: what a prune must keep for this snapshot to stay.
    pub fn deltas(&self) -> impl Iterator<Item = DeltaId> + '_ {
        self.deltas.iter().map(StackDelta::id)
    }

    /// Equal for equal stacks, in every process on one state folder.
    pub fn identity(&self) -> Digest {
        let mut hasher = Hasher::new();
        self.deltas.iter().for_each(|delta| hasher.field(delta.id().0));
        hasher.finish()
    }

    /// Whether this is the other with more on top, or the same.
    pub fn starts_with(&self, other: &Self) -> bool {
        self.deltas.starts_with(&other.deltas)
    }

    /// An image's layer as it came, where the delta at this index is one.
    pub fn image_layer(&self, index: usize) -> Option<&LayerBlob> {
        match self.deltas.get(index)? {
            StackDelta::Layer(layer) => Some(&layer.blob),
            StackDelta::Made(_) => None,
        }
    }

    /// An image's layers, unopened.
    pub fn image(layers: &[LayerBlob]) -> Self {
        let mut below: Option<Arc<ImageLayer>> = None;
        let deltas = layers
            .iter()
            .map(|blob| {
                let chain = match &below {
                    Some(layer) => layer.chain.then(blob.diff_id),
                    None => ChainId::first(blob.diff_id),
                };
                let layer = Arc::new(ImageLayer { blob: blob.clone(), chain, below: below.take() });
                below = Some(Arc::clone(&layer));
                StackDelta::Layer(layer)
            })
            .collect();
        Self { deltas }
    }

    /// One on top of the other (`COPY --link`, the merge op).
    pub fn merge<'a>(parts: impl IntoIterator<Item = &'a Self>) -> Self {
        Self { deltas: parts.into_iter().flat_map(|part| part.deltas.iter().cloned()).collect() }
    }

    /// The snapshot as text. A row of an image's layers is written with the whole image below it, since what a layer
    /// unpacks to depends on the layers that it stands on.
    pub(super) fn record(&self) -> String {
        let mut records: Vec<Record> = Vec::new();
        let mut top: Option<ChainId> = None;
        for delta in self.deltas.iter() {
            match (delta, records.last_mut()) {
                (StackDelta::Made(id), _) => {
                    records.push(Record::Delta { id: id.0.clone() });
                    top = None;
                }
                (StackDelta::Layer(layer), Some(Record::Image { layers, .. }))
                    if top.is_some() && layer.below.as_ref().map(|below| below.chain) == top =>
                {
                    layers.push(layer.blob.clone());
                    top = Some(layer.chain);
                }
                (StackDelta::Layer(layer), _) => {
                    let layers = layer.image();
                    records.push(Record::Image { from: layers.len() - 1, layers });
                    top = Some(layer.chain);
                }
            }
        }
        // Strings, numbers and lists of them: nothing in here can fail to be JSON.
        serde_json::to_string(&records).unwrap_or_default()
    }

    pub(super) fn from_record(text: &str) -> Result<Self> {
        let malformed = |cause: String| Error::Record { text: text.to_owned(), cause };
        let records: Vec<Record> = serde_json::from_str(text).map_err(|error| malformed(error.to_string()))?;
        let mut deltas = Vec::with_capacity(records.len());
        for record in records {
            match record {
                // A name of ours leads nowhere else.
                Record::Delta { id } if !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric()) => {
                    deltas.push(StackDelta::Made(DeltaId(id)));
                }
                Record::Delta { id } => return Err(malformed(format!("{id:?} is no delta"))),
                Record::Image { layers, from } => {
                    deltas.extend(Self::image(&layers).deltas.iter().skip(from).cloned());
                }
            }
        }
        Ok(Self { deltas: deltas.into() })
    }
}

impl ImageLayer {
    /// This layer with all below it, lowest first.
    fn image(&self) -> Vec<LayerBlob> {
        let mut layers = vec![self.blob.clone()];
        let mut next = &self.below;
        while let Some(layer) = next {
            layers.push(layer.blob.clone());
            next = &layer.below;
        }
        layers.reverse();
        layers
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Record {
    Delta {
        id: String,
    },
    Image {
        layers: Vec<LayerBlob>,
        /// How many of them are only what the others stand on.
        #[serde(default, skip_serializing_if = "is_zero")]
        from: usize,
    },
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::testing::layer_blob;

    fn made(name: &str) -> Snapshot {
        Snapshot { deltas: [StackDelta::Made(DeltaId(name.into()))].into() }
    }

    #[test]
    fn a_record_gives_the_snapshot_back() {
        let image = Snapshot::image(&[layer_blob("a"), layer_blob("b"), layer_blob("c")]);
        let top = Snapshot { deltas: image.deltas[2..].into() };
        let other = Snapshot::image(&[layer_blob("b")]);
        for snapshot in [
            Snapshot::scratch(),
            made("x1"),
            image.clone(),
            top.clone(),
            Snapshot::merge([&image, &made("y"), &other]),
            Snapshot::merge([&top, &image, &other]),
        ] {
            let text = snapshot.record();
            assert_eq!(Snapshot::from_record(&text).unwrap(), snapshot, "{text}");
        }
    }

    #[test]
    fn records_that_lead_out_of_the_folder_or_nowhere_are_refused() {
        for text in ["", "{}", r#"[{"delta":{"id":"../x"}}]"#, r#"[{"delta":{"id":""}}]"#] {
            assert!(Snapshot::from_record(text).is_err(), "{text}");
        }
    }

    #[test]
    fn one_blob_on_other_layers_is_another_delta() {
        let (a, b) = (layer_blob("a"), layer_blob("b"));
        let ids: Vec<_> = Snapshot::image(&[a.clone(), b.clone()]).deltas().collect();
        let alone: Vec<_> = Snapshot::image(&[b]).deltas().collect();
        assert_ne!(ids[1], alone[0]);
        assert_eq!(ids[0], Snapshot::image(&[a]).deltas().next().unwrap());
    }
}
