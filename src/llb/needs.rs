//! Which capabilities an op needs: all that changes what it means, so that a BuildKit of before their time refuses it
//! instead of ignoring a field that it does not know. Go's `client/llb` has these rules beside each option.

use std::collections::BTreeSet;

use super::{caps, pb};
use pb::file_action::Action;
use pb::op::Op;

/// The capabilities of an op, as it stands.
pub fn of(op: &Op) -> BTreeSet<&'static str> {
    let mut needs = BTreeSet::new();
    match op {
        Op::Source(source) => of_source(source, &mut needs),
        Op::Exec(exec) => of_exec(exec, &mut needs),
        Op::File(file) => {
            needs.insert(caps::FILE_BASE);
            file.actions.iter().filter_map(|action| action.action.as_ref()).for_each(|a| of_action(a, &mut needs));
        }
        Op::Merge(_) => drop(needs.insert(caps::MERGE)),
        Op::Diff(_) => drop(needs.insert(caps::DIFF)),
        Op::Build(_) => {}
    }
    needs
}

/// Attributes of sources and their capabilities. The others came with their sources, or change nothing that is built.
const ATTRIBUTES: &[(&str, &str)] = &[
    ("image.resolvemode", caps::SOURCE_IMAGE_RESOLVE_MODE),
    ("local.includepattern", caps::SOURCE_LOCAL_INCLUDE),
    ("local.excludepatterns", caps::SOURCE_LOCAL_EXCLUDE),
    ("local.followpaths", caps::SOURCE_LOCAL_FOLLOW),
    ("local.sharedkeyhint", caps::SOURCE_LOCAL_HINT),
    ("git.keepgitdir", caps::SOURCE_GIT_KEEP_DIR),
    ("git.fullurl", caps::SOURCE_GIT_FULL_URL),
    ("git.knownsshhosts", caps::SOURCE_GIT_KNOWN_HOSTS),
    ("git.mountsshsock", caps::SOURCE_GIT_SSH_SOCK),
    ("git.checksum", caps::SOURCE_GIT_CHECKSUM),
    ("git.skipsubmodules", caps::SOURCE_GIT_SKIP_SUBMODULES),
    ("git.mtime", caps::SOURCE_GIT_MTIME),
    ("git.fetchbycommit", caps::SOURCE_GIT_FETCH_BY_COMMIT),
    ("http.checksum", caps::SOURCE_HTTP_CHECKSUM),
    ("http.perm", caps::SOURCE_HTTP_PERM),
    ("http.uid", caps::SOURCE_HTTP_OWNER),
    ("http.gid", caps::SOURCE_HTTP_OWNER),
    ("http.authheadersecret", caps::SOURCE_HTTP_AUTH),
];

fn of_source(source: &pb::SourceOp, needs: &mut BTreeSet<&'static str>) {
    needs.extend(match source.identifier.split_once("://").map(|(scheme, _)| scheme) {
        Some("docker-image") => Some(caps::SOURCE_IMAGE),
        Some("local") => Some(caps::SOURCE_LOCAL),
        Some("git") => Some(caps::SOURCE_GIT),
        Some("http" | "https") => Some(caps::SOURCE_HTTP),
        Some("oci-layout") => Some(caps::SOURCE_OCI_LAYOUT),
        _ => None,
    });
    let given = |name: &str| source.attrs.get(name).is_some_and(|value| !value.is_empty());
    needs.extend(ATTRIBUTES.iter().filter(|(name, _)| given(name)).map(|(_, cap)| *cap));
    if source.attrs.keys().any(|name| name.starts_with("http.header.")) {
        needs.insert(caps::SOURCE_HTTP_HEADER);
    }
}

fn of_exec(exec: &pb::ExecOp, needs: &mut BTreeSet<&'static str>) {
    let meta = exec.meta.clone().unwrap_or_default();
    let rules = [
        (true, caps::EXEC_BASE),
        (true, caps::EXEC_DEFAULT_PATH),
        (meta.proxy_env.is_some(), caps::EXEC_PROXY),
        (!meta.ulimit.is_empty(), caps::EXEC_ULIMIT),
        (!meta.cgroup_parent.is_empty(), caps::EXEC_CGROUP_PARENT),
        (!meta.valid_exit_codes.is_empty(), caps::EXEC_VALID_EXIT_CODE),
        (exec.network() != pb::NetMode::Unset, caps::EXEC_NETWORK),
        (exec.security() == pb::SecurityMode::Insecure, caps::EXEC_SECURITY),
        (!exec.cdi_devices.is_empty(), caps::EXEC_CDI),
        (!exec.secretenv.is_empty(), caps::EXEC_SECRET),
        (!exec.secretenv.is_empty(), caps::EXEC_SECRET_ENV),
    ];
    needs.extend(rules.iter().filter(|(needed, _)| *needed).map(|(_, cap)| *cap));
    exec.mounts.iter().for_each(|mount| of_mount(mount, needs));
}

