//! The mounts of a step: what LLB asks for, made of inputs, secrets, sockets and cache folders, and held until the
//! process has ended.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};

use super::cache_mount::CacheMount;
use super::ssh::Agent;
use super::{Ref, Request, input};
use crate::base::{Cancel, Secret};
use crate::exec::{Mount, MountSource};
use crate::llb::pb;
use crate::snapshot::{Active, Snapshot, View};
use crate::sys::RootFs;

/// All mounts of one step.
pub struct Mounts {
    /// In the order of the definition, the root first taken out and then put back.
    mounted: Vec<Mounted>,
}

/// One mount that is ready.
pub struct Mounted {
    target: String,
    selector: PathBuf,
    read_only: bool,
    /// Which result it becomes; none when what was written is thrown away.
    output: Option<usize>,
    what: What,
}

enum What {
    Writable { base: Snapshot, active: Active, rootfs: RootFs },
    View { base: Snapshot, view: View },
    Cache(CacheMount),
    Agent(Agent),
    Tmpfs { size: Option<u64> },
    Secret { value: Secret, mode: u32, uid: u32, gid: u32 },
}

impl Mounts {
    pub fn prepare(
        request: &Arc<Request>,
        mounts: &[pb::Mount],
        inputs: &[Ref],
        cancel: &Cancel,
    ) -> anyhow::Result<Self> {
        let mut mounted = Vec::with_capacity(mounts.len());
        for mount in mounts {
            let what = prepare(request, mount, inputs, cancel).with_context(|| format!("mount {}", mount.dest))?;
            if let Some(what) = what {
                mounted.push(Mounted {
                    target: mount.dest.clone(),
                    selector: PathBuf::from(mount.selector.trim_start_matches('/')),
                    read_only: mount.readonly,
                    // Go's client leaves 0 where a mount of another type has nothing to say.
                    output: usize::try_from(mount.output).ok().filter(|_| mount.mount_type() == pb::MountType::Bind),
                    what,
                });
            }
        }
        Ok(Self { mounted })
    }

    /// The step is to have all privileges.
    pub fn unconfined(&mut self) {
        for mount in &mut self.mounted {
            match &mut mount.what {
                What::Writable { active, .. } => active.unconfined(),
                What::View { view, .. } => view.unconfined(),
                _ => {}
            }
        }
    }

    /// The mount at `/`, to be handed to the executor apart.
    pub fn take_root(&mut self) -> Option<Mounted> {
        let position = self.mounted.iter().position(|mount| mount.target == "/")?;
        Some(self.mounted.remove(position))
    }

    pub fn put_root(&mut self, root: Mounted) {
        self.mounted.push(root);
    }

    /// As the executor wants them, parents before what is mounted inside them.
    pub fn for_process(&self, shm_size: Option<u64>) -> Vec<Mount> {
        let mut mounts: Vec<Mount> = self.mounted.iter().map(Mounted::for_process).collect();
        if let Some(size) = shm_size {
            let source = MountSource::Tmpfs { size: Some(size), mode: Some(0o1777) };
            mounts.insert(0, Mount { target: "/dev/shm".to_owned(), source, read_only: false });
        }
        mounts.sort_by_key(|mount| mount.target.split('/').filter(|name| !name.is_empty()).count());
        mounts
    }

    /// The results, by output index.
    pub fn commit(self, cancel: &Cancel) -> anyhow::Result<Vec<Snapshot>> {
        let mut outputs = Vec::new();
        for mount in self.mounted {
            let Some(output) = mount.output else { continue };
            let result = match mount.what {
                What::Writable { active, .. } => active.commit(cancel)?,
                What::View { base, .. } => base,
                _ => bail!("mount {} cannot be a result", mount.target),
            };
            outputs.push((output, result));
        }
        outputs.sort_by_key(|(output, _)| *output);
        if let Some((_, (output, _))) = outputs.iter().enumerate().find(|(expected, (output, _))| expected != output) {
            bail!("output {output} of the step has none before it");
        }
        Ok(outputs.into_iter().map(|(_, snapshot)| snapshot).collect())
    }
}

