//! A layer of 2 GiB goes through every reader and writer with little memory.

use std::fs;
use std::io::Read;
use std::process::Command;

use dockless::base::{Cancel, DiffId};
use dockless::expand::{self, Archive, Formats};
use dockless::export::{self, Dest, LayerOptions};
use dockless::image::{self, Descriptor, Dialect, ImageStore, LayerBlob};
use dockless::layer::{Compression, Entry, LayerWriter};
use dockless::store::{BlobStore, DiskBlobs};
use dockless::sys::{Kind, Meta};

use crate::fixture;
use crate::oracle::{run, skip};

const SIZE: u64 = 2 << 30;
const PEAK: u64 = 150 << 20;

/// What `free` says in MiB is needed: the layer plain in a store, in an archive and unpacked, two of them at a time.
const ROOM: u64 = 3 * SIZE;

#[test]
fn a_layer_of_2_gib_passes_in_150_mib() {
    const TEST: &str = "a_layer_of_2_gib_passes_in_150_mib";
    let room = rustix::fs::statvfs(std::env::temp_dir()).unwrap();
    if room.f_bavail * room.f_frsize < ROOM {
        return skip(TEST, &format!("needs {} GiB in {}", ROOM >> 30, std::env::temp_dir().display()));
    }
    // In a process of its own, whose peak is nobody else's.
    let this = std::env::current_exe().unwrap();
    run(Command::new(this).args(["--exact", "streaming::in_a_process_of_its_own", "--ignored", "--nocapture"]));
}

/// Text that compresses fast and is not all zeros.
struct Pattern(u64);

impl Read for Pattern {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        const BLOCK: &[u8] = b"a layer of two gibibytes says little, and says it often. ";
        let count = buffer.len().min(usize::try_from(self.0).unwrap());
        for part in buffer[..count].chunks_mut(BLOCK.len()) {
            part.copy_from_slice(&BLOCK[..part.len()]);
        }
        self.0 -= count as u64;
        Ok(count)
    }
}

fn within(step: &str) {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10;
    eprintln!("{step}: peak {} MiB", peak >> 20);
    assert!(peak < PEAK, "{step}: peak {} MiB", peak >> 20);
}

#[test]
#[ignore = "started by a_layer_of_2_gib_passes_in_150_mib"]
fn in_a_process_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let cancel = Cancel::new();

    let blobs = DiskBlobs::open(&path("blobs"));
    let mut writer = LayerWriter::new(blobs.create().unwrap(), Compression::Gzip, None).unwrap();
    let meta = Meta { mode: 0o644, ..Meta::default() };
    let entry = Entry { path: "big".into(), kind: Kind::File { size: SIZE }, meta };
    writer.append(&entry, &mut Pattern(SIZE)).unwrap();
    let written = writer.finish().unwrap();
    let (digest, size) = written.out.complete().unwrap();
    let descriptor = Descriptor::new(Dialect::Oci.layer(Compression::Gzip), digest, size);
    let image =
        fixture::image(&blobs, vec![LayerBlob { descriptor, diff_id: written.diff_id.unwrap_or(DiffId(digest)) }]);
    within("layer written");

    let options = LayerOptions { compression: Some(Compression::Uncompressed), ..LayerOptions::default() };
    let names = [fixture::reference("big:1")];
    let archive = Dest::File(path("image.tar"));
    export::docker(&[(&image, &names)], &blobs, &archive, &options, dir.path(), &cancel).unwrap();
    within("saved");

    let opened = image::open(&path("image.tar"), dir.path()).unwrap();
    let store = ImageStore::open(&path("images"));
    store.adopt(&opened.images[0].0, &*opened.blobs).unwrap();
    drop(opened);
    fs::remove_file(path("image.tar")).unwrap();
    within("loaded");

    let formats = Formats { rootfs: true, image_tar: Some(Archive::Docker), ..Formats::default() };
    expand::expand(&image, &names, &blobs, &formats, &path("out"), &cancel).unwrap();
    assert_eq!(fs::metadata(path("out/rootfs/big")).unwrap().len(), SIZE);
    within("expanded");
}
