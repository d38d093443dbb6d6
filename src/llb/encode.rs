//! Canonical bytes of an op. Go writes a message's plain fields in the order of their numbers and its oneof last (before
//! BuildKit left gogo's protobuf, all by number); prost writes everything by number. Vertex digests are digests of these bytes, so the order is Go's.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_op_comes_last() {
        let op = pb::Op {
            inputs: vec![pb::Input { digest: "d".to_owned(), index: 1 }],
            platform: Some(pb::Platform { os: "linux".to_owned(), ..Default::default() }),
            constraints: Some(pb::WorkerConstraints::default()),
            op: Some(pb::op::Op::Source(pb::SourceOp { identifier: "i".to_owned(), ..Default::default() })),
        };
        // Fields 1, 10, 11, and only then 3.
        assert_eq!(op_bytes(&op), b"\x0a\x05\x0a\x01d\x10\x01\x52\x07\x12\x05linux\x5a\x00\x1a\x03\x0a\x01i");
        assert_eq!(pb::Op::decode(op_bytes(&op).as_slice()).unwrap(), op);
    }
}
