//! The build sections of a compose file as targets, one a service.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::spec::{Secret, Spec, scalar};
use super::target::{Target, Texts, texts};
use super::{Definition, Group, template};

/// What files say together.
#[derive(Debug, Default)]
pub struct Project {
    pub name: Option<String>,
    pub services: BTreeMap<String, Service>,
}

/// What is known of a service, as far as a build is concerned.
#[derive(Debug, Clone, Default)]
pub struct Service {
    /// None: nothing of it is built.
    pub target: Option<Target>,
    pub image: Option<String>,
    pub platform: Option<String>,
    /// It takes part where one of these is asked for, or always.
    pub profiles: Vec<String>,
}

impl Service {
    fn lay_over(&mut self, other: Self) {
        match (&mut self.target, other.target) {
            (Some(own), Some(target)) => own.lay_over(target),
            (own, target) => *own = own.take().or(target),
        }
        self.image = other.image.or_else(|| self.image.take());
        self.platform = other.platform.or_else(|| self.platform.take());
        self.profiles.extend(other.profiles);
    }
}

impl Project {
    /// Lays a further file over this.
    pub fn lay_over(&mut self, other: Self) {
        self.name = other.name.or_else(|| self.name.take());
        for (name, service) in other.services {
            self.services.entry(name).or_default().lay_over(service);
        }
    }

    /// As targets, one a service that is built; all of them are the default.
    pub fn definition(self) -> Definition {
        let mut definition = Definition::default();
        let mut default = Group::default();
        for (service, Service { target, image, .. }) in self.services {
            let Some(mut target) = target else { continue };
            if target.tags.as_ref().is_none_or(Vec::is_empty) {
                target.tags = image.map(|image| vec![image]);
            }
            let name = target_name(&service);
            default.targets.push(name.clone());
            definition.targets.insert(name, target);
        }
        if !default.targets.is_empty() {
            definition.groups.insert("default".to_owned(), default);
        }
        definition
    }
}

