//! LLB operations as the solver runs them: sources, processes, file actions, merge and diff. Everything that an
//! operation needs of the machine is handed to it.

pub mod content;
pub mod file;
