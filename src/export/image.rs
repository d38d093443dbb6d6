//! A result as an image: layers made blobs, config and history reconciled with them.

use anyhow::Context;
use jiff::Timestamp;

use super::LayerOptions;
use crate::base::{Cancel, Epoch, Platform, Reference};
use crate::image::config::History;
use crate::image::{Dialect, Image, ImageConfig, ImageStore, LayerBlob};
use crate::layer::Compression;
use crate::snapshot::{LayerSpec, Snapshot, Snapshots};
use crate::store::BlobStore;

/// A layer of a result, with when it was made where that is known. A layer from the cache keeps its time, and with it
/// the image its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    pub blob: LayerBlob,
    pub created: Option<Timestamp>,
}

/// Makes blobs of a snapshot's deltas, in the blob store that the snapshots stand on.
pub fn layers(
    snapshots: &Snapshots,
    snapshot: &Snapshot,
    options: &LayerOptions,
    epoch: &Epoch,
    cancel: &Cancel,
) -> anyhow::Result<Vec<Layer>> {
    let spec = options.spec(epoch);
    (0..snapshot.len())
        .map(|index| {
            let blob = snapshots
                .layer_blob(snapshot, index, &spec, cancel)
                .with_context(|| format!("make layer {} of {}", index + 1, snapshot.len()))?;
            let created = snapshots.created(snapshot, index).and_then(|time| Timestamp::try_from(time).ok());
            Ok(Layer { blob, created })
        })
        .collect()
}

/// The config of a result that came without one (a definition that no frontend made).
pub fn default_config(platform: Platform) -> ImageConfig {
    let mut config = ImageConfig::new(platform);
    config.config.working_dir = "/".to_owned();
    config.config.env = vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()];
    config
}

/// Makes an image of layers that are in `blobs` and a config from the frontend: diff IDs, history and times are
/// reconciled the way BuildKit's exporter does it. `base` is the config of the image that the result was built on: its
/// history keeps its times where an epoch is pinned.
pub fn image(
    layers: Vec<Layer>,
    config: &ImageConfig,
    base: Option<&ImageConfig>,
    options: &LayerOptions,
    epoch: &Epoch,
    blobs: &dyn BlobStore,
) -> anyhow::Result<Image> {
    let dialect = options.dialect();
    let fallback = epoch.created();
    let made: Vec<Timestamp> = layers.iter().map(|layer| layer.created.unwrap_or(fallback)).collect();
    let mut config = config.clone();
    config.rootfs.diff_ids = layers.iter().map(|layer| layer.blob.diff_id).collect();
    account_for_layers(&mut config.history, &made);
    fill_times(&mut config.history, &made);
    if let Some(limit) = epoch.source_date().and_then(|seconds| Timestamp::from_second(seconds).ok()) {
        clamp_times(&mut config, base, limit);
    }
    if config.created.is_none() {
        config.created = config.history.iter().rev().find_map(|line| line.created.clone());
    }
    let mut blobs_of_layers = Vec::with_capacity(layers.len());
    for Layer { mut blob, .. } in layers {
        blob.descriptor.media_type = dialect.layer(blob.compression()).to_owned();
        if dialect == Dialect::Docker {
            // Docker's schema knows no annotations.
            blob.descriptor.annotations.clear();
        }
        blobs_of_layers.push(blob);
    }
    let annotations = options.annotations.clone();
    Ok(Image::write(blobs, &config.to_bytes(), blobs_of_layers, dialect, annotations)?)
}

/// Names an image whose blobs are in the store's; without a name it is known by its id.
pub fn to_store(store: &ImageStore, image: &Image, names: &[Reference]) -> anyhow::Result<()> {
    if names.is_empty() {
        store.add(&image.manifest_descriptor)?;
    }
    for name in names {
        store.tag(&image.manifest_descriptor, name).with_context(|| format!("name the image {}", name.familiar()))?;
    }
    Ok(())
}

