//! Concourse's task parameters (environment variables), with the meaning that concourse-builder-img, builder-task and
//! oci-build-task gave them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::base::Env;

use super::config::{ArchiveKind, Wanted};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{name} is {value:?}, expected true or false")]
    Switch { name: String, value: String },
    #[error("{what} file '{path}' does not exist")]
    Missing { what: &'static str, path: String },
    #[error("{what} file {path}: {source}")]
    Read { what: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{what} file {path}, line {line}: expected KEY=VALUE")]
    Line { what: &'static str, path: PathBuf, line: usize },
    #[error("{what} file {path}: {reason}")]
    Yaml { what: &'static str, path: PathBuf, reason: String },
    #[error("{0} is not set")]
    Required(&'static str),
}

/// A switch as Concourse passes YAML booleans; none when unset or empty.
pub fn switch(env: &Env, name: &str) -> Result<Option<bool>, Error> {
    match env.nonempty(name) {
        None => Ok(None),
        Some("true" | "1" | "yes") => Ok(Some(true)),
        Some("false" | "0" | "no") => Ok(Some(false)),
        Some(value) => Err(Error::Switch { name: name.to_owned(), value: value.to_owned() }),
    }
}

/// What the parameters want of every image.
pub fn wanted(env: &Env) -> Result<Wanted, Error> {
    let oci = switch(env, "OUTPUT_OCI")?;
    // Its Makefile compares with exactly "true"; anything else is false there.
    let img_unpack = env.nonempty("IMG_UNPACK").map(|value| value == "true");
    Ok(Wanted {
        archive: None::<ArchiveKind>,
        rootfs: switch(env, "UNPACK_ROOTFS")?.or(img_unpack),
        oci,
        ..Wanted::default()
    })
}

/// One Dockerfile to build, as the `build` program of the older tasks takes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildParams {
    pub context: PathBuf,
    pub dockerfile: PathBuf,
    pub build_args: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    pub target: Option<String>,
    pub additional_targets: Vec<String>,
    /// Build argument to docker-save archive or OCI layout.
    pub image_args: BTreeMap<String, PathBuf>,
    pub platforms: Vec<String>,
    /// Always where there are several platforms: an archive of docker's holds one.
    pub output_oci: bool,
    pub unpack_rootfs: bool,
    /// `--secret` specs.
    pub secrets: Vec<String>,
    /// Id to text, where the parameter holds the value itself.
    pub secret_texts: BTreeMap<String, String>,
    pub ssh: Option<String>,
    pub add_hosts: Vec<String>,
    /// builder-task: what the image is called.
    pub repository: Option<String>,
    pub tag: Option<String>,
}

impl BuildParams {
    /// Reads the parameters and the files that they name.
    pub fn read(env: &Env) -> Result<Self, Error> {
        let context = PathBuf::from(env.nonempty("CONTEXT").unwrap_or("."));
        let dockerfile = match env.nonempty("DOCKERFILE") {
            Some(path) => PathBuf::from(path),
            None => context.join("Dockerfile"),
        };
        let platforms = list(env.nonempty("IMAGE_PLATFORM"));
        let mut params = Self {
            context,
            dockerfile,
            build_args: prefixed(env, "BUILD_ARG_"),
            labels: prefixed(env, "LABEL_"),
            target: env.nonempty("TARGET").map(str::to_owned),
            additional_targets: list(env.nonempty("ADDITIONAL_TARGETS")),
            image_args: prefixed(env, "IMAGE_ARG_").into_iter().map(|(k, v)| (k, env.absolute(v))).collect(),
            output_oci: switch(env, "OUTPUT_OCI")?.unwrap_or(false) || platforms.len() > 1,
            platforms,
            unpack_rootfs: switch(env, "UNPACK_ROOTFS")?.unwrap_or(false),
            secrets: prefixed(env, "BUILDKIT_SECRET_")
                .into_iter()
                .map(|(id, path)| format!("\"id={id}\",\"src={path}\""))
                .collect(),
            secret_texts: prefixed(env, "BUILDKIT_SECRETTEXT_"),
            ssh: env.nonempty("BUILDKIT_SSH").map(str::to_owned),
            add_hosts: list(env.nonempty("BUILDKIT_ADD_HOSTS")),
            repository: env.nonempty("REPOSITORY").map(str::to_owned),
            tag: env.nonempty("TAG").map(str::to_owned),
        };
        if let Some(path) = env.nonempty("BUILD_ARGS_FILE") {
            params.build_args.extend(pairs_file(env, "build args", path)?);
        }
        if let Some(path) = env.nonempty("LABELS_FILE") {
            params.labels.extend(pairs_file(env, "labels", path)?);
        }
        if let Some(path) = env.nonempty("TARGET_FILE") {
            params.target = Some(read(env, "target", path)?.trim().to_owned()).filter(|t| !t.is_empty());
        }
        if let Some(path) = env.nonempty("TAG_FILE") {
            params.tag = Some(read(env, "tag", path)?.trim().to_owned());
        }
        Ok(params)
    }
}

/// Variables that begin with a prefix, by what follows it, in the case they have.
fn prefixed(env: &Env, prefix: &str) -> BTreeMap<String, String> {
    env.vars()
        .filter_map(|(name, value)| {
            let id = name.to_str()?.strip_prefix(prefix)?;
            // `BUILD_ARGS_FILE` and its like are no arguments.
            (!id.is_empty()).then(|| Some((id.to_owned(), value.to_str()?.to_owned())))?
        })
        .collect()
}

fn list(text: Option<&str>) -> Vec<String> {
    text.into_iter().flat_map(|t| t.split(',')).map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned).collect()
}

fn read(env: &Env, what: &'static str, path: &str) -> Result<String, Error> {
    let absolute = env.absolute(path);
    match std::fs::read_to_string(&absolute) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(Error::Missing { what, path: path.to_owned() })
        }
        Err(source) => Err(Error::Read { what, path: absolute, source }),
    }
}

