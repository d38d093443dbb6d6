//! Shared caches of a build elsewhere, in BuildKit's words. The engine itself speaks to registries; folders of this
//! machine it reads and writes through the session.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};

use crate::base::{Cancel, Digest, Progress, Secret};
use crate::engine::LayerOptions;
use crate::engine::shared::{BucketCache, CacheMode, CachePlace, CacheSource, CacheTarget, Pick, SharedCaches};
use crate::image::{self, Descriptor};
use crate::layer::Compression;
use crate::registry::{Addressing, BucketSettings};
use crate::remote::{CacheEntry, Caches, Store, Stores, stores};
use crate::store::DiskBlobs;

/// Where an engine says what it wrote into a folder.
const MANIFEST: &str = "cache.manifest";

/// The caches of one build, ready to be told of.
#[derive(Debug, Default)]
pub struct Prepared {
    caches: Caches,
    /// Folders that are read, and those that are written, with the tag that the cache gets there.
    from: Vec<PathBuf>,
    to: Vec<(PathBuf, String)>,
}

impl Prepared {
    pub fn new(asked: &SharedCaches, progress: &Progress) -> anyhow::Result<Self> {
        let mut prepared = Self::default();
        for source in &asked.from {
            match source {
                CacheSource::Registry(reference) => {
                    prepared.import("registry", [("ref", reference.clone().or_latest().to_string())]);
                }
                CacheSource::Directory { path, pick } => match digest(path, pick) {
                    Ok(digest) => {
                        prepared.import("local", [("src", text(path)?), ("digest", digest.to_string())]);
                        prepared.from.push(path.clone());
                    }
                    // As the local engine has it: without a cache a build is slower, not wrong.
                    Err(error) => progress.warn(format!("cache {}: {error:#}", path.display())),
                },
                CacheSource::Bucket(cache) => {
                    prepared.caches.imports.push(CacheEntry { kind: "s3", attributes: bucket(cache) });
                }
            }
        }
        for target in &asked.to {
            prepared.export(target)?;
        }
        Ok(prepared)
    }

    fn import<const N: usize>(&mut self, kind: &'static str, attributes: [(&str, String); N]) {
        self.caches.imports.push(CacheEntry { kind, attributes: owned(attributes) });
    }

    fn export(&mut self, target: &CacheTarget) -> anyhow::Result<()> {
        let (kind, mut attributes) = match &target.place {
            CachePlace::Inline => ("inline", BTreeMap::new()),
            CachePlace::Registry(reference) => {
                ("registry", owned([("ref", reference.clone().or_latest().to_string())]))
            }
            CachePlace::Bucket { cache, refresh, at_once } => {
                let mut attributes = bucket(cache);
                attributes.insert("touch_refresh".to_owned(), format!("{}s", refresh.as_secs()));
                attributes.insert("upload_parallelism".to_owned(), at_once.to_string());
                ("s3", attributes)
            }
            CachePlace::Directory { path, tag } => {
                self.to.push((path.clone(), tag.clone()));
                ("local", owned([("dest", text(path)?)]))
            }
        };
        let mode = match target.mode {
            CacheMode::Min => "min",
            CacheMode::Max => "max",
        };
        attributes.insert("mode".to_owned(), mode.to_owned());
        if target.ignore_error {
            attributes.insert("ignore-error".to_owned(), "true".to_owned());
        }
        if target.place != CachePlace::Inline {
            attributes.extend(layers(&target.options));
        }
        self.caches.exports.push(CacheEntry { kind, attributes });
        Ok(())
    }

    pub fn entries(&self) -> Caches {
        self.caches.clone()
    }

    /// The folders, as the session serves them.
    pub fn stores(&self) -> Stores {
        let read = self.from.iter().map(|path| (path, false));
        // One that is read too is written: the later entry of a name counts.
        let stores = read.chain(self.to.iter().map(|(path, _)| (path, true))).map(|(path, writable)| {
            let store = Store { blobs: Arc::new(DiskBlobs::open(path)), only: None, writable };
            (stores::cache(&path.to_string_lossy()), store)
        });
        Stores(stores.collect())
    }

