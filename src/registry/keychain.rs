//! Finds and keeps credentials: what the caller gave, Docker's `config.json` with its helper programs, podman's
//! `auth.json`, `DOCKER_AUTH_CONFIG`. Asked only when a registry wants to know who is there.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Credential;
use super::error::{Error, Result};
use super::helper;
use crate::base::{Env, Secret, reference::DOCKER_HUB};

/// What `docker login` writes for Docker Hub, and helpers are asked for.
pub(super) const HUB_KEY: &str = "https://index.docker.io/v1/";

/// A credential and where it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub credential: Credential,
    pub source: String,
}

/// The outcome of a search, with the places that were looked at in vain.
#[derive(Debug, Default)]
pub(super) struct Search {
    pub found: Option<Found>,
    pub tried: Vec<String>,
}

impl Search {
    /// For an error message.
    pub fn describe(&self) -> String {
        match &self.found {
            Some(found) => format!("credentials from {}", found.source),
            None if self.tried.is_empty() => "no credentials: there is no config.json to look in".to_owned(),
            None => format!("no credentials in {}", self.tried.join(", ")),
        }
    }
}

/// Docker's config.json or podman's auth.json, as far as credentials go.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ConfigFile {
    auths: BTreeMap<String, AuthEntry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AuthEntry {
    auth: Option<Secret64>,
    username: Option<String>,
    password: Option<Secret64>,
    identitytoken: Option<Secret64>,
    registrytoken: Option<Secret64>,
}

/// Text of a file that must not be shown by a `Debug` of its neighbours.
#[derive(Deserialize)]
#[serde(transparent)]
struct Secret64(String);

impl std::fmt::Debug for Secret64 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("hidden")
    }
}

pub(super) struct Keychain {
    env: Env,
    given: BTreeMap<String, Credential>,
}

impl Keychain {
    pub fn new(env: &Env, given: &BTreeMap<String, Credential>) -> Self {
        let mut given = given.clone();
        if let (Some(user), Some(password)) = (env.nonempty("REGISTRY_USERNAME"), env.nonempty("REGISTRY_PASSWORD")) {
            let host = env.nonempty("REGISTRY").unwrap_or(DOCKER_HUB).to_owned();
            given
                .entry(host)
                .or_insert_with(|| Credential::Password { user: user.to_owned(), password: Secret::from(password) });
        }
        Self { env: env.clone(), given }
    }

    /// The credential for a repository of a registry. A file that cannot be read is an error, a helper that fails
    /// is a place tried in vain: an anonymous pull may still do.
    pub fn find(&self, registry: &str, repository: &str) -> Result<Search> {
        let registry = canonical(registry);
        let mut search = Search::default();
        if let Some(credential) = self.given.iter().find(|(host, _)| canonical(host) == registry).map(|(_, c)| c) {
            search.found = Some(Found { credential: credential.clone(), source: "the given user name".to_owned() });
            return Ok(search);
        }
        for (name, text) in self.texts()? {
            let file = parse(&text).map_err(|reason| Error::Config { place: name.clone(), reason })?;
            if let Some(found) = self.search_file(&file, &name, registry, repository, &mut search.tried)? {
                search.found = Some(found);
                return Ok(search);
            }
        }
        Ok(search)
    }

    /// The files that exist, by name, in the order in which they are asked: what was said for this process before
    /// what lies in a home.
    fn texts(&self) -> Result<Vec<(String, String)>> {
        let mut texts = Vec::new();
        if let Some(text) = self.env.nonempty("DOCKER_AUTH_CONFIG") {
            texts.push(("DOCKER_AUTH_CONFIG".to_owned(), text.to_owned()));
        }
        let explicit = self.env.nonempty("REGISTRY_AUTH_FILE").map(|path| self.env.absolute(path));
        let podman = self.env.nonempty("XDG_RUNTIME_DIR").map(|dir| Path::new(dir).join("containers/auth.json"));
        for path in [explicit, self.config_path(), podman].into_iter().flatten() {
            match std::fs::read_to_string(&path) {
                Ok(text) => texts.push((path.display().to_string(), text)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(Error::Config { place: path.display().to_string(), reason: error.to_string() });
                }
            }
        }
        Ok(texts)
    }