/// A file of `KEY=VALUE` lines, or a YAML mapping of strings where the name says so.
fn pairs_file(env: &Env, what: &'static str, path: &str) -> Result<BTreeMap<String, String>, Error> {
    let text = read(env, what, path)?;
    let file = Path::new(path);
    if file.extension().is_some_and(|e| e == "yml" || e == "yaml") {
        return serde_yaml::from_str(&text).map_err(|error| Error::Yaml {
            what,
            path: file.to_owned(),
            reason: error.to_string().lines().next().unwrap_or_default().to_owned(),
        });
    }
    pairs(&text).map_err(|line| Error::Line { what, path: file.to_owned(), line })
}

/// The error is the number of the line that is no pair.
fn pairs(text: &str) -> Result<BTreeMap<String, String>, usize> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(n, line)| match line.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(n + 1),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_oci_build_task_reads() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("args"), "A=from file\n\nC=a=b\n").unwrap();
        std::fs::write(dir.path().join("args.yml"), "D: four\n").unwrap();
        std::fs::write(dir.path().join("target"), "final\n").unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let env = Env::of([
            ("CONTEXT", "src"),
            ("BUILD_ARG_A", "one"),
            ("BUILD_ARG_b", "two"),
            ("BUILD_ARGS_FILE", &path("args")),
            ("LABEL_x.y", "z"),
            ("TARGET", "ignored"),
            ("TARGET_FILE", &path("target")),
            ("ADDITIONAL_TARGETS", "one, two"),
            ("BUILDKIT_SECRET_tok", "a,b"),
            ("BUILDKIT_SECRETTEXT_pw", "text"),
            ("OUTPUT_OCI", "true"),
        ]);
        let params = BuildParams::read(&env).unwrap();
        assert_eq!(params.dockerfile, Path::new("src/Dockerfile"));
        let args: Vec<_> = params.build_args.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(args, ["A=from file", "C=a=b", "b=two"]);
        assert_eq!(params.labels["x.y"], "z");
        assert_eq!(params.target.as_deref(), Some("final"));
        assert_eq!(params.additional_targets, ["one", "two"]);
        assert_eq!(params.secrets, ["\"id=tok\",\"src=a,b\""]);
        assert_eq!(params.secret_texts["pw"], "text");
        assert!(params.output_oci && !params.unpack_rootfs);
        let env = Env::of([("BUILD_ARGS_FILE", path("args.yml").as_str())]);
        assert_eq!(BuildParams::read(&env).unwrap().build_args["D"], "four");
        for (platforms, oci) in [("linux/arm64", false), ("linux/amd64, linux/arm64", true)] {
            assert_eq!(BuildParams::read(&Env::of([("IMAGE_PLATFORM", platforms)])).unwrap().output_oci, oci);
        }
    }

    #[test]
    fn says_what_is_wrong() {
        let cases = [
            (("TAG_FILE", "/nowhere"), "tag file '/nowhere' does not exist"),
            (("UNPACK_ROOTFS", "maybe"), "UNPACK_ROOTFS is \"maybe\", expected true or false"),
        ];
        for ((name, value), message) in cases {
            assert_eq!(BuildParams::read(&Env::of([(name, value)])).unwrap_err().to_string(), message);
        }
        assert_eq!(pairs("a=b\nnonsense\n"), Err(2));
    }

    #[test]
    fn img_unpack_is_exactly_true() {
        assert_eq!(wanted(&Env::of([("IMG_UNPACK", "true")])).unwrap().rootfs, Some(true));
        assert_eq!(wanted(&Env::of([("IMG_UNPACK", "yes")])).unwrap().rootfs, Some(false));
        assert_eq!(wanted(&Env::of([])).unwrap(), Wanted::default());
    }
}
