//! Named volumes: folders of the state folder that containers share.

use std::fs;
use std::io;
use std::path::PathBuf;

use anyhow::{Context, bail};

use super::State;
use super::cache::entries;
use crate::sys::Root;

/// Names of all, sorted.
pub fn list(state: &State) -> anyhow::Result<Vec<String>> {
    let mut names: Vec<String> = entries(&state.volumes_dir())?
        .iter()
        .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
        // What begins with a dot is on its way to be one.
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    Ok(names)
}

/// Makes an empty one. Ok when it is there.
pub fn create(state: &State, name: &str) -> anyhow::Result<()> {
    let path = path(state, name)?;
    fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))
}

/// The folder; None where there is none of the name.
pub fn find(state: &State, name: &str) -> anyhow::Result<Option<PathBuf>> {
    Ok(Some(path(state, name)?).filter(|path| path.is_dir()))
}

/// Removes one with all that is in it. False where there was none.
pub fn remove(state: &State, name: &str) -> anyhow::Result<bool> {
    let Some(path) = find(state, name)? else { return Ok(false) };
    let home = Root::open(&state.volumes_dir())?;
    match home.remove(name.as_ref()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(true),
    }
}

/// Docker's rule for names keeps them inside the folder.
fn path(state: &State, name: &str) -> anyhow::Result<PathBuf> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if !name.starts_with(|first: char| first.is_ascii_alphanumeric()) || !name.bytes().all(word) {
        bail!("volume name {name:?} is not valid, expected [a-zA-Z0-9][a-zA-Z0-9_.-]*");
    }
    Ok(state.volumes_dir().join(name))
}
