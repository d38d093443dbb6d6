//! The mtree(5) form of a tree's metadata: one line a file, read by BSD's and libarchive's tools too.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::ledger::Ledger;
use crate::sys::{Kind, Meta, Mtime};

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub path: PathBuf,
    pub kind: Kind,
    pub meta: Meta,
    /// Equal for the names of one file; none for a file with one name.
    pub file: Option<u64>,
}

const SIGNATURE: &str = "#mtree\n";

/// Writes all of a ledger.
pub fn write(ledger: &Ledger) -> String {
    let mut names: HashMap<u64, usize> = HashMap::new();
    for (_, node) in ledger.entries() {
        *names.entry(node.file).or_default() += 1;
    }
    let mut text = SIGNATURE.to_owned();
    for (path, node) in ledger.entries() {
        let file = Some(node.file).filter(|file| names.get(file).is_some_and(|count| *count > 1));
        line(&mut text, &Line { path: path.to_owned(), kind: node.kind.clone(), meta: node.meta.clone(), file });
    }
    text
}

fn line(text: &mut String, line: &Line) {
    let Meta { mode, uid, gid, mtime, xattrs } = &line.meta;
    let (kind, more) = match &line.kind {
        Kind::Directory => ("dir", String::new()),
        Kind::File { size } => ("file", format!(" size={size}")),
        Kind::Symlink { target } => ("link", format!(" link={}", encode(target.as_os_str().as_bytes()))),
        Kind::CharDevice { major, minor } => ("char", format!(" device=linux,{major},{minor}")),
        Kind::BlockDevice { major, minor } => ("block", format!(" device=linux,{major},{minor}")),
        Kind::Fifo => ("fifo", String::new()),
        Kind::Socket => ("socket", String::new()),
        // A ledger has no hard links, only files with several names.
        Kind::Hardlink { .. } => return,
    };
    let separator = if line.path.as_os_str().is_empty() { "" } else { "/" };
    let path = encode(line.path.as_os_str().as_bytes());
    let Mtime { seconds, nanos } = mtime;
    let _ = write!(
        text,
        ".{separator}{path} type={kind} mode={mode:04o} uid={uid} gid={gid} time={seconds}.{nanos:09}{more}"
    );
    if let Some(file) = line.file {
        let _ = write!(text, " inode={file}");
    }
    for (name, value) in xattrs {
        let _ = write!(text, " xattr.{}={}", encode(name.as_bytes()), BASE64.encode(value));
    }
    text.push('\n');
}

/// As vis(3) does with octal: everything but plain visible ASCII, and what mtree gives a meaning.
fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_graphic() && !b"\\#*?[=".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "\\{byte:03o}");
        }
    }
    text
}

fn decode(text: &str) -> anyhow::Result<OsString> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, tail @ ..] = rest {
        rest = tail;
        if *byte != b'\\' {
            bytes.push(*byte);
            continue;
        }
        let octal = rest.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let Some(decoded) = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) else {
            bail!("{text:?} has a backslash without three octal digits");
        };
        bytes.push(decoded);
        rest = &rest[3..];
    }
    Ok(OsString::from_vec(bytes))
}

/// Reads what [`write`] wrote. Paths are relative and lead nowhere outside.
pub fn parse(text: &str) -> anyhow::Result<Vec<Line>> {
    let mut lines = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.starts_with('#') || line.trim().is_empty() {
            continue;
        }
        lines.push(parse_line(line).with_context(|| format!("line {}", number + 1))?);
    }
    Ok(lines)
}

