//! The main job: runs a project's own build with our faces on its `PATH`, learns from the journal and from the
//! output folders which images it made, and lays them out expanded, all at once or not at all.