/// Makes the history tell of exactly as many layers as there are.
fn account_for_layers(history: &mut Vec<History>, made: &[Timestamp]) {
    let told = history.iter().filter(|line| !line.empty_layer).count();
    // Too many: those on top made nothing that is here.
    let mut excess = told.saturating_sub(made.len());
    for line in history.iter_mut().rev() {
        if excess > 0 && !line.empty_layer {
            line.empty_layer = true;
            excess -= 1;
        }
    }
    for created in made.iter().skip(told) {
        history.push(History {
            created: Some(created.to_string()),
            created_by: Some("created by buildkit".to_owned()),
            comment: Some("buildkit.exporter.image.v0".to_owned()),
            ..History::default()
        });
    }
}

/// Gives every line a time: a layer's its own; an instruction without a layer that of the layer before it, or, where
/// it follows only inherited layers, that of the first new one.
fn fill_times(history: &mut [History], made: &[Timestamp]) {
    let mut made = made.iter();
    for line in history.iter_mut().filter(|line| !line.empty_layer) {
        let created = made.next();
        if line.created.is_none() {
            line.created = created.map(ToString::to_string);
        }
    }
    let first_gap = history.iter().position(|line| line.created.is_none()).unwrap_or(history.len());
    let first_new = history[first_gap..].iter().find_map(|line| line.created.clone());
    let last_old = history[..first_gap].iter().rev().find_map(|line| line.created.clone());
    let mut current = first_new.or(last_old);
    for line in history[first_gap..].iter_mut() {
        match &line.created {
            Some(created) => current = Some(created.clone()),
            None => line.created.clone_from(&current),
        }
    }
}

/// Lets nothing new be younger than the pinned date. What the base image's history says stays as it was.
fn clamp_times(config: &mut ImageConfig, base: Option<&ImageConfig>, limit: Timestamp) {
    let later = |created: &Option<String>| {
        created.as_ref().is_none_or(|text| text.parse::<Timestamp>().is_ok_and(|time| time > limit))
    };
    let inherited =
        base.map_or(0, |base| config.history.iter().zip(&base.history).take_while(|(own, its)| own == its).count());
    for line in config.history.iter_mut().skip(inherited).filter(|line| later(&line.created)) {
        line.created = Some(limit.to_string());
    }
    if config.created.is_some() && later(&config.created) {
        config.created = Some(limit.to_string());
    }
}

/// How the exporters compress new layers where nothing is asked: the local store keeps them plain, which is cheapest
/// to make, to unpack and to compare; archives and registries get gzip.
impl LayerOptions {
    pub fn or_compression(&self, default: Compression) -> Self {
        Self { compression: Some(self.compression.unwrap_or(default)), ..self.clone() }
    }

    /// What a layer is to be.
    pub fn spec(&self, epoch: &Epoch) -> LayerSpec {
        LayerSpec {
            compression: self.compression.unwrap_or_default(),
            level: self.level,
            force: self.force,
            clamp_mtime: epoch.source_date().filter(|_| self.rewrite_timestamp),
        }
    }

