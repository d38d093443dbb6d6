//! kaniko's executor: one Dockerfile, built and pushed, by flags alone. Its words become those of `build`; what it says
//! of registries becomes settings. Flags that only say how kaniko takes its snapshots mean nothing here.

mod context;
mod registries;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};

use crate::base::{Digest, Platform, Reference, csv};
use crate::cli::exit::{Exit, Unsupported, usage};
use crate::cli::flags::ignored_flags;
use crate::cli::session::{Chosen, Face, Out, Session};
use crate::cli::solve;
use crate::cli::verbs::{build, version};
use crate::engine::{BuiltImage, Settings};

/// kaniko's executor: dockless.
#[derive(Debug, clap::Parser)]
#[command(name = "executor", disable_version_flag = true, disable_help_subcommand = true)]
pub struct Kaniko {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Dockerfile: a path here, else one in the context
    #[arg(short = 'f', long, value_name = "FILE", default_value = "Dockerfile")]
    dockerfile: String,
    /// Build context: a folder, or dir://, tar://FILE, tar://stdin, git://HOST/REPOSITORY[#REF[#COMMIT]], s3://BUCKET/KEY,
    /// https://
    #[arg(short, long, value_name = "CONTEXT", default_value = "/workspace/")]
    context: String,
    /// Folder in the context
    #[arg(long, value_name = "DIR", default_value = "", hide_default_value = true)]
    context_sub_path: String,
    /// Of a git context: branch=NAME
    #[arg(long, value_name = "OPTIONS", default_value = "", hide_default_value = true)]
    git: String,
    /// Name of the image, and where it is pushed; may be repeated
    #[arg(short, long = "destination", value_name = "NAME[:TAG]")]
    destinations: Vec<Reference>,
    /// Push nothing
    #[arg(long)]
    no_push: bool,
    /// Write the image to an archive, for docker load
    #[arg(long, alias = "tarPath", value_name = "FILE")]
    tar_path: Option<PathBuf>,
    /// Write the image to an OCI layout
    #[arg(long, value_name = "DIR")]
    oci_layout_path: Option<PathBuf>,
    /// Write the digest of the image to a file
    #[arg(long, value_name = "FILE")]
    digest_file: Option<PathBuf>,
    /// Write NAME@DIGEST of each destination to a file
    #[arg(long, value_name = "FILE", requires = "destinations")]
    image_name_with_digest_file: Option<PathBuf>,
    /// Write NAME:TAG@DIGEST of each destination to a file
    #[arg(long, value_name = "FILE", requires = "destinations")]
    image_name_tag_with_digest_file: Option<PathBuf>,
    /// Stage to build [default: the last]
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Build argument; without a value, that of the environment variable
    #[arg(long = "build-arg", value_name = "KEY[=VALUE]")]
    build_args: Vec<String>,
    /// Label of the image
    #[arg(long = "label", value_name = "KEY[=VALUE]")]
    labels: Vec<String>,
    /// What to build for, such as linux/arm64
    #[arg(long, alias = "customPlatform", value_name = "OS/ARCH")]
    custom_platform: Option<Platform>,
    /// Compression of new layers: gzip or zstd
    #[arg(long, value_name = "NAME")]
    compression: Option<String>,
    /// Level of it
    #[arg(long, value_name = "N", allow_hyphen_values = true, default_value_t = -1, hide_default_value = true)]
    compression_level: i32,
    /// Give the image and its files the date 0
    #[arg(long)]
    reproducible: bool,
    /// Take over steps of earlier builds, from this machine and from --cache-repo
    #[arg(long)]
    cache: bool,
    /// Where steps are kept for other machines: a repository, or oci:DIR [default: DESTINATION/cache]
    #[arg(long, value_name = "NAME")]
    cache_repo: Option<String>,
    /// Take steps over, and leave none
    #[arg(long)]
    no_push_cache: bool,
    /// How much to say: debug and trace tell more, error and below only of failures
    #[arg(short, long, value_name = "LEVEL", default_value = "info", hide_default_value = true)]
    verbosity: String,
    #[command(flatten)]
    registries: registries::Flags,
    /// Put all that the base image does not have into one layer
    #[arg(long)]
    single_snapshot: bool,
    #[arg(long, value_name = "PATH", hide = true)]
    ignore_path: Vec<PathBuf>,
    #[arg(long, hide = true)]
    push_ignore_immutable_tag_errors: bool,
    #[arg(short, long, value_name = "NAME", hide = true)]
    bucket: Option<String>,
    #[arg(long, value_name = "DIR", hide = true)]
    kaniko_dir: Option<String>,
    #[command(flatten)]
    natural: Natural,
    #[command(flatten)]
    ignored: Ignored,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Print the version
    Version,
}

