//! Every pipeline and task of this repository against Concourse's documented schema: unknown keys, values of the wrong
//! kind, names that nobody declares and artifacts that no step before made are errors.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::Place;

/// What a key's value may be.
#[derive(Clone, Copy)]
enum Is {
    Text,
    Bool,
    Number,
    Texts,
    Any,
    Map,
    One(&'static Keys),
    Many(&'static Keys),
    Step,
    Steps,
}
use Is::{Any, Bool, Many, Number, One, Step, Steps, Text, Texts};

/// Keys with what they hold; a name that ends in `!` must be there.
type Keys = [(&'static str, Is)];

// https://concourse-ci.org/docs/, as of version 8.
const PIPELINE: &Keys = &[
    ("jobs!", Many(JOB)),
    ("resources", Many(RESOURCE)),
    ("resource_types", Many(RESOURCE_TYPE)),
    ("var_sources", Many(&[("name!", Text), ("type!", Text), ("config!", Is::Map)])),
    ("groups", Many(&[("name!", Text), ("jobs", Texts)])),
    ("display", One(&[("background_image", Text), ("background_filter", Text)])),
];
const JOB: &Keys = &[
    ("name!", Text),
    ("plan!", Steps),
    ("old_name", Text),
    ("serial", Bool),
    ("serial_groups", Texts),
    ("max_in_flight", Number),
    ("build_log_retention", One(&[("days", Number), ("builds", Number), ("minimum_succeeded_builds", Number)])),
    ("public", Bool),
    ("disable_manual_trigger", Bool),
    ("interruptible", Bool),
    ("on_success", Step),
    ("on_failure", Step),
    ("on_error", Step),
    ("on_abort", Step),
    ("ensure", Step),
];
const RESOURCE: &Keys = &[
    ("name!", Text),
    ("type!", Text),
    ("source!", Is::Map),
    ("old_name", Text),
    ("icon", Text),
    ("version", Is::Map),
    ("check_every", Text),
    ("check_timeout", Text),
    ("expose_build_created_by", Bool),
    ("tags", Texts),
    ("public", Bool),
    ("webhook_token", Text),
];
const RESOURCE_TYPE: &Keys = &[
    ("name!", Text),
    ("type!", Text),
    ("source!", Is::Map),
    ("privileged", Bool),
    ("params", Is::Map),
    ("check_every", Text),
    ("tags", Texts),
    ("defaults", Is::Map),
];
/// Of every step.
const MODIFIERS: &Keys = &[
    ("timeout", Text),
    ("attempts", Number),
    ("tags", Texts),
    ("across", Many(&[("var!", Text), ("values!", Any), ("max_in_flight", Any)])),
    ("fail_fast", Bool),
    ("on_success", Step),
    ("on_failure", Step),
    ("on_error", Step),
    ("on_abort", Step),
    ("ensure", Step),
];
const STEPS: &[&Keys] = &[
    &[("get!", Text), ("resource", Text), ("passed", Texts), ("params", Is::Map), ("trigger", Bool), ("version", Any)],
    &[
        ("put!", Text),
        ("resource", Text),
        ("inputs", Any),
        ("params", Is::Map),
        ("get_params", Is::Map),
        ("no_get", Bool),
    ],
    &[
        ("task!", Text),
        ("config", One(TASK)),
        ("file", Text),
        ("image", Text),
        ("privileged", Bool),
        ("hermetic", Bool),
        ("vars", Is::Map),
        ("params", Is::Map),
        ("input_mapping", Is::Map),
        ("output_mapping", Is::Map),
        ("container_limits", One(LIMITS)),
    ],
    &[
        ("set_pipeline!", Text),
        ("file!", Text),
        ("instance_vars", Is::Map),
        ("vars", Is::Map),
        ("var_files", Texts),
        ("team", Text),
    ],
    &[("load_var!", Text), ("file!", Text), ("format", Text), ("reveal", Bool)],
    &[("in_parallel!", Any)],
    &[("do!", Steps)],
    &[("try!", Step)],
];
const LIMITED: &Keys = &[("steps!", Steps), ("limit", Number), ("fail_fast", Bool)];
const LIMITS: &Keys = &[("cpu", Number), ("memory", Any)];
const TASK: &Keys = &[
    ("platform!", Text),
    ("image_resource", One(&[("type!", Text), ("source!", Is::Map), ("params", Is::Map), ("version", Is::Map)])),
    ("inputs", Many(&[("name!", Text), ("path", Text), ("optional", Bool)])),
    ("outputs", Many(&[("name!", Text), ("path", Text)])),
    ("caches", Many(&[("path!", Text), ("ttl", Text)])),
    ("params", Is::Map),
    ("run!", One(&[("path!", Text), ("args", Texts), ("dir", Text), ("user", Text)])),
    ("rootfs_uri", Text),
    ("container_limits", One(LIMITS)),
];

/// Sources of the types that the examples use: names that must be there, names that may.
const BASE_TYPES: &[(&str, &[&str], &[&str])] = &[
    (
        "git",
        &["uri"],
        &["branch", "private_key", "username", "password", "paths", "ignore_paths", "tag_filter", "depth"],
    ),
    (
        "s3",
        &["bucket"],
        &[
            "access_key_id",
            "secret_access_key",
            "session_token",
            "region_name",
            "endpoint",
            "private",
            "disable_ssl",
            "regexp",
            "versioned_file",
            "initial_path",
            "initial_version",
        ],
    ),
    ("registry-image", &["repository"], &["tag", "variant", "username", "password", "insecure", "ca_certs"]),
    ("semver", &["driver"], &["initial_version", "uri", "branch", "file", "private_key", "username", "password"]),
];

struct Checker {
    faults: Vec<String>,
}

impl Checker {
    fn fault(&mut self, at: &str, what: impl AsRef<str>) {
        self.faults.push(format!("{at}: {}", what.as_ref()));
    }

    fn keys(&mut self, value: &Value, keys: &[&Keys], at: &str) {
        let Some(map) = value.as_object() else { return self.fault(at, "is no map") };
        let all = || keys.iter().flat_map(|keys| keys.iter());
        for (key, value) in map {
            let at = format!("{at}.{key}");
            match all().find(|(name, _)| name.trim_end_matches('!') == key) {
                Some((_, is)) => self.value(value, *is, &at),
                None => self.fault(&at, "is not a key that Concourse knows"),
            }
        }
        for (name, _) in all() {
            if let Some(name) = name.strip_suffix('!').filter(|name| !map.contains_key(*name)) {
                self.fault(at, format!("has no {name}"));
            }
        }
    }

    fn value(&mut self, value: &Value, is: Is, at: &str) {
        // A variable may be anything.
        if value.as_str().is_some_and(|text| text.starts_with("((") && text.ends_with("))")) {
            return;
        }
        let list = value.as_array().map(Vec::as_slice);
        match is {
            Any => {}
            Text if value.is_string() => {}
            Bool if value.is_boolean() => {}
            Number if value.is_number() => {}
            Is::Map if value.is_object() => {}
            Texts if list.is_some_and(|list| list.iter().all(Value::is_string)) => {}
            One(keys) => self.keys(value, &[keys], at),
            Many(keys) if list.is_some() => {
                list.unwrap_or_default().iter().for_each(|item| self.keys(item, &[keys], at));
            }
            Steps if list.is_some() => list.unwrap_or_default().iter().for_each(|step| self.step(step, at)),
            Step => self.step(value, at),
            _ => self.fault(at, format!("cannot be {value}")),
        }
    }

    fn step(&mut self, step: &Value, at: &str) {
        let kinds: Vec<&&Keys> =
            STEPS.iter().filter(|keys| step.get(keys[0].0.trim_end_matches('!')).is_some()).collect();
        let [keys] = kinds[..] else { return self.fault(at, format!("{step} is not one kind of step")) };
        self.keys(step, &[keys, MODIFIERS], at);
        if let Some(parallel) = step.get("in_parallel") {
            let is = if parallel.is_array() { Steps } else { One(LIMITED) };
            self.value(parallel, is, &format!("{at}.in_parallel"));
        }
        if step.get("task").is_some() && step.get("config").is_some() == step.get("file").is_some() {
            self.fault(at, "a task has either config or file");
        }
    }
}

/// What a pipeline's names refer to.
struct Pipeline<'a> {
    checker: &'a mut Checker,
    resources: BTreeMap<String, String>,
    jobs: BTreeSet<String>,
}

impl Pipeline<'_> {
    fn plan(&mut self, steps: &[Value], artifacts: &mut BTreeSet<String>, at: &str) {
        for step in steps {
            self.step(step, artifacts, at);
        }
    }

    fn step(&mut self, step: &Value, artifacts: &mut BTreeSet<String>, at: &str) {
        let text = |key: &str| step.get(key).and_then(Value::as_str);
        let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
        for key in ["get", "put"] {
            let Some(name) = text(key) else { continue };
            let resource = text("resource").unwrap_or(name);
            if !self.resources.contains_key(resource) {
                self.checker.fault(at, format!("{key}: {resource} is no resource"));
            }
            for job in list(step.get("passed")) {
                if !self.jobs.contains(job.as_str().unwrap_or_default()) {
                    self.checker.fault(at, format!("passed: {job} is no job"));
                }
            }
            artifacts.insert(name.to_owned());
        }
        if text("task").is_some() {
            let config = match text("file") {
                Some(file) => self.task_file(file, artifacts, at),
                None => step["config"].clone(),
            };
            self.task(step, &config, artifacts, at);
        }
        if let Some(parallel) = step.get("in_parallel") {
            let steps = list(Some(parallel.get("steps").unwrap_or(parallel)));
            self.plan(&steps, artifacts, at);
        }
        self.plan(&list(step.get("do")), artifacts, at);
        if let Some(step) = step.get("try") {
            self.step(step, artifacts, at);
        }
    }

    /// `src` and `dockless` are this repository, as far as tasks go.
    fn task_file(&mut self, file: &str, artifacts: &BTreeSet<String>, at: &str) -> Value {
        let (artifact, path) = file.split_once('/').unwrap_or((file, ""));
        if !artifacts.contains(artifact) {
            self.checker.fault(at, format!("file: there is no {artifact} before this step"));
        }
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        match std::fs::read_to_string(&path) {
            Ok(text) => parse(&text),
            Err(error) => {
                self.checker.fault(at, format!("file: {}: {error}", path.display()));
                json!({})
            }
        }
    }

    fn task(&mut self, step: &Value, config: &Value, artifacts: &mut BTreeSet<String>, at: &str) {
        let mapped = |mapping: &str, name: &str| {
            step.get(mapping).and_then(|map| map.get(name)).and_then(Value::as_str).unwrap_or(name).to_owned()
        };
        let names = |key: &str| -> Vec<(String, bool)> {
            let list = config.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
            let named = |item: &Value| Some((item["name"].as_str()?.to_owned(), item["optional"] == true));
            list.iter().filter_map(named).collect()
        };
        for (name, optional) in names("inputs") {
            let artifact = mapped("input_mapping", &name);
            if !optional && !artifacts.contains(&artifact) {
                self.checker.fault(at, format!("task: there is no input {artifact} before this step"));
            }
        }
        match step.get("image").and_then(Value::as_str) {
            Some(image) if !artifacts.contains(image) => {
                self.checker.fault(at, format!("image: there is no {image} before this step"));
            }
            None if config.get("image_resource").is_none() => self.checker.fault(at, "task: it has no image"),
            _ => {}
        }
        artifacts.extend(names("outputs").iter().map(|(name, _)| mapped("output_mapping", name)));
    }
}

fn parse(text: &str) -> Value {
    serde_yaml::from_str(text).unwrap()
}

fn faults_of_pipeline(pipeline: &Value) -> Vec<String> {
    let mut checker = Checker { faults: Vec::new() };
    checker.keys(pipeline, &[PIPELINE], "pipeline");
    let list = |key: &str| pipeline.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let named = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let own: BTreeSet<String> = list("resource_types").iter().map(|item| named(item, "name")).collect();
    for item in list("resource_types").iter().chain(&list("resources")) {
        let (name, kind) = (named(item, "name"), named(item, "type"));
        // A type that hides the base type of its name is made of that one.
        let is_own = own.contains(&kind) && kind != name;
        let Some((_, required, allowed)) = BASE_TYPES.iter().find(|(base, ..)| *base == kind) else {
            if !is_own {
                checker.fault(&name, format!("type {kind} is neither declared nor known"));
            }
            continue;
        };
        if is_own {
            continue;
        }
        let source = item["source"].as_object().cloned().unwrap_or_default();
        for key in source.keys().filter(|key| !required.contains(&key.as_str()) && !allowed.contains(&key.as_str())) {
            checker.fault(&name, format!("source.{key} is not known to {kind}"));
        }
        for key in required.iter().filter(|key| !source.contains_key(**key)) {
            checker.fault(&name, format!("source has no {key}"));
        }
    }
    let resources = list("resources").iter().map(|item| (named(item, "name"), named(item, "type"))).collect();
    let jobs = list("jobs").iter().map(|job| named(job, "name")).collect();
    let mut pipeline = Pipeline { checker: &mut checker, resources, jobs };
    for job in list("jobs") {
        let steps = job["plan"].as_array().cloned().unwrap_or_default();
        pipeline.plan(&steps, &mut BTreeSet::new(), &named(&job, "name"));
    }
    checker.faults
}

fn faults_of_task(task: &Value) -> Vec<String> {
    let mut checker = Checker { faults: Vec::new() };
    checker.keys(task, &[TASK], "task");
    checker.faults
}

fn files(folder: &str) -> Vec<(String, Value)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut found: Vec<(String, Value)> = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yml") {
            found.push((path.display().to_string(), parse(&std::fs::read_to_string(&path).unwrap())));
        }
    }
    assert!(!found.is_empty(), "{folder}");
    found
}

