//! Finds out by real calls, in a child, what this place allows, and chooses an isolation by the result. Who we are
//! (root, a user) is never asked: what works is.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::ns::{self, Stage};
use super::plan::{HostPath, Place};
use super::userns;
use super::wire::{self, Message, Request};
use super::{Error, Isolation};
use crate::sys::Ownership;

/// What is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trial {
    /// A process of ours can be started at all.
    Start,
    OtherOwner,
    Device,
    Namespaces,
    OtherUser,
    ChangeRoot,
    Answers,
    Trace,
    Tmpfs,
    Bind,
    Overlay,
    Proc,
    Sysfs,
    Devpts,
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "start a process",
            Self::OtherOwner => "give a file to another user",
            Self::Device => "make a device",
            Self::ChangeRoot => "change the root directory",
            Self::Trace => "trace a process of its own",
            Self::Answers => "answer another process's system calls",
            Self::Namespaces => "make mount, pid, ipc and uts namespaces",
            Self::OtherUser => "become another user",
            Self::Tmpfs => "mount a tmpfs",
            Self::Bind => "bind mount a device",
            Self::Overlay => "mount an overlay on the state folder",
            Self::Proc => "mount a new /proc",
            Self::Sysfs => "mount a new /sys",
            Self::Devpts => "mount new terminals",
        })
    }
}

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    pub trial: Trial,
    /// Why it did not work; none when it worked.
    pub refusal: Option<String>,
}

/// What this place allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub checks: Vec<Check>,
    work: PathBuf,
    program: PathBuf,
}

/// The isolation that RUN steps get here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    pub isolation: Isolation,
    /// Overlay mounts work on the state folder; else a step's root must be a plain directory.
    pub overlay: bool,
    /// Where ownership is kept: on the disk itself, or in the owner store.
    pub ownership: Ownership,
    /// One plain line for the log.
    pub reason: String,
    /// What would make a better isolation possible; none at the top.
    pub better: Option<String>,
    pub(super) place: Place,
    pub(super) work: PathBuf,
    pub(super) program: PathBuf,
}

/// Tries everything. `state` is the folder that step roots will lie in; what the sandbox keeps there is in `exec/`.
/// `program` is what stages are started from: [`THIS_PROGRAM`](super::THIS_PROGRAM), except in tests whose own `main`
/// does not call [`startup`](super::startup).
pub fn probe(state: &Path, program: &Path) -> Result<Report, Error> {
    let work = std::path::absolute(state)
        .map(|state| state.join("exec"))
        .map_err(|source| Error::Setup { call: format!("find {}", state.display()), source })?;
    let checks = ask(&work, program)
        .unwrap_or_else(|error| vec![Check { trial: Trial::Start, refusal: Some(error.to_string()) }]);
    Ok(Report { checks, work, program: program.to_owned() })
}

