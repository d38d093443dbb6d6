//! What every verb stands on: surroundings, state folder, cancellation, and the two ways to speak. Everything is
//! opened when first asked for, so that a verb that needs nothing starts in no time.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use annotate_snippets::Renderer;
use nix::sys::signal::Signal;

use crate::base::{Cancel, Env, Epoch, Reference};
use crate::engine::{Engine, LocalEngine, Places, Run, Settings, State};
use crate::exec;
use crate::frontend::Warning;
use crate::image::{ImageStore, StoredImage};
use crate::task::{self, journal::Journal};

use super::exit::{Exit, missing, usage};

/// Whose command line this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Face {
    Dockless,
    Docker,
    Img,
    Buildctl,
    /// `build`, the program of oci-build-task and builder-task.
    Build,
    /// kaniko's executor.
    Kaniko,
    /// `check`, `in` and `out`.
    Resource,
}

impl Face {
    /// The name that messages begin with.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dockless => "dockless",
            Self::Docker => "docker",
            Self::Img => "img",
            Self::Buildctl => "buildctl",
            Self::Build => "build",
            Self::Kaniko => "executor",
            Self::Resource => "resource",
        }
    }

    pub const fn code(self, exit: Exit) -> u8 {
        match self {
            Self::Dockless => exit.code(),
            Self::Docker => exit.as_docker(),
            Self::Img | Self::Buildctl | Self::Build | Self::Kaniko | Self::Resource => exit.as_plain(),
        }
    }
}

/// What the words before the verb chose.
#[derive(Debug, Clone, Default)]
pub struct Chosen {
    pub state: Option<PathBuf>,
    pub settings: Settings,
    /// `--engine`
    pub engine: Option<Places>,
    /// Say more.
    pub debug: bool,
}

/// The variable that says how steps are boxed, to every face and to processes of ours.
pub const ISOLATION: &str = "DOCKLESS_ISOLATION";

impl Chosen {
    /// What the surroundings choose where no word does.
    pub fn of(env: &Env) -> anyhow::Result<Self> {
        let wanted = env.nonempty(ISOLATION).map(str::parse).transpose();
        let isolation = wanted.map_err(|error| usage(format!("{ISOLATION}: {error}")))?.unwrap_or_default();
        Ok(Self { settings: Settings { isolation, ..Settings::default() }, ..Self::default() })
    }
}

/// One run of dockless.
pub struct Session {
    pub env: Env,
    pub face: Face,
    chosen: Chosen,
    cancel: OnceLock<Cancel>,
    state: OnceLock<Arc<State>>,
    run: OnceLock<Arc<Run>>,
    noted: Mutex<BTreeSet<String>>,
}

/// The file in which the processes of a task tell each other of engines that are gone.
pub const LOST_ENGINES: &str = "lost-engines";

/// The signal that cancelled this process, for its exit code.
static CAUGHT: OnceLock<Signal> = OnceLock::new();

impl Session {
    pub fn new(env: Env, face: Face, chosen: Chosen) -> Self {
        Self {
            env,
            face,
            chosen,
            cancel: OnceLock::new(),
            state: OnceLock::new(),
            run: OnceLock::new(),
            noted: Mutex::default(),
        }
    }

    /// The same run for somebody who stands in another folder, with the same state.
    pub fn at(&self, cwd: &Path) -> Self {
        let chosen = Chosen { state: Some(self.state_dir()), ..self.chosen.clone() };
        Self::new(self.env.clone().at(cwd), self.face, chosen)
    }

    /// For verbs that chown, mount or run something: moves this process into a user namespace where that helps.
    /// Must come before anything else of the session is asked for.
    pub fn enter_namespace(&self) -> anyhow::Result<()> {
        exec::enter(&self.env, self.chosen.settings.isolation)?;
        Ok(())
    }

    pub fn settings(&self) -> &Settings {
        &self.chosen.settings
    }

    /// For a process of ours that goes on with this one's work.
    pub fn isolation(&self) -> String {
        self.chosen.settings.isolation.to_string()
    }

    pub fn state_dir(&self) -> PathBuf {
        match &self.chosen.state {
            Some(dir) => self.env.absolute(dir),
            None => State::default_dir(&self.env),
        }
    }

    pub fn state(&self) -> anyhow::Result<&Arc<State>> {
        if let Some(state) = self.state.get() {
            return Ok(state);
        }
        let state = State::open(&self.state_dir(), &self.env, self.chosen.settings.clone())?;
        Ok(self.state.get_or_init(|| state))
    }

    pub fn images(&self) -> anyhow::Result<&ImageStore> {
        Ok(self.state()?.images())
    }

    /// What answers questions about Dockerfiles, wherever they are built.
    pub fn frontend(&self) -> anyhow::Result<LocalEngine> {
        Ok(LocalEngine::new(self.state()?.clone()))
    }

    /// Where builds happen.
    pub fn places(&self) -> anyhow::Result<Places> {
        match &self.chosen.engine {
            Some(places) => Ok(places.clone()),
            None => Places::of(&self.env).map_err(|error| usage(format!("{error:#}"))),
        }
    }

    /// What builds.
    pub fn engine(&self) -> anyhow::Result<Box<dyn Engine>> {
        let run = self.run.get_or_init(|| {
            // Beside the journal: both are of one task, and go with it.
            let lost = self.journal().map(|journal| journal.path().with_file_name(LOST_ENGINES));
            let root = self.env.nonempty(task::run::DIR).map(|dir| self.env.absolute(dir));
            Arc::new(Run::new(root.unwrap_or_else(|| self.env.cwd().to_owned()), lost))
        });
        Ok(self.places()?.engine(self.state()?, run))
    }