    /// In whose words layers and manifest are described.
    pub fn dialect(&self) -> Dialect {
        if self.oci_media_types == Some(false) { Dialect::Docker } else { Dialect::Oci }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::base::{DiffId, Digest};
    use crate::image::{Descriptor, media_type};
    use crate::store::MemoryBlobs;

    fn layer(name: &str, second: i64) -> Layer {
        let diff_id = DiffId(Digest::of(name));
        let descriptor = Descriptor::new(media_type::OCI_LAYER, diff_id.0, 1);
        Layer { blob: LayerBlob { descriptor, diff_id }, created: Timestamp::from_second(second).ok() }
    }

    fn line(by: &str, created: Option<&str>, empty_layer: bool) -> History {
        let created = created.map(str::to_owned);
        History { created, created_by: Some(by.to_owned()), empty_layer, ..History::default() }
    }

    fn make(layers: Vec<Layer>, history: Vec<History>, base: Option<&ImageConfig>, epoch: Option<&str>) -> ImageConfig {
        let mut config = default_config(Platform::new("linux", "amd64", ""));
        config.history = history;
        let epoch = Epoch::new(SystemTime::UNIX_EPOCH, epoch).unwrap();
        image(layers, &config, base, &LayerOptions::default(), &epoch, &MemoryBlobs::new()).unwrap().config
    }

    fn told(config: &ImageConfig) -> Vec<(&str, &str, bool)> {
        let text = |field: &Option<String>| field.as_deref().unwrap_or("-").to_owned().leak() as &str;
        config.history.iter().map(|l| (text(&l.created_by), text(&l.created), l.empty_layer)).collect()
    }

    const BASE: &str = "2020-01-01T00:00:00Z";

    #[test]
    fn every_line_gets_a_time_and_the_image_the_last() {
        let history = vec![
            line("base", Some(BASE), false),
            line("ENV", None, true),
            line("RUN", None, false),
            line("CMD", None, true),
            line("COPY", None, false),
        ];
        let config = make(vec![layer("a", 1), layer("b", 2), layer("c", 3)], history, None, None);
        assert_eq!(
            told(&config),
            [
                ("base", BASE, false),
                ("ENV", "1970-01-01T00:00:02Z", true),
                ("RUN", "1970-01-01T00:00:02Z", false),
                ("CMD", "1970-01-01T00:00:02Z", true),
                ("COPY", "1970-01-01T00:00:03Z", false),
            ]
        );
        assert_eq!(config.created.as_deref(), Some("1970-01-01T00:00:03Z"));
        assert_eq!(config.rootfs.diff_ids.len(), 3);
    }

    #[test]
    fn metadata_alone_on_a_base_takes_the_base_s_time() {
        let config =
            make(vec![layer("a", 1)], vec![line("base", Some(BASE), false), line("CMD", None, true)], None, None);
        assert_eq!(told(&config)[1], ("CMD", BASE, true));
        assert_eq!(config.created.as_deref(), Some(BASE));
    }

    #[test]
    fn layers_and_history_are_made_to_agree() {
        let config = make(vec![layer("a", 1), layer("b", 2)], vec![line("RUN", None, false)], None, None);
        assert_eq!(
            told(&config),
            [("RUN", "1970-01-01T00:00:01Z", false), ("created by buildkit", "1970-01-01T00:00:02Z", false)]
        );
        let lines = vec![line("one", None, false), line("two", None, false)];
        let config = make(vec![layer("a", 1)], lines, None, None);
        assert_eq!(
            told(&config),
            [("one", "1970-01-01T00:00:01Z", false), ("two", "1970-01-01T00:00:01Z", true)],
            "a line too many made no layer"
        );
        assert_eq!(told(&make(vec![], vec![], None, None)), []);
    }

    #[test]
    fn an_epoch_clamps_what_is_new_and_spares_the_base() {
        let mut base = default_config(Platform::host());
        base.history = vec![line("base", Some(BASE), false)];
        let mut history = base.history.clone();
        history.push(line("RUN", None, false));
        let config = make(vec![layer("a", 1), layer("b", 100)], history.clone(), Some(&base), Some("60"));
        assert_eq!(told(&config), [("base", BASE, false), ("RUN", "1970-01-01T00:01:00Z", false)]);
        assert_eq!(config.created.as_deref(), Some("1970-01-01T00:01:00Z"));
        let config = make(vec![layer("a", 1), layer("b", 100)], history, None, Some("60"));
        assert_eq!(told(&config)[0].1, "1970-01-01T00:01:00Z", "without the base's config nothing tells it apart");
    }

    #[test]
    fn docker_s_words_when_asked_for() {
        let options = LayerOptions { oci_media_types: Some(false), ..LayerOptions::default() };
        let epoch = Epoch::new(SystemTime::UNIX_EPOCH, None).unwrap();
        let config = default_config(Platform::host());
        let image = image(vec![layer("a", 1)], &config, None, &options, &epoch, &MemoryBlobs::new()).unwrap();
        assert_eq!(image.manifest.media_type, media_type::DOCKER_MANIFEST);
        assert_eq!(image.manifest.config.media_type, media_type::DOCKER_CONFIG);
        assert_eq!(image.manifest.layers[0].media_type, media_type::DOCKER_LAYER);
    }
}