    fn search_file(
        &self,
        file: &ConfigFile,
        name: &str,
        registry: &str,
        repository: &str,
        tried: &mut Vec<String>,
    ) -> Result<Option<Found>> {
        let helper = file.cred_helpers.iter().find(|(host, _)| canonical(host) == registry).map(|(_, helper)| helper);
        if let Some(helper) = helper.or(file.creds_store.as_ref()).filter(|helper| !helper.is_empty()) {
            let source = format!("docker-credential-{helper} ({name})");
            match helper::ask(&self.env, helper, registry) {
                Ok(Some(credential)) => return Ok(Some(Found { credential, source })),
                Ok(None) => tried.push(source),
                Err(reason) => tried.push(format!("{source}: {reason}")),
            }
        }
        // podman's keys may go down into a registry: the longest that fits is meant.
        let wanted = format!("{registry}/{repository}");
        let best = file
            .auths
            .iter()
            .map(|(key, entry)| (canonical_path(key), entry))
            .filter(|(key, _)| wanted.strip_prefix(key.as_str()).is_some_and(|r| r.is_empty() || r.starts_with('/')))
            .max_by_key(|(key, _)| key.len());
        if let Some((key, entry)) = best
            && let Some(credential) =
                entry.credential().map_err(|reason| Error::Credential { registry: registry.to_owned(), reason })?
        {
            return Ok(Some(Found { credential, source: format!("{name} (auths, {key})") }));
        }
        tried.push(name.to_owned());
        Ok(None)
    }

    fn config_path(&self) -> Option<PathBuf> {
        let folder = match self.env.nonempty("DOCKER_CONFIG") {
            Some(folder) => self.env.absolute(folder),
            None => self.env.home()?.join(".docker"),
        };
        Some(folder.join("config.json"))
    }

    fn read_config(&self, registry: &str) -> Result<(PathBuf, Map<String, Value>)> {
        let path = self.config_path().ok_or_else(|| Error::Credential {
            registry: registry.to_owned(),
            reason: "nowhere to keep them: neither DOCKER_CONFIG nor HOME is set".to_owned(),
        })?;
        let config_error = |reason: String| Error::Config { place: path.display().to_string(), reason };
        let config = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| config_error(error.to_string()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Map::new(),
            Err(error) => return Err(config_error(error.to_string())),
        };
        Ok((path, config))
    }

    /// Keeps a credential where `docker login` would; returns where.
    pub fn store(&self, registry: &str, credential: &Credential) -> Result<String> {
        let registry = canonical(registry);
        let key = if registry == DOCKER_HUB { HUB_KEY } else { registry };
        let (path, mut config) = self.read_config(registry)?;
        let failed = |reason: String| Error::Credential { registry: registry.to_owned(), reason };
        let (user, secret) = match credential {
            Credential::Password { user, password } => (user.as_str(), password),
            Credential::IdentityToken(token) => ("<token>", token),
            Credential::Bearer(_) => return Err(failed("a bearer token cannot be kept".to_owned())),
        };
        let text = secret.expose_str().ok_or_else(|| failed("the password is not UTF-8".to_owned()))?;
        if let Some(helper) = helper_of(&config, registry) {
            let input = json!({ "ServerURL": key, "Username": user, "Secret": text }).to_string();
            helper::run(&self.env, &helper, "store", input.as_bytes())
                .map_err(|reason| failed(format!("docker-credential-{helper}: {reason}")))?;
            // As docker does: an empty entry says that the helper holds one.
            put_auth(&mut config, key, Some(json!({})));
            write_config(&path, &config)?;
            return Ok(format!("docker-credential-{helper}"));
        }
        let entry = match credential {
            Credential::IdentityToken(_) => json!({ "identitytoken": text }),
            _ => json!({ "auth": base64::engine::general_purpose::STANDARD.encode(format!("{user}:{text}")) }),
        };
        put_auth(&mut config, key, Some(entry));
        write_config(&path, &config)?;
        Ok(path.display().to_string())
    }

