//! Who owns what a file action makes: numbers, or names looked up in the files of an image.

use std::path::Path;

use anyhow::Context as _;

use crate::llb::pb;
use crate::snapshot::{Tree, read_small};

/// As BuildKit reads at most.
const MAX_USER_FILE: u64 = 10 << 20;

/// The user and group ids that `--chown` means; none when nothing is changed. `tree` gives the image that a name is
/// looked up in.
pub(super) fn resolve<'t>(
    owner: Option<&pb::ChownOpt>,
    mut tree: impl FnMut(i64) -> anyhow::Result<std::sync::Arc<dyn Tree + 't>>,
) -> anyhow::Result<Option<(u32, u32)>> {
    use pb::user_opt::User;
    let Some(owner) = owner else { return Ok(None) };
    let (mut uid, mut gid) = (0, 0);
    match owner.user.as_ref().and_then(|user| user.user.as_ref()) {
        Some(User::ById(id)) => (uid, gid) = (*id, *id),
        Some(User::ByName(named)) => {
            let passwd = read(&*tree(named.input)?, "etc/passwd")?;
            match line(&passwd, &named.name) {
                Some(fields) => (uid, gid) = (number(fields.get(2)), number(fields.get(3))),
                // As BuildKit: builds that pass there must pass here.
                None => tracing::warn!(user = named.name, "not in the image's /etc/passwd; files become root's"),
            }
        }
        None => {}
    }
    match owner.group.as_ref().and_then(|group| group.user.as_ref()) {
        Some(User::ById(id)) => gid = *id,
        Some(User::ByName(named)) => {
            let group = read(&*tree(named.input)?, "etc/group")?;
            match line(&group, &named.name) {
                Some(fields) => gid = number(fields.get(2)),
                None => tracing::warn!(group = named.name, "not in the image's /etc/group"),
            }
        }
        None => {}
    }
    Ok(Some((uid, gid)))
}

fn read(tree: &dyn Tree, path: &str) -> anyhow::Result<String> {
    let bytes = read_small(tree, Path::new(path), MAX_USER_FILE).with_context(|| format!("read /{path}"))?;
    Ok(String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned())
}

fn line<'a>(file: &'a str, name: &str) -> Option<Vec<&'a str>> {
    file.lines().map(|line| line.trim().split(':').collect::<Vec<_>>()).find(|fields| fields.first() == Some(&name))
}

/// Go's reader takes what is no number for 0.
fn number(field: Option<&&str>) -> u32 {
    field.and_then(|field| field.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::snapshot::testing::{dir, file, link, memory};

    fn by_name(name: &str) -> Option<pb::UserOpt> {
        let named = pb::NamedUserOpt { name: name.into(), input: 0 };
        Some(pb::UserOpt { user: Some(pb::user_opt::User::ByName(named)) })
    }

    fn by_id(id: u32) -> Option<pb::UserOpt> {
        Some(pb::UserOpt { user: Some(pb::user_opt::User::ById(id)) })
    }

    #[test]
    fn names_and_numbers() {
        let tree = memory(&[
            dir("etc"),
            dir("usr"),
            file("usr/passwd", "root:x:0:0::/:\n# app:x:1:1\napp:x:1000:1001::/:/bin/sh\nodd:x:y\n"),
            link("etc/passwd", "../usr/passwd"),
            file("etc/group", "root:x:0:\nstaff:x:50:app\n"),
        ]);
        let cases = [
            (by_id(7), None, (7, 7), "a number stands for the group too"),
            (by_id(7), by_id(8), (7, 8), "two numbers"),
            (by_name("app"), None, (1000, 1001), "a user brings the group of the passwd file"),
            (by_name("app"), by_name("staff"), (1000, 50), "a group by name"),
            (None, by_name("staff"), (0, 50), "only a group"),
            (by_name("nobody"), None, (0, 0), "a user that is not there"),
            (by_name("odd"), None, (0, 0), "a broken line"),
        ];
        for (user, group, expected, why) in cases {
            let owner = pb::ChownOpt { user, group };
            assert_eq!(resolve(Some(&owner), |_| Ok(Arc::clone(&tree))).unwrap(), Some(expected), "{why}");
        }
        let owner = pb::ChownOpt { user: by_name("app"), group: None };
        let empty = memory(&[]);
        assert_eq!(resolve(Some(&owner), |_| Ok(Arc::clone(&empty))).unwrap(), Some((0, 0)), "no passwd file");
        assert_eq!(resolve(None, |_| Ok(Arc::clone(&empty))).unwrap(), None);
    }
}
