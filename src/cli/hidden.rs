//! Why COPY does not find a file: the context it looks in, and the line of the ignore file that hides it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::base::patterns::Matcher;
use crate::engine::{Context, DockerfilePlan, DockerfileSource, Plan, StepFailed};
use crate::frontend::ignore;
use crate::ops::select::SelectError;

/// Where a build looked for its files.
pub struct Place {
    context: PathBuf,
    dockerfile: Option<PathBuf>,
}

impl Place {
    /// None for a build whose context is not a folder here.
    pub fn of(plan: &Plan) -> Option<Self> {
        let Plan::Dockerfile(plan) = plan else { return None };
        let DockerfilePlan { context: Context::Directory(context), dockerfile, .. } = &**plan else { return None };
        let dockerfile = match dockerfile {
            DockerfileSource::Path(path) => path.clone().or_else(|| Some(context.join("Dockerfile"))),
            DockerfileSource::Text { .. } | DockerfileSource::Remote(_) => None,
        };
        Some(Self { context: context.clone(), dockerfile })
    }

    /// What to tell of a build that failed because a file of its context is not there.
    pub fn explain(&self, error: &anyhow::Error) -> Option<String> {
        let step = error.chain().find_map(|cause| cause.downcast_ref::<StepFailed>())?;
        let path = error.chain().find_map(|cause| match cause.downcast_ref() {
            Some(SelectError::NotFound { path }) => Some(path.trim_start_matches('/')),
            _ => None,
        })?;
        if is_from_elsewhere(step) {
            return None;
        }
        let context = self.context.display();
        // The name of one entry, looked at and not opened.
        if fs::symlink_metadata(self.context.join(path)).is_err() {
            return Some(format!("the build context is {context}, and there is no {path} in it"));
        }
        let (file, text) = self.ignore_file()?;
        let patterns = ignore::parse(&text);
        let rule = Matcher::new(&patterns).ok()?.decisive(path)?.text().to_owned();
        Some(format!("{path} is in the build context {context}, but {} hides it by the line {rule:?}", file.display()))
    }

    fn ignore_file(&self) -> Option<(PathBuf, String)> {
        let beside = self.dockerfile.as_ref().map(|path| PathBuf::from(format!("{}.dockerignore", path.display())));
        beside
            .into_iter()
            .chain([self.context.join(".dockerignore")])
            .find_map(|path| fs::read_to_string(&path).ok().map(|text| (path, text)))
    }
}

/// Whether the step copies out of another stage or image.
fn is_from_elsewhere(step: &StepFailed) -> bool {
    let Some(location) = &step.location else { return true };
    location.lines.iter().any(|&(first, last)| {
        location.text.lines().skip(first.saturating_sub(1)).take(last + 1 - first).any(|line| line.contains("--from="))
    })
}

/// A path as a person who stands in `cwd` would write it.
pub fn relative<'a>(path: &'a str, cwd: &Path) -> &'a str {
    Path::new(path).strip_prefix(cwd).ok().and_then(Path::to_str).filter(|p| !p.is_empty()).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Digest, VertexDigest};
    use crate::engine::Location;

    fn failed(path: &str, instruction: &str) -> anyhow::Error {
        StepFailed {
            vertex: VertexDigest(Digest::of("")),
            name: instruction.to_owned(),
            location: Some(Location {
                file: "Dockerfile".to_owned(),
                text: format!("FROM x\n{instruction}\n"),
                lines: vec![(2, 2)],
            }),
            process: None,
            last_lines: Vec::new(),
            source: SelectError::NotFound { path: path.to_owned() }.into(),
        }
        .into()
    }

    #[test]
    fn names_the_context_and_the_rule() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(".dockerignore"), "# notes\n*.log\n!keep.log\nsecret/\n").unwrap();
        fs::write(dir.path().join("a.log"), "").unwrap();
        let place = Place { context: dir.path().to_owned(), dockerfile: None };
        let context = dir.path().display().to_string();
        assert_eq!(
            place.explain(&failed("/a.log", "COPY a.log /")).unwrap(),
            format!(
                "a.log is in the build context {context}, but {context}/.dockerignore hides it by the line \"*.log\""
            )
        );
        assert_eq!(
            place.explain(&failed("/b.txt", "COPY b.txt /")).unwrap(),
            format!("the build context is {context}, and there is no b.txt in it")
        );
        assert_eq!(place.explain(&failed("/a.log", "COPY --from=build a.log /")), None);
    }

    #[test]
    fn paths_are_shown_from_where_one_stands() {
        assert_eq!(relative("/w/a/Dockerfile", Path::new("/w")), "a/Dockerfile");
        assert_eq!(relative("/x/Dockerfile", Path::new("/w")), "/x/Dockerfile");
        assert_eq!(relative("Dockerfile", Path::new("/w")), "Dockerfile");
    }
}
