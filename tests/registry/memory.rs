//! A layer of two gibibytes goes down and up through less than a hundred mebibytes of memory.

use std::process::Command;

use dockless::base::progress::Step;
use dockless::base::{Cancel, DiffId, Digest, Hasher, Reference};
use dockless::image::{Descriptor, ImageConfig, Manifest, media_type};
use dockless::store::{BlobStore, DiskBlobs, MemoryBlobs, read_document};

use crate::hostile_registry::{Body, HostileRegistry, Reply};
use crate::sample_image::put;
use crate::{amd64, plain_client};

const LAYER: u64 = 2 << 30;
const LIMIT_KIB: u64 = 100 << 10;
const ADDRESS: &str = "DOCKLESS_TEST_MEMORY";

fn digest_of_zeros(mut left: u64) -> Digest {
    let mut hasher = Hasher::new();
    let zeros = vec![0; 1 << 20];
    while left > 0 {
        let piece = left.min(zeros.len() as u64);
        hasher.update(&zeros[..piece as usize]);
        left -= piece;
    }
    hasher.finish()
}

/// An image whose one layer is nothing but zeros, which nobody has to keep.
fn huge(blobs: &MemoryBlobs, layer: Digest) -> Descriptor {
    let mut config = ImageConfig::new(amd64());
    config.rootfs.diff_ids.push(DiffId(layer));
    let (digest, size) = put(blobs, &config.to_bytes());
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::OCI_MANIFEST.to_owned(),
        config: Descriptor::new(media_type::OCI_CONFIG, digest, size),
        layers: vec![Descriptor::new(media_type::OCI_LAYER, layer, LAYER)],
        annotations: Default::default(),
        extra: Default::default(),
    };
    let (digest, size) = put(blobs, &manifest.to_bytes());
    Descriptor::new(media_type::OCI_MANIFEST, digest, size)
}

#[test]
fn a_huge_layer_passes_through_little_memory() {
    let layer = digest_of_zeros(LAYER);
    let blobs = MemoryBlobs::new();
    let root = huge(&blobs, layer);
    let server = HostileRegistry::start(move |request, _| {
        let name = request.path.rsplit('/').next().unwrap();
        match request.method.as_str() {
            "POST" => Reply::status(202).header("Location", "/upload"),
            "PUT" => Reply::status(201),
            "HEAD" if request.path.starts_with("/v2/to/") => Reply::status(404),
            _ if request.path == "/v2/" => Reply::status(200),
            _ if *name == layer.to_string() => {
                Reply { status: 200, body: Body::Zeros(Some(LAYER)), ..Reply::default() }
            }
            _ => {
                let digest = name.parse().unwrap_or(root.digest);
                Reply::bytes(read_document(&blobs, &digest).unwrap())
                    .header("Docker-Content-Digest", digest.to_string())
            }
        }
    });
    // A process of its own: only its memory counts.
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["memory::pull_and_push", "--exact", "--ignored", "--nocapture"])
        .env(ADDRESS, server.host())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text} {}", String::from_utf8_lossy(&output.stderr));
    let peak = text.split("peak ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    assert!(peak.parse::<u64>().unwrap() < LIMIT_KIB, "peak {peak} KiB");
    let sent = server.asked.lock().unwrap().iter().filter(|r| r.method == "PUT").map(|r| r.length).max();
    assert_eq!(sent, Some(LAYER));
}

#[test]
#[ignore = "the inner half of a_huge_layer_passes_through_little_memory"]
fn pull_and_push() {
    let host = std::env::var(ADDRESS).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let blobs = DiskBlobs::open(dir.path());
    let registry = plain_client();
    let of = |name: &str| format!("{host}/{name}").parse::<Reference>().unwrap();
    let pulled = registry.pull(&of("from/x:1"), &amd64(), &blobs, &Step::none(), &Cancel::new()).unwrap();
    assert_eq!(blobs.size(&pulled.image.layers[0].descriptor.digest).unwrap(), Some(LAYER));
    registry.push(&pulled.root, &blobs, &of("to/x:1"), &[], &Step::none(), &Cancel::new()).unwrap();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    println!("peak {} KiB", peak.trim().trim_end_matches(" kB"));
}
