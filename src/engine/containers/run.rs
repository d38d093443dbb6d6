//! Running a container's process: its file system becomes a snapshot again when the process has ended.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;

use super::record::{RunAs, Stored, set};
use super::stop::Attended;
use super::{State, Volume, find_stored};
use crate::base::Cancel;
use crate::exec::{Exit, Io, Mount, MountSource, Network, Process};
use crate::ops;
use crate::snapshot::{self, Snapshot, Tree};
use crate::store::FileLock;

/// Docker's number for what went wrong before the container's own process ran.
const SETUP_FAILED: i32 = 125;

/// Runs its process to the end. The container stays.
pub fn start(state: &State, container: &str, io: Io<'_>, cancel: &Cancel) -> anyhow::Result<Exit> {
    let found = find_stored(state, container)?;
    let _lock = found.lock(state)?;
    let _attended = Attended::note(&found.dir(state))?;
    // Read again: it may have run and ended between the search and the lock.
    let mut stored = find_stored(state, &found.container.id)?;
    let ended = attend(state, &mut stored, io, cancel);
    stored.container.exit = Some(match &ended {
        Ok(exit) => exit.code(),
        // As a shell would say of what SIGTERM ended.
        Err(_) if cancel.is_cancelled() => 128 + libc::SIGTERM,
        Err(_) => SETUP_FAILED,
    });
    stored.write(&stored.dir(state))?;
    ended
}

fn attend(state: &State, stored: &mut Stored, io: Io<'_>, cancel: &Cancel) -> anyhow::Result<Exit> {
    let snapshots = state.mountable()?;
    let base = load(state, stored)?;
    let tree = snapshots.tree(&base);
    let process = process(state, stored, tree.as_ref(), cancel)?;
    let mut active = snapshots.prepare(&base)?;
    let rootfs = active.rootfs(cancel)?;
    if process.insecure {
        active.unconfined();
    }
    let ended = state.executor()?.run(&rootfs, &process, io, cancel);
    // What it wrote is kept however it ended, as Docker keeps it.
    stored.snapshot = snapshots.save(&active.commit(&Cancel::new())?);
    Ok(ended?)
}

pub fn load(state: &State, stored: &Stored) -> anyhow::Result<Snapshot> {
    state
        .snapshots()?
        .load(&stored.snapshot)?
        .with_context(|| format!("the files of container {} are gone from the state folder", stored.container.name))
}

fn process(state: &State, stored: &Stored, tree: &dyn Tree, cancel: &Cancel) -> anyhow::Result<Process> {
    let RunAs { args, env, user, workdir, hostname, .. } = stored.run.clone();
    let user = ops::user::find(tree, &user)?;
    let hostname = hostname.unwrap_or_else(|| stored.container.id[..12].to_owned());
    let mut full = vec![
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        format!("HOSTNAME={hostname}"),
        format!("HOME={}", user.home),
    ];
    env.iter().for_each(|variable| set(&mut full, variable));
    let mut mounts = stored
        .run
        .volumes
        .iter()
        .map(|volume| mount(state, volume, tree, cancel))
        .collect::<anyhow::Result<Vec<Mount>>>()?;
    mounts.sort_by_key(|mount| mount.target.split('/').filter(|name| !name.is_empty()).count());
    Ok(Process {
        args,
        env: full,
        cwd: if workdir.is_empty() { "/".to_owned() } else { workdir },
        uid: user.uid,
        gid: user.gid,
        groups: user.groups,
        hostname: Some(hostname),
        network: if stored.run.no_network { Network::None } else { Network::Host },
        mounts,
        extra_hosts: stored.run.extra_hosts.clone(),
        ulimits: stored.run.ulimits.clone(),
        insecure: stored.run.privileged,
        read_only_root: stored.run.read_only,
    })
}

fn mount(state: &State, volume: &Volume, tree: &dyn Tree, cancel: &Cancel) -> anyhow::Result<Mount> {
    Ok(match volume {
        Volume::Bind { source, target, read_only } => {
            if !source.exists() {
                // As `docker run -v` does; `--mount` is checked where it is read.
                fs::create_dir_all(source).with_context(|| format!("make {}", source.display()))?;
            }
            Mount { target: target.clone(), source: MountSource::Bind(source.clone()), read_only: *read_only }
        }
        Volume::Named { name, target, read_only } => {
            let dir = volume_dir(state, name, target, tree, cancel)?;
            Mount { target: target.clone(), source: MountSource::Bind(dir), read_only: *read_only }
        }
        Volume::Tmpfs { target, size, mode } => {
            let source = MountSource::Tmpfs { size: *size, mode: *mode };
            Mount { target: target.clone(), source, read_only: false }
        }
    })
}

/// A volume's folder; a new one starts with what the image has at the target, as Docker's do.
fn volume_dir(state: &State, name: &str, target: &str, tree: &dyn Tree, cancel: &Cancel) -> anyhow::Result<PathBuf> {
    let home = state.volumes_dir();
    fs::create_dir_all(&home).with_context(|| format!("make {}", home.display()))?;
    let dir = home.join(name);
    let _making = FileLock::exclusive(&home.join(".making.lock"), cancel)?;
    if !dir.exists() {
        let beside = tempfile::Builder::new().prefix(".new-").tempdir_in(&home)?;
        let inner = beside.path().join("volume");
        fs::create_dir(&inner)?;
        let from = snapshot::resolve(tree, target.trim_start_matches('/').as_ref(), true)?;
        ops::fill(state.snapshots()?, tree, &from, &inner, cancel).with_context(|| format!("fill volume {name}"))?;
        fs::rename(&inner, &dir).with_context(|| format!("make {}", dir.display()))?;
    }
    Ok(dir)
}
