//! `volume`: folders that containers share, by name.

use serde_json::{Value, json};

use crate::cli::exit::{Exit, missing};
use crate::cli::session::{Out, Session};
use crate::cli::table::Table;
use crate::cli::verbs::inspect::go_json;
use crate::engine::volumes;

#[derive(Debug, Clone, clap::Subcommand)]
pub enum Verb {
    /// List volumes
    #[command(visible_alias = "list")]
    Ls {
        /// Print names only
        #[arg(short, long)]
        quiet: bool,
    },
    /// Make an empty volume; one that a container names is made when it starts
    Create {
        #[arg(value_name = "VOLUME")]
        name: String,
    },
    Inspect {
        #[arg(value_name = "VOLUME", required = true)]
        names: Vec<String>,
    },
    /// Remove volumes with their files
    #[command(visible_alias = "remove")]
    Rm {
        /// Do not fail where there is none
        #[arg(short, long)]
        force: bool,
        #[arg(value_name = "VOLUME", required = true)]
        names: Vec<String>,
    },
}

pub fn run(verb: Verb, session: &Session) -> anyhow::Result<Exit> {
    session.enter_namespace()?;
    let state = session.state()?;
    let mut out = Out::new();
    match verb {
        Verb::Ls { quiet: true } => volumes::list(state)?.iter().try_for_each(|name| out.line(name))?,
        Verb::Ls { quiet: false } => {
            let mut table = Table::new(["DRIVER", "VOLUME NAME"]);
            volumes::list(state)?.into_iter().for_each(|name| table.row(["local".to_owned(), name]));
            table.print(&mut out)?;
        }
        Verb::Create { name } => {
            volumes::create(state, &name)?;
            out.line(name)?;
        }
        Verb::Inspect { names } => {
            let mut found = Vec::new();
            for name in names {
                let path = volumes::find(state, &name)?.ok_or_else(|| missing(format!("No such volume: {name}")))?;
                found.push(json!({"Name": name, "Driver": "local", "Mountpoint": path, "Scope": "local"}));
            }
            out.line(go_json(&Value::from(found)))?;
        }
        Verb::Rm { force, names } => {
            for name in names {
                if volumes::remove(state, &name)? {
                    out.line(name)?;
                } else if !force {
                    return Err(missing(format!("No such volume: {name}")));
                }
            }
        }
    }
    out.finish()?;
    Ok(Exit::Success)
}
