//! Which engine builds: `--engine`, else `DOCKLESS_ENGINE`, else `BUILDKIT_HOST`, else this process.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::Context;

use super::{Engine, LocalEngine, RemoteEngine, State};
use crate::base::Env;
use crate::remote::{Address, InvalidAddress};

/// Says which engine, to processes that this one starts too.
pub const VARIABLE: &str = "DOCKLESS_ENGINE";

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Here,
    At(Address),
}

impl FromStr for Place {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        if text == "local" { Ok(Self::Here) } else { text.parse().map(Self::At) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here => f.write_str("local"),
            Self::At(address) => address.fmt(f),
        }
    }
}

impl Place {
    /// What the environment says.
    pub fn of(env: &Env) -> anyhow::Result<Self> {
        for name in [VARIABLE, "BUILDKIT_HOST"] {
            if let Some(text) = env.nonempty(name) {
                return text.parse().with_context(|| name.to_owned());
            }
        }
        Ok(Self::Here)
    }

    /// The engine, for one state folder.
    pub fn engine(&self, state: &Arc<State>) -> Box<dyn Engine> {
        match self {
            Self::Here => Box::new(LocalEngine::new(state.clone())),
            Self::At(address) => Box::new(RemoteEngine::new(state.clone(), address.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_chooses_in_order() {
        let cases: [(&[(&str, &str)], Result<&str, &str>); 5] = [
            (&[], Ok("local")),
            (&[("BUILDKIT_HOST", "tcp://h:1")], Ok("buildkit://h:1")),
            (&[("BUILDKIT_HOST", "tcp://h:1"), ("DOCKLESS_ENGINE", "local")], Ok("local")),
            (&[("DOCKLESS_ENGINE", "docker:///s"), ("BUILDKIT_HOST", "x")], Ok("docker:///s")),
            (&[("BUILDKIT_HOST", "nonsense")], Err("BUILDKIT_HOST: \"nonsense\" is no engine")),
        ];
        for (vars, expected) in cases {
            let place = Place::of(&Env::of(vars.iter().copied()));
            match (place, expected) {
                (Ok(place), Ok(expected)) => assert_eq!(place.to_string(), expected, "{vars:?}"),
                (Err(error), Err(part)) => assert!(format!("{error:#}").starts_with(part), "{error:#}"),
                (place, expected) => panic!("{vars:?}: {place:?}, not {expected:?}"),
            }
        }
    }
}
