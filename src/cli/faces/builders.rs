//! `docker buildx ls` and `inspect`: who builds. Scripts read the platforms.

use crate::base::Platform;
use crate::cli::exit::Exit;
use crate::cli::session::{Out, Session};
use crate::engine::Place;
use crate::engine::remote::reach;

const NAME: &str = "dockless";

pub fn ls(session: &Session) -> anyhow::Result<Exit> {
    let mut out = Out::new();
    out.line("NAME/NODE   DRIVER/ENDPOINT    STATUS")?;
    for place in session.places()?.iter() {
        let (place, status) = match place {
            Place::Here => ("in-process".to_owned(), "running"),
            Place::At(address) => {
                let there = reach::connect(address, &session.env, &session.cancel()?);
                (address.to_string(), if there.is_ok() { "running" } else { "inactive" })
            }
        };
        out.line(format!("{NAME:<12}{place:<18} {status}"))?;
    }
    out.finish()?;
    Ok(Exit::Success)
}

pub fn inspect(session: &Session) -> anyhow::Result<Exit> {
    let mut out = Out::new();
    out.line(format!("Name:   {NAME}"))?;
    for place in session.places()?.iter() {
        match place {
            Place::Here => {
                out.line("Driver: in-process")?;
                out.line(format!("Platforms: {}", Platform::host()))?;
            }
            Place::At(address) => {
                let cancel = session.cancel()?;
                let workers = reach::connect(address, &session.env, &cancel)?.workers(&[], &cancel)?;
                out.line("Driver: remote")?;
                out.line(format!("Endpoint: {address}"))?;
                for worker in workers {
                    if let Some(version) = worker.version {
                        out.line(format!("BuildKit version: {}", version.version))?;
                    }
                    out.line(format!("Platforms: {}", worker.platforms.join(", ")))?;
                }
            }
        }
    }
    out.finish()?;
    Ok(Exit::Success)
}
