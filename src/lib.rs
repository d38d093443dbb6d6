//! dockless builds container images with a project's own build system, with no daemon and no privileges.
//!
//! The house has floors; a module imports only from a lower one, and `tests/floors.rs` reads the imports.
//! ARCHITECTURE.md tells what lives where and why.

pub mod base;
pub mod cli;
pub mod engine;
pub mod exec;
pub mod expand;
pub mod export;
pub mod frontend;
pub mod image;
pub mod layer;
pub mod llb;
pub mod ops;
pub mod registry;
pub mod remote;
pub mod resource;
pub mod snapshot;
pub mod solver;
pub mod source;
pub mod store;
pub mod sys;
pub mod task;
