//! A process as an operation (`RUN`): its mounts are made of inputs, its writable ones become results.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, bail};
use prost::Message;

use super::mounts::{Mounted, Mounts};
use super::tail::{LogWriter, Tail};
use super::{Ref, Request, content, user};
use crate::base::progress::{Step, Stream};
use crate::base::{Cancel, Digest, Hasher, Platform, VertexDigest};
use crate::exec::{self, Exit, Io, Network, Process, Stdin};
use crate::llb::{self, pb};
use crate::snapshot::Snapshot;
use crate::solver::{CacheMap, InputKey, Op, Policy};

/// What the process is told its host is called, unless the step says otherwise; the name is BuildKit's.
const HOSTNAME: &str = "buildkitsandbox";

/// Where programs are looked for when the image does not say.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A process ended in a way that the step does not allow.
#[derive(Debug, thiserror::Error)]
#[error("process {:?} did not complete successfully: {}", .command, ending(*.exit))]
pub struct ProcessFailed {
    pub command: String,
    pub exit: Exit,
    /// The last lines of its output, oldest first.
    pub last_lines: Vec<String>,
}

/// A program of another platform that this host cannot start.
#[derive(Debug, thiserror::Error)]
#[error("this host runs {host} and has no emulator registered for {platform}, so {program} cannot run")]
pub struct ForeignPlatform {
    pub platform: Platform,
    pub host: Platform,
    pub program: String,
}

fn ending(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("exit code: {code}"),
        Exit::Signal(signal) => format!("killed by signal {signal} (exit code: {})", exit.code()),
    }
}

pub struct ExecOp {
    request: Arc<Request>,
    vertex: VertexDigest,
    op: pb::ExecOp,
    platform: Option<pb::Platform>,
    inputs: usize,
    policy: Policy,
}

impl ExecOp {
    pub fn new(request: Arc<Request>, vertex: &llb::Vertex, op: &pb::ExecOp) -> Self {
        Self {
            request,
            vertex: vertex.digest,
            op: op.clone(),
            platform: vertex.op.platform.clone(),
            inputs: vertex.op.inputs.len(),
            policy: super::policy(vertex),
        }
    }

    /// What the op says in `meta`; a checked definition has it.
    fn meta(&self) -> anyhow::Result<&pb::Meta> {
        self.op.meta.as_ref().context("a process without arguments")
    }

    /// Whether an input is only read: then it counts by its content.
    fn only_read(&self, input: usize) -> bool {
        let mut mounts = self.mounts_of(input).peekable();
        mounts.peek().is_some() && mounts.all(|mount| mount.dest != "/" && (mount.readonly || mount.output == -1))
    }

    fn mounts_of(&self, input: usize) -> impl Iterator<Item = &pb::Mount> {
        self.op.mounts.iter().filter(move |mount| usize::try_from(mount.input) == Ok(input))
    }

    fn process(&self, root: &Snapshot, mounts: &Mounts) -> anyhow::Result<Process> {
        let meta = self.meta()?;
        let user = user::find(self.request.snapshots()?.tree(root).as_ref(), &meta.user)?;
        let mut env = meta.env.clone();
        let mut default = |key: &str, value: &str| {
            let prefix = format!("{key}=");
            if !value.is_empty() && !env.iter().any(|set| set.starts_with(&prefix)) {
                env.push(prefix + value);
            }
        };
        if let Some(proxy) = &meta.proxy_env {
            for (name, value) in [
                ("http_proxy", &proxy.http_proxy),
                ("https_proxy", &proxy.https_proxy),
                ("ftp_proxy", &proxy.ftp_proxy),
                ("no_proxy", &proxy.no_proxy),
                ("all_proxy", &proxy.all_proxy),
            ] {
                default(&name.to_uppercase(), value);
                default(name, value);
            }
        }
        let (path, value) = DEFAULT_PATH.split_once('=').unwrap_or_default();
        default(path, value);
        default("HOME", &user.home);
        env.extend(self.secret_env()?);
        let read_only_root = self.op.mounts.iter().any(|mount| mount.dest == "/" && mount.readonly);
        Ok(Process {
            args: meta.args.clone(),
            env,
            cwd: if meta.cwd.is_empty() { "/".to_owned() } else { meta.cwd.clone() },
            uid: user.uid,
            gid: user.gid,
            groups: user.groups,
            hostname: Some(if meta.hostname.is_empty() { HOSTNAME } else { &meta.hostname }.to_owned()),
            network: match self.op.network() {
                pb::NetMode::Unset | pb::NetMode::Host => Network::Host,
                pb::NetMode::None => Network::None,
            },
            mounts: mounts.for_process(self.request.shm_size),
            extra_hosts: meta.extra_hosts.iter().map(|entry| (entry.host.clone(), entry.ip.clone())).collect(),
            ulimits: meta.ulimit.iter().map(ulimit).collect(),
            insecure: self.is_insecure(),
            read_only_root,
        })
    }

    fn is_insecure(&self) -> bool {
        self.op.security() == pb::SecurityMode::Insecure
    }

