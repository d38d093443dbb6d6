//! Source ops: images, local directories, git repositories, files at an address.

use std::collections::BTreeMap;

use super::build::{Draft, platform_of};
use super::pb;
use crate::base::{Platform, Reference};

fn source(identifier: String, attrs: BTreeMap<String, String>) -> Draft {
    Draft::new(pb::op::Op::Source(pb::SourceOp { identifier, attrs }))
}

/// An image, by a reference that should hold a digest.
pub fn image(reference: &Reference, platform: &Platform) -> Draft {
    let mut draft = source(format!("docker-image://{reference}"), BTreeMap::new());
    draft.platform = Some(platform_of(platform));
    draft
}

/// An image in an OCI layout that goes by the name of `store`.
pub fn oci_layout(reference: &Reference, store: &str, platform: &Platform) -> Draft {
    let attrs = BTreeMap::from([("oci.store".to_owned(), store.to_owned())]);
    let mut draft = source(format!("oci-layout://{reference}"), attrs);
    draft.platform = Some(platform_of(platform));
    draft
}

/// A local directory. The lists are JSON, as the attributes want them; empty for none.
pub fn local(name: &str, hint: &str, exclude: &str, follow: &str) -> Draft {
    let mut draft = source(format!("local://{name}"), BTreeMap::new());
    let attributes = [("local.sharedkeyhint", hint), ("local.excludepatterns", exclude), ("local.followpaths", follow)];
    for (name, value) in attributes.into_iter().filter(|(_, value)| !value.is_empty()) {
        attribute(&mut draft, name, value);
    }
    draft
}

/// Sets an attribute of a source op.
pub fn attribute(draft: &mut Draft, name: &str, value: &str) {
    if let Some(pb::op::Op::Source(source)) = &mut draft.op {
        source.attrs.insert(name.to_owned(), value.to_owned());
    }
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
            ("git.fullurl", self.remote.as_str()),
            ("git.keepgitdir", flag(self.keep_git_dir)),
            ("git.mountsshsock", if self.ssh { "default" } else { "" }),
            ("git.checksum", &self.checksum),
            ("git.skipsubmodules", flag(self.skip_submodules)),
            ("git.mtime", &self.mtime),
            ("git.fetchbycommit", flag(self.fetch_by_commit)),
        ];
        for (name, value) in attributes.into_iter().filter(|(_, value)| !value.is_empty()) {
            attribute(&mut draft, name, value);
        }
        draft
    }
}

/// A file at an address, under a name.
pub fn http(url: &str, filename: &str, checksum: &str) -> Draft {
    let mut draft = source(url.to_owned(), BTreeMap::from([("http.filename".to_owned(), filename.to_owned())]));
    if !checksum.is_empty() {
        attribute(&mut draft, "http.checksum", checksum);
    }
    draft
}
