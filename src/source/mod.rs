//! Where LLB sources come from: images, local contexts, git, http.

pub mod git;
pub mod http;
pub mod local;

pub use git::{GitError, GitRepository, GitRequest};
pub use http::{HttpError, HttpFile, HttpRequest};
pub use local::{LocalContext, LocalOptions};
