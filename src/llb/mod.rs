//! LLB, BuildKit's build graph (`solver/pb/ops.proto`): the wire types, a builder, canonical bytes and digests
//! (equal to those of Go's `client/llb`), and printing.

pub use bollard_buildkit_proto::pb;
