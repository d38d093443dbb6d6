//! Users and groups of an image by name, as runc and BuildKit look them up in its `/etc/passwd` and `/etc/group`.

use std::path::Path;

use anyhow::{Context, bail};

use crate::snapshot::{Tree, read_small};

/// Larger user files are refused: nobody's image has them, a hostile one might.
const MAX_FILE: u64 = 4 << 20;

/// Who a process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// The primary group among them.
    pub groups: Vec<u32>,
    /// What `HOME` is when nobody set it.
    pub home: String,
}

/// Looks up `USER` or `USER:GROUP`, names or numbers; empty is root.
pub fn find(tree: &dyn Tree, text: &str) -> anyhow::Result<User> {
    let read = |path: &str| {
        let bytes =
            read_small(tree, Path::new(path), MAX_FILE).with_context(|| format!("read /{path} of the image"))?;
        Ok::<_, anyhow::Error>(String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned())
    };
    resolve(text, &read("etc/passwd")?, &read("etc/group")?)
}

struct Line<'a> {
    name: &'a str,
    fields: Vec<&'a str>,
}

/// Lines of `name:x:fields…`; what is not one is skipped, as libc does.
fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        fields.next()?;
        Some(Line { name, fields: fields.collect() })
    })
}

impl Line<'_> {
    fn number(&self, index: usize) -> Option<u32> {
        self.fields.get(index)?.parse().ok()
    }
}

/// The rule of runc's `GetExecUser`: a name wins over a number only by standing first in the file.
fn resolve(text: &str, passwd: &str, group: &str) -> anyhow::Result<User> {
    let (user, group_name) = match text.split_once(':') {
        Some((user, group)) => (user, group),
        None => (text, ""),
    };
    let user = if user.is_empty() { "0" } else { user };
    let wanted = number(user, "user id")?;
    let entry = lines(passwd).find(|line| line.name == user || (wanted.is_some() && line.number(0) == wanted));
    let (uid, mut gid) = match (&entry, wanted) {
        (Some(line), _) => match (line.number(0), line.number(1)) {
            (Some(uid), Some(gid)) => (uid, gid),
            _ => bail!("user {user:?}: its line in /etc/passwd of the image has no numeric ids"),
        },
        (None, Some(uid)) => (uid, 0),
        (None, None) => bail!("unable to find user {user}: no matching entries in /etc/passwd of the image"),
    };
    let mut groups = Vec::new();
    if group_name.is_empty() {
        if let Some(entry) = &entry {
            let member =
                |line: &Line<'_>| line.fields.get(1).is_some_and(|list| list.split(',').any(|m| m == entry.name));
            groups = lines(group).filter(member).filter_map(|line| line.number(0)).collect();
        }
    } else {
        let wanted = number(group_name, "group id")?;
        let found = lines(group).find(|line| line.name == group_name || (wanted.is_some() && line.number(0) == wanted));
        gid = match found.and_then(|line| line.number(0)).or(wanted) {
            Some(gid) => gid,
            None => bail!("unable to find group {group_name}: no matching entries in /etc/group of the image"),
        };
    }
    // The primary group counts among the others, too, or files that only exclude it would let the process in.
    if !groups.contains(&gid) {
        groups.insert(0, gid);
    }
    let home = lines(passwd).find(|line| line.number(0) == Some(uid)).and_then(|line| line.fields.get(3).copied());
    let home = home.filter(|home| !home.is_empty()).unwrap_or("/").to_owned();
    Ok(User { uid, gid, groups, home })
}

fn number(text: &str, what: &str) -> anyhow::Result<Option<u32>> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    // Linux keeps the highest id for "no id".
    match text.parse() {
        Ok(id) if id < u32::MAX => Ok(Some(id)),
        _ => bail!("{what} {text} is too large"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# comment\nbroken\nwww:x:33:34::/var/www:\n1000:x:7:7::/seven:\nuser:x:1000:1001::/home/user:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nwww:x:34:\nextra:x:50:www,user\nmore:x:51:user\n";

    #[test]
    fn finds_users_as_runc_does() {
        let cases = [
            ("", (0, 0, vec![0], "/root"), "nobody named is root"),
            ("www", (33, 34, vec![34, 50], "/var/www"), "a name brings its groups"),
            ("user", (1000, 1001, vec![1001, 50, 51], "/home/user"), "more than one group"),
            ("33", (33, 34, vec![34, 50], "/var/www"), "a number finds its line"),
            ("1000", (7, 7, vec![7], "/seven"), "a name of digits that stands first wins"),
            ("4711", (4711, 0, vec![0], "/"), "an unknown number is taken as it is"),
            ("www:root", (33, 0, vec![0], "/var/www"), "a named group replaces all others"),
            ("33:4711", (33, 4711, vec![4711], "/var/www"), "an unknown group number is taken as it is"),
            (":extra", (0, 50, vec![50], "/root"), "a group alone"),
        ];
        for (text, (uid, gid, groups, home), case) in cases {
            let expected = User { uid, gid, groups, home: home.to_owned() };
            assert_eq!(resolve(text, PASSWD, GROUP).unwrap(), expected, "{case}");
        }
        assert_eq!(resolve("", "", "").unwrap(), User { uid: 0, gid: 0, groups: vec![0], home: "/".to_owned() });
    }

    #[test]
    fn says_who_is_missing() {
        let cases = [
            ("nobody", "unable to find user nobody: no matching entries in /etc/passwd of the image"),
            ("0:none", "unable to find group none: no matching entries in /etc/group of the image"),
            ("4294967295", "user id 4294967295 is too large"),
        ];
        for (text, message) in cases {
            assert_eq!(resolve(text, PASSWD, GROUP).unwrap_err().to_string(), message);
        }
    }
}
