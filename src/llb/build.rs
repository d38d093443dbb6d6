//! Puts ops together into a definition. Ops are added in any order with inputs before users; digests are made at
//! the end, because what a local source sends is known only when every COPY has been seen.

use std::collections::HashMap;
use std::sync::Arc;

use prost::Message;

use super::{CUSTOM_NAME, caps, encode, needs, pb};
use crate::base::{Platform, VertexDigest};

/// An op that was added to a [`Builder`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(usize);

/// One output of an op. Where it is optional, none is `scratch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Output {
    pub op: OpId,
    pub index: usize,
}

/// Lines of a source file, from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lines {
    pub file: usize,
    pub ranges: Vec<pb::Range>,
}

/// An op on its way into a definition.
#[derive(Debug, Clone, Default)]
pub struct Draft {
    pub inputs: Vec<Output>,
    pub op: Option<pb::op::Op>,
    pub platform: Option<pb::Platform>,
    pub meta: pb::OpMetadata,
    pub lines: Vec<Lines>,
}

/// A file that ops point into.
#[derive(Debug, Clone)]
pub struct SourceFile {
    pub name: String,
    pub data: Arc<[u8]>,
    /// As GitHub's linguist calls it.
    pub language: String,
}

#[derive(Debug, Clone, Default)]
pub struct Builder {
    drafts: Vec<Draft>,
    /// Equal ops are one op: what an op is made of, to its id.
    known: HashMap<Vec<u8>, OpId>,
    files: Vec<SourceFile>,
}

impl Draft {
    pub fn new(op: pb::op::Op) -> Self {
        Self { op: Some(op), ..Self::default() }
    }

    /// The index of the input, which is added unless it is there.
    pub fn input(&mut self, output: Output) -> i64 {
        let index = self.inputs.iter().position(|i| *i == output).unwrap_or_else(|| {
            self.inputs.push(output);
            self.inputs.len() - 1
        });
        i64::try_from(index).unwrap_or(i64::MAX)
    }

    /// As [`Draft::input`]; -1 for `scratch`.
    pub fn input_or_scratch(&mut self, output: Option<Output>) -> i64 {
        output.map_or(-1, |o| self.input(o))
    }

    pub fn describe(&mut self, key: &str, value: impl Into<String>) -> &mut Self {
        self.meta.description.insert(key.to_owned(), value.into());
        self
    }

    pub fn name(&mut self, name: impl Into<String>) -> &mut Self {
        self.describe(CUSTOM_NAME, name)
    }

    pub fn for_platform(&mut self, platform: &Platform) -> &mut Self {
        self.platform = Some(platform_of(platform));
        self
    }
}

impl Builder {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn file(&mut self, file: SourceFile) -> usize {
        self.files.push(file);
        self.files.len() - 1
    }

    pub fn add(&mut self, draft: Draft) -> OpId {
        let next = OpId(self.drafts.len());
        if !is_local(&draft) {
            let id = *self.known.entry(fingerprint(&draft)).or_insert(next);
            if id != next {
                let known = &mut self.drafts[id.0];
                // The first to need an op has named it.
                let mut meta = draft.meta;
                merge(&mut meta, &known.meta);
                known.meta = meta;
                known.lines.extend(draft.lines);
                return id;
            }
        }
        self.drafts.push(draft);
        next
    }

    /// Adds the op; its first output.
    pub fn output(&mut self, draft: Draft) -> Output {
        Output { op: self.add(draft), index: 0 }
    }

    pub fn draft(&self, id: OpId) -> &Draft {
        &self.drafts[id.0]
    }

    pub fn draft_mut(&mut self, id: OpId) -> &mut Draft {
        &mut self.drafts[id.0]
    }