/// A dot leads to a key of a target.
pub fn target_name(service: &str) -> String {
    service.replace('.', "_")
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct File {
    name: Option<String>,
    services: BTreeMap<String, Raw>,
    secrets: BTreeMap<String, SecretSource>,
    include: Vec<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Raw {
    build: Option<Value>,
    image: Option<String>,
    platform: Option<String>,
    profiles: Vec<String>,
    extends: Option<Extends>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Extends {
    Service(String),
    Of { service: String, file: Option<String> },
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SecretSource {
    file: Option<String>,
    environment: Option<String>,
}

/// What compose says of a build in its own words.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Build {
    #[serde(deserialize_with = "texts")]
    additional_contexts: Texts,
    #[serde(deserialize_with = "texts")]
    extra_hosts: Texts,
    ulimits: BTreeMap<String, Value>,
    secrets: Vec<Value>,
    ssh: Option<Value>,
    shm_size: Option<Value>,
    #[serde(rename = "x-bake")]
    bake: Target,
}

/// Keys that say the same in a target.
const SAME: [&str; 13] = [
    "context",
    "dockerfile",
    "dockerfile_inline",
    "args",
    "labels",
    "cache_from",
    "cache_to",
    "no_cache",
    "pull",
    "target",
    "tags",
    "platforms",
    "network",
];

/// Reads a compose file.
pub fn read(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Project, String> {
    // `y` and `on` are words, as they are for compose.
    let options = serde_yaml::options! { strict_booleans: true };
    let value: Value = serde_yaml::from_str_with_options(text, options).map_err(|error| error.to_string())?;
    let file: File = serde_json::from_value(fill(value, env)?).map_err(|error| error.to_string())?;
    if !file.include.is_empty() {
        return Err("include is not read; name the files with -f".to_owned());
    }
    let services = file.services.keys().map(|name| Ok((name.clone(), service(name, &file, env, &mut Vec::new())?)));
    let services = services.collect::<Result<_, String>>()?;
    Ok(Project { name: file.name, services })
}

/// A service over the one that it extends.
fn service(
    name: &str,
    file: &File,
    env: &dyn Fn(&str) -> Option<String>,
    open: &mut Vec<String>,
) -> Result<Service, String> {
    let Some(raw) = file.services.get(name) else { return Err(format!("there is no service {name} to extend")) };
    if open.iter().any(|known| known == name) {
        return Err(format!("service {name} extends itself"));
    }
    open.push(name.to_owned());
    let mut whole = match &raw.extends {
        None => Service::default(),
        Some(Extends::Of { service, file: Some(path) }) => {
            return Err(format!("service {name} extends {service} of {path}; another file's services are not read"));
        }
        Some(Extends::Service(base) | Extends::Of { service: base, file: None }) => {
            // Which profiles it is of is not passed on.
            Service { profiles: Vec::new(), ..service(base, file, env, open)? }
        }
    };
    let target = raw.build.clone().map(|build| target(build, &file.secrets, env)).transpose();
    whole.lay_over(Service {
        target: target.map_err(|error| format!("service {name}: {error}"))?,
        image: raw.image.clone(),
        platform: raw.platform.clone(),
        profiles: raw.profiles.clone(),
    });
    Ok(whole)
}

fn target(
    build: Value,
    secrets: &BTreeMap<String, SecretSource>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Target, String> {
    let build = match build {
        Value::String(context) => serde_json::json!({ "context": context }),
        build => build,
    };
    let same = SAME.iter().filter_map(|key| Some((key.replace('_', "-"), build.get(key)?.clone())));
    let same = Value::Object(same.collect());
    let mut target: Target = serde_json::from_value(same).map_err(|error| error.to_string())?;
    let own: Build = serde_json::from_value(build).map_err(|error| error.to_string())?;
    for (name, value) in own.additional_contexts {
        // A service is the target of its name.
        let value = value.map(|value| match value.strip_prefix("service:") {
            Some(service) => format!("target:{}", target_name(service)),
            None => value,
        });
        target.contexts.insert(name, value);
    }
    target.extra_hosts = own
        .extra_hosts
        .into_iter()
        .map(|(line, ip)| match (ip, line.split_once(':')) {
            (None, Some((host, ip))) => (host.to_owned(), Some(ip.to_owned())),
            (ip, _) => (line, ip),
        })
        .collect();
    for (name, limit) in own.ulimits {
        let number =
            |value: Option<&Value>| value.and_then(scalar).ok_or_else(|| format!("ulimit {name} is no number"));
        target.ulimits.push(match &limit {
            Value::Object(limits) => {
                format!("{name}={}:{}", number(limits.get("soft"))?, number(limits.get("hard"))?)
            }
            limit => format!("{name}={}", number(Some(limit))?),
        });
    }
    for secret in &own.secrets {
        target.secret.push(secret_of(secret, secrets)?);
    }
    target.ssh = match own.ssh {
        None => Vec::new(),
        Some(Value::Object(keys)) => {
            let words = keys.into_iter().map(|(id, path)| match scalar(&path) {
                Some(path) => Spec::parse(&format!("{id}={path}")),
                None => Spec::parse(&id),
            });
            words.collect::<Result<_, _>>()?
        }
        Some(list) => serde_json::from_value(list).map_err(|error| format!("ssh: {error}"))?,
    };
    target.shm_size = own.shm_size.as_ref().and_then(scalar);
    // An argument without a value is the variable of its name, or none.
    for (name, value) in &mut target.args {
        if value.is_none() {
            *value = env(name);
        }
    }
    target.args.retain(|_, value| value.is_some());
    target.lay_over(own.bake);
    Ok(target)
}

/// A secret by its name at the top of the file.
fn secret_of(secret: &Value, sources: &BTreeMap<String, SecretSource>) -> Result<Spec<Secret>, String> {
    let name = match secret {
        Value::String(name) => Some(name.as_str()),
        secret => secret.get("source").and_then(Value::as_str),
    };
    let name = name.ok_or_else(|| format!("secret {secret} names no source"))?;
    let id = secret.get("target").and_then(Value::as_str).unwrap_or(name);
    match sources.get(name) {
        Some(SecretSource { file: Some(file), .. }) => Ok(Spec::of(&[("id", id), ("src", file)])),
        Some(SecretSource { environment: Some(variable), .. }) => Ok(Spec::of(&[("id", id), ("env", variable)])),
        _ => Err(format!("secret {name} has neither a file nor an environment variable at the top of the file")),
    }
}

/// Replaces variables in every text.
fn fill(value: Value, env: &dyn Fn(&str) -> Option<String>) -> Result<Value, String> {
    Ok(match value {
        Value::String(text) => Value::String(template::interpolate(&text, env)?),
        Value::Array(list) => Value::Array(list.into_iter().map(|item| fill(item, env)).collect::<Result<_, _>>()?),
        Value::Object(object) => {
            let field = |(key, value)| Ok::<_, String>((key, fill(value, env)?));
            Value::Object(object.into_iter().map(field).collect::<Result<_, _>>()?)
        }
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const FILE: &str = "\
services:
  db:
    image: postgres
  web.app:
    image: web:${TAG:-1}
    build: ./web
  api:
    build:
      context: api
      dockerfile: Dockerfile.api
      args: [A=1, GIVEN, GONE]
      labels: {x: y}
      target: final
      additional_contexts: {lib: 'service:web.app', src: ../src}
      extra_hosts: ['h:1.2.3.4']
      ulimits: {nofile: {soft: 1, hard: 2}, core: 0}
      secrets: [token, {source: key, target: k}]
      ssh: [default]
      shm_size: 64m
      x-bake: {tags: ['api:1', 'api:2'], platforms: [linux/amd64]}
secrets:
  token: {file: ./token}
  key: {environment: KEY}
";

    #[test]
    fn each_service_that_is_built_is_a_target() {
        let env = |name: &str| (name == "GIVEN").then(|| "g".to_owned());
        let definition = read(FILE, &env).unwrap().definition();
        assert_eq!(definition.groups["default"].targets, ["api", "web_app"]);
        assert_eq!(
            serde_json::to_value(&definition.targets["api"]).unwrap(),
            json!({
                "context": "api", "dockerfile": "Dockerfile.api", "args": {"A": "1", "GIVEN": "g"}, "labels": {"x": "y"},
                "target": "final", "contexts": {"lib": "target:web_app", "src": "../src"}, "extra-hosts": {"h": "1.2.3.4"},
                "ulimits": ["core=0", "nofile=1:2"], "shm-size": "64m", "ssh": [{"id": "default"}],
                "secret": [{"id": "token", "src": "./token"}, {"env": "KEY", "id": "k"}],
                "tags": ["api:1", "api:2"], "platforms": ["linux/amd64"]
            })
        );
        let web = serde_json::to_value(&definition.targets["web_app"]).unwrap();
        assert_eq!(web, json!({"context": "./web", "tags": ["web:1"]}));
    }

    #[test]
    fn a_secret_without_a_source_is_refused() {
        let error = read("services: {a: {build: {secrets: [x]}}}", &|_| None).unwrap_err();
        assert!(error.starts_with("service a: secret x has neither a file"), "{error}");
    }

    #[test]
    fn services_extend_others_of_their_file() {
        const FILE: &str = "\
services:
  base: {build: {context: a, args: {X: 1, Y: 1}}, image: 'b:1', profiles: [never]}
  app: {extends: {service: base}, build: {args: {Y: 2}, target: t}}
  worker: {extends: app, image: 'w:1'}
";
        let project = read(FILE, &|_| None).unwrap();
        assert_eq!(project.services["app"].profiles, [""; 0]);
        let definition = project.definition();
        let target = |name: &str| serde_json::to_value(&definition.targets[name]).unwrap();
        let app = json!({"context": "a", "args": {"X": "1", "Y": "2"}, "target": "t", "tags": ["b:1"]});
        assert_eq!(target("app"), app);
        assert_eq!(target("worker")["tags"], json!(["w:1"]));
        for (file, message) in [
            ("services: {a: {extends: b}}", "there is no service b to extend"),
            ("services: {a: {extends: b}, b: {extends: a}}", "service a extends itself"),
            (
                "services: {a: {extends: {service: b, file: c.yml}}}",
                "service a extends b of c.yml; another file's services are not read",
            ),
            ("include: [c.yml]", "include is not read; name the files with -f"),
        ] {
            assert_eq!(read(file, &|_| None).unwrap_err(), message, "{file}");
        }
    }

    /// The name that the second file gives was dropped, since it builds nothing there.
    #[test]
    fn a_second_file_goes_over_the_first() {
        let mut project = read("services: {a: {build: x, image: 'a:1'}, b: {image: y}}", &|_| None).unwrap();
        project.lay_over(read("name: p\nservices: {a: {image: 'a:2'}, b: {build: z}}", &|_| None).unwrap());
        assert_eq!(project.name.as_deref(), Some("p"));
        let definition = project.definition();
        assert_eq!(definition.targets["a"].tags.as_deref(), Some(&["a:2".to_owned()][..]));
        assert_eq!(definition.targets["b"].tags.as_deref(), Some(&["y".to_owned()][..]));
    }
}