    /// Forgets what [`Keychain::store`] kept. False when there was nothing.
    pub fn erase(&self, registry: &str) -> Result<bool> {
        let registry = canonical(registry);
        let (path, mut config) = self.read_config(registry)?;
        let key = if registry == DOCKER_HUB { HUB_KEY } else { registry };
        let mut erased = false;
        if let Some(helper) = helper_of(&config, registry) {
            erased |= matches!(helper::run(&self.env, &helper, "get", key.as_bytes()), Ok(Some(_)));
            helper::run(&self.env, &helper, "erase", key.as_bytes()).map_err(|reason| Error::Credential {
                registry: registry.to_owned(),
                reason: format!("docker-credential-{helper}: {reason}"),
            })?;
        }
        let keys: Vec<String> = match config.get("auths").and_then(Value::as_object) {
            Some(auths) => auths.keys().filter(|key| canonical(key) == registry).cloned().collect(),
            None => Vec::new(),
        };
        for key in &keys {
            put_auth(&mut config, key, None);
        }
        if !keys.is_empty() {
            write_config(&path, &config)?;
            erased = true;
        }
        Ok(erased)
    }
}

fn helper_of(config: &Map<String, Value>, registry: &str) -> Option<String> {
    let own = config
        .get("credHelpers")
        .and_then(Value::as_object)
        .and_then(|helpers| helpers.iter().find(|(host, _)| canonical(host) == registry))
        .map(|(_, helper)| helper);
    own.or_else(|| config.get("credsStore")).and_then(Value::as_str).filter(|name| !name.is_empty()).map(str::to_owned)
}

fn put_auth(config: &mut Map<String, Value>, key: &str, entry: Option<Value>) {
    let auths = config.entry("auths").or_insert_with(|| json!({}));
    if !auths.is_object() {
        *auths = json!({});
    }
    if let Some(auths) = auths.as_object_mut() {
        match entry {
            Some(entry) => auths.insert(key.to_owned(), entry),
            None => auths.remove(key),
        };
    }
}

/// Beside itself and renamed: whoever reads sees the old or the new file. 0600, as it holds secrets.
fn write_config(path: &Path, config: &Map<String, Value>) -> Result<()> {
    let written = || -> std::io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        serde_json::to_writer_pretty(&mut file, config)?;
        file.write_all(b"\n")?;
        file.persist(path)?;
        Ok(())
    };
    written().map_err(|error| Error::Config { place: path.display().to_string(), reason: error.to_string() })
}

fn parse(text: &str) -> std::result::Result<ConfigFile, String> {
    // Only the place: the parser quotes what it found there, and that may be the password.
    serde_json::from_str(text).map_err(|error| format!("not valid at line {} column {}", error.line(), error.column()))
}

impl AuthEntry {
    fn credential(&self) -> std::result::Result<Option<Credential>, String> {
        let text = |field: &Option<Secret64>| field.as_ref().map(|s| s.0.clone()).filter(|s| !s.is_empty());
        if let Some(token) = text(&self.identitytoken) {
            return Ok(Some(Credential::IdentityToken(Secret::from(token))));
        }
        if let Some(token) = text(&self.registrytoken) {
            return Ok(Some(Credential::Bearer(Secret::from(token))));
        }
        if let Some(auth) = text(&self.auth) {
            return decode_auth(&auth).map(Some);
        }
        Ok(match (&self.username, text(&self.password)) {
            (Some(user), Some(password)) => {
                Some(Credential::Password { user: user.clone(), password: Secret::from(password) })
            }
            _ => None,
        })
    }
}

fn decode_auth(auth: &str) -> std::result::Result<Credential, String> {
    use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
    let lenient = GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let malformed = || "its auth is not base64 of user:password".to_owned();
    let bytes = lenient.decode(auth.trim()).map_err(|_| malformed())?;
    let text = String::from_utf8(bytes).map_err(|_| malformed())?;
    // Docker's own writer pads with NUL.
    let (user, password) = text.trim_end_matches('\0').split_once(':').ok_or_else(malformed)?;
    Ok(Credential::Password { user: user.to_owned(), password: Secret::from(password) })
}

