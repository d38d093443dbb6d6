//! A definition read back and checked: every input exists, nothing turns in a circle, sizes are bounded. What
//! executes a definition, prints it or sends it on starts here, whoever made the definition.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use prost::Message;

use super::{CUSTOM_NAME, encode, pb};
use crate::base::VertexDigest;

/// More ops than any real build has; one hostile definition must not take all memory.
const MAX_OPS: usize = 100_000;

/// A checked definition: vertices in topological order, inputs before users.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    vertices: Vec<Vertex>,
    index: HashMap<VertexDigest, usize>,
    head: Option<(VertexDigest, usize)>,
}

/// One op of the graph.
#[derive(Debug, Clone)]
pub struct Vertex {
    pub digest: VertexDigest,
    pub op: pb::Op,
    pub meta: pb::OpMetadata,
    /// Where in a Dockerfile it comes from; several when several instructions made the same op.
    pub locations: Vec<SourceLocation>,
}

/// A place in a source file that the definition carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceLocation {
    pub file: Arc<str>,
    /// The whole file, as the definition carries it.
    pub text: Arc<[u8]>,
    /// From 1.
    pub lines: RangeInclusive<u32>,
}

#[derive(Debug, thiserror::Error)]
pub enum InvalidDefinition {
    #[error("op {index} of the definition does not decode: {source}")]
    Decode { index: usize, source: prost::DecodeError },
    #[error("the definition has {0} ops, more than {MAX_OPS}")]
    TooMany(usize),
    #[error("op {op} names input {input:?}, which is not a digest")]
    BadInput { op: VertexDigest, input: String },
    #[error("op {op} takes input {input}, which does not come before it in the definition")]
    MissingInput { op: VertexDigest, input: VertexDigest },
    #[error("op {op} takes output {index} of an input; an output index is never negative")]
    NegativeIndex { op: VertexDigest, index: i64 },
    #[error("op {op} refers to its input {index}, and has {inputs}")]
    NoSuchInput { op: VertexDigest, index: i64, inputs: usize },
    #[error("op {op} has no kind that this version knows")]
    Unknown { op: VertexDigest },
    #[error("the last op of a definition names its result, and has exactly one input; this one has {0}")]
    Head(usize),
    #[error("op {op}: {what}")]
    Malformed { op: VertexDigest, what: &'static str },
}

/// An op and its inputs.
type Decoded = (pb::Op, Vec<(VertexDigest, usize)>);

impl Graph {
    /// Reads and checks a definition. One without ops is `scratch`: it has no head.
    pub fn decode(definition: &pb::Definition) -> Result<Self, InvalidDefinition> {
        if definition.def.len() > MAX_OPS {
            return Err(InvalidDefinition::TooMany(definition.def.len()));
        }
        let mut decoded = HashMap::with_capacity(definition.def.len());
        let mut last = None;
        for (index, bytes) in definition.def.iter().enumerate() {
            let op = pb::Op::decode(bytes.as_slice()).map_err(|source| InvalidDefinition::Decode { index, source })?;
            let digest = encode::digest(bytes);
            let inputs = inputs_of(digest, &op)?;
            last = Some(digest);
            decoded.insert(digest, (op, inputs));
        }
        let Some(last) = last else { return Ok(Self::default()) };
        let (op, inputs) = decoded.remove(&last).unwrap_or_else(|| unreachable!("just inserted"));
        if op.op.is_some() || inputs.len() != 1 {
            return Err(InvalidDefinition::Head(inputs.len()));
        }
        let head = inputs[0];
        let locations = locations(definition);
        let mut graph = Self { head: Some(head), ..Self::default() };
        graph.order(head.0, last, &mut decoded)?;
        for vertex in &mut graph.vertices {
            let key = vertex.digest.to_string();
            check(vertex)?;
            vertex.meta = definition.metadata.get(&key).cloned().unwrap_or_default();
            vertex.locations = locations.get(&key).cloned().unwrap_or_default();
        }
        Ok(graph)
    }