fn of_mount(mount: &pb::Mount, needs: &mut BTreeSet<&'static str>) {
    let kind = mount.mount_type();
    let sized = mount.tmpfs_opt.as_ref().is_some_and(|tmpfs| tmpfs.size > 0);
    let is = |wanted| kind == wanted;
    let rules = [
        (!mount.selector.is_empty(), caps::EXEC_SELECTOR),
        (is(pb::MountType::Bind) && mount.input != -1, caps::EXEC_BIND),
        (is(pb::MountType::Bind) && mount.output == -1 && !mount.readonly, caps::EXEC_BIND_NO_OUTPUT),
        (is(pb::MountType::Cache), caps::EXEC_CACHE),
        (is(pb::MountType::Cache), caps::EXEC_CACHE_SHARING),
        (is(pb::MountType::Tmpfs), caps::EXEC_TMPFS),
        (is(pb::MountType::Tmpfs) && sized, caps::EXEC_TMPFS_SIZE),
        (is(pb::MountType::Secret), caps::EXEC_SECRET),
        (is(pb::MountType::Ssh), caps::EXEC_SSH),
        (mount.content_cache() != pb::MountContentCache::Default, caps::EXEC_CONTENT_CACHE),
    ];
    needs.extend(rules.iter().filter(|(needed, _)| *needed).map(|(_, cap)| *cap));
}

