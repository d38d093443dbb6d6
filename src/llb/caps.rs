//! Names of the features an op relies on (`solver/pb/caps.go`). A BuildKit that lacks one refuses the definition
//! instead of ignoring a field it does not know.

pub const SOURCE_IMAGE: &str = "source.image";
pub const SOURCE_IMAGE_RESOLVE_MODE: &str = "source.image.resolvemode";
pub const SOURCE_LOCAL: &str = "source.local";
pub const SOURCE_LOCAL_INCLUDE: &str = "source.local.includepatterns";
pub const SOURCE_LOCAL_EXCLUDE: &str = "source.local.excludepatterns";
pub const SOURCE_LOCAL_FOLLOW: &str = "source.local.followpaths";
pub const SOURCE_LOCAL_HINT: &str = "source.local.sharedkeyhint";
pub const SOURCE_GIT: &str = "source.git";
pub const SOURCE_GIT_KEEP_DIR: &str = "source.git.keepgitdir";
pub const SOURCE_GIT_FULL_URL: &str = "source.git.fullurl";
pub const SOURCE_GIT_CHECKSUM: &str = "source.git.checksum";
pub const SOURCE_GIT_SKIP_SUBMODULES: &str = "source.git.skipsubmodules";
pub const SOURCE_GIT_MTIME: &str = "source.git.mtime";
pub const SOURCE_GIT_FETCH_BY_COMMIT: &str = "source.git.fetchbycommit";
pub const SOURCE_GIT_SSH_SOCK: &str = "source.git.mountsshsock";
pub const SOURCE_GIT_KNOWN_HOSTS: &str = "source.git.knownsshhosts";
pub const SOURCE_HTTP: &str = "source.http";
pub const SOURCE_HTTP_CHECKSUM: &str = "source.http.checksum";
pub const SOURCE_HTTP_PERM: &str = "source.http.perm";
/// Spelt as BuildKit spells it.
pub const SOURCE_HTTP_OWNER: &str = "soruce.http.uidgid";
pub const SOURCE_HTTP_AUTH: &str = "source.http.auth";
pub const SOURCE_HTTP_HEADER: &str = "source.http.header";
pub const SOURCE_OCI_LAYOUT: &str = "source.ocilayout";
pub const EXEC_BASE: &str = "exec.meta.base";
pub const EXEC_DEFAULT_PATH: &str = "exec.meta.setsdefaultpath";
pub const EXEC_NETWORK: &str = "exec.meta.network";
pub const EXEC_PROXY: &str = "exec.meta.proxyenv";
pub const EXEC_SECURITY: &str = "exec.meta.security";
pub const EXEC_ULIMIT: &str = "exec.meta.ulimit";
pub const EXEC_CDI: &str = "exec.meta.cdi";
pub const EXEC_CGROUP_PARENT: &str = "exec.meta.cgroup.parent";
pub const EXEC_BIND: &str = "exec.mount.bind";
pub const EXEC_BIND_NO_OUTPUT: &str = "exec.mount.bind.readwrite-nooutput";
pub const EXEC_CACHE: &str = "exec.mount.cache";
pub const EXEC_CACHE_SHARING: &str = "exec.mount.cache.sharing";
pub const EXEC_CONTENT_CACHE: &str = "exec.mount.cache.content";
pub const EXEC_SELECTOR: &str = "exec.mount.selector";
pub const EXEC_TMPFS: &str = "exec.mount.tmpfs";
pub const EXEC_TMPFS_SIZE: &str = "exec.mount.tmpfs.size";
pub const EXEC_SECRET: &str = "exec.mount.secret";
pub const EXEC_SSH: &str = "exec.mount.ssh";
pub const EXEC_SECRET_ENV: &str = "exec.secretenv";
pub const EXEC_VALID_EXIT_CODE: &str = "exec.validexitcode";
pub const FILE_BASE: &str = "file.base";
pub const FILE_PATTERNS: &str = "file.copy.includeexcludepatterns";
pub const FILE_REQUIRED_PATHS: &str = "file.copy.requiredpaths";
/// Of the same version (0.17) as modes by letters. Those have a name of their own, `file.copy.modestring`, which no BuildKit
/// knows until now: it was never registered, so that every engine refuses it.
pub const FILE_MODE_STRING: &str = EXEC_VALID_EXIT_CODE;
pub const FILE_ALWAYS_REPLACE: &str = "file.copy.alwaysreplaceexistingdestpaths";
pub const FILE_SYMLINK: &str = "file.symlink.create";
pub const CONSTRAINTS: &str = "constraints";
pub const PLATFORM: &str = "platform";
pub const META_IGNORE_CACHE: &str = "meta.ignorecache";
pub const META_DESCRIPTION: &str = "meta.description";
pub const META_EXPORT_CACHE: &str = "meta.exportcache";
pub const MERGE: &str = "mergeop";
pub const DIFF: &str = "diffop";