    /// Puts what `head` stands on in order. A digest names the bytes that name its inputs, so a circle cannot be
    /// made; an input that is missing can.
    fn order(
        &mut self,
        head: VertexDigest,
        user: VertexDigest,
        decoded: &mut HashMap<VertexDigest, Decoded>,
    ) -> Result<(), InvalidDefinition> {
        // Not by recursion: a long chain of ops must not end in a stack overflow.
        let mut stack = vec![(head, user, false)];
        while let Some((digest, user, inputs_done)) = stack.pop() {
            if self.index.contains_key(&digest) {
                continue;
            }
            if inputs_done {
                if let Some((op, _)) = decoded.remove(&digest) {
                    self.index.insert(digest, self.vertices.len());
                    self.vertices.push(Vertex { digest, op, meta: pb::OpMetadata::default(), locations: Vec::new() });
                }
                continue;
            }
            let (_, inputs) =
                decoded.get(&digest).ok_or(InvalidDefinition::MissingInput { op: user, input: digest })?;
            stack.push((digest, user, true));
            for (input, _) in inputs.iter().rev() {
                if !self.index.contains_key(input) {
                    stack.push((*input, digest, false));
                }
            }
        }
        Ok(())
    }

    /// The vertex and the output of it that the definition is about; none for `scratch`.
    pub fn head(&self) -> Option<(VertexDigest, usize)> {
        self.head
    }

    /// Inputs come before what uses them.
    pub fn vertices(&self) -> &[Vertex] {
        &self.vertices
    }

    /// Where in [`Graph::vertices`] it stands.
    pub fn position(&self, digest: &VertexDigest) -> Option<usize> {
        self.index.get(digest).copied()
    }

    pub fn vertex(&self, digest: &VertexDigest) -> Option<&Vertex> {
        self.position(digest).map(|i| &self.vertices[i])
    }
}

impl Vertex {
    /// What a person reads: the custom name, else what kind of op it is.
    pub fn name(&self) -> String {
        match self.meta.description.get(CUSTOM_NAME) {
            Some(name) => name.clone(),
            None => super::print::summary(&self.op),
        }
    }

