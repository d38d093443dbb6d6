//! End to end, through the built program, against real components.

mod golden_build;
mod main_job;
mod oracle;