fn parse_line(line: &str) -> anyhow::Result<Line> {
    let mut words = line.split_ascii_whitespace();
    let path = PathBuf::from(decode(words.next().unwrap_or_default())?);
    if path.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
        bail!("{path:?} is not a path inside the tree");
    }
    let path: PathBuf = path.components().filter(|part| *part != Component::CurDir).collect();
    let mut keywords = BTreeMap::new();
    let mut xattrs = BTreeMap::new();
    for word in words {
        let (key, value) = word.split_once('=').with_context(|| format!("{word:?} has no value"))?;
        match key.strip_prefix("xattr.") {
            Some(name) => {
                let value = BASE64.decode(value).with_context(|| format!("{key} is not base64"))?;
                xattrs.insert(decode(name)?, value);
            }
            None => drop(keywords.insert(key, value)),
        }
    }
    let text = |key: &str| keywords.get(key).copied().with_context(|| format!("no {key}"));
    let number = |key: &str| text(key)?.parse::<u32>().with_context(|| format!("{key} is no number"));
    let device = || {
        let value = text("device")?;
        let parts: Vec<&str> = value.split(',').collect();
        match parts[..] {
            ["linux", major, minor] => Ok((major.parse::<u32>()?, minor.parse::<u32>()?)),
            _ => bail!("device={value} is not linux,MAJOR,MINOR"),
        }
    };
    let kind = match text("type")? {
        "dir" => Kind::Directory,
        "file" => Kind::File { size: text("size")?.parse().context("size is no number")? },
        "link" => Kind::Symlink { target: decode(text("link")?)?.into() },
        "char" => device().map(|(major, minor)| Kind::CharDevice { major, minor })?,
        "block" => device().map(|(major, minor)| Kind::BlockDevice { major, minor })?,
        "fifo" => Kind::Fifo,
        "socket" => Kind::Socket,
        other => bail!("type={other} is not known"),
    };
    let mode =
        u32::from_str_radix(text("mode")?, 8).ok().filter(|mode| *mode <= 0o7777).context("mode is not octal")?;
    let (seconds, nanos) = text("time")?.split_once('.').context("time is not SECONDS.NANOSECONDS")?;
    let nanos: u32 = nanos.parse().context("time is not SECONDS.NANOSECONDS")?;
    if nanos > 999_999_999 {
        bail!("time has more than a second of nanoseconds");
    }
    let mtime = Mtime { seconds: seconds.parse().context("time is not SECONDS.NANOSECONDS")?, nanos };
    let file = match keywords.get("inode") {
        Some(inode) => Some(inode.parse().context("inode is no number")?),
        None => None,
    };
    Ok(Line { path, kind, meta: Meta { mode, uid: number("uid")?, gid: number("gid")?, mtime, xattrs }, file })
}

/// Whether a name is one that git itself means something by.
pub fn is_git_s_own(name: &OsStr) -> bool {
    [".git", ".gitignore", ".gitattributes", ".gitmodules"].iter().any(|own| name == *own)
}

/// The last name of a path, empty for the root.
pub fn last_name(path: &Path) -> &OsStr {
    path.file_name().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_all_that_git_cannot() {
        let xattrs = BTreeMap::from([(OsString::from("security.capability"), vec![1, 0, 10])]);
        let meta = Meta { mode: 0o4755, uid: 3_000_000_000, gid: 7, mtime: Mtime { seconds: -1, nanos: 5 }, xattrs };
        let line = Line { path: "a b/\u{fc}#".into(), kind: Kind::File { size: 3 }, meta, file: Some(9) };
        let mut text = String::new();
        super::line(&mut text, &line);
        assert_eq!(
            text,
            "./a\\040b/\\303\\274\\043 type=file mode=4755 uid=3000000000 gid=7 time=-1.000000005 size=3 inode=9 \
             xattr.security.capability=AQAK\n"
        );
        assert_eq!(parse(&text).unwrap(), [line]);
    }

    #[test]
    fn refuses_with_the_line() {
        let rest = "mode=0644 uid=0 gid=0 time=0.000000000";
        let cases = [
            (format!("../x type=dir {rest}"), "line 1: \"../x\" is not a path inside the tree"),
            (format!("/x type=dir {rest}"), "line 1: \"/x\" is not a path inside the tree"),
            (format!("#mtree\n./x type=door {rest}"), "line 2: type=door is not known"),
            (format!("./x type=char device=1,3 {rest}"), "line 1: device=1,3 is not linux,MAJOR,MINOR"),
            ("./x type=dir".to_owned(), "line 1: no mode"),
            (format!("./\\9 type=dir {rest}"), "line 1: \"./\\\\9\" has a backslash without three octal digits"),
        ];
        for (text, message) in cases {
            assert_eq!(format!("{:#}", parse(&text).unwrap_err()), message, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn names_of_any_bytes_come_back(bytes: Vec<u8>, text: String) {
            let encoded = encode(&bytes);
            proptest::prop_assert_eq!(decode(&encoded).unwrap().into_vec(), bytes);
            let _ = parse(&text);
        }
    }
}
