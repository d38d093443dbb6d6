//! Every folder below `golden/dockerfile` is a case: a Dockerfile, what surrounds it (`input.json`), and either the
//! graph and the image config that come out, or the error. `UPDATE_GOLDEN=1` writes what came out.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use annotate_snippets::Renderer;
use dockless::base::{Digest, Epoch, Platform, Reference};
use dockless::frontend::{self, Answer, Checked, ImageConfigs, Input, NamedContext, NoCache, Question, ResolvedImage};
use dockless::image::config::ImageConfig;
use dockless::llb::{Graph, pb, print};

/// What `input.json` may hold.
#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Given {
    target: Option<String>,
    build_args: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    platform: Option<String>,
    no_cache: Option<Vec<String>>,
    multi_platform: bool,
    /// Name to `docker-image://…`, `local:…` or an address.
    contexts: BTreeMap<String, String>,
    main_context: Option<String>,
    /// `check`, `outline` or `targets`: what is said of the file (`answer.txt`) instead of what it makes.
    call: Option<String>,
    /// When sources were last changed.
    source_date: Option<i64>,
    /// Base images beside the usual ones: name to config.
    images: BTreeMap<String, serde_json::Value>,
}

/// Images by name, and the date of whatever is fetched.
struct Images(BTreeMap<String, serde_json::Value>, Option<i64>);

impl ImageConfigs for Images {
    fn resolve(&self, reference: &Reference, platform: &Platform) -> anyhow::Result<ResolvedImage> {
        let familiar = reference.familiar();
        let config = match familiar.as_str() {
            "debian:13" | "debian:latest" => serde_json::json!({
                "created": "2025-01-01T00:00:00Z",
                "config": { "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"], "Cmd": ["bash"] },
                "rootfs": { "type": "layers", "diff_ids": [Digest::of("debian").to_string()] },
                "history": [{ "created": "2025-01-01T00:00:00Z", "created_by": "debuerreotype" }],
            }),
            "busybox:latest" | "alpine:3" => serde_json::json!({
                "config": { "Cmd": ["sh"], "WorkingDir": "/" },
                "rootfs": { "type": "layers", "diff_ids": [Digest::of("busybox").to_string()] },
                "history": [{ "created_by": "BusyBox 1.37" }, { "created_by": "CMD [\"sh\"]", "empty_layer": true }],
            }),
            other => match self.0.get(other) {
                Some(config) => config.clone(),
                None => anyhow::bail!("{reference}: not found"),
            },
        };
        let mut config = config;
        config["os"] = platform.os.clone().into();
        config["architecture"] = config.get("architecture").cloned().unwrap_or_else(|| platform.arch.clone().into());
        let config = ImageConfig::parse(config.to_string().as_bytes())?;
        Ok(ResolvedImage { reference: reference.with_digest(Digest::of(familiar)), config })
    }

    fn source_date(&self, _: &pb::Definition) -> anyhow::Result<Option<i64>> {
        Ok(self.1)
    }
}

fn context(value: &str) -> NamedContext {
    if let Some(image) = value.strip_prefix("docker-image://") {
        return NamedContext::Image(image.parse().expect("a reference"));
    }
    match value.strip_prefix("local:") {
        Some(source) => NamedContext::Local { source: source.to_owned(), ignore: None },
        None => NamedContext::Url(value.to_owned()),
    }
}

fn input(dir: &Path, given: &Given) -> Input {
    let epoch = Epoch::new(std::time::UNIX_EPOCH, None).expect("no date");
    let text = fs::read(dir.join("Dockerfile")).expect("each case has a Dockerfile");
    let mut input = Input::new("Dockerfile", text, epoch);
    input.build_platform = Platform::new("linux", "amd64", "");
    input.platform = given.platform.as_ref().map(|p| p.parse().expect("a platform"));
    input.multi_platform = given.multi_platform;
    input.target.clone_from(&given.target);
    input.build_args.clone_from(&given.build_args);
    input.labels.clone_from(&given.labels);
    input.no_cache = match &given.no_cache {
        None => NoCache::Use,
        Some(stages) if stages.is_empty() => NoCache::All,
        Some(stages) => NoCache::Stages(stages.clone()),
    };
    input.named_contexts = given.contexts.iter().map(|(name, value)| (name.clone(), context(value))).collect();
    input.main_context = given.main_context.as_deref().map(context);
    if let Ok(text) = fs::read_to_string(dir.join("dockerignore")) {
        input.ignore = Some((".dockerignore".to_owned(), text));
    }
    input
}

