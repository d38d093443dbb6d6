//! `dockless.yml`: what a task is to run and what is to become of each image. Strict: a key that is not known, a
//! value that cannot be meant, are errors that show their line.

use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde::Deserialize;

use crate::base::patterns::glob;
use crate::expand::Archive;
use crate::layer::Compression;

/// The file that is read where no other is named.
pub const NAME: &str = "dockless.yml";

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The native build.
    pub command: Option<Command>,
    /// Where the images are laid out, relative to the working directory.
    pub output: Option<PathBuf>,
    /// Further folders in which archives of other tools are looked for.
    #[serde(default)]
    pub search: Vec<PathBuf>,
    /// For every image that has no entry of its own, and where an entry is silent.
    #[serde(default)]
    pub defaults: Wanted,
    /// By pattern, in the order of the file: a name, with or without tag, or the path of an archive; `*` stands for
    /// anything but `/`.
    #[serde(default, deserialize_with = "in_order")]
    pub images: Vec<(String, ImageEntry)>,
}

/// A list is run as it is, a line by `/bin/sh -c`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Command {
    Line(String),
    Words(Vec<String>),
}

/// What is wanted of an image. None means: as the defaults, or the parameters, say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    pub archive: Option<ArchiveKind>,
    pub compression: Option<CompressionKind>,
    pub rootfs: Option<bool>,
    pub tgz: Option<bool>,
    pub git: Option<bool>,
    pub oci: Option<bool>,
}

/// One image, or all that a glob matches.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageEntry {
    /// The folder's name.
    pub name: Option<String>,
    /// Built, but not laid out.
    #[serde(default)]
    pub skip: bool,
    pub archive: Option<ArchiveKind>,
    pub compression: Option<CompressionKind>,
    pub rootfs: Option<bool>,
    pub tgz: Option<bool>,
    pub git: Option<bool>,
    pub oci: Option<bool>,
    #[serde(default)]
    pub artifacts: Vec<ArtifactEntry>,
}

/// Files to pick out.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArtifactEntry {
    /// A path or glob inside the image.
    pub from: String,
    /// Relative to the image's folder; under its own name where it is silent.
    pub to: Option<PathBuf>,
    /// From this stage of the image's Dockerfile instead of the last one.
    pub stage: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ArchiveKind {
    Docker,
    Oci,
    None,
}

impl ArchiveKind {
    pub fn archive(self) -> Option<Archive> {
        match self {
            Self::Docker => Some(Archive::Docker),
            Self::Oci => Some(Archive::Oci),
            Self::None => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CompressionKind {
    None,
    Gzip,
    Zstd,
}

impl From<CompressionKind> for Compression {
    fn from(kind: CompressionKind) -> Self {
        match kind {
            CompressionKind::None => Self::Uncompressed,
            CompressionKind::Gzip => Self::Gzip,
            CompressionKind::Zstd => Self::Zstd,
        }
    }
}

impl ImageEntry {
    pub fn wanted(&self) -> Wanted {
        Wanted {
            archive: self.archive,
            compression: self.compression,
            rootfs: self.rootfs,
            tgz: self.tgz,
            git: self.git,
            oci: self.oci,
        }
    }
}

impl Wanted {
    /// This wish where it speaks, else the other.
    pub fn or(&self, other: &Self) -> Self {
        Self {
            archive: self.archive.or(other.archive),
            compression: self.compression.or(other.compression),
            rootfs: self.rootfs.or(other.rootfs),
            tgz: self.tgz.or(other.tgz),
            git: self.git.or(other.git),
            oci: self.oci.or(other.oci),
        }
    }
}

/// A mapping as a list: the first pattern that matches counts, so their order means something.
fn in_order<'de, D>(deserializer: D) -> Result<Vec<(String, ImageEntry)>, D::Error>
where
    D: serde::Deserializer<'de>,
{
    struct Entries;

    impl<'de> serde::de::Visitor<'de> for Entries {
        type Value = Vec<(String, ImageEntry)>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a mapping of image names to what is wanted of them")
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut entries = Vec::new();
            // A name with nothing after it is an image that is laid out as the defaults say.
            while let Some((pattern, entry)) = map.next_entry::<String, Option<ImageEntry>>()? {
                entries.push((pattern, entry.unwrap_or_default()));
            }
            Ok(entries)
        }
    }

    deserializer.deserialize_map(Entries)
}

/// A file that cannot be meant, with the place.
#[derive(Debug, thiserror::Error)]
#[error("{file}{}: {message}", .line.map(|l| format!(":{l}")).unwrap_or_default())]
pub struct Error {
    pub file: String,
    pub line: Option<usize>,
    pub message: String,
    text: String,
    span: Option<Range<usize>>,
}

impl Error {
    /// The lines that are meant, with a mark under them.
    pub fn render(&self, renderer: &Renderer) -> String {
        let title = Level::ERROR.primary_title(self.message.as_str());
        let group = match &self.span {
            Some(span) => title.element(
                Snippet::source(self.text.as_str())
                    .path(self.file.as_str())
                    .annotation(AnnotationKind::Primary.span(span.clone())),
            ),
            None => annotate_snippets::Group::with_title(title),
        };
        renderer.render(&[group]).to_string()
    }

    fn at_line(file: &str, text: &str, line: Option<usize>, message: String) -> Self {
        let span = line.and_then(|line| line_span(text, line));
        Self { file: file.to_owned(), line, message, text: text.to_owned(), span }
    }
}

/// Reads a file's text; `file` is the name that errors show.
pub fn parse(file: &str, text: &str) -> Result<Config, Error> {
    // A file of comments alone says nothing, which is allowed; YAML would call it null.
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(Config::default());
    }
    let config: Config = serde_yaml::from_str(text).map_err(|error| {
        let location = error.location();
        let line = location.map(|l| l.line() as usize);
        let message = error.render_with_options(serde_yaml::render_options! { snippets: serde_yaml::SnippetMode::Off });
        let mut wrong = Error::at_line(file, text, line, plain_message(&message));
        if let Some(location) = location
            && let (Some(start), Some(len)) = (location.span().byte_offset(), location.span().byte_len())
        {
            let span = start as usize..(start + len) as usize;
            if !span.is_empty() && text.get(span.clone()).is_some() {
                wrong.span = Some(span);
            }
        }
        wrong
    })?;
    check(file, text, &config)?;
    Ok(config)
}

/// Without the place that the YAML reader appends: it is shown in front, and in the snippet.
fn plain_message(message: &str) -> String {
    let first = message.lines().next().unwrap_or(message);
    match first.rfind(" at line ") {
        Some(end) => first[..end].trim_end_matches([',', ':']).to_owned(),
        None => first.to_owned(),
    }
}

/// What the types cannot say.
fn check(file: &str, text: &str, config: &Config) -> Result<(), Error> {
    let wrong = |needle: &str, message: String| {
        let line = text.lines().position(|line| line.contains(needle)).map(|n| n + 1);
        Err(Error::at_line(file, text, line, message))
    };
    if let Some(Command::Words(words)) = &config.command
        && words.is_empty()
    {
        return wrong("command", "command is an empty list".to_owned());
    }
    for (pattern, entry) in &config.images {
        if let Err(error) = glob::check(pattern) {
            return wrong(pattern, error.to_string());
        }
        if let Some(name) = &entry.name
            && !is_folder_name(name)
        {
            return wrong(name, format!("name {name:?} is not the name of one folder"));
        }
        for artifact in &entry.artifacts {
            if artifact.from.is_empty() {
                return wrong("from", "from is empty".to_owned());
            }
            if let Some(to) = &artifact.to
                && !stays_inside(to)
            {
                return wrong(
                    &to.to_string_lossy(),
                    format!("to {:?} leaves the image's folder", to.to_string_lossy()),
                );
            }
        }
    }
    Ok(())
}

/// One ordinary path component that is not hidden: dot names are ours, for what is not finished.
pub fn is_folder_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['/', '\0']) && !name.starts_with('.')
}

