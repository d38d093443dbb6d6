//! Addresses of git repositories as contexts and ADD take them: `https://host/x.git#ref:dir`, `git@host:x.git?tag=v1`.

use url::Url;

use super::error::{Error, Result};
use super::go::{self, quote};
use crate::base::clean;
use crate::llb::source::Git;

/// What an address says about a repository.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GitRef {
    pub git: Git,
    /// None when the address does not say.
    pub keep_git_dir: Option<bool>,
    /// `github.com/a/b`: it could as well be a directory.
    pub could_be_local: bool,
}

/// Reads an address; none when it is not a git repository's.
pub fn parse(address: &str) -> Result<Option<GitRef>> {
    if address.starts_with("./") || address.starts_with("../") {
        return Ok(None);
    }
    let mut parsed = GitRef::default();
    let (path, query, fragment);
    if let Some((scheme, _)) = address.split_once("://").filter(|(s, _)| s.bytes().all(|b| b.is_ascii_alphanumeric())) {
        let scheme = scheme.to_ascii_lowercase();
        let Ok(mut url) = Url::parse(address) else { return Ok(None) };
        match scheme.as_str() {
            "http" | "https" if !url.path().ends_with(".git") => return Ok(None),
            "http" | "https" | "git" => {}
            "ssh" => parsed.git.ssh = true,
            _ => return Ok(None),
        }
        query = pairs(url.query().unwrap_or_default());
        fragment = decoded(url.fragment().unwrap_or_default());
        url.set_query(None);
        url.set_fragment(None);
        let port = url.port().map(|p| format!(":{p}")).unwrap_or_default();
        path = decoded(url.path());
        parsed.git.id = format!("{}{port}{}", url.host_str().unwrap_or_default(), clean::join(&["/", &path]));
        // Go keeps the address as it was typed, and the url crate would add a slash.
        parsed.git.remote = address.split(['?', '#']).next().unwrap_or(address).to_owned();
    } else if address.starts_with("github.com/") {
        parsed.could_be_local = true;
        let Ok(url) = Url::parse(&format!("https://{address}")) else { return Ok(None) };
        query = pairs(url.query().unwrap_or_default());
        fragment = decoded(url.fragment().unwrap_or_default());
        path = url.path().to_owned();
        parsed.git.id = format!("github.com{}", clean::join(&["/", &path]));
        parsed.git.remote = address.split(['?', '#']).next().unwrap_or(address).to_owned();
    } else {
        let Some((user, host, rest)) = scp_style(address) else { return Ok(None) };
        parsed.git.ssh = true;
        let (rest, typed_fragment) = rest.split_once('#').unwrap_or((rest, ""));
        let (typed_path, typed_query) = rest.split_once('?').unwrap_or((rest, ""));
        query = pairs(typed_query);
        fragment = typed_fragment.to_owned();
        parsed.git.id = format!("{host}{}", clean::join(&["/", typed_path]));
        parsed.git.remote = format!("{user}@{host}:{typed_path}");
    }
    if !fragment.is_empty() {
        let (reference, dir) = fragment.split_once(':').unwrap_or((&fragment, ""));
        reference.clone_into(&mut parsed.git.reference);
        parsed.git.subdir = clean::join(&["/", dir]).trim_start_matches('/').to_owned();
    }
    parsed.load(&query)?;
    Ok(Some(parsed))
}

impl GitRef {
    fn load(&mut self, query: &[(String, String)]) -> Result<()> {
        let mut tag = None;
        let mut branch = None;
        for (i, (key, value)) in query.iter().enumerate() {
            if query[..i].iter().any(|(other, _)| other == key) {
                return Err(Error::new(format!("query {} has multiple values", quote(key))));
            }
            let key = key.as_str();
            let flag = || match value.as_str() {
                "" => Ok(true),
                text => go::parse_bool(text).ok_or_else(|| Error::new(format!("invalid {key} value: {}", quote(text)))),
            };
            if value.is_empty() && !matches!(key, "submodules" | "keep-git-dir" | "fetch-by-commit") {
                return Err(Error::new(format!("query {} has no value", quote(key))));
            }
            match key {
                "ref" => agree("ref", &mut self.git.reference, value)?,
                "subdir" => agree("subdir", &mut self.git.subdir, value)?,
                "tag" => tag = Some(prefixed("refs/tags/", value)),
                "branch" => branch = Some(prefixed("refs/heads/", value)),
                "checksum" | "commit" => self.git.checksum.clone_from(value),
                "keep-git-dir" => self.keep_git_dir = Some(flag()?),
                "submodules" => self.git.skip_submodules = !flag()?,
                "mtime" if matches!(value.as_str(), "checkout" | "commit") => self.git.mtime.clone_from(value),
                "mtime" => {
                    return Err(Error::new(format!(
                        "invalid mtime value: {} (must be \"checkout\" or \"commit\")",
                        quote(value)
                    )));
                }
                "fetch-by-commit" => self.git.fetch_by_commit = flag()?,
                _ => {
                    let known = [
                        "ref",
                        "tag",
                        "branch",
                        "subdir",
                        "checksum",
                        "commit",
                        "keep-git-dir",
                        "submodules",
                        "mtime",
                        "fetch-by-commit",
                    ];
                    let error = Error::new(format!("unexpected query {}", quote(key)));
                    return Err(error.did_you_mean(key, known));
                }
            }
        }
        if let (Some(tag), Some(branch)) = (&tag, &branch) {
            return Err(Error::new(format!("branch conflicts with tag: {} vs {}", quote(branch), quote(tag))));
        }
        if let Some(name) = tag.or(branch) {
            agree("ref", &mut self.git.reference, &name)?;
        }
        if self.git.fetch_by_commit && self.git.checksum.is_empty() {
            return Err(Error::new("fetch-by-commit requires checksum"));
        }
        Ok(())
    }
}