fn of_action(action: &Action, needs: &mut BTreeSet<&'static str>) {
    match action {
        Action::Copy(copy) => {
            let patterns = !copy.include_patterns.is_empty() || !copy.exclude_patterns.is_empty();
            let rules = [
                (patterns, caps::FILE_PATTERNS),
                (!copy.required_paths.is_empty(), caps::FILE_REQUIRED_PATHS),
                (!copy.mode_str.is_empty(), caps::FILE_MODE_STRING),
                (copy.always_replace_existing_dest_paths, caps::FILE_ALWAYS_REPLACE),
            ];
            needs.extend(rules.iter().filter(|(needed, _)| *needed).map(|(_, cap)| *cap));
        }
        Action::Symlink(_) => drop(needs.insert(caps::FILE_SYMLINK)),
        Action::Mkdir(_) | Action::Mkfile(_) | Action::Rm(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(identifier: &str, attrs: &[&str]) -> Op {
        let attrs = attrs.iter().map(|name| ((*name).to_owned(), "1".to_owned())).collect();
        Op::Source(pb::SourceOp { identifier: identifier.to_owned(), attrs })
    }

    fn exec(exec: pb::ExecOp) -> Op {
        Op::Exec(exec)
    }

    fn meta(meta: pb::Meta) -> Op {
        exec(pb::ExecOp { meta: Some(meta), ..Default::default() })
    }

    fn mount(mount: pb::Mount) -> Op {
        exec(pb::ExecOp { mounts: vec![mount], ..Default::default() })
    }

    fn file(action: Action) -> Op {
        Op::File(pb::FileOp { actions: vec![pb::FileAction { action: Some(action), ..Default::default() }] })
    }

    fn copy(copy: pb::FileActionCopy) -> Op {
        file(Action::Copy(copy))
    }

    #[test]
    fn what_changes_the_meaning_of_an_op_is_told() {
        let one = || vec!["x".to_owned()];
        let typed = |kind: pb::MountType| pb::Mount { mount_type: kind.into(), input: -1, ..Default::default() };
        let cases: Vec<(Op, &str)> = vec![
            (source("docker-image://x", &[]), "source.image"),
            (source("docker-image://x", &["image.resolvemode"]), "source.image source.image.resolvemode"),
            (source("docker-image://x", &["image.recordtype"]), "source.image"),
            (source("oci-layout://x", &["oci.store"]), "source.ocilayout"),
            (source("local://x", &["local.session", "local.unique"]), "source.local"),
            (source("local://x", &["local.includepattern"]), "source.local source.local.includepatterns"),
            (source("local://x", &["local.excludepatterns"]), "source.local source.local.excludepatterns"),
            (source("local://x", &["local.followpaths"]), "source.local source.local.followpaths"),
            (source("local://x", &["local.sharedkeyhint"]), "source.local source.local.sharedkeyhint"),
            (source("git://x", &["git.authtokensecret"]), "source.git"),
            (source("git://x", &["git.keepgitdir"]), "source.git source.git.keepgitdir"),
            (source("git://x", &["git.fullurl"]), "source.git source.git.fullurl"),
            (source("git://x", &["git.knownsshhosts"]), "source.git source.git.knownsshhosts"),
            (source("git://x", &["git.mountsshsock"]), "source.git source.git.mountsshsock"),
            (source("git://x", &["git.checksum"]), "source.git source.git.checksum"),
            (source("git://x", &["git.skipsubmodules"]), "source.git source.git.skipsubmodules"),
            (source("git://x", &["git.mtime"]), "source.git source.git.mtime"),
            (source("git://x", &["git.fetchbycommit"]), "source.git source.git.fetchbycommit"),
            (source("https://x", &["http.filename"]), "source.http"),
            (source("http://x", &["http.checksum"]), "source.http source.http.checksum"),
            (source("http://x", &["http.perm"]), "source.http source.http.perm"),
            (source("http://x", &["http.uid", "http.gid"]), "soruce.http.uidgid source.http"),
            (source("http://x", &["http.authheadersecret"]), "source.http source.http.auth"),
            (source("http://x", &["http.header.accept"]), "source.http source.http.header"),
            (meta(pb::Meta::default()), ""),
            (meta(pb::Meta { proxy_env: Some(Default::default()), ..Default::default() }), "exec.meta.proxyenv"),
            (meta(pb::Meta { ulimit: vec![Default::default()], ..Default::default() }), "exec.meta.ulimit"),
            (meta(pb::Meta { cgroup_parent: "x".to_owned(), ..Default::default() }), "exec.meta.cgroup.parent"),
            (meta(pb::Meta { valid_exit_codes: vec![3], ..Default::default() }), "exec.validexitcode"),
            (exec(pb::ExecOp { network: pb::NetMode::None.into(), ..Default::default() }), "exec.meta.network"),
            (
                exec(pb::ExecOp { security: pb::SecurityMode::Insecure.into(), ..Default::default() }),
                "exec.meta.security",
            ),
            (exec(pb::ExecOp { cdi_devices: vec![Default::default()], ..Default::default() }), "exec.meta.cdi"),
            (
                exec(pb::ExecOp { secretenv: vec![Default::default()], ..Default::default() }),
                "exec.mount.secret exec.secretenv",
            ),
            (mount(pb::Mount { input: 0, ..Default::default() }), "exec.mount.bind"),
            (mount(pb::Mount { input: 0, output: -1, readonly: true, ..Default::default() }), "exec.mount.bind"),
            (
                mount(pb::Mount { input: 0, output: -1, ..Default::default() }),
                "exec.mount.bind exec.mount.bind.readwrite-nooutput",
            ),
            (
                mount(pb::Mount { input: 0, selector: "x".to_owned(), ..Default::default() }),
                "exec.mount.bind exec.mount.selector",
            ),
            (
                mount(pb::Mount { content_cache: pb::MountContentCache::Off.into(), input: -1, ..Default::default() }),
                "exec.mount.cache.content",
            ),
            (mount(typed(pb::MountType::Cache)), "exec.mount.cache exec.mount.cache.sharing"),
            (mount(typed(pb::MountType::Tmpfs)), "exec.mount.tmpfs"),
            (
                mount(pb::Mount { tmpfs_opt: Some(pb::TmpfsOpt { size: 1 }), ..typed(pb::MountType::Tmpfs) }),
                "exec.mount.tmpfs exec.mount.tmpfs.size",
            ),
            (mount(typed(pb::MountType::Secret)), "exec.mount.secret"),
            (mount(typed(pb::MountType::Ssh)), "exec.mount.ssh"),
            (file(Action::Mkdir(Default::default())), "file.base"),
            (file(Action::Mkfile(Default::default())), "file.base"),
            (file(Action::Rm(Default::default())), "file.base"),
            (file(Action::Symlink(Default::default())), "file.base file.symlink.create"),
            (copy(pb::FileActionCopy::default()), "file.base"),
            (
                copy(pb::FileActionCopy { exclude_patterns: one(), ..Default::default() }),
                "file.base file.copy.includeexcludepatterns",
            ),
            (
                copy(pb::FileActionCopy { required_paths: one(), ..Default::default() }),
                "file.base file.copy.requiredpaths",
            ),
            (
                copy(pb::FileActionCopy { mode_str: "u+x".to_owned(), ..Default::default() }),
                "exec.validexitcode file.base",
            ),
            (
                copy(pb::FileActionCopy { always_replace_existing_dest_paths: true, ..Default::default() }),
                "file.base file.copy.alwaysreplaceexistingdestpaths",
            ),
            (Op::Merge(Default::default()), "mergeop"),
            (Op::Diff(Default::default()), "diffop"),
        ];
        for (op, expected) in cases {
            let mut needs = of(&op);
            if let Op::Exec(_) = op {
                assert!(needs.remove(caps::EXEC_BASE) && needs.remove(caps::EXEC_DEFAULT_PATH), "{op:?}");
            }
            assert_eq!(needs.into_iter().collect::<Vec<_>>().join(" "), expected, "{op:?}");
        }
    }

    #[test]
    fn all_of_them_are_known_here() {
        let all = ATTRIBUTES.iter().map(|(_, cap)| *cap).chain([caps::SOURCE_HTTP_HEADER, caps::DIFF, caps::MERGE]);
        let needed: std::collections::BTreeMap<String, bool> = all.map(|cap| (cap.to_owned(), true)).collect();
        assert_eq!(caps::unknown(&needed), None);
    }
}