ignored_flags!(
    /// What is so here whether it is asked for or not: snapshots are exact and cost what changed, stages that nothing
    /// needs are not built, nothing of this container is touched, and requests are tried again.
    Natural {
        switches: [
            "cache-copy-layers", "cache-run-layers", "cleanup", "compressed-caching", "force", "force-build-metadata",
            "ignore-var-run", "skip-push-permission-check", "skip-unused-stages", "use-new-run", "whitelist-var-run",
        ],
        values: ["image-download-retry", "image-fs-extract-retry", "push-retry", "snapshot-mode", "snapshotMode"],
    }
);

ignored_flags!(
    /// What has no counterpart.
    Ignored { switches: ["log-timestamp"], values: ["cache-dir", "cache-ttl", "log-format"] }
);

/// Where kaniko's own image keeps its files, credentials among them.
const HOME: &str = "/kaniko";

impl Kaniko {
    pub fn debug(&self) -> bool {
        matches!(self.verbosity.as_str(), "debug" | "trace")
    }

    /// Refuses what would change the result and is not done; says what has no effect.
    fn admit(&self, session: &Session) -> anyhow::Result<()> {
        if self.destinations.is_empty() && !self.no_push {
            return Err(usage("you must provide --destination, or use --no-push"));
        }
        if let Some(name) = self.destinations.iter().find(|name| name.digest().is_some()) {
            return Err(usage(format!("--destination {name}: a name to give cannot have a digest")));
        }
        if self.push_ignore_immutable_tag_errors {
            return Err(Unsupported::refuse("--push-ignore-immutable-tag-errors"));
        }
        if let Some(bucket) = &self.bucket {
            return Err(Unsupported::instead(format!("--bucket {bucket}"), "--context s3://BUCKET/KEY is"));
        }
        for path in &self.ignore_path {
            session.warn(format!(
                "--ignore-path {} has no effect: what steps write is kept, and nothing of this container is",
                path.display()
            ));
        }
        tracing::debug!(flags = ?self.natural.0, "what is so whether it is asked for or not");
        for flag in &self.ignored.0 {
            session.warn(format!("{flag} has no effect"));
        }
        Ok(())
    }