    /// Writes what `head` stands on, and nothing else, as a definition.
    pub fn finish(&self, head: Option<Output>) -> pb::Definition {
        let mut definition = pb::Definition::default();
        let Some(head) = head else { return definition };
        let mut source = pb::Source::default();
        let mut digests: HashMap<OpId, VertexDigest> = HashMap::new();
        let mut written: HashMap<VertexDigest, ()> = HashMap::new();
        let mut files: HashMap<usize, i32> = HashMap::new();
        for id in self.order(head.op) {
            let draft = &self.drafts[id.0];
            let op = pb::Op {
                inputs: draft.inputs.iter().map(|i| input(&digests, *i)).collect(),
                platform: draft.platform.clone(),
                constraints: Some(pb::WorkerConstraints::default()),
                op: draft.op.clone(),
            };
            let bytes = encode::op_bytes(&op);
            let digest = encode::digest(&bytes);
            digests.insert(id, digest);
            if written.insert(digest, ()).is_none() {
                definition.def.push(bytes);
            }
            let meta = definition.metadata.entry(digest.to_string()).or_default();
            merge(meta, &draft.meta);
            meta.caps.extend(draft.op.iter().flat_map(needs::of).map(|cap| (cap.to_owned(), true)));
            for lines in &draft.lines {
                let index = *files.entry(lines.file).or_insert_with(|| {
                    let file = &self.files[lines.file];
                    source.infos.push(pb::SourceInfo {
                        filename: file.name.clone(),
                        data: file.data.to_vec(),
                        definition: None,
                        language: file.language.clone(),
                    });
                    i32::try_from(source.infos.len() - 1).unwrap_or(i32::MAX)
                });
                let location = pb::Location { source_index: index, ranges: lines.ranges.clone() };
                let found = source.locations.entry(digest.to_string()).or_default();
                if !found.locations.contains(&location) {
                    found.locations.push(location);
                }
            }
        }
        let last = pb::Op { inputs: vec![input(&digests, head)], ..Default::default() }.encode_to_vec();
        let digest = encode::digest(&last);
        definition.def.push(last);
        let mut meta = pb::OpMetadata::default();
        let mut cap = |name: &str, wanted: bool| {
            if wanted {
                meta.caps.insert(name.to_owned(), true);
            }
        };
        cap(caps::CONSTRAINTS, true);
        cap(caps::PLATFORM, true);
        cap(caps::META_IGNORE_CACHE, definition.metadata.values().any(|m| m.ignore_cache));
        cap(caps::META_DESCRIPTION, definition.metadata.values().any(|m| !m.description.is_empty()));
        cap(caps::META_EXPORT_CACHE, definition.metadata.values().any(|m| m.export_cache.is_some()));
        definition.metadata.insert(digest.to_string(), meta);
        definition.source = Some(source);
        definition
    }

    /// The ops below and including `head`, inputs first, in the order in which they are first needed.
    fn order(&self, head: OpId) -> Vec<OpId> {
        let mut seen = vec![false; self.drafts.len()];
        let mut order = Vec::new();
        let mut stack = vec![(head, false)];
        while let Some((id, inputs_done)) = stack.pop() {
            if inputs_done {
                order.push(id);
                continue;
            }
            if std::mem::replace(&mut seen[id.0], true) {
                continue;
            }
            stack.push((id, true));
            stack.extend(self.drafts[id.0].inputs.iter().rev().filter(|i| !seen[i.op.0]).map(|i| (i.op, false)));
        }
        order
    }
}

/// A local source is changed after it was added.
fn is_local(draft: &Draft) -> bool {
    matches!(&draft.op, Some(pb::op::Op::Source(source)) if source.identifier.starts_with("local://"))
}

/// Bytes that are equal for equal ops over equal inputs.
fn fingerprint(draft: &Draft) -> Vec<u8> {
    let input =
        |i: &Output| pb::Input { digest: i.op.0.to_string(), index: i64::try_from(i.index).unwrap_or(i64::MAX) };
    pb::Op {
        inputs: draft.inputs.iter().map(input).collect(),
        platform: draft.platform.clone(),
        constraints: None,
        op: draft.op.clone(),
    }
    .encode_to_vec()
}

fn input(digests: &HashMap<OpId, VertexDigest>, output: Output) -> pb::Input {
    pb::Input {
        digest: digests.get(&output.op).map(VertexDigest::to_string).unwrap_or_default(),
        index: i64::try_from(output.index).unwrap_or(i64::MAX),
    }
}

/// One op may be drafted twice: what was said of either holds.
fn merge(into: &mut pb::OpMetadata, more: &pb::OpMetadata) {
    into.ignore_cache |= more.ignore_cache;
    into.description.extend(more.description.clone());
    into.caps.extend(more.caps.clone());
    if more.export_cache.is_some() {
        into.export_cache = more.export_cache;
    }
    if more.progress_group.is_some() {
        into.progress_group.clone_from(&more.progress_group);
    }
}

pub fn platform_of(platform: &Platform) -> pb::Platform {
    pb::Platform {
        architecture: platform.arch.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        ..Default::default()
    }
}
