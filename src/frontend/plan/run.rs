//! RUN: a command over the stage's root, with its mounts.

use super::Planner;
use super::bases::COMMAND;
use super::stage::{StageState, shouted};
use crate::base::clean;
use crate::frontend::error::{Error, Result};
use crate::frontend::go::quote;
use crate::frontend::heredoc;
use crate::frontend::instruction::{Run, RunNetwork, Step};
use crate::frontend::mount::{Mount, MountType, Sharing};
use crate::frontend::shell::Lexer;
use crate::llb::exec::{Exec, ExecMount, ExecMountKind};
use crate::llb::file::{self, FileActions};
use crate::llb::{Output, pb};

/// Where a here-document with a `#!` line is mounted.
const PIPES: &str = "/dev/pipes/";

impl Planner<'_> {
    pub fn run(&mut self, state: &mut StageState, step: &Step, run: &Run, sources: &[Option<usize>]) -> Result<()> {
        // A command may look at anything.
        self.use_all_below(state.ground);
        let mut exec = Exec::default();
        let mut shown = step.code.clone();
        let mut args = self.command_words(&mut exec, run, &mut shown)?;
        if run.command.shell {
            args = state.with_shell(&args);
        }
        if args.is_empty() {
            return Err(Error::new("RUN has no command to run: its list is empty"));
        }
        let mut mounts = Vec::with_capacity(run.mounts.len());
        for text in &run.mounts {
            let place = self.source.place(step.lines.clone());
            let mount = Mount::parse(text, &mut |value| self.expand(state, value, &step.lines));
            mounts.push(mount.map_err(|e| e.at_word(&place, text))?);
        }
        for (mount, source) in mounts.iter().zip(sources) {
            match mount.kind {
                MountType::Secret => state.notes.secret(secret_id(mount)?, mount.required, &step.lines),
                MountType::Ssh if mount.id.is_empty() => state.notes.ssh("default", mount.required, &step.lines),
                MountType::Ssh => state.notes.ssh(&mount.id, mount.required, &step.lines),
                _ => {}
            }
            self.mount(&mut exec, state, mount, *source)?;
        }
        if let Some(size) = self.input.shm_size {
            exec.mounts.push(ExecMount {
                target: "/dev/shm".to_owned(),
                source: None,
                selector: String::new(),
                read_only: false,
                kind: ExecMountKind::Tmpfs { size: i64::try_from(size).unwrap_or(i64::MAX) },
            });
        }
        exec.network = match run.network {
            RunNetwork::Default => self.input.network,
            RunNetwork::None => pb::NetMode::None,
            RunNetwork::Host => pb::NetMode::Host,
        };
        if run.insecure {
            exec.security = pb::SecurityMode::Insecure;
        }
        exec.devices =
            run.devices.iter().map(|d| pb::CdiDevice { name: d.name.clone(), optional: !d.required }).collect();
        exec.meta = pb::Meta { args: args.clone(), ..self.exec_meta(state) };
        let name = self.run_name(state, &shown, &mounts)?;
        let (mut draft, root) = exec.on(state.root);
        draft.platform = Some(crate::llb::build::platform_of(state.platform()));
        draft.describe(COMMAND, step.code.clone());
        draft.name(name);
        draft.meta.ignore_cache = state.no_cache;
        draft.lines = self.lines(&step.lines);
        let op = self.builder.add(draft);
        state.root = Some(Output { op, index: root });
        let line = format!("RUN {} # buildkit", history_command(state, &args));
        self.spend(line.len())?;
        state.commit(line, true, self.created());
        Ok(())
    }

    fn exec_meta(&self, state: &StageState) -> pb::Meta {
        let input = self.input;
        pb::Meta {
            env: state.env.to_env(),
            cwd: state.dir.clone(),
            user: state.user.clone(),
            hostname: self.setting("BUILDKIT_SANDBOX_HOSTNAME", input.hostname.as_deref()),
            cgroup_parent: input.cgroup_parent.clone().unwrap_or_default(),
            proxy_env: self.proxy(),
            extra_hosts: input
                .extra_hosts
                .iter()
                .map(|(host, ip)| pb::HostIp { host: host.clone(), ip: ip.clone() })
                .collect(),
            ulimit: input
                .ulimits
                .iter()
                .map(|(name, soft, hard)| pb::Ulimit { name: name.clone(), soft: *soft, hard: *hard })
                .collect(),
            ..pb::Meta::default()
        }
    }

    /// A setting that a build argument of BuildKit's may replace.
    fn setting(&self, argument: &str, default: Option<&str>) -> String {
        let given = self.input.build_args.get(argument).map(String::as_str).filter(|value| !value.is_empty());
        given.or(default).unwrap_or_default().to_owned()
    }

    /// Proxies given as build arguments reach commands without being declared, and never the history.
    fn proxy(&self) -> Option<pb::ProxyEnv> {
        let mut proxy = pb::ProxyEnv::default();
        let mut any = false;
        for (name, value) in &self.input.build_args {
            let slot = match name.to_ascii_lowercase().as_str() {
                "http_proxy" => &mut proxy.http_proxy,
                "https_proxy" => &mut proxy.https_proxy,
                "ftp_proxy" => &mut proxy.ftp_proxy,
                "no_proxy" => &mut proxy.no_proxy,
                "all_proxy" => &mut proxy.all_proxy,
                _ => continue,
            };
            slot.clone_from(value);
            any = true;
        }
        any.then_some(proxy)
    }

    /// The words of the command, here-documents put where a shell finds them.
    fn command_words(&mut self, exec: &mut Exec, run: &Run, shown: &mut String) -> Result<Vec<String>> {
        let Some(first) = run.heredocs.first() else { return Ok(run.command.words.clone()) };
        let [line] = &run.command.words[..] else {
            return Err(Error::new("a here-document needs a command in shell form"));
        };
        if heredoc::parse(line).ok().flatten().is_none() {
            // Given back to the shell as it was written.
            let mut text = line.clone();
            for heredoc in &run.heredocs {
                text.push('\n');
                text.push_str(&heredoc.content);
                text.push_str(&heredoc.name);
            }
            return Ok(vec![text]);
        }
        let content = if first.chomp { heredoc::chomped(&first.content) } else { first.content.clone() };
        shown.push_str(&format!(" ({})", summary(&first.content)));
        if !content.starts_with("#!") {
            // The document is the script.
            return Ok(vec![content]);
        }
        let script = self.inline_file(&first.name, 0o755, &content);
        exec.mounts.push(ExecMount {
            target: PIPES.to_owned(),
            source: Some(script),
            selector: "/".to_owned(),
            read_only: true,
            kind: ExecMountKind::Kept,
        });
        Ok(vec![clean::join(&[PIPES, &first.name])])
    }

    fn run_name(&mut self, state: &mut StageState, shown: &str, mounts: &[Mount]) -> Result<String> {
        let lexer = Lexer { raw_quotes: true, keep_unset: true, ..self.lexer };
        let secrets: Vec<&str> =
            mounts.iter().filter(|m| m.kind == MountType::Secret).filter_map(|m| m.env.as_deref()).collect();
        let text = match lexer.expand_masked(shown, &state.env, &secrets) {
            Ok(expansion) => shouted(&expansion.text),
            Err(_) => shouted(shown),
        };
        self.spend(text.len())?;
        Ok(self.step_name(state, &text))
    }

    fn mount(&mut self, exec: &mut Exec, state: &StageState, mount: &Mount, stage: Option<usize>) -> Result<()> {
        match mount.kind {
            MountType::Secret => return secret(exec, mount),
            MountType::Ssh => return ssh(exec, mount),
            MountType::Bind | MountType::Cache | MountType::Tmpfs => {}
        }
        let mut source = match (stage, mount.kind) {
            (_, MountType::Tmpfs) => None,
            (Some(stage), _) => {
                if !self.states[stage].done {
                    let message = format!(
                        "cannot mount from stage {} to {}, stage needs to be defined before current command",
                        quote(&mount.from),
                        quote(&mount.target)
                    );
                    return Err(Error::new(message).about(&mount.from));
                }
                self.use_stage(stage, &mount.source);
                self.states[stage].root
            }
            (None, MountType::Cache) => None,
            (None, _) if mount.from == "scratch" => None,
            (None, _) => {
                self.use_context(&mount.source);
                self.main_context()?
            }
        };
        let target = if mount.target.starts_with('/') {
            mount.target.clone()
        } else {
            clean::join(&["/", &state.dir, &mount.target])
        };
        if target == "/" {
            let error = Error::new(format!("invalid mount target {}", quote(&target)));
            return Err(error.about(&format!("={}", mount.target)));
        }
        let mut selector = clean::join(&["/", &mount.source]);
        if selector == "/" {
            selector.clear();
            if mount.uid.is_some() || mount.gid.is_some() || mount.mode.is_some() {
                source = Some(self.owned_cache(source, mount));
                "/cache".clone_into(&mut selector);
            }
        }
        let kind = match mount.kind {
            MountType::Cache => {
                let id = if mount.id.is_empty() { clean::path(&mount.target) } else { mount.id.clone() };
                let sharing = match mount.sharing {
                    Some(Sharing::Private) => pb::CacheSharingOpt::Private,
                    Some(Sharing::Locked) => pb::CacheSharingOpt::Locked,
                    Some(Sharing::Shared) | None => pb::CacheSharingOpt::Shared,
                };
                let namespace = self.setting("BUILDKIT_CACHE_MOUNT_NS", Some(&self.input.cache_namespace));
                ExecMountKind::Cache { id: format!("{namespace}/{id}"), sharing }
            }
            MountType::Tmpfs => ExecMountKind::Tmpfs { size: mount.size },
            _ if mount.read_only => ExecMountKind::Kept,
            _ => ExecMountKind::Discarded,
        };
        exec.mounts.push(ExecMount { target, source, selector, read_only: mount.read_only, kind });
        Ok(())
    }

    /// A directory with the mode and owner that a cache begins with.
    fn owned_cache(&mut self, source: Option<Output>, mount: &Mount) -> Output {
        let mut actions = FileActions::on(source);
        actions.mkdir(pb::FileActionMkDir {
            path: "/cache".to_owned(),
            mode: i32::try_from(mount.mode.unwrap_or(0o755) & 0o777).unwrap_or(0o755),
            make_parents: false,
            owner: Some(file::owner_ids(mount.uid.unwrap_or(0), mount.gid.unwrap_or(0))),
            timestamp: file::NO_TIMESTAMP,
        });
        let mut draft = actions.into_draft();
        draft.name("[internal] setting cache mount permissions");
        self.builder.output(draft)
    }
}

