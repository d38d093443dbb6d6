//! Time: one clock reading a request, and `SOURCE_DATE_EPOCH` (reproducible-builds.org) over it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Env;

/// What "now" means for one request, in whole seconds since 1970 for everything written into images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch {
    now: SystemTime,
    source_date: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("SOURCE_DATE_EPOCH is {0:?}, expected whole seconds since 1970-01-01T00:00:00Z")]
pub struct ParseEpochError(String);

impl Epoch {
    /// Reads the clock, and `SOURCE_DATE_EPOCH` where it is set and not empty.
    pub fn capture(env: &Env) -> Result<Self, ParseEpochError> {
        Self::new(SystemTime::now(), env.nonempty("SOURCE_DATE_EPOCH"))
    }

    pub fn new(now: SystemTime, source_date: Option<&str>) -> Result<Self, ParseEpochError> {
        let source_date =
            source_date.map(|text| text.parse().map_err(|_| ParseEpochError(text.to_owned()))).transpose()?;
        Ok(Self { now, source_date })
    }

    /// The date that the user pinned, if any.
    pub fn source_date(&self) -> Option<i64> {
        self.source_date
    }

    /// With a date pinned by a build argument, which beats the environment.
    pub fn pinned(self, source_date: i64) -> Self {
        Self { source_date: Some(source_date), ..self }
    }

    /// The creation time to write: the pinned date, else the time of capture.
    pub fn created(&self) -> jiff::Timestamp {
        match self.source_date {
            Some(seconds) => jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH),
            None => jiff::Timestamp::try_from(self.now).unwrap_or(jiff::Timestamp::UNIX_EPOCH),
        }
    }

    /// The time of capture as seconds since 1970, whatever is pinned: for records that age, never for images.
    pub fn now_seconds(&self) -> u64 {
        self.now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_date_wins_and_nonsense_is_refused() {
        let pinned = Epoch::new(SystemTime::now(), Some("0")).unwrap();
        assert_eq!(pinned.created().to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(pinned.pinned(1).created().to_string(), "1970-01-01T00:00:01Z");
        assert_eq!(
            Epoch::new(SystemTime::now(), Some("yesterday")).unwrap_err().to_string(),
            "SOURCE_DATE_EPOCH is \"yesterday\", expected whole seconds since 1970-01-01T00:00:00Z"
        );
    }
}
