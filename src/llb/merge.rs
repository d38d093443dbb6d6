//! Merge and diff ops: layers put on each other, and what one has over another.

use super::build::{Builder, Draft, Output};
use super::pb;

/// Puts file systems on top of each other. None when all are `scratch`; a lone one is itself.
pub fn merge(builder: &mut Builder, layers: &[Option<Output>], describe: impl FnOnce(&mut Draft)) -> Option<Output> {
    let layers: Vec<Output> = layers.iter().copied().flatten().collect();
    if layers.len() < 2 {
        return layers.first().copied();
    }
    let mut draft = Draft::default();
    // A layer that comes twice is an input twice.
    let inputs = (0_i64..).zip(&layers).map(|(input, _)| pb::MergeInput { input }).collect();
    draft.inputs = layers;
    draft.op = Some(pb::op::Op::Merge(pb::MergeOp { inputs }));
    describe(&mut draft);
    Some(builder.output(draft))
}