/// All of the above.
const NEEDED: &[&str] = &[
    SOURCE_IMAGE,
    SOURCE_IMAGE_RESOLVE_MODE,
    SOURCE_LOCAL,
    SOURCE_LOCAL_INCLUDE,
    SOURCE_LOCAL_EXCLUDE,
    SOURCE_LOCAL_FOLLOW,
    SOURCE_LOCAL_HINT,
    SOURCE_GIT,
    SOURCE_GIT_KEEP_DIR,
    SOURCE_GIT_FULL_URL,
    SOURCE_GIT_CHECKSUM,
    SOURCE_GIT_SKIP_SUBMODULES,
    SOURCE_GIT_MTIME,
    SOURCE_GIT_FETCH_BY_COMMIT,
    SOURCE_GIT_SSH_SOCK,
    SOURCE_GIT_KNOWN_HOSTS,
    SOURCE_HTTP,
    SOURCE_HTTP_CHECKSUM,
    SOURCE_HTTP_PERM,
    SOURCE_HTTP_OWNER,
    SOURCE_HTTP_AUTH,
    SOURCE_HTTP_HEADER,
    SOURCE_OCI_LAYOUT,
    EXEC_BASE,
    EXEC_DEFAULT_PATH,
    EXEC_NETWORK,
    EXEC_PROXY,
    EXEC_SECURITY,
    EXEC_ULIMIT,
    EXEC_CDI,
    EXEC_CGROUP_PARENT,
    EXEC_BIND,
    EXEC_BIND_NO_OUTPUT,
    EXEC_CACHE,
    EXEC_CACHE_SHARING,
    EXEC_CONTENT_CACHE,
    EXEC_SELECTOR,
    EXEC_TMPFS,
    EXEC_TMPFS_SIZE,
    EXEC_SECRET,
    EXEC_SSH,
    EXEC_SECRET_ENV,
    EXEC_VALID_EXIT_CODE,
    FILE_BASE,
    FILE_PATTERNS,
    FILE_REQUIRED_PATHS,
    FILE_ALWAYS_REPLACE,
    FILE_SYMLINK,
    CONSTRAINTS,
    PLATFORM,
    META_IGNORE_CACHE,
    META_DESCRIPTION,
    META_EXPORT_CACHE,
    MERGE,
    DIFF,
];

/// What other clients declare beside that, and the operations here honour all the same.
const HONOURED: &[&str] = &[
    "source.local.unique",
    "source.local.sessionid",
    "source.local.differ",
    "source.git.httpauth",
    "source.git.subdir",
    "exec.meta.removemountstubs.recursive",
    "file.copy.modestring",
    "file.rm.wildcard",
    "file.rm.nofollowsymlink",
];

/// The first capability that an op needs and that is not known here.
pub fn unknown<'a>(needed: impl IntoIterator<Item = (&'a String, &'a bool)>) -> Option<&'a str> {
    let mut needed = needed.into_iter().filter(|(_, needed)| **needed).map(|(name, _)| name.as_str());
    needed.find(|name| !NEEDED.contains(name) && !HONOURED.contains(name))
}
