//! Exit codes: dockless's own table, and what a face makes of it.

use std::process::ExitCode;

/// Why a command ended, as a number. The table is part of the interface; ARCHITECTURE.md and `dockless --help` show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    Success,
    /// Anything that has no number of its own.
    Failure,
    /// A command line, a parameter or dockless.yml that cannot be understood.
    Usage,
    /// A Dockerfile that cannot be built as it is written.
    Dockerfile,
    /// A step of a build ran and failed.
    Step,
    /// A registry, or the network on the way there.
    Registry,
    /// This place does not allow it; `dockless doctor` says more.
    Place,
    /// An image or archive that is damaged, or is none.
    Image,
    /// A name that nothing here has.
    Missing,
    /// A process ended this way, and its code is handed on (`run`, `start -a`, `task`).
    Process(u8),
}

impl Exit {
    /// With its meaning, for the help text.
    pub const TABLE: [(Self, &'static str); 9] = [
        (Self::Success, "it worked"),
        (Self::Failure, "it failed, for a reason without a number of its own"),
        (Self::Usage, "the command line, a parameter or dockless.yml cannot be understood"),
        (Self::Dockerfile, "the Dockerfile cannot be built as it is written"),
        (Self::Step, "a step of the build ran and failed"),
        (Self::Registry, "a registry refused, or could not be reached"),
        (Self::Place, "this place does not allow it (see `dockless doctor`)"),
        (Self::Image, "an image or archive is damaged, or is none"),
        (Self::Missing, "there is no image, container or file of that name"),
    ];

    pub const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failure => 1,
            Self::Usage => 2,
            Self::Dockerfile => 3,
            Self::Step => 4,
            Self::Registry => 5,
            Self::Place => 6,
            Self::Image => 7,
            Self::Missing => 8,
            Self::Process(code) => code,
        }
    }

    /// As the docker command has it: 125 for what it does not understand, 1 for all other failures of its own.
    pub const fn as_docker(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Usage => 125,
            Self::Process(code) => code,
            _ => 1,
        }
    }

    /// As img, buildctl and Concourse's resources have it.
    pub const fn as_plain(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Process(code) => code,
            _ => 1,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// A command line that parses and cannot be meant.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// A name that nothing here has.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Missing(pub String);

/// What was asked for in words that we know, and do not do.
#[derive(Debug, thiserror::Error)]
#[error("{what} is not supported{}", .instead.as_ref().map(|i| format!("; {i}")).unwrap_or_default())]
pub struct Unsupported {
    pub what: String,
    pub instead: Option<String>,
}

impl Unsupported {
    pub fn refuse(what: impl Into<String>) -> anyhow::Error {
        Self { what: what.into(), instead: None }.into()
    }

    pub fn instead(what: impl Into<String>, instead: impl Into<String>) -> anyhow::Error {
        Self { what: what.into(), instead: Some(instead.into()) }.into()
    }
}

/// What to do about an error, where only the one who asked can know. It has no words of its own in a message.
#[derive(Debug, thiserror::Error)]
#[error("")]
pub struct Hinted {
    pub hint: String,
    // Not `context`: what that wraps cannot be found in a chain of causes.
    pub source: anyhow::Error,
}

pub fn usage(message: impl Into<String>) -> anyhow::Error {
    Usage(message.into()).into()
}

pub fn missing(message: impl Into<String>) -> anyhow::Error {
    Missing(message.into()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_faces_have_their_own_numbers() {
        for (number, (exit, _)) in Exit::TABLE.iter().enumerate() {
            assert_eq!(usize::from(exit.code()), number);
        }
        assert_eq!(Exit::Usage.as_docker(), 125);
        assert_eq!(Exit::Step.as_docker(), 1);
        assert_eq!(Exit::Process(42).as_docker(), 42);
        assert_eq!(Exit::Registry.as_plain(), 1);
    }
}