fn ask(work: &Path, program: &Path) -> io::Result<Vec<Check>> {
    fs::create_dir_all(work.join("scratch"))?;
    let place = tempfile::Builder::new().prefix("probe-").tempdir_in(work)?;
    let Stage { process, control } = ns::start(program, &Request::Probe(place.path().to_owned()), None)?;
    let answer = wire::receive::<Message>(&control);
    let output = process.wait_with_output()?;
    match answer? {
        Some((Message::Probed(checks), _)) => Ok(checks),
        _ => Err(io::Error::other(format!(
            "a trial ended without a word ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        ))),
    }
}

impl Report {
    /// Why something does not work; none when it does.
    fn refusal(&self, trial: Trial) -> Option<String> {
        match self.checks.iter().find(|check| check.trial == trial) {
            Some(Check { refusal: None, .. }) => None,
            Some(Check { refusal: Some(refusal), .. }) => Some(format!("{trial}: {refusal}")),
            None => Some(format!("{trial}: not reached")),
        }
    }

    fn works(&self, trial: Trial) -> bool {
        self.refusal(trial).is_none()
    }

    fn first_refusal(&self, trials: &[Trial]) -> Option<String> {
        trials.iter().find_map(|trial| self.refusal(*trial))
    }

    /// The best isolation for `Auto`, or the one asked for if it works here; else an error that says which call
    /// was refused.
    pub fn choose(&self, wanted: Isolation) -> Result<Choice, Error> {
        let mounts = [Trial::Namespaces, Trial::Tmpfs, Trial::Bind, Trial::Devpts];
        let ids = [Trial::OtherOwner, Trial::OtherUser];
        let root = [Trial::OtherOwner, Trial::OtherUser, Trial::ChangeRoot, Trial::Answers];
        let no_mounts = self.first_refusal(&mounts);
        let no_ids = self.first_refusal(&ids);
        let no_root = self.first_refusal(&root);
        let (isolation, refusal) = match wanted {
            Isolation::Ns => (Isolation::Ns, no_mounts.clone().or(no_ids.clone())),
            Isolation::Ns1 => (Isolation::Ns1, no_mounts.clone()),
            Isolation::Chroot => (Isolation::Chroot, no_root.clone()),
            Isolation::Auto if no_mounts.is_none() && no_ids.is_none() => (Isolation::Ns, None),
            Isolation::Auto if no_mounts.is_none() => (Isolation::Ns1, None),
            Isolation::Auto if no_root.is_none() => (Isolation::Chroot, None),
            Isolation::Auto | Isolation::Rewrite => {
                (Isolation::Rewrite, self.first_refusal(&[Trial::Answers, Trial::Trace]))
            }
        };
        if let Some(refusal) = refusal {
            let why = userns::few_ids().map(|why| format!(" ({why})")).unwrap_or_default();
            return Err(Error::Unsupported {
                what: "running a step".into(),
                isolation,
                hint: format!("{refusal}{why}; `dockless doctor` shows what was tried"),
            });
        }
        let mountable = matches!(isolation, Isolation::Ns | Isolation::Ns1);
        let many_ids = !matches!(isolation, Isolation::Ns1 | Isolation::Rewrite);
        let ownership = if many_ids { Ownership::Real } else { Ownership::Stored };
        let place = Place {
            own_proc: self.works(Trial::Proc),
            own_sysfs: self.works(Trial::Sysfs),
            many_ids,
            privileged: self.works(Trial::Device),
            scratch: HostPath::from(&self.work.join("scratch")),
        };
        let overlay = self.refusal(Trial::Overlay);
        Ok(Choice {
            isolation,
            overlay: mountable && overlay.is_none(),
            ownership,
            reason: reason(isolation, &place, overlay.as_deref().filter(|_| mountable), no_mounts.as_deref()),
            better: better(isolation, overlay.is_none(), no_mounts.as_deref()),
            place,
            work: self.work.clone(),
            program: self.program.clone(),
        })
    }
}

fn reason(isolation: Isolation, place: &Place, overlay: Option<&str>, no_mounts: Option<&str>) -> String {
    let mut text = match isolation {
        Isolation::Ns => "steps run in namespaces of their own, with real users".to_owned(),
        Isolation::Chroot | Isolation::Rewrite => {
            let how = match isolation {
                Isolation::Chroot => "in a root directory of their own, with real owners and emulated users",
                _ => "with every path rewritten, with emulated users and owners",
            };
            let why = no_mounts
                .map_or("as was asked for".to_owned(), |refusal| format!("since nothing can be mounted: {refusal}"));
            return format!("steps run {how}, {why}");
        }
        _ => "steps run in namespaces of their own, with one user; ownership is emulated".to_owned(),
    };
    if !place.own_proc {
        text.push_str("; /proc is masked here, so they see the processes outside");
    }
    if let Some(refusal) = overlay {
        text.push_str("; without overlays (");
        text.push_str(refusal);
        text.push(')');
    }
    text
}

fn better(isolation: Isolation, overlay: bool, no_mounts: Option<&str>) -> Option<String> {
    match isolation {
        Isolation::Ns1 => {
            let why = userns::few_ids().unwrap_or("this user has one id");
            Some(format!("{why}: with subordinate ids, ownership would be real and steps faster"))
        }
        Isolation::Chroot | Isolation::Rewrite => no_mounts.map(|refusal| {
            format!("a container that allows user namespaces and mounts ({refusal}): steps would be faster and closed off from each other")
        }),
        _ => (!overlay).then(|| "a state folder on a file system that overlays can be mounted on (ext4, xfs, tmpfs)".into()),
    }
}
