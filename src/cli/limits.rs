//! How much a state folder keeps from one run to the next: what flags say, else the environment, else two weeks and
//! half of the disk.

use std::ffi::OsString;
use std::time::Duration;

use super::exit::usage;
use super::flags;
use super::session::Session;
use crate::engine::Limits;

#[derive(Debug, Clone, Default, clap::Args)]
pub struct LimitArgs {
    /// Keep nothing in the state folder that no run used for so long; or none [default: $DOCKLESS_CACHE_AGE, else 14d]
    #[arg(long, value_name = "DURATION")]
    cache_age: Option<String>,
    /// Keep no more than this; or none [default: $DOCKLESS_CACHE_SIZE, else half of the disk]
    #[arg(long, value_name = "BYTES")]
    cache_size: Option<String>,
}

impl LimitArgs {
    pub fn read(&self, session: &Session) -> anyhow::Result<Limits> {
        let said = |typed: &Option<String>, name: &str| {
            typed.clone().or_else(|| session.env.nonempty(name).map(str::to_owned))
        };
        let age: Option<Option<Duration>> = limit(said(&self.cache_age, "DOCKLESS_CACHE_AGE"), flags::duration)?;
        let bytes = limit(said(&self.cache_size, "DOCKLESS_CACHE_SIZE"), flags::bytes)?;
        let bytes = match bytes {
            Some(bytes) => bytes,
            None => Some(Limits::bytes_for(session.state()?.dir())?),
        };
        Ok(Limits { age: age.unwrap_or(Some(Limits::AGE)), bytes })
    }
}

/// The limits as they are typed.
pub fn words(limits: &Limits) -> Vec<OsString> {
    let none = || "none".to_owned();
    let age = limits.age.map_or_else(none, |age| format!("{}s", age.as_secs()));
    let bytes = limits.bytes.map_or_else(none, |bytes| bytes.to_string());
    vec![format!("--cache-age={age}").into(), format!("--cache-size={bytes}").into()]
}

/// None where nothing is said, and none in it for `none`.
fn limit<T>(text: Option<String>, parse: fn(&str) -> Result<T, String>) -> anyhow::Result<Option<Option<T>>> {
    match text.as_deref() {
        None => Ok(None),
        Some("none") => Ok(Some(None)),
        Some(text) => Ok(Some(Some(parse(text).map_err(usage)?))),
    }
}