    /// The journal of the task that this process is part of; none outside a task.
    pub fn journal(&self) -> Option<Journal> {
        Journal::of(&self.env)
    }

    pub fn epoch(&self) -> anyhow::Result<Epoch> {
        Epoch::capture(&self.env).map_err(|error| usage(error.to_string()))
    }

    /// Now, whatever date the environment pins.
    pub fn unpinned_epoch(&self) -> anyhow::Result<Epoch> {
        let env = self.env.clone().with("SOURCE_DATE_EPOCH", "");
        Epoch::capture(&env).map_err(|error| usage(error.to_string()))
    }

    /// Raised by the first SIGINT, SIGTERM or SIGHUP; a second one ends the process at once.
    pub fn cancel(&self) -> anyhow::Result<Cancel> {
        if let Some(cancel) = self.cancel.get() {
            return Ok(cancel.clone());
        }
        let cancel = Cancel::new();
        let mut signals = crate::sys::signals::watch(&[Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP])?;
        let raised = cancel.clone();
        std::thread::spawn(move || {
            while let Ok(arrived) = signals.wait() {
                if CAUGHT.set(arrived.signal).is_err() {
                    std::process::exit(128 + arrived.signal as i32);
                }
                raised.cancel();
            }
        });
        Ok(self.cancel.get_or_init(|| cancel).clone())
    }

    /// The signal that ended the work, if one did.
    pub fn caught() -> Option<Signal> {
        CAUGHT.get().copied()
    }

    /// One line for people, on stderr.
    pub fn note(&self, message: impl AsRef<str>) {
        // Nothing can be done for a reader that went away, and the work goes on without it.
        let _ = writeln!(io::stderr().lock(), "{}", message.as_ref());
    }

    /// A warning, once in a process.
    pub fn warn(&self, message: impl Into<String>) {
        let message = message.into();
        if self.noted.lock().unwrap_or_else(PoisonError::into_inner).insert(message.clone()) {
            self.note(format!("warning: {message}"));
        }
    }

    /// Says how steps were run. Only where something ran: to know how costs a process.
    pub fn note_isolation(&self) -> anyhow::Result<()> {
        if let Some(reason) = self.state()?.isolation_used() {
            self.note(reason);
        }
        Ok(())
    }

    /// Tells of lint rules that fired, as buildx does when a build is over; with where, where one asked for more.
    pub fn lint(&self, warnings: &[Warning]) {
        let count = match warnings.len() {
            0 => return,
            1 => "1 warning".to_owned(),
            n => format!("{n} warnings"),
        };
        let more =
            if self.chosen.debug { String::new() } else { format!(" (use {} --debug to expand)", self.face.name()) };
        self.note(format!("\n {count} found{more}:"));
        let renderer = if super::progress::colour(&self.env) { Renderer::styled() } else { Renderer::plain() };
        for warning in warnings {
            self.note(format!(" - {warning}"));
            if self.chosen.debug {
                self.note(warning.render(&renderer));
            }
        }
    }

    /// Says which flags were typed and change nothing.
    pub fn warn_ignored(&self, flags: &[String]) {
        for flag in flags {
            self.warn(format!("{flag} has no meaning without a daemon and is ignored"));
        }
    }

    /// Refuses to write an archive to a terminal, in the words that scripts may know.
    pub fn refuse_terminal(&self) -> anyhow::Result<()> {
        if io::stdout().is_terminal() {
            return Err(usage("cowardly refusing to save to a terminal. Use the -o flag or redirect"));
        }
        Ok(())
    }

    /// An image of the local store by name or id. In a task, `X` also means the one image of repository `X` that the
    /// build made under another tag, as Makefiles written for img expect.
    pub fn image(&self, text: &str) -> anyhow::Result<StoredImage> {
        let images = self.images()?;
        if let Some(found) = images.find(text)? {
            return Ok(found);
        }
        if let (Some(journal), Ok(wanted)) = (self.journal(), text.parse::<Reference>())
            && wanted.tag().is_none()
            && wanted.digest().is_none()
        {
            let made = journal.read()?.names();
            let mut ids = BTreeSet::new();
            let mut last = None;
            for (reference, id) in made.iter().filter(|(r, _)| r.name() == wanted.name()) {
                ids.insert(*id);
                last = Some(reference.clone());
            }
            if let (1, Some(reference)) = (ids.len(), last)
                && let Some(found) = images.find(&reference.to_string())?
            {
                self.warn(format!(
                    "there is no {text}:latest; {} is meant, the only one built here",
                    reference.familiar()
                ));
                return Ok(found);
            }
        }
        Err(missing(format!("No such image: {text}")))
    }

    pub fn absolute(&self, path: impl AsRef<Path>) -> PathBuf {
        self.env.absolute(path)
    }
}

/// Standard output for results. Dropping it loses errors; [`Out::finish`] tells them.
pub struct Out(io::BufWriter<io::StdoutLock<'static>>);

impl Out {
    pub fn new() -> Self {
        Self(io::BufWriter::new(io::stdout().lock()))
    }

    pub fn line(&mut self, line: impl AsRef<str>) -> io::Result<()> {
        writeln!(self.0, "{}", line.as_ref())
    }

    pub fn finish(mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
