//! A snapshot as a value: an ordered list of deltas, cheap to clone, compare and put under or over another.

use std::fmt;
use std::sync::Arc;

use crate::base::{ChainId, Digest, Hasher};
use crate::image::LayerBlob;

/// A file system state: deltas from the lowest to the topmost.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    pub(super) deltas: Arc<[Delta]>,
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
pub(super) enum Delta {
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

impl Delta {
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
        self.deltas.iter().map(Delta::id)
    }

    /// Equal for equal stacks, in every process on one state folder.
    pub fn identity(&self) -> Digest {
        let mut hasher = Hasher::new();
        self.deltas.iter().for_each(|delta| hasher.field(delta.id().0));
        hasher.finish()
    }

    /// An image's layer as it came, where the delta at this index is one.
    pub fn image_layer(&self, index: usize) -> Option<&LayerBlob> {
        match self.deltas.get(index)? {
            Delta::Layer(layer) => Some(&layer.blob),
            Delta::Made(_) => None,
        }
    }

    /// A layer's image, unopened.
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
                Delta::Layer(layer)
            })
            .collect();
        Self { deltas }
    }

    /// One on top of the other (`COPY --link`, the merge op).
    pub fn merge<'a>(parts: impl IntoIterator<Item = &'a Self>) -> Self {
        Self { deltas: parts.into_iter().flat_map(|part| part.deltas.iter().cloned()).collect() }
    }
}
