//! What `docker inspect` and `docker history` say of an image.

use serde_json::Value;

use super::Image;
use crate::base::Reference;

/// The object that `docker image inspect` prints, one element of its array.
pub fn inspect(image: &Image, references: &[Reference]) -> Value {
    let _ = (image, references);
    todo!()
}

/// One line of `docker history`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryLine {
    pub created: Option<String>,
    pub created_by: String,
    pub comment: String,
    /// Of the layer as it is stored; none for an instruction that made no layer.
    pub size: Option<u64>,
}

/// The newest instruction first, as Docker lists them.
pub fn history(image: &Image) -> Vec<HistoryLine> {
    let _ = image;
    todo!()
}
