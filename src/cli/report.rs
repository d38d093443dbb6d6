//! An error as a person needs it: what failed, where it is written, what the step said last, what to do about it,
//! and the number that scripts get.

use std::fmt::Write as _;
use std::os::fd::AsFd;
use std::path::Path;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use crate::base::causes;
use crate::engine::remote::reach;
use crate::engine::{StepFailed, containers};
use crate::ops::ForeignPlatform;
use crate::{exec, frontend, image, registry, remote, source, store, task};

use super::exit::{Exit, Hinted, Missing, Unsupported, Usage};
use super::hidden::relative;
use super::session::Session;
use super::verbs::container::SetupFailed;

/// An error, understood.
pub struct Report {
    pub exit: Exit,
    /// Ends with a line feed; empty where there is nothing to say.
    pub text: String,
}

/// What was found in an error's chain of causes.
struct Kind<'a> {
    exit: Exit,
    hint: Option<String>,
    step: Option<&'a StepFailed>,
    dockerfile: Option<&'a frontend::Error>,
    config: Option<&'a task::config::Error>,
}

/// Describes an error for a person who stands in `cwd`. `face` is the name that the message begins with.
pub fn report(error: &anyhow::Error, face: &str, cwd: &Path, colour: bool) -> Report {
    // A reader that went away (`dockless images | head -1`) is no failure to talk about.
    if error.chain().any(is_broken_pipe) && (is_unread(std::io::stdout()) || is_unread(std::io::stderr())) {
        return Report { exit: Exit::Process(128 + 13), text: String::new() };
    }
    let kind = classify(error);
    let mut text = String::new();
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    if let Some(step) = kind.step {
        step_failed(&mut text, step, cwd, &renderer);
    } else if let Some(dockerfile) = kind.dockerfile {
        dockerfile_error(&mut text, dockerfile, &renderer);
    } else if let Some(config) = kind.config {
        text.push_str(&config.render(&renderer));
        text.push('\n');
    }
    // Whatever the error says: work that was told to stop fails in many ways.
    if let Some(signal) = Session::caught() {
        let _ = writeln!(text, "{face}: stopped by {}", signal.as_str());
        return Report { exit: Exit::Process(128 + signal as u8), text };
    }
    let _ = writeln!(text, "{face}: {}", causes::line(error));
    if let Some(hint) = kind.hint {
        let _ = writeln!(text, "hint: {hint}");
    }
    Report { exit: kind.exit, text }
}

