//! `--secret` and `--ssh` as Docker and BuildKit write them, and what they stand for.

use std::path::PathBuf;

use crate::base::{Env, Secret, csv};
use crate::ops::ssh::Keys;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("secret {spec:?}: {reason}")]
    Spec { spec: String, reason: String },
    #[error("secret {id}: {path}: {source}")]
    Read { id: String, path: PathBuf, source: std::io::Error },
    #[error("ssh {spec:?}: {reason}")]
    Ssh { spec: String, reason: String },
}

/// Where a secret's value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretSpec {
    pub id: String,
    pub from: From,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    File(PathBuf),
    Variable(String),
}

/// Reads `id=ID[,src=FILE|,env=VAR][,type=file|env]`. With neither, a variable of the id's name is meant, or a file.
pub fn parse(spec: &str, env: &Env) -> Result<SecretSpec, Error> {
    let wrong = |reason: String| Error::Spec { spec: spec.to_owned(), reason };
    let (mut id, mut source, mut variable, mut kind) = (None, None, None, None);
    for (key, value) in csv::pairs(spec).map_err(wrong)? {
        let value = value.ok_or_else(|| wrong(format!("{key} has no value")))?;
        match key.as_str() {
            "id" => id = Some(value),
            "src" | "source" => source = Some(value),
            "env" => variable = Some(value),
            "type" if matches!(value.as_str(), "file" | "env") => kind = Some(value),
            "type" => return Err(wrong(format!("type={value} is neither file nor env"))),
            _ => return Err(wrong(format!("{key:?} is not known (id, src, env, type)"))),
        }
    }
    let id = id.filter(|id| !id.is_empty()).ok_or_else(|| wrong("it has no id".to_owned()))?;
    // Docker lets `src` name a variable where the type says so.
    if kind.as_deref() == Some("env") && variable.is_none() {
        variable = source.take();
    }
    let from = match (source, variable) {
        (Some(_), Some(_)) => return Err(wrong("it has both src and env".to_owned())),
        (Some(path), None) => From::File(env.absolute(path)),
        (None, Some(name)) => From::Variable(name),
        (None, None) if kind.as_deref() != Some("file") && env.var_os(&id).is_some() => From::Variable(id.clone()),
        (None, None) => From::File(env.absolute(&id)),
    };
    Ok(SecretSpec { id, from })
}

impl SecretSpec {
    /// The value; none for a variable that is not set, which only a step that requires it will miss.
    pub fn read(&self, env: &Env) -> Result<Option<Secret>, Error> {
        match &self.from {
            From::File(path) => match std::fs::read(path) {
                Ok(bytes) => Ok(Some(Secret::new(bytes))),
                Err(source) => Err(Error::Read { id: self.id.clone(), path: path.clone(), source }),
            },
            From::Variable(name) => {
                use std::os::unix::ffi::OsStrExt;
                Ok(env.var_os(name).map(|value| Secret::new(value.as_bytes())))
            }
        }
    }
}

/// Reads `ID[=SOCKET[,raw=BOOL]|=KEY[,KEY]]`; without a path, the agent of `SSH_AUTH_SOCK`.
pub fn parse_ssh(spec: &str, env: &Env) -> Result<(String, Keys), Error> {
    let wrong = |reason: String| Error::Ssh { spec: spec.to_owned(), reason };
    let (id, given) = spec.split_once('=').unwrap_or((spec, ""));
    if id.is_empty() {
        return Err(wrong("it has no id".to_owned()));
    }
    let mut keys = Keys::default();
    for part in given.split(',').filter(|part| !part.is_empty()) {
        match part.strip_prefix("raw=") {
            Some("true" | "1") => keys.raw = true,
            Some("false" | "0") => keys.raw = false,
            Some(other) => return Err(wrong(format!("raw={other} is neither true nor false"))),
            None => keys.paths.push(env.absolute(part)),
        }
    }
    if keys.raw && keys.paths.len() != 1 {
        return Err(wrong("raw=true goes with exactly one socket".to_owned()));
    }
    if keys.paths.is_empty() {
        let socket = env.nonempty("SSH_AUTH_SOCK");
        let socket = socket.ok_or_else(|| wrong("SSH_AUTH_SOCK is not set, and no key is named".to_owned()))?;
        keys.paths.push(env.absolute(socket));
    }
    Ok((id.to_owned(), keys))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_what_docker_means() {
        let env = Env::of([("token", "t"), ("SSH_AUTH_SOCK", "/agent")]);
        let file = |p: &str| From::File(p.into());
        let variable = |n: &str| From::Variable(n.to_owned());
        let cases = [
            ("id=a,src=/x", file("/x")),
            ("id=a,source=x", file("/x")),
            ("id=a,env=V", variable("V")),
            ("type=env,id=a,src=V", variable("V")),
            ("id=token", variable("token")),
            ("type=file,id=token", file("/token")),
            ("id=other", file("/other")),
        ];
        for (spec, from) in cases {
            assert_eq!(parse(spec, &env).unwrap().from, from, "{spec}");
        }
        for spec in ["src=x", "id=", "id=a,src=x,env=V", "id=a,mode=1", "id=a,type=x", "id"] {
            assert!(parse(spec, &env).is_err(), "{spec}");
        }
        assert_eq!(parse("id=token", &env).unwrap().read(&env).unwrap().unwrap().expose(), b"t");
        assert_eq!(parse("id=x,env=UNSET", &env).unwrap().read(&env).unwrap(), None);
        for (spec, id, paths, raw) in [
            ("default", "default", &["/agent"][..], false),
            ("default=", "default", &["/agent"], false),
            ("a=k1,/k2", "a", &["/k1", "/k2"], false),
            ("a=/s,raw=true", "a", &["/s"], true),
            ("a=raw=false,s", "a", &["/s"], false),
        ] {
            let keys = Keys { paths: paths.iter().map(PathBuf::from).collect(), raw };
            assert_eq!(parse_ssh(spec, &env).unwrap(), (id.to_owned(), keys), "{spec}");
        }
        for spec in ["=/s", "a=raw=true", "a=/s,/t,raw=1", "a=/s,raw=maybe"] {
            assert!(parse_ssh(spec, &env).is_err(), "{spec}");
        }
        assert!(parse_ssh("default", &Env::of([])).is_err());
    }
}