    /// The build in `build`'s own words. `context` and `dockerfile` are what was found to be meant.
    fn words(&self, context: &str, dockerfile: Option<&str>, env: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
        let mut words = vec![context.to_owned()];
        let mut option = |name: &str, value: &str| words.extend([format!("--{name}"), value.to_owned()]);
        dockerfile.iter().for_each(|file| option("file", file));
        self.destinations.iter().for_each(|name| option("tag", &name.to_string()));
        self.target.iter().for_each(|stage| option("target", stage));
        self.custom_platform.iter().for_each(|platform| option("platform", &platform.to_string()));
        self.labels.iter().for_each(|label| option("label", label));
        for arg in &self.build_args {
            match arg.contains('=') {
                true => option("build-arg", arg),
                // Empty where there is none: kaniko gives it all the same.
                false => option("build-arg", &format!("{arg}={}", env(arg).unwrap_or_default())),
            }
        }
        if self.reproducible {
            option("build-arg", "SOURCE_DATE_EPOCH=0");
        }
        let mut layers = Vec::new();
        layers.extend(self.compression.as_ref().map(|name| format!("compression={name}")));
        // -1 is the compressor's own.
        layers.extend((self.compression_level >= 0).then(|| format!("compression-level={}", self.compression_level)));
        layers.extend(self.reproducible.then(|| "rewrite-timestamp=true".to_owned()));
        let mut output = |kind: &str, dest: Option<&Path>| {
            let mut fields = vec![kind.to_owned()];
            fields.extend(dest.map(|path| format!("dest={}", path.display())));
            fields.extend(layers.iter().cloned());
            option("output", &csv::line(fields.iter().map(String::as_str)));
        };
        output(if self.no_push { "type=image" } else { "type=registry" }, None);
        self.tar_path.iter().for_each(|path| output("type=docker", Some(path)));
        if let Some(path) = &self.oci_layout_path {
            layers.push("tar=false".to_owned());
            let fields = ["type=oci".to_owned(), format!("dest={}", path.display())];
            option("output", &csv::line(fields.iter().chain(&layers).map(String::as_str)));
        }
        if self.single_snapshot {
            words.push("--squash".to_owned());
        }
        if !self.cache {
            words.push("--no-cache".to_owned());
        } else if let Some((place, tag)) = self.cache_place() {
            let (from, to) = match place.strip_prefix("oci:") {
                Some(dir) => (
                    csv::line(["type=local", &format!("src={dir}"), &format!("tag={tag}")]),
                    csv::line(["type=local", &format!("dest={dir}"), &format!("tag={tag}"), "mode=max"]),
                ),
                None => {
                    let from = format!("type=registry,ref={place}:{tag}");
                    (from.clone(), format!("{from},mode=max"))
                }
            };
            words.extend(["--cache-from".to_owned(), from]);
            if !self.no_push_cache {
                // kaniko goes on without it, too.
                words.extend(["--cache-to".to_owned(), format!("{to},ignore-error=true")]);
            }
        }
        if matches!(self.verbosity.as_str(), "error" | "fatal" | "panic") {
            words.extend(["--progress".to_owned(), "quiet".to_owned()]);
        }
        words
    }

    /// The repository or folder of step caches, and the tag of this build's: many builds may share the place, and
    /// kaniko's tags are keys of steps.
    fn cache_place(&self) -> Option<(String, String)> {
        let own = self.destinations.first().map(Reference::name);
        let place = self.cache_repo.clone().or_else(|| Some(format!("{}/cache", own.as_ref()?)))?;
        let platform = self.custom_platform.as_ref().map(ToString::to_string);
        let (sub, file) = (Some(self.context_sub_path.as_str()), Some(self.dockerfile.as_str()));
        let whose = [own.as_deref(), sub, file, self.target.as_deref(), platform.as_deref()];
        let digest = Sha256::digest(whose.map(Option::unwrap_or_default).join("\n"));
        let digits: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Some((place, format!("dockless-{digits}")))
    }

    /// The surroundings that kaniko's image and flags give.
    fn session(&self, outer: &Session) -> anyhow::Result<Session> {
        let mut env = outer.env.clone();
        if env.nonempty("DOCKER_CONFIG").is_none() {
            let home = self.kaniko_dir.as_deref().or(env.nonempty("KANIKO_DIR")).unwrap_or(HOME);
            let folder = Path::new(home).join(".docker");
            if folder.join("config.json").is_file() {
                env = env.with("DOCKER_CONFIG", folder);
            }
        }
        let registry = self.registries.settings(&self.destinations, &env)?;
        let chosen = Chosen {
            settings: Settings { registry, ..outer.settings().clone() },
            debug: self.debug(),
            ..Chosen::default()
        };
        Ok(Session::new(env, Face::Kaniko, chosen))
    }

