//! Exec ops: a command, its root, its mounts.

use super::build::{Draft, Output};
use super::pb;

/// A command on its way to an op.
#[derive(Debug, Clone, Default)]
pub struct Exec {
    pub meta: pb::Meta,
    pub network: pb::NetMode,
    pub security: pb::SecurityMode,
    /// Beside the root.
    pub mounts: Vec<ExecMount>,
    pub secret_files: Vec<(String, pb::SecretOpt)>,
    pub secret_env: Vec<pb::SecretEnv>,
    /// Target (empty: a default one) and options.
    pub ssh: Vec<(String, pb::SshOpt)>,
    pub devices: Vec<pb::CdiDevice>,
}

#[derive(Debug, Clone)]
pub struct ExecMount {
    pub target: String,
    /// None for `scratch`.
    pub source: Option<Output>,
    /// A path inside the source; empty for all of it.
    pub selector: String,
    pub read_only: bool,
    pub kind: ExecMountKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecMountKind {
    /// Its changes are an output of the op, unless it is read-only.
    Kept,
    /// Its changes are thrown away.
    Discarded,
    Cache {
        id: String,
        sharing: pb::CacheSharingOpt,
    },
    Tmpfs {
        size: i64,
    },
}

impl Exec {
    /// The op over a root, and which of its outputs the changed root is.
    pub fn on(mut self, root: Option<Output>) -> (Draft, usize) {
        let mut draft = Draft::default();
        self.meta.remove_mount_stubs_recursive = true;
        self.name_agents();
        let (mut mounts, root_output) = self.place(root, &mut draft);
        let special = |dest: String, kind: pb::MountType| pb::Mount {
            input: -1,
            dest,
            mount_type: kind.into(),
            ..pb::Mount::default()
        };
        for (target, options) in self.secret_files {
            mounts.push(pb::Mount { secret_opt: Some(options), ..special(target, pb::MountType::Secret) });
        }
        for (target, options) in self.ssh {
            mounts.push(pb::Mount { ssh_opt: Some(options), ..special(target, pb::MountType::Ssh) });
        }
        draft.op = Some(pb::op::Op::Exec(pb::ExecOp {
            meta: Some(self.meta),
            mounts,
            network: self.network.into(),
            security: self.security.into(),
            secretenv: self.secret_env,
            cdi_devices: self.devices,
        }));
        (draft, root_output)
    }

    /// Agent sockets get their places, and the first one becomes the agent.
    fn name_agents(&mut self) {
        for (i, (target, _)) in self.ssh.iter_mut().enumerate() {
            if target.is_empty() {
                *target = format!("/run/buildkit/ssh_agent.{i}");
            }
        }
        let Some((first, _)) = self.ssh.first() else { return };
        if !self.meta.env.iter().any(|e| e.starts_with("SSH_AUTH_SOCK=")) {
            self.meta.env.push(format!("SSH_AUTH_SOCK={first}"));
        }
    }

    /// Mounts stand in the order of their targets; inputs and outputs are numbered in that order.
    fn place(&mut self, root: Option<Output>, draft: &mut Draft) -> (Vec<pb::Mount>, usize) {
        let root = ExecMount {
            target: "/".to_owned(),
            source: root,
            selector: String::new(),
            read_only: false,
            kind: ExecMountKind::Kept,
        };
        let mut mounts: Vec<(bool, ExecMount)> = vec![(true, root)];
        mounts.extend(std::mem::take(&mut self.mounts).into_iter().map(|m| (false, m)));
        mounts.sort_by(|(_, a), (_, b)| a.target.cmp(&b.target));
        let mut outputs = 0;
        let mut root_output = 0;
        let mut placed = Vec::with_capacity(mounts.len());
        for (is_root, mount) in mounts {
            let mut out = pb::Mount {
                input: draft.input_or_scratch(mount.source),
                selector: mount.selector,
                dest: mount.target,
                output: -1,
                readonly: mount.read_only,
                ..pb::Mount::default()
            };
            match mount.kind {
                ExecMountKind::Kept if !mount.read_only => {
                    if is_root {
                        root_output = outputs;
                    }
                    out.output = i64::try_from(outputs).unwrap_or(i64::MAX);
                    outputs += 1;
                }
                ExecMountKind::Kept | ExecMountKind::Discarded => {}
                ExecMountKind::Cache { id, sharing } => {
                    out.mount_type = pb::MountType::Cache.into();
                    out.cache_opt = Some(pb::CacheOpt { id, sharing: sharing.into() });
                }
                ExecMountKind::Tmpfs { size } => {
                    out.mount_type = pb::MountType::Tmpfs.into();
                    out.tmpfs_opt = Some(pb::TmpfsOpt { size });
                }
            }
            placed.push(out);
        }
        (placed, root_output)
    }
}
