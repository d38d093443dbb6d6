//! Other tools' command lines. A face owns no behaviour: its words end in the same verbs.

pub mod buildctl;
mod builders;
pub mod docker;
pub mod dockless;
pub mod img;
pub mod kaniko;
pub mod oci_build;