    /// Leaves the digest in the files that were asked for.
    fn tell(&self, image: &BuiltImage, session: &Session) -> anyhow::Result<()> {
        let digest = self.digest(image, session)?;
        let named = |tagged: bool| -> String {
            let line = |name: &Reference| {
                let tag = name.tag().filter(|_| tagged).map(|tag| format!(":{tag}")).unwrap_or_default();
                format!("{}{tag}@{digest}\n", name.name())
            };
            self.destinations.iter().cloned().map(Reference::or_latest).map(|name| line(&name)).collect()
        };
        let files = [
            (&self.digest_file, digest.to_string()),
            (&self.image_name_with_digest_file, named(false)),
            (&self.image_name_tag_with_digest_file, named(true)),
        ];
        for (path, text) in files {
            let Some(path) = path else { continue };
            let path = session.absolute(path);
            let write = || {
                path.parent().map_or(Ok(()), fs::create_dir_all)?;
                fs::write(&path, text)
            };
            write().with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }

    /// The manifest's, as it was pushed; else that of the layout; else of the local store, whose layers are not
    /// compressed.
    fn digest(&self, image: &BuiltImage, session: &Session) -> anyhow::Result<Digest> {
        match &self.oci_layout_path {
            Some(layout) if self.no_push => {
                let path = session.absolute(layout).join("index.json");
                let text = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
                let index: serde_json::Value = serde_json::from_slice(&text)?;
                let digest =
                    index["manifests"][0]["digest"].as_str().context("the layout that was written is empty")?;
                Ok(digest.parse()?)
            }
            _ => Ok(image.manifest.as_ref().context("the build made no image")?.digest),
        }
    }
}

pub fn run(kaniko: &Kaniko, outer: &Session) -> anyhow::Result<Exit> {
    if matches!(kaniko.verb, Some(Verb::Version)) {
        let mut out = Out::new();
        out.line(format!("Kaniko version : dockless {}", version::VERSION))?;
        out.finish()?;
        return Ok(Exit::Success);
    }
    kaniko.admit(outer)?;
    let session = &kaniko.session(outer)?;
    session.enter_namespace()?;
    let found = context::find(kaniko, session)?;
    let env = |name: &str| session.env.var(name).map(str::to_owned);
    let args = build::Args::of_words(kaniko.words(&found.context, found.dockerfile.as_deref(), &env))?;
    args.admit(session)?;
    let mut build = build::request(args, session)?;
    build.secret_values.extend(found.secrets);
    let solved = solve::run(session, build);
    session.note_isolation()?;
    let image = solved?.context("the build made no image")?;
    kaniko.tell(&image, session)?;
    Ok(Exit::Success)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn words(line: &str) -> String {
        let kaniko = Kaniko::try_parse_from(line.split(' ')).unwrap();
        kaniko.words("/w", None, &|name| (name == "GIVEN").then(|| "g".to_owned())).join(" ")
    }

    #[test]
    fn means_what_build_means() {
        let tag = "dockless-a8774c649876db43";
        let cases = [
            ("executor --no-push", "/w --output type=image --no-cache"),
            (
                "executor -d r.example/a/b:1 --destination c --build-arg A=1 --build-arg GIVEN --build-arg NOT --label x=y \
                 --target t --custom-platform linux/arm64",
                "/w --tag r.example/a/b:1 --tag docker.io/library/c --target t --platform linux/arm64 --label x=y \
                 --build-arg A=1 --build-arg GIVEN=g --build-arg NOT= --output type=registry --no-cache",
            ),
            (
                "executor --no-push --tar-path o,1.tar --oci-layout-path l --compression zstd --compression-level 3 --reproducible",
                "/w --build-arg SOURCE_DATE_EPOCH=0 \
                 --output type=image,compression=zstd,compression-level=3,rewrite-timestamp=true \
                 --output type=docker,\"dest=o,1.tar\",compression=zstd,compression-level=3,rewrite-timestamp=true \
                 --output type=oci,dest=l,compression=zstd,compression-level=3,rewrite-timestamp=true,tar=false --no-cache",
            ),
            (
                "executor -d r.example/a:1 --cache",
                &format!(
                    "/w --tag r.example/a:1 --output type=registry --cache-from type=registry,ref=r.example/a/cache:{tag} \
                     --cache-to type=registry,ref=r.example/a/cache:{tag},mode=max,ignore-error=true"
                ),
            ),
            (
                "executor -d r.example/a:2 --cache --cache-repo oci:/c --no-push-cache -v error",
                &format!(
                    "/w --tag r.example/a:2 --output type=registry --cache-from type=local,src=/c,tag={tag} --progress quiet"
                ),
            ),
        ];
        for (typed, expected) in cases {
            assert_eq!(words(typed), expected, "{typed}");
        }
    }
}