pub fn stays_inside(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

/// The bytes of one line, counted from 1, without its indent and its end.
fn line_span(text: &str, number: usize) -> Option<Range<usize>> {
    let mut start = 0;
    for (n, line) in text.split_inclusive('\n').enumerate() {
        if n + 1 == number {
            let indent = line.len() - line.trim_start().len();
            return Some(start + indent..start + line.trim_end().len().max(indent));
        }
        start += line.len();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_a_whole_file() {
        let config = parse(
            NAME,
            "command: [make, all]\noutput: ../release\nsearch: [dist]\ndefaults:\n  rootfs: true\nimages:\n\
             \x20 acct/*:\n    name: app\n    archive: oci\n    compression: zstd\n    tgz: no\n    artifacts:\n\
             \x20   - {from: /usr/bin/*, to: bin/, stage: build}\n  base:*:\n    skip: true\n  plain:\n",
        )
        .unwrap();
        assert_eq!(config.command, Some(Command::Words(vec!["make".into(), "all".into()])));
        assert_eq!(config.defaults.rootfs, Some(true));
        let (pattern, app) = &config.images[0];
        assert_eq!(pattern, "acct/*");
        assert_eq!(app.archive.unwrap().archive(), Some(Archive::Oci));
        assert_eq!(app.tgz, Some(false));
        assert_eq!(app.artifacts[0].stage.as_deref(), Some("build"));
        assert!(config.images[1].1.skip);
        assert_eq!(config.images[2], ("plain".to_owned(), ImageEntry::default()));
        assert_eq!(app.wanted().or(&config.defaults).rootfs, Some(true));
        assert_eq!(parse(NAME, "# nothing\n\n").unwrap(), Config::default());
        assert_eq!(parse(NAME, "command: make x").unwrap().command, Some(Command::Line("make x".into())));
    }

    #[test]
    fn shows_the_line_of_what_is_wrong() {
        let cases = [
            ("output: x\nimagse: []\n", 2, "imagse"),
            ("images:\n  x:\n    rootsf: true\n", 3, "rootsf"),
            ("images:\n  x:\n    archive: rar\n", 3, "rar"),
            ("images:\n  x:\n  x:\n", 3, "x"),
            ("images:\n  'a[':\n", 2, "a["),
            ("images:\n  x:\n    name: ../x\n", 3, "name \"../x\" is not the name of one folder"),
            ("images:\n  x:\n    artifacts:\n    - from: /a\n      to: ../../etc\n", 5, "leaves the image's folder"),
            ("a: [\n", 1, ""),
        ];
        for (text, line, words) in cases {
            let error = parse(NAME, text).unwrap_err();
            assert_eq!(error.line, Some(line), "{text}: {error}");
            assert!(error.message.contains(words), "{text}: {error}");
        }
        let error = parse(NAME, "output: x\nimagse: []\n").unwrap_err();
        let shown = error.render(&Renderer::plain());
        assert!(shown.contains("--> dockless.yml:2:1") && shown.contains("imagse: []"), "{shown}");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(images:\n  )?.{0,60}") {
            let _ = parse(NAME, &text);
        }
    }
}
