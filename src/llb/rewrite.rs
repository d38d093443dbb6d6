//! A definition with some of its sources replaced: what stands on them gets new digests, all else keeps its bytes.

use std::collections::HashMap;

use prost::Message as _;

use super::{Graph, Vertex, encode, needs, pb};
use crate::base::VertexDigest;

/// Asks for each source what takes its place; none keeps it. `graph` is the decoded definition.
pub fn sources(
    definition: &pb::Definition,
    graph: &Graph,
    replace: impl Fn(&Vertex, &pb::SourceOp) -> Option<pb::SourceOp>,
) -> pb::Definition {
    let bytes: HashMap<VertexDigest, &Vec<u8>> =
        definition.def.iter().map(|bytes| (encode::digest(bytes), bytes)).collect();
    let mut renamed: HashMap<String, String> = HashMap::new();
    let mut out = pb::Definition::default();
    for vertex in graph.vertices() {
        let mut op = vertex.op.clone();
        let mut meta = vertex.meta.clone();
        let mut changed = rename_inputs(&mut op, &renamed);
        if let Some(pb::op::Op::Source(source)) = &mut op.op
            && let Some(other) = replace(vertex, source)
        {
            *source = other;
            changed = true;
        }
        if changed {
            meta.caps.extend(op.op.iter().flat_map(needs::of).map(|cap| (cap.to_owned(), true)));
        }
        let old = vertex.digest.to_string();
        let digest = if changed {
            let new = encode::op_bytes(&op);
            let digest = encode::digest(&new).to_string();
            out.def.push(new);
            renamed.insert(old.clone(), digest.clone());
            digest
        } else {
            out.def.extend(bytes.get(&vertex.digest).map(|bytes| (*bytes).clone()));
            old.clone()
        };
        if definition.metadata.contains_key(&old) {
            out.metadata.insert(digest, meta);
        }
    }
    // The last op only names the result. It decoded when the graph did.
    if let Some(bytes) = definition.def.last()
        && let Ok(mut last) = pb::Op::decode(bytes.as_slice())
    {
        let new = if rename_inputs(&mut last, &renamed) { encode::op_bytes(&last) } else { bytes.clone() };
        if let Some(meta) = definition.metadata.get(&encode::digest(bytes).to_string()) {
            out.metadata.insert(encode::digest(&new).to_string(), meta.clone());
        }
        out.def.push(new);
    }
    out.source = definition.source.clone().map(|mut source| {
        let named = |(digest, places)| (renamed.get(&digest).cloned().unwrap_or(digest), places);
        source.locations = source.locations.into_iter().map(named).collect();
        source
    });
    out
}

/// Whether there was one to rename.
fn rename_inputs(op: &mut pb::Op, renamed: &HashMap<String, String>) -> bool {
    let mut changed = false;
    for input in &mut op.inputs {
        if let Some(digest) = renamed.get(&input.digest) {
            input.digest.clone_from(digest);
            changed = true;
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Platform;
    use crate::llb::build::Builder;
    use crate::llb::file::FileActions;
    use crate::llb::{merge, source};

    #[test]
    fn what_stands_on_a_replaced_source_is_renamed_and_the_rest_stays() {
        let mut builder = Builder::new();
        let platform = Platform::new("linux", "amd64", "");
        let old = builder.output(source::image(&"old".parse().unwrap(), &platform));
        let other = builder.output(source::image(&"other".parse().unwrap(), &platform));
        let mut actions = FileActions::on(Some(old));
        actions.mkdir(pb::FileActionMkDir { path: "/d".to_owned(), ..Default::default() });
        let made = builder.output(actions.into_draft());
        let head = merge::merge(&mut builder, &[Some(made), Some(other)], |_| ());
        let definition = builder.finish(head);
        let graph = Graph::decode(&definition).unwrap();

        let same = sources(&definition, &graph, |_, _| None);
        let mut theirs: Vec<_> = definition.def.clone();
        let mut ours = same.def.clone();
        assert_eq!(ours.pop(), theirs.pop());
        ours.sort();
        theirs.sort();
        assert_eq!((ours, same.metadata), (theirs, definition.metadata.clone()));

        let new = pb::SourceOp { identifier: "oci-layout://new".to_owned(), ..Default::default() };
        let rewritten = sources(&definition, &graph, |_, op| op.identifier.ends_with("/old").then(|| new.clone()));
        let again = Graph::decode(&rewritten).unwrap();
        let names: Vec<String> = again.vertices().iter().map(Vertex::name).collect();
        assert_eq!(names, ["oci-layout://new", "mkdir /d", "docker-image://docker.io/library/other", "merge"]);
        assert!(again.vertices()[0].meta.caps.contains_key("source.ocilayout"));
        assert_eq!(again.vertices()[2].digest, graph.vertices()[2].digest);
        assert_ne!(again.head(), graph.head());
    }
}
