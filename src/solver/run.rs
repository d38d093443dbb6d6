use super::{Error, Graph, Solver};
use crate::base::{Cancel, VertexDigest};

pub fn solve<R: Clone + Send + Sync>(
    _solver: &Solver<R>,
    _graph: &Graph<R>,
    _wanted: &[(VertexDigest, usize)],
    _cancel: &Cancel,
) -> Result<Vec<R>, Error> {
    todo!()
}
