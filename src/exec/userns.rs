//! Puts this whole process into a user namespace in which it may chown and mount, where it may not already.

use super::{Error, Isolation};
use crate::base::Env;

/// What [`enter`] came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entered {
    /// This process could chown and mount already.
    NotNeeded,
    /// In a user namespace with as many ids as an image can want.
    ManyIds,
    /// In a user namespace that maps nobody but the caller; ownership is emulated.
    OneId,
    /// User namespaces or mounts in them are refused; nothing was changed.
    Refused,
}

/// Enters a user namespace if that helps. `main` calls it while there is one thread, before anything is opened;
/// `Env::uid` stays the caller's.
pub fn enter(_env: &Env, _wanted: Isolation) -> Result<Entered, Error> {
    todo!()
}