    fn secret_env(&self) -> anyhow::Result<Vec<String>> {
        let mut env = Vec::new();
        for wanted in &self.op.secretenv {
            match self.request.secrets.get(&wanted.id) {
                Some(secret) => {
                    let value = secret.expose_str().with_context(|| {
                        format!("secret {} is not text and cannot be an environment variable", wanted.id)
                    })?;
                    env.push(format!("{}={value}", wanted.name));
                }
                None if wanted.optional => {}
                None => bail!("secret {}: not found", wanted.id),
            }
        }
        Ok(env)
    }

    /// What is asked for and cannot be given is an error, never silence.
    fn check_supported(&self) -> anyhow::Result<()> {
        let meta = self.meta()?;
        if let Some(device) = self.op.cdi_devices.iter().find(|device| !device.optional) {
            bail!("CDI device {} is not supported", device.name);
        }
        if !meta.cgroup_parent.is_empty() {
            bail!("cgroup parent {} is not supported: steps run in dockless's own cgroup", meta.cgroup_parent);
        }
        Ok(())
    }

    fn run(&self, root: &Mounted, process: &Process, cancel: &Cancel) -> anyhow::Result<()> {
        let step = Step::of(&self.request.progress, self.vertex);
        let tail = Arc::new(Mutex::new(Tail::default()));
        let writer = |stream| Box::new(LogWriter { step: step.clone(), stream, tail: tail.clone() });
        let io = Io { stdin: Stdin::Null, stdout: writer(Stream::Stdout), stderr: writer(Stream::Stderr) };
        let rootfs = root.rootfs().context("the root file system is no bind mount")?;
        let exit = match self.request.machine.executor()?.run(rootfs, process, io, cancel) {
            Err(exec::Error::Cancelled(cancelled)) => return Err(cancelled.into()),
            Err(exec::Error::NotExecutable { path, source }) => return Err(self.not_executable(path, source)),
            other => other?,
        };
        let valid = &self.meta()?.valid_exit_codes;
        let fine = match exit {
            Exit::Code(0) if valid.is_empty() => true,
            Exit::Code(code) => valid.contains(&code),
            Exit::Signal(_) => false,
        };
        if fine {
            return Ok(());
        }
        let tail = std::mem::take(&mut *tail.lock().unwrap_or_else(PoisonError::into_inner));
        Err(ProcessFailed { command: process.args.join(" "), exit, last_lines: tail.into_lines() }.into())
    }
}

impl ExecOp {
    /// A stage of another platform runs here wherever the kernel can start its programs: natively, or by binfmt_misc.
    /// Asking the kernel beats guessing from its settings, so the reason is looked for only when it refused.
    fn not_executable(&self, path: String, source: std::io::Error) -> anyhow::Error {
        let (host, platform) = (Platform::host(), self.platform.as_ref());
        let platform = platform.map(|p| Platform::new(&p.os, &p.architecture, &p.variant));
        match platform.filter(|platform| *platform != host) {
            Some(platform) if source.kind() != std::io::ErrorKind::PermissionDenied => {
                ForeignPlatform { platform, host, program: path }.into()
            }
            _ => exec::Error::NotExecutable { path, source }.into(),
        }
    }
}

impl Op<Ref> for ExecOp {
    fn cache_map(&self, _: &Cancel) -> anyhow::Result<CacheMap> {
        let mut op = self.op.clone();
        if let Some(meta) = &mut op.meta {
            // Where the build runs is not what it makes: proxies and addresses do not count.
            meta.proxy_env = None;
            meta.extra_hosts.iter_mut().for_each(|entry| entry.ip.clear());
        }
        let mut hasher = Hasher::new();
        hasher.field("exec");
        hasher.field(op.encode_to_vec());
        hasher.field(self.platform.clone().unwrap_or_default().encode_to_vec());
        let key = |input| if self.only_read(input) { InputKey::Content } else { InputKey::Identity };
        Ok(CacheMap { digest: hasher.finish(), inputs: (0..self.inputs).map(key).collect(), policy: self.policy })
    }

    fn content(&self, input: usize, result: &Ref, cancel: &Cancel) -> anyhow::Result<Digest> {
        let selectors: Vec<content::Selector> = self
            .mounts_of(input)
            .map(|mount| content::Selector { path: mount.selector.clone(), follow: true, ..Default::default() })
            .collect();
        content::checksum(self.request.tree(result)?.as_ref(), &selectors, cancel)
    }

    fn exec(&self, inputs: &[Ref], cancel: &Cancel) -> anyhow::Result<Vec<Ref>> {
        self.check_supported()?;
        let mut mounts = Mounts::prepare(&self.request, &self.op.mounts, inputs, cancel)?;
        if self.is_insecure() {
            mounts.unconfined();
        }
        let root = mounts.take_root().context("a process without a root file system")?;
        let process = self.process(root.base(), &mounts)?;
        self.run(&root, &process, cancel)?;
        mounts.put_root(root);
        Ok(mounts.commit(cancel)?.into_iter().map(Ref::Snapshot).collect())
    }
}

fn ulimit(limit: &pb::Ulimit) -> (String, u64, u64) {
    // -1 is "unlimited", which is the highest number for the kernel, too.
    let number = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
    (limit.name.clone(), number(limit.soft), number(limit.hard))
}
