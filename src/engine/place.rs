//! Which engine builds: `--engine`, else `DOCKLESS_ENGINE`, else `BUILDKIT_HOST`, else this process. Several may be named.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::Context;

use super::{Engine, FanOut, LocalEngine, RemoteEngine, Run, State};
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
    /// The engine, for one state folder.
    pub fn engine(&self, state: &Arc<State>) -> Box<dyn Engine> {
        match self {
            Self::Here => Box::new(LocalEngine::new(state.clone())),
            Self::At(address) => Box::new(RemoteEngine::new(state.clone(), address.clone())),
        }
    }
}

/// One place or several, each once; never none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places(Vec<Place>);

impl FromStr for Places {
    type Err = InvalidAddress;

    /// `local,docker:///var/run/docker.sock`
    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let places = text.split(',').map(|place| place.trim().parse()).collect::<Result<_, _>>()?;
        Ok(Self(Vec::new()).and(Self(places)))
    }
}

impl fmt::Display for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.0.iter().map(Place::to_string).collect();
        f.write_str(&names.join(","))
    }
}

impl Places {
    /// What the environment says.
    pub fn of(env: &Env) -> anyhow::Result<Self> {
        for name in [VARIABLE, "BUILDKIT_HOST"] {
            if let Some(text) = env.nonempty(name) {
                return text.parse().with_context(|| name.to_owned());
            }
        }
        Ok(Self(vec![Place::Here]))
    }

    /// Both lists as one.
    pub fn and(mut self, others: Self) -> Self {
        for place in others.0 {
            if !self.0.contains(&place) {
                self.0.push(place);
            }
        }
        self
    }

    pub fn iter(&self) -> impl Iterator<Item = &Place> {
        self.0.iter()
    }

    /// Whether nothing is built anywhere else.
    pub fn are_here(&self) -> bool {
        self.0 == [Place::Here]
    }

    /// The engine, or the engines as one.
    pub fn engine(&self, state: &Arc<State>, run: &Arc<Run>) -> Box<dyn Engine> {
        match &self.0[..] {
            [place] => place.engine(state),
            places => Box::new(FanOut::new(state.clone(), places.to_vec(), run.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_chooses_in_order() {
        let cases: [(&[(&str, &str)], Result<&str, &str>); 7] = [
            (&[], Ok("local")),
            (&[("BUILDKIT_HOST", "tcp://h:1")], Ok("buildkit://h:1")),
            (&[("BUILDKIT_HOST", "tcp://h:1"), ("DOCKLESS_ENGINE", "local")], Ok("local")),
            (&[("DOCKLESS_ENGINE", "docker:///s"), ("BUILDKIT_HOST", "x")], Ok("docker:///s")),
            (&[("DOCKLESS_ENGINE", "local, tcp://h,unix:///s,local")], Ok("local,buildkit://h:1234,unix:///s")),
            (&[("DOCKLESS_ENGINE", "local,")], Err("DOCKLESS_ENGINE: \"\" is no engine")),
            (&[("BUILDKIT_HOST", "nonsense")], Err("BUILDKIT_HOST: \"nonsense\" is no engine")),
        ];
        for (vars, expected) in cases {
            let place = Places::of(&Env::of(vars.iter().copied()));
            match (place, expected) {
                (Ok(place), Ok(expected)) => assert_eq!(place.to_string(), expected, "{vars:?}"),
                (Err(error), Err(part)) => assert!(format!("{error:#}").starts_with(part), "{error:#}"),
                (place, expected) => panic!("{vars:?}: {place:?}, not {expected:?}"),
            }
        }
    }
}
