//! Operations and the edges between them, checked once so that the solver can trust them.

use std::collections::HashMap;

use super::Node;
use crate::base::VertexDigest;

/// A graph without cycles whose every input exists. Nodes are kept inputs first.
pub struct Graph<R> {
    nodes: Vec<Node<R>>,
    index: HashMap<VertexDigest, usize>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    #[error("vertex {vertex} is an input, but not in the graph")]
    Missing { vertex: VertexDigest },
    #[error("vertex {vertex} is in the graph twice")]
    Twice { vertex: VertexDigest },
    #[error("vertex {vertex} has no output {output}")]
    Output { vertex: VertexDigest, output: usize },
    #[error("vertex {vertex} depends on itself")]
    Cycle { vertex: VertexDigest },
}

impl<R> Graph<R> {
    /// Sorts the nodes so that inputs come first; among nodes that do not depend on each other the order stays.
    pub fn new(nodes: Vec<Node<R>>) -> Result<Self, GraphError> {
        let mut at = HashMap::with_capacity(nodes.len());
        for (position, node) in nodes.iter().enumerate() {
            if at.insert(node.digest, position).is_some() {
                return Err(GraphError::Twice { vertex: node.digest });
            }
        }
        let order = order(&nodes, &at)?;
        let mut slots: Vec<Option<Node<R>>> = nodes.into_iter().map(Some).collect();
        let nodes: Vec<Node<R>> = order.into_iter().filter_map(|position| slots[position].take()).collect();
        let index = nodes.iter().enumerate().map(|(position, node)| (node.digest, position)).collect();
        Ok(Self { nodes, index })
    }

    /// Inputs first.
    pub fn nodes(&self) -> &[Node<R>] {
        &self.nodes
    }

    pub(super) fn position(&self, vertex: VertexDigest) -> Result<usize, GraphError> {
        self.index.get(&vertex).copied().ok_or(GraphError::Missing { vertex })
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Mark {
    New,
    Open,
    Done,
}

/// Positions, inputs first. With a stack of its own: a definition from outside may be as deep as it likes.
fn order<R>(nodes: &[Node<R>], at: &HashMap<VertexDigest, usize>) -> Result<Vec<usize>, GraphError> {
    let mut marks = vec![Mark::New; nodes.len()];
    let mut order = Vec::with_capacity(nodes.len());
    for start in 0..nodes.len() {
        if marks[start] != Mark::New {
            continue;
        }
        marks[start] = Mark::Open;
        let mut stack = vec![(start, 0)];
        while let Some((position, next)) = stack.pop() {
            let node = &nodes[position];
            let Some((input, _)) = node.inputs.get(next) else {
                marks[position] = Mark::Done;
                order.push(position);
                continue;
            };
            stack.push((position, next + 1));
            let input = *at.get(input).ok_or(GraphError::Missing { vertex: *input })?;
            match marks[input] {
                Mark::Done => {}
                Mark::Open => return Err(GraphError::Cycle { vertex: nodes[input].digest }),
                Mark::New => {
                    marks[input] = Mark::Open;
                    stack.push((input, 0));
                }
            }
        }
    }
    Ok(order)
}