    /// Names in their folders what the engine has written there.
    pub fn name(&self, said: &HashMap<String, String>, cancel: &Cancel) -> anyhow::Result<()> {
        let Some(manifest) = said.get(MANIFEST) else { return Ok(()) };
        for (path, tag) in &self.to {
            let manifest: Descriptor = serde_json::from_str(manifest).context(MANIFEST)?;
            image::name_in_layout(path, &manifest, tag, cancel)?;
        }
        Ok(())
    }
}

/// How layers of a cache are stored. `image-manifest` makes of it what the local engine writes: an image of layers.
fn layers(options: &LayerOptions) -> BTreeMap<String, String> {
    let oci = options.oci_media_types != Some(false);
    let mut attributes = owned([("oci-mediatypes", oci.to_string()), ("image-manifest", oci.to_string())]);
    if let Some(compression) = options.compression {
        let name = match compression {
            Compression::Uncompressed => "uncompressed",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        };
        attributes.insert("compression".to_owned(), name.to_owned());
    }
    if let Some(level) = options.level {
        attributes.insert("compression-level".to_owned(), level.to_string());
    }
    if options.force {
        attributes.insert("force-compression".to_owned(), "true".to_owned());
    }
    attributes
}

fn digest(path: &Path, pick: &Pick) -> anyhow::Result<Digest> {
    let tag = match pick {
        Pick::Digest(digest) => return Ok(*digest),
        Pick::Tag(tag) => tag,
    };
    let index = image::read_layout(path)?;
    let found = index.manifests.iter().find(|entry| image::layout_name(entry) == Some(tag));
    Ok(found.with_context(|| format!("it has no cache with the tag {tag}"))?.digest)
}

/// Names of folders travel as text.
fn text(path: &Path) -> anyhow::Result<String> {
    match path.to_str() {
        Some(text) => Ok(text.to_owned()),
        None => bail!("the name of {} is no text, and an engine elsewhere takes no other", path.display()),
    }
}

