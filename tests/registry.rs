//! The registry client against Debian's docker-registry and against a hostile registry of our own.

#[path = "support/docker_registry.rs"]
mod docker_registry;
#[path = "support/hostile_registry.rs"]
mod hostile_registry;
#[path = "support/kept.rs"]
mod kept;
#[path = "support/s3_server.rs"]
mod s3_server;
#[path = "support/sample_image.rs"]
mod sample_image;

#[path = "registry/bucket.rs"]
mod bucket;
#[path = "registry/command.rs"]
mod command;
#[path = "registry/ecr.rs"]
mod ecr;
#[path = "registry/hostile.rs"]
mod hostile;
#[path = "registry/kept_caches.rs"]
mod kept_caches;
#[path = "registry/memory.rs"]
mod memory;
#[path = "registry/programs.rs"]
mod programs;
#[path = "registry/real.rs"]
mod real;
#[path = "registry/shared.rs"]
mod shared;

use std::time::Duration;

use dockless::base::{Env, Platform};
use dockless::registry::{Patience, Registry, Settings};

/// A client that sees nothing of the machine's own configuration.
fn client(env: &Env, settings: Settings) -> Registry {
    let patience = settings.patience.unwrap_or(Patience {
        tries: 3,
        delay: Duration::from_millis(20),
        stall: Duration::from_secs(20),
    });
    Registry::new(env, Settings { patience: Some(patience), ..settings }).unwrap()
}

fn plain_client() -> Registry {
    client(&Env::of([]), Settings::default())
}

fn amd64() -> Platform {
    Platform::new("linux", "amd64", "")
}

fn arm64() -> Platform {
    Platform::new("linux", "arm64", "")
}