impl Mounted {
    /// What a root or bind mount was before the step.
    pub fn base(&self) -> &Snapshot {
        static SCRATCH: std::sync::LazyLock<Snapshot> = std::sync::LazyLock::new(Snapshot::scratch);
        match &self.what {
            What::Writable { base, .. } | What::View { base, .. } => base,
            _ => &SCRATCH,
        }
    }

    pub fn rootfs(&self) -> Option<&RootFs> {
        match &self.what {
            What::Writable { rootfs, .. } => Some(rootfs),
            What::View { view, .. } => Some(view.rootfs()),
            _ => None,
        }
    }

    fn for_process(&self) -> Mount {
        let layered = |root: &RootFs| MountSource::RootFs { root: root.clone(), subpath: self.selector.clone() };
        let source = match &self.what {
            What::Writable { rootfs, .. } => layered(rootfs),
            What::View { view, .. } => layered(view.rootfs()),
            What::Cache(cache) => MountSource::Bind(cache.path().to_owned()),
            What::Agent(agent) => MountSource::Bind(agent.socket().to_owned()),
            What::Tmpfs { size } => MountSource::Tmpfs { size: *size, mode: None },
            What::Secret { value, mode, uid, gid } => {
                MountSource::Secret { value: value.clone(), mode: *mode, uid: *uid, gid: *gid }
            }
        };
        Mount { target: self.target.clone(), source, read_only: self.read_only }
    }
}

/// None where an optional secret or agent is not there.
fn prepare(request: &Arc<Request>, mount: &pb::Mount, inputs: &[Ref], cancel: &Cancel) -> anyhow::Result<Option<What>> {
    Ok(Some(match mount.mount_type() {
        pb::MountType::Bind => {
            let base = match input(inputs, mount.input) {
                Some(result) => request.snapshot(result, cancel)?,
                None => Snapshot::scratch(),
            };
            let snapshots = request.machine.mountable()?;
            // A read-only root still needs a place for mount points, which a commit would take for a change.
            if mount.readonly || mount.output == -1 {
                What::View { view: snapshots.view(&base, cancel)?, base }
            } else {
                let mut active = snapshots.prepare(&base)?;
                let rootfs = active.rootfs(cancel)?;
                What::Writable { base, active, rootfs }
            }
        }
        pb::MountType::Cache => {
            let option = mount.cache_opt.clone().unwrap_or_default();
            let first = input(inputs, mount.input).map(|result| request.tree(result)).transpose()?;
            let folder = request.machine.cache_mounts()?;
            let selector = first.as_deref().map(|tree| (tree, mount.selector.as_str()));
            What::Cache(CacheMount::open(
                &folder,
                request.machine.snapshots()?,
                &option,
                &mount.dest,
                selector,
                cancel,
            )?)
        }
        pb::MountType::Tmpfs => {
            let size = mount.tmpfs_opt.and_then(|option| u64::try_from(option.size).ok()).filter(|size| *size > 0);
            What::Tmpfs { size }
        }
        pb::MountType::Secret => {
            let option = mount.secret_opt.clone().unwrap_or_default();
            match request.secrets.get(&option.id) {
                Some(value) => {
                    What::Secret { value: value.clone(), mode: option.mode & 0o7777, uid: option.uid, gid: option.gid }
                }
                None if option.optional => return Ok(None),
                None => bail!("secret {}: not found", option.id),
            }
        }
        pb::MountType::Ssh => {
            let option = mount.ssh_opt.clone().unwrap_or_default();
            let id = if option.id.is_empty() { "default" } else { &option.id };
            match request.ssh.get(id) {
                Some(keys) => {
                    What::Agent(Agent::forward(keys, &option, request.machine.tmp()?, request.machine.env())?)
                }
                None if option.optional => return Ok(None),
                None => bail!("ssh agent {id}: not found"),
            }
        }
    }))
}
