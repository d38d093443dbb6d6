//! LLB, BuildKit's build graph (`solver/pb/ops.proto`): the wire types, a builder, canonical bytes and digests
//! (equal to those of Go's `client/llb`), and printing.

pub use bollard_buildkit_proto::pb;

pub mod build;
pub mod caps;
pub mod encode;
pub mod exec;
pub mod file;
pub mod graph;
pub mod merge;
pub mod needs;
pub mod print;
pub mod rewrite;
pub mod source;

pub use build::{Builder, Output};
pub use graph::{Graph, InvalidDefinition, SourceLocation, Vertex};

/// Key in [`pb::OpMetadata::description`] under which the step's name for people stands.
pub const CUSTOM_NAME: &str = "llb.customname";