#[test]
fn pipelines_and_tasks_are_what_concourse_documents() {
    let own = parse(&std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/ci/pipeline.yml")).unwrap());
    assert_eq!(faults_of_pipeline(&own), Vec::<String>::new(), "ci/pipeline.yml");
    let examples = files("ci/examples");
    assert_eq!(examples.len(), 5);
    for (name, pipeline) in examples {
        assert_eq!(faults_of_pipeline(&pipeline), Vec::<String>::new(), "{name}");
    }
    let task = parse(&std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/task.yml")).unwrap());
    assert_eq!(faults_of_task(&task), Vec::<String>::new(), "task.yml");
    for (name, task) in files("ci/tasks") {
        assert_eq!(faults_of_task(&task), Vec::<String>::new(), "{name}");
    }
}

/// Every value of a document with its variables filled in, by what their names sound like.
fn filled(value: &Value) -> Value {
    match value {
        Value::String(text) if text.contains("((") => {
            let is = |word: &str| text.contains(word);
            let value = if is("cert") || is("key") {
                "-----BEGIN"
            } else if is("uri") {
                "https://git.example.org/acct/app.git"
            } else if is("repository") {
                "registry.example.org/acct/app"
            } else {
                "example.org"
            };
            Value::from(value)
        }
        Value::Array(items) => items.iter().map(filled).collect(),
        Value::Object(map) => Value::Object(map.iter().map(|(key, value)| (key.clone(), filled(value))).collect()),
        other => other.clone(),
    }
}

#[test]
fn the_examples_of_our_own_resource_are_read_by_it() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/ci/examples/resource.yml");
    let pipeline = filled(&parse(&std::fs::read_to_string(path).unwrap()));
    let place = Place::default();
    let mut seen = 0;
    let own: Vec<&Map<String, Value>> =
        pipeline["resources"].as_array().unwrap().iter().filter_map(Value::as_object).collect();
    for resource in own.iter().filter(|resource| resource["type"] == "docker-image") {
        let digest = dockless::base::Digest::of("x");
        // Nobody is asked for what is not downloaded.
        let get = json!({ "source": resource["source"], "version": { "digest": digest }, "params": { "skip_download": true } });
        place.get(get).unwrap_or_else(|error| panic!("{}: {error:#}", resource["name"]));
        seen += 1;
    }
    assert_eq!(seen, 3);
    let put = pipeline["jobs"][0]["plan"].as_array().unwrap().iter().find(|step| step.get("put").is_some()).unwrap();
    let error = place.put(json!({ "source": own[1]["source"], "params": put["params"] })).unwrap_err();
    // It gets as far as looking for its files.
    assert!(error.to_string().contains("does not exist"), "{error:#}");
}

#[test]
fn faults_are_found() {
    let good = json!({
        "resources": [{ "name": "src", "type": "git", "source": { "uri": "x" } }],
        "jobs": [{ "name": "a", "plan": [
            { "get": "src" },
            { "task": "t", "image": "src", "config": { "platform": "linux", "run": { "path": "x" } } },
        ] }],
    });
    assert_eq!(faults_of_pipeline(&good), Vec::<String>::new());
    let changed = |pointer: &str, value: Value| {
        let mut pipeline = good.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        pipeline.pointer_mut(parent).unwrap()[key] = value;
        faults_of_pipeline(&pipeline)
    };
    let cases = [
        ("/jobbs", json!([]), "pipeline.jobbs: is not a key that Concourse knows"),
        ("/jobs/0/plan/0/triger", json!(true), "pipeline.jobs.plan.triger: is not a key that Concourse knows"),
        ("/jobs/0/plan/0/trigger", json!("yes"), "pipeline.jobs.plan.trigger: cannot be \"yes\""),
        ("/jobs/0/plan/0/passed", json!(["z"]), "a: passed: \"z\" is no job"),
        ("/jobs/0/plan/0/get", json!("other"), "a: get: other is no resource"),
        ("/jobs/0/plan/1/image", json!("other"), "a: image: there is no other before this step"),
        ("/jobs/0/plan/1/put", json!("src"), "is not one kind of step"),
        ("/jobs/0/plan/1/file", json!("src/task.yml"), "pipeline.jobs.plan: a task has either config or file"),
        ("/jobs/0/plan/1/config/run", json!({}), "pipeline.jobs.plan.config.run: has no path"),
        ("/jobs/0/plan/1/config/inputs", json!([{ "name": "in" }]), "a: task: there is no input in before this step"),
        ("/resources/0/type", json!("gti"), "src: type gti is neither declared nor known"),
        ("/resources/0/source", json!({ "url": "x" }), "src: source.url is not known to git"),
    ];
    for (pointer, value, expected) in cases {
        let faults = changed(pointer, value);
        assert!(faults.iter().any(|fault| fault.contains(expected)), "{pointer}: {faults:?}");
    }
}
