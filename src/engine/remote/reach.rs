//! How an engine elsewhere is reached, as the environment says.

use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::base::{Cancel, Env, csv};
use crate::remote::{Address, Client, Reach, Tls};

/// For engines at a host: a folder with an authority, our certificate and its key; or fields, as CSV: `dir=DIR` for the
/// same, `ca=FILE`, `cert=FILE`, `key=FILE`, and `name=NAME` for what the engine's certificate calls it.
pub const TLS: &str = "DOCKLESS_ENGINE_TLS";

/// How many seconds an engine may take to answer; 0 for as long as it likes.
pub const TIMEOUT: &str = "DOCKLESS_ENGINE_TIMEOUT";

/// Whether to wait for an engine that is not there yet.
pub const WAIT: &str = "DOCKLESS_ENGINE_WAIT";

pub fn connect(address: &Address, env: &Env, cancel: &Cancel) -> anyhow::Result<Client> {
    Ok(Client::connect(address, &of(env)?, cancel)?)
}

fn of(env: &Env) -> anyhow::Result<Reach> {
    let tls = env.nonempty(TLS).map(|text| tls(text, env).context(TLS)).transpose()?;
    let seconds = env.nonempty(TIMEOUT).map(str::parse::<u64>).transpose();
    let patience = seconds.with_context(|| format!("{TIMEOUT} is no number of seconds"))?;
    let patience = patience.map(|seconds| if seconds == 0 { Duration::MAX } else { Duration::from_secs(seconds) });
    let wait =
        env.nonempty(WAIT).map(|value| csv::switch(WAIT, Some(value))).transpose().map_err(anyhow::Error::msg)?;
    Ok(Reach { tls, patience, wait: wait.unwrap_or_default() })
}

fn tls(text: &str, env: &Env) -> anyhow::Result<Tls> {
    if !text.contains('=') {
        return Ok(Tls::of_folder(&env.absolute(text)));
    }
    let (mut folder, mut authority, mut certificate, mut key, mut server_name) = (None, None, None, None, None);
    for (name, value) in csv::pairs(text).map_err(anyhow::Error::msg)? {
        let value = value.with_context(|| format!("{name} has no value"))?;
        match name.as_str() {
            "dir" => folder = Some(Tls::of_folder(&env.absolute(value))),
            "ca" => authority = Some(env.absolute(value)),
            "cert" => certificate = Some(env.absolute(value)),
            "key" => key = Some(env.absolute(value)),
            "name" => server_name = Some(value),
            _ => bail!("{name:?} is not known (dir, ca, cert, key, name)"),
        }
    }
    let client = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => bail!("a certificate and its key go together"),
    };
    match (folder, authority) {
        (Some(folder), None) => Ok(Tls { server_name, client: client.or(folder.client.clone()), ..folder }),
        (None, Some(authority)) => Ok(Tls { authority, client, server_name }),
        (None, None) => bail!("it names no authority (ca=FILE)"),
        (Some(_), Some(_)) => bail!("a folder and single files do not go together"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_one_by_one_or_by_their_folder() {
        let reach = |vars: &[(&str, &str)]| of(&Env::of(vars.iter().copied()));
        assert_eq!(reach(&[]).unwrap(), Reach::default());
        let folder = reach(&[(TLS, "/none"), (TIMEOUT, "7")]).unwrap();
        assert_eq!(
            (folder.tls.unwrap().authority, folder.patience),
            ("/none/ca.pem".into(), Some(Duration::from_secs(7)))
        );
        let files = reach(&[(TLS, "ca=/a,cert=/c,key=/k,name=n")]).unwrap();
        let expected =
            Tls { authority: "/a".into(), client: Some(("/c".into(), "/k".into())), server_name: Some("n".to_owned()) };
        assert_eq!(files.tls, Some(expected));
        for (name, text, part) in [
            (TLS, "ca=/a,cert=/c", "a certificate and its key go together"),
            (TLS, "ca=/a,colour=red", "\"colour\" is not known"),
            (TIMEOUT, "soon", "DOCKLESS_ENGINE_TIMEOUT is no number"),
        ] {
            let error = format!("{:#}", reach(&[(name, text)]).unwrap_err());
            assert!(error.contains(part), "{error}");
        }
    }
}
