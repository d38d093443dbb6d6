//! A layer of zeros, a thousand times smaller when compressed. Alone in its process, because it looks at the process's
//! peak memory.

use std::io::Write;
use std::os::unix::fs::MetadataExt;

use dockless::base::Cancel;
use dockless::layer::{Compression, DirOptions, DirTarget, Encoder, apply};
use dockless::sys::Root;

#[test]
fn a_bomb_is_a_large_file_and_no_memory() {
    const SIZE: u64 = 1 << 28;
    const PEAK: u64 = 150 << 10;
    let mut header = tar::Header::new_ustar();
    header.set_path("zeros").unwrap();
    header.set_size(SIZE);
    header.set_mode(0o644);
    header.set_cksum();
    let mut encoder = Encoder::new(Vec::new(), Compression::Gzip, None).unwrap();
    encoder.write_all(header.as_bytes()).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..SIZE >> 20 {
        encoder.write_all(&zeros).unwrap();
    }
    encoder.write_all(&[0; 1024]).unwrap();
    let bomb = encoder.finish().unwrap();
    assert!(bomb.len() < 4 << 20);

    let tmp = tempfile::tempdir().unwrap();
    let mut target = DirTarget::new(Root::open(tmp.path()).unwrap(), DirOptions::default());
    apply(&mut &bomb[..], None, &mut target, &Cancel::new()).unwrap();
    let stat = std::fs::metadata(tmp.path().join("zeros")).unwrap();
    assert_eq!(stat.len(), SIZE);
    assert!(stat.blocks() * 512 < 1 << 20, "zeros are holes");
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
    let peak: u64 = peak.unwrap();
    assert!(peak < PEAK, "peak memory is {peak} KiB");
}
