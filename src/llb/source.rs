//! Source ops: images, local directories, git repositories, files at an address.

use std::collections::BTreeMap;

use super::build::{Draft, platform_of};
use super::{caps, pb};
use crate::base::{Platform, Reference};

fn source(identifier: String, attrs: BTreeMap<String, String>) -> Draft {
    Draft::new(pb::op::Op::Source(pb::SourceOp { identifier, attrs }))
}

/// An image, by a reference that should hold a digest.
pub fn image(reference: &Reference, platform: &Platform) -> Draft {
    let mut draft = source(format!("docker-image://{reference}"), BTreeMap::new());
    draft.platform = Some(platform_of(platform));
    draft.cap(caps::SOURCE_IMAGE);
    draft
}

/// An image in an OCI layout that goes by the name of `store`.
pub fn oci_layout(reference: &Reference, store: &str, platform: &Platform) -> Draft {
    let attrs = BTreeMap::from([("oci.store".to_owned(), store.to_owned())]);
    let mut draft = source(format!("oci-layout://{reference}"), attrs);
    draft.platform = Some(platform_of(platform));
    draft.cap(caps::SOURCE_OCI_LAYOUT);
    draft
}

/// A local directory. The lists are JSON, as the attributes want them; empty for none.
pub fn local(name: &str, hint: &str, exclude: &str, follow: &str) -> Draft {
    let mut draft = source(format!("local://{name}"), BTreeMap::new());
    let attributes = [
        ("local.sharedkeyhint", hint, caps::SOURCE_LOCAL_HINT),
        ("local.excludepatterns", exclude, caps::SOURCE_LOCAL_EXCLUDE),
        ("local.followpaths", follow, caps::SOURCE_LOCAL_FOLLOW),
    ];
    for (name, value, cap) in attributes.into_iter().filter(|(_, value, _)| !value.is_empty()) {
        attribute(&mut draft, name, value, cap);
    }
    draft.cap(caps::SOURCE_LOCAL);
    draft
}

/// Sets an attribute of a source op, and the cap that goes with it.
pub fn attribute(draft: &mut Draft, name: &str, value: &str, cap: &str) {
    if let Some(pb::op::Op::Source(source)) = &mut draft.op {
        source.attrs.insert(name.to_owned(), value.to_owned());
    }
    draft.cap(cap);
}

/// A commit of a git repository.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Git {
    /// What git itself is given.
    pub remote: String,
    /// Host and path alone: equal whatever the protocol.
    pub id: String,
    pub ssh: bool,
    pub reference: String,
    pub subdir: String,
    pub keep_git_dir: bool,
    pub checksum: String,
    pub skip_submodules: bool,
    pub mtime: String,
    pub fetch_by_commit: bool,
}

impl Git {
    pub fn draft(&self) -> Draft {
        let mut id = format!("git://{}", self.id);
        if !self.reference.is_empty() || !self.subdir.is_empty() {
            id.push('#');
            id.push_str(&self.reference);
            if !self.subdir.is_empty() {
                id.push(':');
                id.push_str(&self.subdir);
            }
        }
        let attrs = BTreeMap::from([
            ("git.authheadersecret".to_owned(), "GIT_AUTH_HEADER".to_owned()),
            ("git.authtokensecret".to_owned(), "GIT_AUTH_TOKEN".to_owned()),
        ]);
        let mut draft = source(id, attrs);
        let flag = |set: bool| if set { "true" } else { "" };
        let attributes = [
            ("git.fullurl", self.remote.as_str(), caps::SOURCE_GIT_FULL_URL),
            ("git.keepgitdir", flag(self.keep_git_dir), caps::SOURCE_GIT_KEEP_DIR),
            ("git.mountsshsock", if self.ssh { "default" } else { "" }, caps::SOURCE_GIT_SSH_SOCK),
            ("git.checksum", &self.checksum, caps::SOURCE_GIT_CHECKSUM),
            ("git.skipsubmodules", flag(self.skip_submodules), caps::SOURCE_GIT_SKIP_SUBMODULES),
            ("git.mtime", &self.mtime, caps::SOURCE_GIT_MTIME),
            ("git.fetchbycommit", flag(self.fetch_by_commit), caps::SOURCE_GIT_FETCH_BY_COMMIT),
        ];
        for (name, value, cap) in attributes.into_iter().filter(|(_, value, _)| !value.is_empty()) {
            attribute(&mut draft, name, value, cap);
        }
        draft.cap(caps::SOURCE_GIT);
        draft
    }
}

/// A file at an address, under a name.
pub fn http(url: &str, filename: &str, checksum: &str) -> Draft {
    let mut draft = source(url.to_owned(), BTreeMap::from([("http.filename".to_owned(), filename.to_owned())]));
    if !checksum.is_empty() {
        attribute(&mut draft, "http.checksum", checksum, caps::SOURCE_HTTP_CHECKSUM);
    }
    draft.cap(caps::SOURCE_HTTP);
    draft
}
