//! Canonical bytes of an op. Go writes a message's plain fields in the order of their numbers and its oneof last;
//! prost writes everything by number. Vertex digests are digests of these bytes, so the order is Go's.

use prost::Message;

use super::pb;
use crate::base::{Digest, VertexDigest};

/// The bytes that Go's `client/llb` writes for the op.
pub fn op_bytes(op: &pb::Op) -> Vec<u8> {
    let (rest, last) = split(op.clone());
    let mut bytes = rest.encode_to_vec();
    last.encode(&mut bytes).unwrap_or_else(|_| unreachable!("a Vec takes any number of bytes"));
    bytes
}

pub fn digest(bytes: &[u8]) -> VertexDigest {
    VertexDigest(Digest::of(bytes))
}

fn split(op: pb::Op) -> (pb::Op, pb::Op) {
    let last = pb::Op { op: op.op, ..Default::default() };
    (pb::Op { op: None, ..op }, last)
}