fn secret_id(mount: &Mount) -> Result<&str> {
    match (mount.source.as_str(), mount.id.as_str()) {
        ("", "") if mount.target.is_empty() => Err(Error::new("one of source, target required")),
        ("", "") => Ok(clean::base(&mount.target)),
        ("", id) => Ok(id),
        (source, _) => Ok(source),
    }
}

fn secret(exec: &mut Exec, mount: &Mount) -> Result<()> {
    let id = secret_id(mount)?;
    if let Some(name) = &mount.env {
        exec.secret_env.push(pb::SecretEnv { id: id.to_owned(), name: name.clone(), optional: !mount.required });
        if mount.target.is_empty() {
            return Ok(());
        }
    }
    let target = match mount.target.as_str() {
        "" => format!("/run/secrets/{}", clean::base(id)),
        target => target.to_owned(),
    };
    let options = pb::SecretOpt {
        id: id.to_owned(),
        uid: mount.uid.unwrap_or(0),
        gid: mount.gid.unwrap_or(0),
        mode: mount.mode.unwrap_or(0o400),
        optional: !mount.required,
    };
    exec.secret_files.push((target, options));
    Ok(())
}

fn ssh(exec: &mut Exec, mount: &Mount) -> Result<()> {
    if !mount.source.is_empty() {
        return Err(Error::new("ssh does not support source"));
    }
    let options = pb::SshOpt {
        id: mount.id.clone(),
        uid: mount.uid.unwrap_or(0),
        gid: mount.gid.unwrap_or(0),
        mode: mount.mode.unwrap_or(0o600),
        optional: !mount.required,
    };
    exec.ssh.push((mount.target.clone(), options));
    Ok(())
}

/// The first line of a script.
fn summary(content: &str) -> String {
    let mut lines = content.trim().split('\n');
    let first = lines.next().unwrap_or_default();
    let first = first.strip_suffix('\r').unwrap_or(first);
    if lines.next().is_some() { format!("{first}...") } else { first.to_owned() }
}

/// What history shows: the build arguments that the command could see, then the command.
fn history_command(state: &StageState, args: &[String]) -> String {
    let mut seen: Vec<(&str, String)> = Vec::new();
    for argument in &state.build_args {
        let name = argument.name.as_str();
        let value = state.env.get(name).or(argument.value.as_deref()).unwrap_or_default();
        let line = format!("{name}={value}");
        match seen.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = line,
            None => seen.push((name, line)),
        }
    }
    let mut words = Vec::new();
    if !seen.is_empty() {
        words.push(format!("|{}", seen.len()));
        words.extend(seen.into_iter().map(|(_, line)| line));
    }
    words.extend(args.iter().cloned());
    words.join(" ")
}