fn is_broken_pipe(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Whether nobody reads any more what is written here. A registry or a program of ours that hung up breaks a pipe too.
fn is_unread(fd: impl AsFd) -> bool {
    let mut asked = [PollFd::new(&fd, PollFlags::OUT)];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(rustix::event::poll(&mut asked, Some(&now)), Ok(1))
        && asked[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
}

/// An error and what it came of.
fn chain<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

/// What the disk, its rights or its owner's limits refuse, whatever was asked for.
fn is_of_the_machine(cause: &(dyn std::error::Error + 'static)) -> bool {
    use std::io::ErrorKind::{OutOfMemory, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    cause.downcast_ref::<std::io::Error>().is_some_and(|error| {
        matches!(error.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem | PermissionDenied | OutOfMemory)
            || matches!(Errno::from_io_error(error), Some(Errno::IO | Errno::MFILE | Errno::NFILE))
    })
}

fn classify(error: &anyhow::Error) -> Kind<'_> {
    let mut kind = Kind { exit: Exit::Failure, hint: None, step: None, dockerfile: None, config: None };
    for cause in error.chain() {
        if let Some((exit, hint)) = known(cause) {
            // The deepest known cause decides: a base image that cannot be had is the registry's failure, though the
            // Dockerfile names it. The first hint is nearest to what was typed.
            kind.exit = exit;
            kind.hint = kind.hint.or(hint);
        }
        kind.step = kind.step.or_else(|| cause.downcast_ref());
        kind.dockerfile = kind.dockerfile.or_else(|| cause.downcast_ref());
        kind.config = kind.config.or_else(|| cause.downcast_ref());
    }
    // A program of a step that is not there is no program that was run for its code.
    if let (Some(_), Exit::Process(_)) = (kind.step, kind.exit) {
        kind.exit = Exit::Step;
    }
    // A container that could not be made is one number, whatever the cause.
    if error.chain().any(|cause| cause.is::<SetupFailed>()) {
        kind.exit = SetupFailed::EXIT;
    }
    kind
}

fn known(cause: &(dyn std::error::Error + 'static)) -> Option<(Exit, Option<String>)> {
    if cause.is::<Usage>() || cause.is::<Unsupported>() || cause.is::<task::config::Error>() {
        return Some((Exit::Usage, None));
    }
    if let Some(hinted) = cause.downcast_ref::<Hinted>() {
        return Some((Exit::Failure, Some(hinted.hint.clone())));
    }
    if cause.is::<Missing>() {
        return Some((Exit::Missing, None));
    }
    if let Some(error) = cause.downcast_ref::<frontend::Error>() {
        // With a place, the hint stands below the source lines.
        let hint = error.hint.clone().filter(|_| error.place.is_none() && error.more.is_empty());
        return Some((Exit::Dockerfile, hint));
    }
    if let Some(error) = cause.downcast_ref::<StepFailed>() {
        // A step that ran no process either cannot do what its instruction says, or failed for a reason that is known
        // further down the chain.
        let exit = match &error.process {
            Some(_) => Exit::Step,
            None if error.source.chain().any(is_of_the_machine) => Exit::Failure,
            None => Exit::Dockerfile,
        };
        return Some((exit, None));
    }
    if cause.is::<ForeignPlatform>() {
        let hint = "register one with binfmt_misc (Debian: qemu-user-static), or leave the platform off --platform; \
                    stages that only COPY need none";
        return Some((Exit::Place, Some(hint.to_owned())));
    }
    if let Some(registry::Error::Cancelled(_)) = cause.downcast_ref() {
        return None;
    }
    if let Some(error) = cause.downcast_ref::<registry::Error>() {
        return Some((Exit::Registry, error.hint()));
    }
    if let Some(error) = cause.downcast_ref::<exec::Error>() {
        return match error {
            exec::Error::Setup { .. } | exec::Error::Unsupported { .. } => {
                Some((Exit::Place, Some("`dockless doctor` says what this place allows, and why".to_owned())))
            }
            exec::Error::NotFound { .. } => Some((Exit::Process(127), None)),
            exec::Error::NotExecutable { .. } => Some((Exit::Process(126), None)),
            exec::Error::Nul { .. } => Some((Exit::Dockerfile, None)),
            exec::Error::Cancelled(_) => None,
        };
    }
    // What is not there today may be tomorrow.
    if matches!(cause.downcast_ref(), Some(source::HttpError::Failed { .. }))
        || matches!(cause.downcast_ref(), Some(source::GitError::Failed { .. } | source::GitError::NoGit { .. }))
    {
        return Some((Exit::Failure, None));
    }
    if let Some(remote::Error::Connect { address, .. } | remote::Error::Protocol { address, .. }) = cause.downcast_ref()
    {
        let tls = match address {
            remote::Address::Tcp { .. } => format!(" does it want TLS, and to see a certificate ({})?", reach::TLS),
            remote::Address::Unix(_) | remote::Address::Docker(_) => String::new(),
        };
        let hint = format!("is it running, and may this user reach it?{tls} --engine=local builds without it");
        return Some((Exit::Failure, Some(hint)));
    }
    if cause.is::<remote::InvalidAddress>() {
        return Some((Exit::Usage, None));
    }
    if let Some(error) = cause.downcast_ref::<containers::Error>() {
        let exit = if matches!(error, containers::Error::Missing(_)) { Exit::Missing } else { Exit::Failure };
        return Some((exit, None));
    }
    if let Some(error) = cause.downcast_ref::<image::Error>() {
        return match error {
            // A transparent error hides what it holds from the chain.
            image::Error::Blob(inner) => known(inner),
            // What a decompressor says of a stream is no word of the system's.
            image::Error::Io { source, .. } if source.raw_os_error().is_none() => Some((Exit::Image, None)),
            image::Error::Cancelled(_) | image::Error::Io { .. } => None,
            image::Error::Reference(_) | image::Error::Ambiguous { .. } => Some((Exit::Usage, None)),
            error if chain(error).any(is_of_the_machine) => None,
            _ => Some((Exit::Image, None)),
        };
    }
    if let Some(error) = cause.downcast_ref::<store::Error>() {
        return match error {
            store::Error::Missing { .. }
            | store::Error::Mismatch { .. }
            | store::Error::Size { .. }
            | store::Error::Digest(_) => Some((Exit::Image, None)),
            _ => None,
        };
    }
    if cause.is::<crate::base::reference::ParseReferenceError>()
        || cause.is::<crate::base::platform::ParsePlatformError>()
    {
        return Some((Exit::Usage, None));
    }
    None
}

/// A failed step: its last lines, the place in the Dockerfile, how it ended. BuildKit's readers know the form.
fn step_failed(text: &mut String, step: &StepFailed, cwd: &Path, renderer: &Renderer) {
    if !step.last_lines.is_empty() {
        let _ = writeln!(text, "------\n > {}:", step.name);
        for line in &step.last_lines {
            let _ = writeln!(text, "{line}");
        }
        let _ = writeln!(text, "------");
    }
    let title = match &step.process {
        Some((command, exec::Exit::Code(code))) => format!("process {command:?} exited with code {code}"),
        Some((command, exec::Exit::Signal(signal))) => format!("process {command:?} was killed by signal {signal}"),
        None => step.source.root_cause().to_string(),
    };
    if let Some(location) = &step.location {
        let first = location.lines.iter().map(|l| l.0).min().unwrap_or(1);
        let last = location.lines.iter().map(|l| l.1).max().unwrap_or(first);
        if let Some(snippet) =
            snippet(&title, relative(&location.file, cwd), &location.text, lines(&location.text, first, last), renderer)
        {
            let _ = writeln!(text, "{snippet}");
        }
    }
}

fn dockerfile_error(text: &mut String, error: &frontend::Error, renderer: &Renderer) {
    if error.place.is_some() || !error.more.is_empty() {
        let _ = writeln!(text, "{}", error.render(renderer).trim_end());
    }
}

/// The bytes of a range of lines, counted from 1, without the last line feed.
fn lines(text: &str, first: usize, last: usize) -> Option<std::ops::Range<usize>> {
    let mut start = 0;
    let mut range = None;
    for (number, line) in text.split_inclusive('\n').enumerate().map(|(n, l)| (n + 1, l)) {
        let end = start + line.trim_end_matches(['\n', '\r']).len();
        if number == first {
            range = Some(start..end);
        } else if number > first
            && number <= last
            && let Some(range) = &mut range
        {
            range.end = end;
        }
        start += line.len();
    }
    range
}

/// A piece of a file with a title above and a mark under what is meant.
pub fn snippet(
    title: &str,
    file: &str,
    text: &str,
    span: Option<std::ops::Range<usize>>,
    renderer: &Renderer,
) -> Option<String> {
    let span = span?;
    let group = Level::ERROR
        .primary_title(title)
        .element(Snippet::source(text).path(file).annotation(AnnotationKind::Primary.span(span)));
    Some(renderer.render(&[group]).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Digest, VertexDigest};
    use crate::engine::Location;

    const DOCKERFILE: &str = "FROM scratch\nRUN make \\\n  all\nCMD x\n";

    fn failed() -> anyhow::Error {
        StepFailed {
            vertex: VertexDigest(Digest::of("")),
            name: "[2/2] RUN make   all".to_owned(),
            location: Some(Location {
                file: "Dockerfile".to_owned(),
                text: DOCKERFILE.to_owned(),
                lines: vec![(2, 3)],
            }),
            process: Some(("/bin/sh -c make   all".to_owned(), exec::Exit::Code(2))),
            last_lines: vec!["make: *** No rule to make target 'all'.  Stop.".to_owned()],
            source: anyhow::anyhow!("exit code 2"),
        }
        .into()
    }

    #[test]
    fn a_failed_step_shows_its_last_lines_its_place_and_its_code() {
        let report = report(&failed(), "dockless", Path::new("/"), false);
        assert_eq!(report.exit, Exit::Step);
        assert_eq!(
            report.text,
            "------\n > [2/2] RUN make   all:\nmake: *** No rule to make target 'all'.  Stop.\n------\n\
             error: process \"/bin/sh -c make   all\" exited with code 2\n \
             --> Dockerfile:2:1\n  |\n2 | / RUN make \\\n3 | |   all\n  | |_____^\n\
             dockless: [2/2] RUN make   all: exit code 2\n"
        );
    }

    #[test]
    fn kinds_have_their_numbers() {
        let cases: [(anyhow::Error, Exit); 7] = [
            (Usage("x".into()).into(), Exit::Usage),
            (Missing("x".into()).into(), Exit::Missing),
            (exec::Error::NotFound { path: "/x".into() }.into(), Exit::Process(127)),
            (SetupFailed(Missing("x".into()).into()).into(), Exit::Process(125)),
            (Hinted { hint: "h".into(), source: Missing("x".into()).into() }.into(), Exit::Missing),
            (containers::Error::Missing("c".into()).into(), Exit::Missing),
            (anyhow::anyhow!("x"), Exit::Failure),
        ];
        for (error, exit) in cases {
            assert_eq!(report(&error.context("outer"), "dockless", Path::new("/"), false).exit, exit);
        }
    }

    #[test]
    fn what_the_machine_refuses_is_not_the_dockerfile_s_fault() {
        let copy = |errno: Errno| -> anyhow::Error {
            let source = anyhow::Error::from(std::io::Error::from(errno)).context("copy /f to /f");
            let Ok(failed) = failed().downcast::<StepFailed>() else { unreachable!("it is one") };
            StepFailed { process: None, source, ..failed }.into()
        };
        for (errno, exit) in [
            (Errno::NOSPC, Exit::Failure),
            (Errno::ACCESS, Exit::Failure),
            (Errno::IO, Exit::Failure),
            (Errno::NOTDIR, Exit::Dockerfile),
            (Errno::NAMETOOLONG, Exit::Dockerfile),
        ] {
            assert_eq!(report(&copy(errno), "dockless", Path::new("/"), false).exit, exit, "{errno}");
        }
        let Ok(step) = failed().downcast::<StepFailed>() else { unreachable!("it is one") };
        let absent = exec::Error::NotFound { path: "/bin/sh".into() };
        let absent = StepFailed { process: None, source: absent.into(), ..step };
        assert_eq!(report(&absent.into(), "dockless", Path::new("/"), false).exit, Exit::Step);
        let read = |source| image::Error::Io { path: "/x.tar".to_owned(), source };
        for (error, exit) in [
            (read(std::io::Error::from(Errno::NOENT)), Exit::Failure),
            (read(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "incomplete deflate stream")), Exit::Image),
        ] {
            assert_eq!(report(&error.into(), "dockless", Path::new("/"), false).exit, exit);
        }
        let failed = || source::HttpError::Failed { url: "http://x".into(), reason: "503".into() };
        assert_eq!(report(&failed().into(), "dockless", Path::new("/"), false).exit, Exit::Failure);
    }

    /// A registry that hung up in the middle of a push looked like it, and nothing was said.
    #[test]
    fn only_a_reader_of_ours_that_went_away_is_not_talked_about() {
        let (reader, writer) = std::io::pipe().unwrap();
        assert!(!is_unread(&writer));
        drop(reader);
        assert!(is_unread(&writer));
        let error = anyhow::Error::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe)).context("push");
        assert_eq!(report(&error, "dockless", Path::new("/"), false).text, "dockless: push: broken pipe\n");
    }
}