    /// Digest and output index of each input, in order.
    pub fn inputs(&self) -> Vec<(VertexDigest, usize)> {
        // Checked when the graph was decoded.
        inputs_of(self.digest, &self.op).unwrap_or_default()
    }
}

fn inputs_of(digest: VertexDigest, op: &pb::Op) -> Result<Vec<(VertexDigest, usize)>, InvalidDefinition> {
    let input = |input: &pb::Input| {
        let from = input
            .digest
            .parse()
            .map_err(|_| InvalidDefinition::BadInput { op: digest, input: input.digest.clone() })?;
        let index = usize::try_from(input.index)
            .map_err(|_| InvalidDefinition::NegativeIndex { op: digest, index: input.index })?;
        Ok((from, index))
    };
    op.inputs.iter().map(input).collect()
}

/// Checks that every reference inside the op points at something, so that executing code need not.
fn check(vertex: &Vertex) -> Result<(), InvalidDefinition> {
    let op = vertex.digest;
    let inputs = vertex.op.inputs.len();
    let input = |index: i64, limit: usize| match usize::try_from(index) {
        Ok(i) if i < limit => Ok(()),
        // -1 is scratch.
        Err(_) if index == -1 => Ok(()),
        _ => Err(InvalidDefinition::NoSuchInput { op, index, inputs }),
    };
    let malformed = |what| Err(InvalidDefinition::Malformed { op, what });
    match &vertex.op.op {
        None => Err(InvalidDefinition::Unknown { op }),
        Some(pb::op::Op::Source(source)) if source.identifier.is_empty() => malformed("a source without identifier"),
        Some(pb::op::Op::Source(_) | pb::op::Op::Build(_)) => Ok(()),
        Some(pb::op::Op::Exec(exec)) => {
            if exec.meta.as_ref().is_none_or(|meta| meta.args.is_empty()) {
                return malformed("an exec without arguments");
            }
            if !exec.mounts.iter().any(|m| m.dest == "/") {
                return malformed("an exec without a root mount");
            }
            exec.mounts.iter().try_for_each(|m| input(m.input, inputs))
        }
        Some(pb::op::Op::File(file)) => {
            if file.actions.is_empty() {
                return malformed("a file op without actions");
            }
            for (done, action) in file.actions.iter().enumerate() {
                if action.action.is_none() {
                    return malformed("a file action of a kind that this version does not know");
                }
                // After the real inputs come the results of the actions before this one.
                input(action.input, inputs + done)?;
                input(action.secondary_input, inputs + done)?;
            }
            Ok(())
        }
        Some(pb::op::Op::Merge(merge)) => merge.inputs.iter().try_for_each(|m| input(m.input, inputs)),
        Some(pb::op::Op::Diff(diff)) => {
            diff.lower.iter().try_for_each(|l| input(l.input, inputs))?;
            diff.upper.iter().try_for_each(|u| input(u.input, inputs))
        }
    }
}

fn locations(definition: &pb::Definition) -> HashMap<String, Vec<SourceLocation>> {
    let Some(source) = &definition.source else { return HashMap::new() };
    let files: Vec<(Arc<str>, Arc<[u8]>)> =
        source.infos.iter().map(|info| (info.filename.as_str().into(), info.data.as_slice().into())).collect();
    let place = |location: &pb::Location| {
        let (file, text) = files.get(usize::try_from(location.source_index).ok()?)?;
        let line = |position: &Option<pb::Position>| u32::try_from(position.as_ref()?.line).ok();
        let first = location.ranges.iter().filter_map(|r| line(&r.start)).min()?;
        let last = location.ranges.iter().filter_map(|r| line(&r.end)).max()?;
        Some(SourceLocation { file: file.clone(), text: text.clone(), lines: first..=last.max(first) })
    };
    source
        .locations
        .iter()
        .map(|(digest, found)| (digest.clone(), found.locations.iter().filter_map(place).collect()))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::llb::build::{Builder, Draft, Lines, Output, SourceFile};
    use crate::llb::exec::{Exec, ExecMount, ExecMountKind};
    use crate::llb::file::FileActions;
    use crate::llb::{merge, print, source};

    /// A small build with one op of each kind.
    fn definition() -> pb::Definition {
        let mut builder = Builder::new();
        let file = builder.file(SourceFile {
            name: "Dockerfile".to_owned(),
            data: b"FROM x\nRUN y\n".as_slice().into(),
            language: "Dockerfile".to_owned(),
        });
        let platform = crate::base::Platform::new("linux", "amd64", "");
        let image = builder.output(source::image(&"x".parse().unwrap(), &platform));
        let local = builder.output(source::local("context", "context", "", ""));
        let mut exec = Exec { meta: pb::Meta { args: vec!["y".to_owned()], ..Default::default() }, ..Exec::default() };
        exec.mounts.push(ExecMount {
            target: "/a".to_owned(),
            source: Some(local),
            selector: String::new(),
            read_only: false,
            kind: ExecMountKind::Kept,
        });
        let (mut draft, root) = exec.on(Some(image));
        draft.name("run");
        let position = |line| Some(pb::Position { line, character: 0 });
        draft.lines = vec![Lines { file, ranges: vec![pb::Range { start: position(2), end: position(2) }] }];
        let run = Output { op: builder.add(draft), index: root };
        let mut actions = FileActions::on(None);
        actions
            .copy(Some(Output { index: 1, ..run }), pb::FileActionCopy { src: "/".to_owned(), ..Default::default() });
        actions.mkdir(pb::FileActionMkDir { path: "/d".to_owned(), ..Default::default() });
        let files = builder.output(actions.into_draft());
        let head = merge::merge(&mut builder, &[Some(run), None, Some(files)], |_: &mut Draft| ());
        builder.finish(head)
    }

    #[test]
    fn what_was_built_is_read_back_in_order() {
        let graph = Graph::decode(&definition()).unwrap();
        let names: Vec<String> = graph.vertices().iter().map(Vertex::name).collect();
        assert_eq!(
            names,
            ["docker-image://docker.io/library/x", "local://context", "run", "copy / , mkdir /d", "merge"]
        );
        let run = &graph.vertices()[2];
        assert_eq!(run.locations.len(), 1);
        assert_eq!((run.locations[0].file.as_ref(), &run.locations[0].lines), ("Dockerfile", &(2..=2)));
        let (head, index) = graph.head().unwrap();
        assert_eq!((graph.position(&head), index), (Some(4), 0));
        assert_eq!(graph.vertices()[3].inputs(), [(run.digest, 1)]);
    }

    #[test]
    fn no_ops_are_scratch() {
        let graph = Graph::decode(&Builder::new().finish(None)).unwrap();
        assert_eq!((graph.head(), graph.vertices().len()), (None, 0));
    }

    #[test]
    fn equal_ops_are_one() {
        let mut builder = Builder::new();
        let op = || {
            let mut actions = FileActions::on(None);
            actions.mkdir(pb::FileActionMkDir { path: "/d".to_owned(), ..Default::default() });
            actions.into_draft()
        };
        assert_eq!(builder.add(op()), builder.add(op()));
    }

    #[test]
    fn what_does_not_hold_together_is_refused() {
        let bytes = |op: pb::Op| encode::op_bytes(&op);
        let source = |identifier: &str| pb::Op {
            op: Some(pb::op::Op::Source(pb::SourceOp { identifier: identifier.to_owned(), ..Default::default() })),
            ..Default::default()
        };
        let on = |below: &[u8], op: Option<pb::op::Op>| pb::Op {
            inputs: vec![pb::Input { digest: encode::digest(below).to_string(), index: 0 }],
            op,
            ..Default::default()
        };
        let error =
            |def: Vec<Vec<u8>>| Graph::decode(&pb::Definition { def, ..Default::default() }).unwrap_err().to_string();
        let x = bytes(source("x"));
        assert!(error(vec![vec![0xff]]).starts_with("op 0 of the definition does not decode"));
        assert!(error(vec![x.clone()]).ends_with("has exactly one input; this one has 0"));
        assert!(error(vec![bytes(on(&x, None))]).contains("which does not come before it"));
        let empty = bytes(source(""));
        assert!(error(vec![empty.clone(), bytes(on(&empty, None))]).ends_with("a source without identifier"));
        let merge = bytes(on(&x, Some(pb::op::Op::Merge(pb::MergeOp { inputs: vec![pb::MergeInput { input: 1 }] }))));
        assert!(
            error(vec![x.clone(), merge.clone(), bytes(on(&merge, None))])
                .ends_with("refers to its input 1, and has 1")
        );
        let exec = bytes(on(&x, Some(pb::op::Op::Exec(pb::ExecOp::default()))));
        assert!(error(vec![x, exec.clone(), bytes(on(&exec, None))]).ends_with("an exec without arguments"));
    }

    #[test]
    fn a_long_chain_does_not_fill_the_stack() {
        let mut builder = Builder::new();
        let mut below = None;
        for i in 0..20_000 {
            let mut actions = FileActions::on(below);
            actions.mkdir(pb::FileActionMkDir { path: format!("/{i}"), ..Default::default() });
            below = Some(builder.output(actions.into_draft()));
        }
        assert_eq!(Graph::decode(&builder.finish(below)).unwrap().vertices().len(), 20_000);
    }

    proptest! {
        #[test]
        fn changed_bytes_are_refused_or_read(op in 0usize..6, at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut definition = definition();
            let bytes = &mut definition.def[op];
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(graph) = Graph::decode(&definition) {
                let _ = (print::text(&graph), print::json(&graph), print::dot(&graph));
            }
        }
    }
}
