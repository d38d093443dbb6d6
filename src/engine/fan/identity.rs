//! What a build is, across runs and machines: its base images and where its sources are. What changes from commit to
//! commit (files, build arguments, tags) is not in it, or no run would find the cache of the one before; nor is the
//! target, because targets of one Dockerfile share steps.

use std::fs;
use std::path::Path;

use crate::base::{Digest, Epoch, Hasher};
use crate::engine::dockerfile::DEFAULT_NAMES;
use crate::engine::{Context, DockerfilePlan, DockerfileSource, FrontendPlan, Plan};
use crate::frontend::{self, Input};
use crate::llb::{self, pb};

/// Two builds of one identity go to the same engine.
pub fn of(plan: &Plan, root: &Path) -> Digest {
    let mut hasher = Hasher::new();
    let parts = match plan {
        Plan::Dockerfile(plan) => dockerfile(plan, root),
        Plan::Llb { definition, .. } => sources(definition),
        Plan::Frontend(plan) => by_frontend(plan, root),
    };
    for part in parts {
        hasher.field(part.as_bytes());
    }
    hasher.finish()
}

fn dockerfile(plan: &DockerfilePlan, root: &Path) -> Vec<String> {
    let dir = folder(plan);
    let context = match &plan.context {
        Context::Directory(dir) => place(dir, root),
        Context::Remote(address) => unversioned(address),
        Context::Unpacked(_) | Context::Empty => String::new(),
    };
    let name = match &plan.dockerfile {
        DockerfileSource::Path(None) => String::new(),
        DockerfileSource::Path(Some(path)) => match dir.and_then(|dir| path.strip_prefix(dir).ok()) {
            // The name that is looked for anyway.
            Some(inside) if DEFAULT_NAMES.iter().any(|name| inside == Path::new(name)) => String::new(),
            Some(inside) => inside.display().to_string(),
            None => place(path, root),
        },
        DockerfileSource::Text { text, .. } => Digest::of(text).to_string(),
        DockerfileSource::Remote(address) => unversioned(address),
    };
    let mut parts = vec![context, name];
    parts.extend(input(plan).map(|input| bases(&input)).unwrap_or_default());
    parts
}

/// Whether another's frontend is to read the Dockerfile, as far as that is known before anything is fetched.
pub fn is_foreign(plan: &DockerfilePlan) -> bool {
    input(plan).is_some_and(|input| frontend::is_foreign(&input))
}

fn folder(plan: &DockerfilePlan) -> Option<&Path> {
    match &plan.context {
        Context::Directory(dir) => Some(dir),
        Context::Unpacked(dir) => Some(dir.path()),
        Context::Empty | Context::Remote(_) => None,
    }
}

/// The Dockerfile with its arguments. None where it cannot be read: the engine that gets it will say why.
fn input(plan: &DockerfilePlan) -> Option<Input> {
    let text = match &plan.dockerfile {
        DockerfileSource::Path(None) => {
            let dir = folder(plan)?;
            DEFAULT_NAMES.iter().find_map(|name| fs::read(dir.join(name)).ok())?
        }
        DockerfileSource::Path(Some(path)) => fs::read(path).ok()?,
        DockerfileSource::Text { text, .. } => text.clone().into_bytes(),
        DockerfileSource::Remote(_) => return None,
    };
    let epoch = Epoch::new(std::time::UNIX_EPOCH, None).ok()?;
    Some(Input { build_args: plan.build_args.clone(), ..Input::new("Dockerfile", text, epoch) })
}

/// Of a frontend's build: who reads it, and the folders that it may ask for.
fn by_frontend(plan: &FrontendPlan, root: &Path) -> Vec<String> {
    let options = ["source", "context", "filename"].into_iter().map(|key| plan.options.get(key));
    let options = options.map(|value| value.map(|value| unversioned(value)).unwrap_or_default());
    let folders = plan.given.locals.iter().map(|(name, dir)| format!("{name} {}", place(dir, root)));
    std::iter::once(plan.name.clone()).chain(options).chain(folders).collect()
}

/// Base images as they are written, with the arguments that are in them.
fn bases(input: &Input) -> Vec<String> {
    let stages = frontend::targets(input).unwrap_or_default();
    let names: Vec<&str> = stages.iter().map(|stage| stage.name.as_str()).collect();
    let mut bases: Vec<String> = stages
        .iter()
        .filter(|stage| stage.base != "scratch" && !names.contains(&stage.base.to_lowercase().as_str()))
        .map(|stage| {
            let given = variables(&stage.base).filter_map(|name| Some((name, input.build_args.get(name)?)));
            given.fold(stage.base.clone(), |base, (name, value)| format!("{base} {name}={value}"))
        })
        .collect();
    bases.sort();
    bases.dedup();
    bases
}

