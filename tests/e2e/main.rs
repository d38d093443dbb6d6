//! End to end, through the built program, against real components.

#[path = "../support/s3_server.rs"]
mod s3_server;

mod agents;
mod buildkitd;
mod cli;
mod cli_build;
mod cli_containers;
mod cli_examples;
mod cli_faces;
mod cli_forms;
mod cli_images;
mod cli_task;
mod expansion;
mod fixture;
mod fleet;
mod golden_build;
mod interop;
mod main_job;
mod oracle;
mod remote;
mod spec;
mod streaming;
mod trimmed;