/// A key of `auths` without scheme and path, Docker Hub's many names made one.
fn canonical(key: &str) -> &str {
    let host = key.split_once("://").map_or(key, |(_, rest)| rest);
    match host.split('/').next().unwrap_or(host) {
        "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB,
        host => host,
    }
}

/// As [`canonical`], with the path that podman allows and without the API versions that old Dockers wrote.
fn canonical_path(key: &str) -> String {
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    let path = rest.split_once('/').map_or("", |(_, path)| path).trim_end_matches('/');
    match path {
        "" | "v1" | "v2" => canonical(key).to_owned(),
        path => format!("{}/{path}", canonical(key)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn password(user: &str, password: &str) -> Credential {
        Credential::Password { user: user.into(), password: password.into() }
    }

    /// A home with Docker's config.json in it.
    fn home(config: &str) -> (tempfile::TempDir, Env) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(".docker")).unwrap();
        std::fs::write(dir.path().join(".docker/config.json"), config).unwrap();
        let path = format!("{}/bin:/usr/bin:/bin", dir.path().display());
        let env = Env::of([("HOME", dir.path().to_str().unwrap()), ("PATH", &path)]);
        (dir, env)
    }

    fn helper(dir: &Path, name: &str, script: &str) {
        std::fs::create_dir_all(dir.join("bin")).unwrap();
        let path = dir.join("bin").join(format!("docker-credential-{name}"));
        // Written elsewhere and renamed: an executable that is still open for writing cannot be run.
        let tmp = dir.join("script");
        std::fs::write(&tmp, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&tmp, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(tmp, path).unwrap();
    }

    fn find(env: &Env, registry: &str) -> Search {
        Keychain::new(env, &BTreeMap::new()).find(registry, "a/b").unwrap()
    }

    #[test]
    fn auths_are_found_under_every_spelling_of_their_host() {
        // u:p
        let cases = [
            ("r.example", "r.example", true),
            ("https://r.example", "r.example", true),
            ("https://r.example/v2/", "r.example", true),
            ("r.example/a", "r.example", true),
            ("r.example/a/b", "r.example", true),
            ("r.example/ab", "r.example", false),
            ("r.example:5000", "r.example", false),
            ("https://index.docker.io/v1/", "docker.io", true),
            ("docker.io", "docker.io", true),
            ("index.docker.io", "registry-1.docker.io", true),
        ];
        for (key, registry, expected) in cases {
            let (_dir, env) = home(&json!({ "auths": { key: { "auth": "dTpw" } } }).to_string());
            let found = find(&env, registry).found.map(|f| f.credential);
            assert_eq!(found, expected.then(|| password("u", "p")), "{key} {registry}");
        }
    }

    #[test]
    fn a_helper_of_the_host_comes_before_the_store_and_the_store_before_auths() {
        let (dir, env) = home(
            r#"{"auths":{"a.b":{"auth":"dTpw"},"c.d":{"auth":"dTpw"}},"credsStore":"all","credHelpers":{"a.b":"own"}}"#,
        );
        helper(dir.path(), "own", r#"read -r url; echo "{\"Username\":\"<token>\",\"Secret\":\"own $url\"}""#);
        helper(dir.path(), "all", "echo 'credentials not found in native keychain'; exit 1");
        assert_eq!(find(&env, "a.b").found.unwrap().credential, Credential::IdentityToken("own a.b".into()));
        let search = find(&env, "c.d");
        assert_eq!(search.found.unwrap().credential, password("u", "p"), "a store without it lets auths speak");
        assert!(search.tried[0].starts_with("docker-credential-all"), "{:?}", search.tried);
    }

    #[test]
    fn a_missing_helper_is_named_and_not_fatal() {
        let (_dir, env) = home(r#"{"credsStore":"nowhere"}"#);
        let search = find(&env, "a.b");
        assert!(search.found.is_none());
        assert!(search.describe().contains("docker-credential-nowhere is not in PATH"), "{}", search.describe());
    }

    #[test]
    fn what_the_caller_gave_and_what_the_environment_holds() {
        let env = Env::of([
            ("DOCKER_AUTH_CONFIG", r#"{"auths":{"a.b":{"username":"u","password":"p"}}}"#),
            ("REGISTRY_USERNAME", "x"),
            ("REGISTRY_PASSWORD", "y"),
            ("REGISTRY", "c.d"),
        ]);
        assert_eq!(find(&env, "a.b").found.unwrap().source, "DOCKER_AUTH_CONFIG (auths, a.b)");
        assert_eq!(find(&env, "c.d").found.unwrap().credential, password("x", "y"));
        assert!(find(&env, "docker.io").found.is_none());
        let given = BTreeMap::from([("a.b".to_owned(), password("given", "given"))]);
        let found = Keychain::new(&env, &given).find("a.b", "x").unwrap().found.unwrap();
        assert_eq!(found.credential, password("given", "given"));
    }

    #[test]
    fn what_was_said_for_this_process_comes_before_the_home() {
        let (dir, env) = home(r#"{"auths":{"a.b":{"username":"home","password":"p"}}}"#);
        let user = |env: &Env| match find(env, "a.b").found.unwrap().credential {
            Credential::Password { user, .. } => user,
            other => panic!("{other:?}"),
        };
        assert_eq!(user(&env), "home");
        let path = dir.path().join("auth.json");
        std::fs::write(&path, r#"{"auths":{"a.b":{"username":"file","password":"p"}}}"#).unwrap();
        let env = env.with("REGISTRY_AUTH_FILE", path);
        assert_eq!(user(&env), "file");
        let text = r#"{"auths":{"a.b":{"username":"variable","password":"p"}}}"#;
        assert_eq!(user(&env.with("DOCKER_AUTH_CONFIG", text)), "variable");
    }

    #[test]
    fn a_broken_file_is_an_error_that_quotes_nothing() {
        let (_dir, env) = home(r#"{"auths":{"a.b":{"auth":["hunter2"]}}}"#);
        let error = Keychain::new(&env, &BTreeMap::new()).find("a.b", "x").unwrap_err().to_string();
        assert!(error.contains("config.json") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn login_keeps_what_others_wrote_and_logout_removes_only_its_own() {
        let (dir, env) = home(r#"{"auths":{"other":{"auth":"dTpw"}},"psFormat":"x"}"#);
        let keychain = Keychain::new(&env, &BTreeMap::new());
        let path = dir.path().join(".docker/config.json");
        assert_eq!(keychain.store("docker.io", &password("me", "pw:x")).unwrap(), path.display().to_string());
        let config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(
            config,
            json!({"auths":{"other":{"auth":"dTpw"},"https://index.docker.io/v1/":{"auth":"bWU6cHc6eA=="}},"psFormat":"x"})
        );
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(find(&env, "docker.io").found.unwrap().credential, password("me", "pw:x"));
        assert!(keychain.erase("docker.io").unwrap());
        assert!(!keychain.erase("docker.io").unwrap());
        assert!(find(&env, "other").found.is_some());
    }

    #[test]
    fn login_goes_to_the_helper_where_there_is_one() {
        let (dir, env) = home(r#"{"credHelpers":{"a.b":"keep"}}"#);
        let kept = dir.path().join("kept");
        helper(dir.path(), "keep", &format!("cat > {}", kept.display()));
        let keychain = Keychain::new(&env, &BTreeMap::new());
        assert_eq!(keychain.store("a.b", &password("u", "p")).unwrap(), "docker-credential-keep");
        let input: Value = serde_json::from_slice(&std::fs::read(kept).unwrap()).unwrap();
        assert_eq!(input, json!({"ServerURL":"a.b","Username":"u","Secret":"p"}));
        let config = std::fs::read_to_string(dir.path().join(".docker/config.json")).unwrap();
        assert!(!config.contains("dTpw"), "{config}");
    }
}
