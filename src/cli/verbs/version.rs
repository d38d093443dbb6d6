//! `version` and `info`: what scripts ask to learn whether there is a Docker.

use serde_json::{Value, json};

use crate::base::Platform;
use crate::cli::exit::{Exit, usage};
use crate::cli::session::{Face, Out, Session};
use crate::cli::template::Template;

/// Show the version.
#[derive(Debug, Clone, clap::Args)]
pub struct VersionArgs {
    /// Go template, or `json`
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
}

/// Show what is here: images, containers, state folder.
#[derive(Debug, Clone, clap::Args)]
pub struct InfoArgs {
    /// Go template, or `json`
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
}

pub const VERSION: &str = env!("CARGO_PKG_VERSION");

pub fn version(args: VersionArgs, session: &Session) -> anyhow::Result<Exit> {
    let platform = Platform::host();
    let side = json!({
        "Version": VERSION,
        // Docker 24 and newer speak this; scripts compare it.
        "ApiVersion": "1.43",
        "Os": platform.os,
        "Arch": platform.arch,
    });
    let value = json!({"Client": side, "Server": side});
    if session.face == Face::Img && args.format.is_none() {
        return print(&format!("img {VERSION}, build dockless"));
    }
    let text =
        format!("dockless {VERSION}\n platform: {platform}\n client and server: this process, there is no daemon");
    show(args.format.as_deref(), &value, &text)
}

pub fn info(args: InfoArgs, session: &Session) -> anyhow::Result<Exit> {
    let platform = Platform::host();
    let images = session.images()?.list()?.len();
    let containers = crate::engine::containers::list(session.state()?)?.len();
    let dir = session.state_dir();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let value = json!({
        "ID": "",
        "Name": "dockless",
        "ServerVersion": VERSION,
        "Driver": "overlay",
        "DockerRootDir": dir,
        "Images": images,
        "Containers": containers,
        "ContainersRunning": 0,
        "OSType": platform.os,
        "Architecture": std::env::consts::ARCH,
        "NCPU": cpus,
        "OperatingSystem": "dockless",
        "SecurityOptions": ["name=rootless"],
        "Warnings": [],
    });
    let text = format!(
        "dockless {VERSION}, with no daemon\n platform: {platform}\n CPUs: {cpus}\n state folder: {}\n \
         images: {images}\n containers: {containers}",
        dir.display()
    );
    show(args.format.as_deref(), &value, &text)
}

fn show(format: Option<&str>, value: &Value, text: &str) -> anyhow::Result<Exit> {
    match format {
        None | Some("") => print(text),
        Some("json") => print(&value.to_string()),
        Some(template) => print(&Template::parse(template).map_err(|error| usage(error.to_string()))?.execute(value)?),
    }
}

fn print(text: &str) -> anyhow::Result<Exit> {
    let mut out = Out::new();
    out.line(text)?;
    out.finish()?;
    Ok(Exit::Success)
}