/// `golang:${V:-1}` has one, V.
fn variables(word: &str) -> impl Iterator<Item = &str> {
    word.split('$').skip(1).map(|rest| {
        let rest = rest.strip_prefix('{').unwrap_or(rest);
        rest.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).next().unwrap_or_default()
    })
}

/// Where a path is, by a name that holds on another machine.
fn place(path: &Path, root: &Path) -> String {
    match path.strip_prefix(root) {
        Ok(inside) if inside != Path::new("") => inside.display().to_string(),
        _ => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
    }
}

/// An address without the branch or commit: `https://host/repo.git#main:dir` is `https://host/repo.git` and `dir`.
fn unversioned(address: &str) -> String {
    match address.split_once('#') {
        Some((address, fragment)) => format!("{address} {}", fragment.split_once(':').map_or("", |(_, dir)| dir)),
        None => address.to_owned(),
    }
}

/// Of a definition: all that it begins with, images without their digests.
fn sources(definition: &pb::Definition) -> Vec<String> {
    let Ok(graph) = llb::Graph::decode(definition) else { return Vec::new() };
    let mut sources: Vec<String> = graph
        .vertices()
        .iter()
        .filter_map(|vertex| match &vertex.op.op {
            Some(pb::op::Op::Source(source)) => {
                Some(source.identifier.split_once('@').map_or(&*source.identifier, |(name, _)| name).to_owned())
            }
            _ => None,
        })
        .collect();
    sources.sort();
    sources
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "ARG V=1\nFROM golang:$V AS build\nFROM build AS more\nFROM scratch\nCOPY --from=build / /\n";

    fn plan(context: &Path, change: impl FnOnce(&mut DockerfilePlan)) -> Plan {
        let mut plan = DockerfilePlan::new(Context::Directory(context.to_owned()), DockerfileSource::Path(None));
        change(&mut plan);
        Plan::Dockerfile(Box::new(plan))
    }

    /// A checkout of two services.
    fn checkout() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for name in ["one", "two"] {
            fs::create_dir(root.path().join(name)).unwrap();
            fs::write(root.path().join(name).join("Dockerfile"), TEXT).unwrap();
        }
        root
    }

    #[test]
    fn a_build_is_the_same_in_the_next_run() {
        let (first, next) = (checkout(), checkout());
        fs::write(next.path().join("one/main.go"), "new").unwrap();
        fs::write(next.path().join("one/Dockerfile"), format!("{TEXT}RUN true\n")).unwrap();
        let of_one = |root: &Path, change: fn(&mut DockerfilePlan)| of(&plan(&root.join("one"), change), root);
        let known = of_one(first.path(), |_| ());
        assert_eq!(of_one(next.path(), |_| ()), known, "another folder, another commit");
        let cases: [(&str, fn(&mut DockerfilePlan)); 3] = [
            ("another target", |plan| plan.target = Some("build".to_owned())),
            ("a version", |plan| drop(plan.build_args.insert("COMMIT".to_owned(), "1234".to_owned()))),
            ("the Dockerfile by its name", |plan| {
                let Context::Directory(dir) = &plan.context else { panic!() };
                plan.dockerfile = DockerfileSource::Path(Some(dir.join("Dockerfile")));
            }),
        ];
        for (case, change) in cases {
            assert_eq!(of_one(next.path(), change), known, "{case}");
        }
        let other = of(&plan(&first.path().join("two"), |_| ()), first.path());
        assert_ne!(other, known, "another folder of the same checkout");
        let base = of_one(first.path(), |plan| drop(plan.build_args.insert("V".to_owned(), "2".to_owned())));
        assert_ne!(base, known, "another base image");
    }

    #[test]
    fn several_dockerfiles_of_one_context_are_several_builds() {
        let root = checkout();
        let with = |name: &str| {
            let path = root.path().join(name);
            of(&plan(root.path(), |plan| plan.dockerfile = DockerfileSource::Path(Some(path))), root.path())
        };
        assert_ne!(with("one/Dockerfile"), with("two/Dockerfile"));
    }

    #[test]
    fn an_address_is_known_without_its_commit() {
        assert_eq!(unversioned("https://h/r.git#1234:sub"), unversioned("https://h/r.git#main:sub"));
        assert_ne!(unversioned("https://h/r.git#main:sub"), unversioned("https://h/r.git#main:other"));
        assert_eq!(unversioned("https://h/context.tgz"), "https://h/context.tgz");
    }
}