/// What is said of a Dockerfile that is not built; a check's mistakes are part of its answer.
fn answer(call: &str, input: &Input, images: &Images) -> BTreeMap<&'static str, String> {
    let question = match call {
        "check" => Question::Check,
        "outline" => Question::Outline,
        "targets" => Question::Targets,
        other => panic!("{other} is no call"),
    };
    let rendered = |error: &frontend::Error| format!("{}\n", error.render(&Renderer::plain()).trim_end());
    let mut files = BTreeMap::new();
    match frontend::ask(question, input, images) {
        Err(error) => drop(files.insert("error.txt", rendered(&error))),
        Ok(answer) => {
            if let Answer::Check(Checked { error: Some(error), .. }) = &answer {
                files.insert("error.txt", rendered(error));
            }
            files.insert("answer.txt", answer.text());
            files.insert("answer.json", format!("{:#}\n", answer.json()));
        }
    }
    files
}

/// What a case comes to: file name to content.
fn outcome(dir: &Path) -> BTreeMap<&'static str, String> {
    let given: Given = match fs::read_to_string(dir.join("input.json")) {
        Ok(text) => serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", dir.display())),
        Err(_) => Given::default(),
    };
    let images = Images(given.images.clone(), given.source_date);
    let mut files = BTreeMap::new();
    if let Some(call) = &given.call {
        return answer(call, &input(dir, &given), &images);
    }
    match frontend::build(&input(dir, &given), &images) {
        Err(error) => {
            files.insert("error.txt", format!("{}\n", error.render(&Renderer::plain()).trim_end()));
        }
        Ok(built) => {
            let graph = Graph::decode(&built.definition).expect("a definition of ours is valid");
            files.insert("llb.txt", print::text(&graph));
            let config = serde_json::from_slice(&built.config.to_bytes()).expect("JSON");
            let config: serde_json::Value = config;
            files.insert("config.json", format!("{}\n", serde_json::to_string_pretty(&config).expect("JSON")));
            let mut warnings = String::new();
            for warning in &built.warnings {
                let line = warning.place.as_ref().map_or(0, |p| *p.lines.start());
                writeln!(warnings, "{line}: {}: {}", warning.rule, warning.message).expect("a String");
            }
            if !warnings.is_empty() {
                files.insert("warnings.txt", warnings);
            }
        }
    }
    files
}

#[test]
fn every_case_comes_out_as_written() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/dockerfile");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut cases: Vec<_> =
        fs::read_dir(&root).expect("the golden folder").map(|e| e.expect("an entry").path()).collect();
    cases.sort();
    let mut wrong = String::new();
    for dir in cases.iter().filter(|d| d.is_dir()) {
        let files = outcome(dir);
        for name in ["llb.txt", "config.json", "warnings.txt", "error.txt", "answer.txt", "answer.json"] {
            let path = dir.join(name);
            let expected = fs::read_to_string(&path).ok();
            let actual = files.get(name);
            if expected.as_ref() == actual {
                continue;
            }
            if update {
                match actual {
                    Some(text) => fs::write(&path, text).expect("writable"),
                    None => fs::remove_file(&path).expect("removable"),
                }
                continue;
            }
            let nothing = "(no such file)\n".to_owned();
            let (expected, actual) = (expected.as_ref().unwrap_or(&nothing), actual.unwrap_or(&nothing));
            writeln!(wrong, "== {}\n-- expected\n{expected}-- actual\n{actual}", path.display()).expect("a String");
        }
    }
    assert!(cases.len() > 1, "no cases");
    assert!(wrong.is_empty(), "{wrong}");
}