fn prefixed(prefix: &str, name: &str) -> String {
    if name.starts_with(prefix) { name.to_owned() } else { format!("{prefix}{name}") }
}

fn agree(what: &str, known: &mut String, value: &str) -> Result<()> {
    if !known.is_empty() && known != value {
        return Err(Error::new(format!("{what} conflicts: {} vs {}", quote(known), quote(value))));
    }
    value.clone_into(known);
    Ok(())
}

/// `user@host:path`
fn scp_style(address: &str) -> Option<(&str, &str, &str)> {
    let (user, rest) = address.split_once('@')?;
    let (host, rest) = rest.split_once(':')?;
    let word = |text: &str, more: &[u8]| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
    };
    (word(user, b"-_") && word(host, b"-.") && !rest.contains('\n')).then_some((user, host, rest))
}

fn pairs(query: &str) -> Vec<(String, String)> {
    let mut pairs: Vec<_> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    pairs.sort();
    pairs
}

fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        match hex.and_then(|h| std::str::from_utf8(h).ok()).and_then(|h| u8::from_str_radix(h, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_each_form() {
        let cases = [
            ("https://h.org/a/b.git", "https://h.org/a/b.git", "h.org/a/b.git", "", ""),
            ("https://h.org/b.git#v1:sub/../dir", "https://h.org/b.git", "h.org/b.git", "v1", "dir"),
            ("https://h.org/b.git?tag=v1&subdir=x", "https://h.org/b.git", "h.org/b.git", "refs/tags/v1", "x"),
            ("git@h.org:a/b.git#main", "git@h.org:a/b.git", "h.org/a/b.git", "main", ""),
            ("git@h.org:b?branch=x", "git@h.org:b", "h.org/b", "refs/heads/x", ""),
            ("ssh://git@h.org:22/b", "ssh://git@h.org:22/b", "h.org:22/b", "", ""),
            ("git://h.org/b", "git://h.org/b", "h.org/b", "", ""),
            ("github.com/a/b", "github.com/a/b", "github.com/a/b", "", ""),
        ];
        for (address, remote, id, reference, subdir) in cases {
            let git = parse(address).unwrap().unwrap().git;
            assert_eq!(
                (git.remote.as_str(), git.id.as_str(), git.reference.as_str(), git.subdir.as_str()),
                (remote, id, reference, subdir),
                "{address}"
            );
        }
        for address in ["a", "./a.git", "https://h.org/file.tar", "ftp://h/a.git", "/a/b.git", "a@b", "C:\\x"] {
            assert_eq!(parse(address).unwrap(), None, "{address}");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        let cases = [
            ("https://h/b.git?ref=a#b", "ref conflicts: \"b\" vs \"a\""),
            ("https://h/b.git?tag=a&branch=b", "branch conflicts with tag: \"refs/heads/b\" vs \"refs/tags/a\""),
            ("https://h/b.git?reff=a", "unexpected query \"reff\""),
            ("https://h/b.git?ref=", "query \"ref\" has no value"),
            ("https://h/b.git?ref=a&ref=b", "query \"ref\" has multiple values"),
            ("https://h/b.git?submodules=x", "invalid submodules value: \"x\""),
        ];
        for (address, message) in cases {
            assert_eq!(parse(address).unwrap_err().to_string(), message);
        }
    }

    proptest! {
        #[test]
        fn never_panics(address in "(https://|git@|ssh://|github.com/)?[a-z.:/?#&=%@é]{0,40}") {
            let _ = parse(&address);
        }
    }
}
