//! The image specification's own types (oci-spec) read what we write.

use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType, OciLayout};

use dockless::base::Cancel;
use dockless::expand::{self, Formats};
use dockless::layer::Compression;
use dockless::store::MemoryBlobs;

use crate::fixture::{everything, reference};

#[test]
fn a_layout_is_what_the_specification_s_types_say() {
    let blobs = MemoryBlobs::new();
    let image = everything(&blobs, Compression::Gzip);
    let dir = tempfile::tempdir().unwrap();
    let (output, formats) = (dir.path().join("out"), Formats { oci: true, ..Formats::default() });
    expand::expand(&image, &[reference("acct/app:v1")], &blobs, &formats, &output, &Cancel::new()).unwrap();
    let layout = output.join("oci");
    let blob = |descriptor: &Descriptor| {
        let path = layout.join("blobs").join(descriptor.digest().to_string().replace(':', "/"));
        assert_eq!(path.metadata().unwrap().len(), descriptor.size(), "{descriptor:?}");
        path
    };
    assert_eq!(OciLayout::from_file(layout.join("oci-layout")).unwrap().image_layout_version(), "1.0.0");
    let index = ImageIndex::from_file(layout.join("index.json")).unwrap();
    assert_eq!((index.schema_version(), index.manifests().len()), (2, 1));
    let entry = &index.manifests()[0];
    assert_eq!(*entry.media_type(), MediaType::ImageManifest);
    assert_eq!(entry.annotations().as_ref().unwrap()["org.opencontainers.image.ref.name"], "v1");
    let manifest = ImageManifest::from_file(blob(entry)).unwrap();
    assert_eq!(*manifest.config().media_type(), MediaType::ImageConfig);
    assert!(manifest.layers().iter().all(|layer| *layer.media_type() == MediaType::ImageLayerGzip));
    manifest.layers().iter().for_each(|layer| drop(blob(layer)));
    let config = ImageConfiguration::from_file(blob(manifest.config())).unwrap();
    let diff_ids: Vec<String> = image.config.rootfs.diff_ids.iter().map(ToString::to_string).collect();
    assert_eq!(*config.rootfs().diff_ids(), diff_ids);
    assert_eq!(config.architecture().to_string(), image.config.platform.arch);
    let run = config.config().as_ref().unwrap();
    assert_eq!(run.user().as_deref(), Some("app"));
    assert_eq!(run.env().as_ref().unwrap()[..], image.config.config.env[..]);
    assert_eq!(config.history().as_ref().unwrap().len(), image.config.history.len());
}