fn owned<const N: usize>(pairs: [(&str, String); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// A bucket in BuildKit's words. What is not said of keys and region the engine has from its own surroundings.
fn bucket(cache: &BucketCache) -> BTreeMap<String, String> {
    let BucketSettings { endpoint, region, addressing, keys } = &cache.settings;
    let mut attributes = owned([
        ("bucket", cache.bucket.clone()),
        ("name", cache.names.join(";")),
        ("manifests_prefix", cache.manifests.clone()),
        ("blobs_prefix", cache.blobs.clone()),
    ]);
    let path = match addressing {
        Addressing::Auto => endpoint.is_some(),
        Addressing::Path => true,
        Addressing::Host => false,
    };
    attributes.insert("use_path_style".to_owned(), path.to_string());
    let secret = |secret: &Secret| secret.expose_str().map(str::to_owned);
    let further = [
        ("endpoint_url", endpoint.clone()),
        ("region", region.clone()),
        ("access_key_id", keys.as_ref().map(|keys| keys.access_key_id.clone())),
        ("secret_access_key", keys.as_ref().and_then(|keys| secret(&keys.secret_access_key))),
        ("session_token", keys.as_ref().and_then(|keys| secret(keys.session_token.as_ref()?))),
    ];
    attributes.extend(further.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
    attributes
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::registry::AwsKeys;
    use crate::store::write_document;

    fn entry(kind: &'static str, attributes: &[(&str, &str)]) -> CacheEntry {
        let attributes = attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        CacheEntry { kind, attributes }
    }

    #[test]
    fn a_bucket_is_told_of_with_its_keys() {
        let keys =
            AwsKeys { access_key_id: "id".to_owned(), secret_access_key: Secret::from("key"), session_token: None };
        let endpoint = Some("http://m:9000".to_owned());
        let cache = BucketCache {
            bucket: "b".to_owned(),
            settings: BucketSettings { endpoint, keys: Some(keys), ..BucketSettings::default() },
            manifests: "team/manifests/".to_owned(),
            blobs: "team/blobs/".to_owned(),
            names: vec!["main".to_owned(), "too".to_owned()],
        };
        let place = CachePlace::Bucket { cache: cache.clone(), refresh: Duration::from_secs(3600), at_once: 2 };
        let asked = SharedCaches { from: vec![CacheSource::Bucket(cache)], to: vec![CacheTarget::new(place)] };
        let prepared = Prepared::new(&asked, &Progress::none()).unwrap();
        let told = prepared.entries();
        let words = [
            ("access_key_id", "id"),
            ("blobs_prefix", "team/blobs/"),
            ("bucket", "b"),
            ("endpoint_url", "http://m:9000"),
            ("manifests_prefix", "team/manifests/"),
            ("name", "main;too"),
            ("secret_access_key", "key"),
            ("use_path_style", "true"),
        ];
        assert_eq!(told.imports, [entry("s3", &words)]);
        let [export] = &told.exports[..] else { panic!("{told:?}") };
        for (key, value) in
            words.iter().chain(&[("mode", "min"), ("touch_refresh", "3600s"), ("upload_parallelism", "2")])
        {
            assert_eq!(export.attributes.get(*key).map(String::as_str), Some(*value), "{key}");
        }
    }

    #[test]
    fn caches_are_told_in_buildkit_s_words() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        let place = path.to_str().unwrap();
        let digest = write_document(&DiskBlobs::open(&path), b"a cache").unwrap();
        image::name_in_layout(&path, &Descriptor::new("", digest, 7), "kept", &Cancel::new()).unwrap();
        let folder = |pick| CacheSource::Directory { path: path.clone(), pick };
        let target = |place| CacheTarget::new(place);
        let asked = SharedCaches {
            from: vec![
                CacheSource::Registry("r.example/c".parse().unwrap()),
                folder(Pick::Tag("kept".to_owned())),
                folder(Pick::Tag("lost".to_owned())),
            ],
            to: vec![
                target(CachePlace::Inline),
                CacheTarget {
                    mode: CacheMode::Max,
                    ignore_error: true,
                    options: LayerOptions {
                        compression: Some(Compression::Zstd),
                        level: Some(9),
                        ..Default::default()
                    },
                    ..target(CachePlace::Registry("r.example/c:2".parse().unwrap()))
                },
                CacheTarget {
                    options: LayerOptions { oci_media_types: Some(false), force: true, ..Default::default() },
                    ..target(CachePlace::Directory { path: path.clone(), tag: "new".to_owned() })
                },
            ],
        };
        let prepared = Prepared::new(&asked, &Progress::none()).unwrap();
        let told = prepared.entries();
        let imports = [
            entry("registry", &[("ref", "r.example/c:latest")]),
            entry("local", &[("src", place), ("digest", &digest.to_string())]),
        ];
        assert_eq!(told.imports, imports);
        let exports = [
            entry("inline", &[("mode", "min")]),
            entry(
                "registry",
                &[
                    ("ref", "r.example/c:2"),
                    ("mode", "max"),
                    ("ignore-error", "true"),
                    ("oci-mediatypes", "true"),
                    ("image-manifest", "true"),
                    ("compression", "zstd"),
                    ("compression-level", "9"),
                ],
            ),
            entry(
                "local",
                &[
                    ("dest", place),
                    ("mode", "min"),
                    ("oci-mediatypes", "false"),
                    ("image-manifest", "false"),
                    ("force-compression", "true"),
                ],
            ),
        ];
        assert_eq!(told.exports, exports);
        // Read and written at once: both in one store.
        let stores = prepared.stores().0;
        assert_eq!(stores.keys().collect::<Vec<_>>(), [&format!("local:{place}")]);
        assert!(stores.values().all(|store| store.writable));

        let manifest = serde_json::to_string(&Descriptor::new("application/x", digest, 7)).unwrap();
        prepared.name(&HashMap::from([(MANIFEST.to_owned(), manifest)]), &Cancel::new()).unwrap();
        let index = image::read_layout(&path).unwrap();
        let names: Vec<_> = index.manifests.iter().filter_map(image::layout_name).collect();
        assert_eq!(names, ["kept", "new"]);
    }
}
