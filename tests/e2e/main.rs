//! End to end, through the built program, against real components.

mod expansion;
mod fixture;
mod golden_build;
mod interop;
mod main_job;
mod oracle;
mod streaming;
