//! The main job: runs a project's own build with our faces on its `PATH`, learns from the journal and from the
//! output folders which images it made, and lays them out expanded, all at once or not at all.

pub mod authority;
pub mod collect;
pub mod config;
pub mod faces;
pub mod journal;
pub mod outputs;
pub mod params;
pub mod run;
pub mod secrets;
pub mod stages;
