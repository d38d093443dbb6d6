//! Both ways against each other, against GNU tar and Python, and against mutated bytes.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::{TarWriter, read};
use crate::layer::{Entry, Error};
use crate::sys::{Kind, Meta, Mtime};

pub type Members = Vec<(Entry, Vec<u8>)>;

pub fn unpack(archive: &[u8]) -> Result<Members, Error> {
    let mut members = Vec::new();
    read(&mut &archive[..], &mut |entry, data| {
        let mut content = Vec::new();
        data.read_to_end(&mut content)?;
        members.push((entry.clone(), content));
        Ok(())
    })?;
    Ok(members)
}

pub fn pack(members: &[(Entry, Vec<u8>)]) -> Vec<u8> {
    let mut tar = TarWriter::new(Vec::new());
    for (entry, content) in members {
        tar.append(entry, &mut &content[..]).unwrap();
    }
    tar.finish().unwrap()
}

pub fn file(path: &str, content: &[u8]) -> (Entry, Vec<u8>) {
    let kind = Kind::File { size: content.len() as u64 };
    (Entry { path: path.into(), kind, meta: Meta { mode: 0o644, ..Meta::default() } }, content.to_vec())
}

fn name() -> impl Strategy<Value = PathBuf> {
    let part = prop_oneof![
        "[a-z]{1,8}",
        "[a-z]{90,110}",
        Just("ü".to_owned()),
        Just(" x\n".to_owned()),
        Just("...".to_owned()),
    ];
    proptest::collection::vec(part, 1..4).prop_map(|parts| parts.into_iter().collect())
}

fn entry() -> impl Strategy<Value = (Entry, Vec<u8>)> {
    let kind = prop_oneof![
        Just(Kind::Directory),
        proptest::collection::vec(any::<u8>(), 0..2000).prop_map(|c| Kind::File { size: c.len() as u64 }),
        name().prop_map(|target| Kind::Symlink { target: Path::new("/..").join(target) }),
        name().prop_map(|target| Kind::Hardlink { target }),
        (0..0x1000u32, 0..0x10_0000u32).prop_map(|(major, minor)| Kind::CharDevice { major, minor }),
        (0..0x1000u32, 0..0x10_0000u32).prop_map(|(major, minor)| Kind::BlockDevice { major, minor }),
        Just(Kind::Fifo),
    ];
    let xattrs = proptest::collection::btree_map(
        proptest::collection::vec(1..=255u8, 1..20).prop_map(OsString::from_vec),
        proptest::collection::vec(any::<u8>(), 0..100),
        0..3,
    );
    let seconds = prop_oneof![0..2_000_000_000i64, -100..100i64, any::<i64>().prop_map(|s| s / 2)];
    let meta = (0..0o10000u32, 0..u32::MAX, 0..u32::MAX, seconds, prop_oneof![Just(0), 0..1_000_000_000u32], xattrs);
    (name(), kind, meta).prop_map(|(path, kind, (mode, uid, gid, seconds, nanos, xattrs))| {
        let content = match kind {
            Kind::File { size } => (0..size).map(|i| i as u8).collect(),
            _ => Vec::new(),
        };
        (Entry { path, kind, meta: Meta { mode, uid, gid, mtime: Mtime { seconds, nanos }, xattrs } }, content)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_is_written_is_read_back(members in proptest::collection::vec(entry(), 0..6)) {
        prop_assert_eq!(unpack(&pack(&members)).unwrap(), members);
    }

    #[test]
    fn damaged_bytes_give_an_error_or_members_but_nothing_worse(
        members in proptest::collection::vec(entry(), 1..4),
        hits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut archive = pack(&members);
        for (at, value) in hits {
            let at = at.index(archive.len());
            archive[at] = value;
        }
        let _ = unpack(&archive);
        archive.truncate(cut.index(archive.len()));
        let _ = unpack(&archive);
    }

    #[test]
    fn it_does_not_matter_how_the_bytes_arrive(members in proptest::collection::vec(entry(), 1..4), step in 1..700usize) {
        struct Slow<'a>(&'a [u8], usize);
        impl Read for Slow<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let count = self.1.min(buffer.len());
                self.0.read(&mut buffer[..count])
            }
        }
        let archive = pack(&members);
        let mut seen = Vec::new();
        let mut input = io::BufReader::with_capacity(step, Slow(&archive, step));
        super::read_buffered(&mut input, &mut |entry, data| {
            let mut content = Vec::new();
            // Some members are left unread on purpose.
            if seen.len() % 2 == 0 {
                data.read_to_end(&mut content)?;
            }
            seen.push(entry.clone());
            Ok(())
        }).unwrap();
        prop_assert_eq!(seen, members.into_iter().map(|(entry, _)| entry).collect::<Vec<_>>());
    }
}

fn reason(archive: &[u8]) -> String {
    unpack(archive).unwrap_err().to_string()
}

/// A header of our own with some bytes replaced, its checksum right again.
fn forged(member: &(Entry, Vec<u8>), patches: &[(usize, &[u8])]) -> Vec<u8> {
    let mut archive = pack(std::slice::from_ref(member));
    for (at, bytes) in patches {
        archive[*at..at + bytes.len()].copy_from_slice(bytes);
    }
    archive[148..156].fill(b' ');
    let sum: u64 = archive[..512].iter().map(|b| u64::from(*b)).sum();
    archive[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    archive
}

fn extension(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut archive = forged(&file("ext", body), &[(156, &[kind])]);
    archive.truncate(archive.len() - 1024);
    archive
}

#[test]
fn deceptive_headers_are_refused_with_the_reason() {
    let plain = file("f", b"x");
    let pax = |record: &str| [extension(b'x', record.as_bytes()), pack(&[file("f", b"x")])].concat();
    let global = |record: &str| [extension(b'g', record.as_bytes()), pack(&[file("f", b"x")])].concat();
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (forged(&plain, &[(0, b"../f")]), "tar entry \"../f\": path leads out of the archive"),
        (forged(&plain, &[(124, b"\x80\0\0\x01\0\0\0\0\0\0\0\x01")]), "tar entry \"f\": size is not possible"),
        (
            forged(&plain, &[(124, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")]),
            "tar header at byte 0: invalid entry size",
        ),
        (forged(&plain, &[(124, b"77777777777\0")]), "layer data: archive ends inside a member"),
        (forged(&plain, &[(124, b"9\0")]), "tar header at byte 0: header error"),
        (forged(&plain, &[(108, b"\x80\0\0\0\xff\xff\xff\xff")]), "tar entry \"f\": uid 4294967295 is no possible id"),
        (forged(&plain, &[(156, b"Z")]), "tar entry \"f\": member type 'Z' is not supported"),
        (forged(&plain, &[(156, b"1")]), "tar entry \"f\": hard link has no target"),
        (forged(&plain, &[(156, b"1"), (157, b"../../x")]), "tar entry \"f\": hard link leads out of the archive"),
        (forged(&plain, &[(156, b"2")]), "tar entry \"f\": symlink has no target"),
        (forged(&plain, &[(0, b".")]), "tar entry \".\": the root can only be a directory"),
        (forged(&plain, &[(156, b"3"), (329, b"7777777\0")]), "tar entry \"f\": device 2097151:0 is not possible"),
        (pax("10 size=x\n"), "tar entry \"f\": PAX size is not a number"),
        (pax("99 size=1\n"), "tar header at byte 0: PAX error"),
        (pax("x size=1\n"), "tar entry \"f\": malformed PAX record"),
        (pax("20 path=../../escape\n"), "tar header at byte 0: PAX error"),
        (pax("21 path=../../escape\n"), "tar entry \"../../escape\": path leads out of the archive"),
        (global("10 size=1\n"), "tar header at byte 0: a global header sets size for all members"),
        (extension(b'x', b"8 uid=0\n"), "tar header at byte 0: archive ends inside a header"),
        ([extension(b'x', b"8 uid=0\n"), vec![0; 1024]].concat(), "tar header at byte 0: metadata entries without"),
        (extension(b'x', &[b'a'; 2 << 20]), "tar header at byte 0: metadata exceeds limit"),
        (
            [extension(b'L', b"a"), extension(b'L', b"b"), pack(&[])].concat(),
            "tar header at byte 0: duplicate GNU long name",
        ),
        ([vec![0; 512], pack(&[file("f", b"x")])].concat(), "tar header at byte 0: a lone block of zeros"),
        (pack(&[file("f", b"x")])[..600].to_vec(), "tar header at byte 600: archive ends inside a member"),
        (pack(&[file("f", b"x")])[..512].to_vec(), "layer data: archive ends inside a member"),
        (pack(&[file("f", b"x")])[..100].to_vec(), "tar header at byte 0: archive ends inside a header"),
        (vec![b'a'; 4096], "tar header at byte 0: header error"),
    ];
    for (index, (archive, expected)) in cases.iter().enumerate() {
        let reason = reason(archive);
        assert!(reason.starts_with(expected), "case {index}: {reason}\nexpected: {expected}");
    }
}

#[test]
fn harmless_oddities_are_read() {
    let names = |archive: &[u8]| -> Vec<String> {
        unpack(archive).unwrap().iter().map(|(e, c)| format!("{}={}", e.path.display(), c.len())).collect()
    };
    let one = pack(&[file("f", b"x")]);
    let dir_with_size = (Entry { path: "d".into(), kind: Kind::Directory, meta: Meta::default() }, Vec::new());
    assert_eq!(names(&one[..1024]), ["f=1"], "no end mark");
    assert_eq!(names(&one[..1536]), ["f=1"], "half an end mark");
    assert_eq!(names(&[&one[..], b"garbage"].concat()), ["f=1"], "bytes after the end mark");
    assert_eq!(names(&[]), [""; 0], "nothing at all");
    assert_eq!(names(&forged(&file("f", b""), &[(0, b"/etc/x")])), ["etc/x=0"], "absolute");
    assert_eq!(names(&forged(&dir_with_size, &[(124, b"00000001000\0")])), ["d=0"], "a directory has no content");
    let old = forged(&file("f", b""), &[(0, b"old/"), (156, b"\0"), (257, &[0; 8])]);
    assert_eq!(unpack(&old).unwrap()[0].0.kind, Kind::Directory, "a trailing slash in the oldest format");
    let negative = forged(&file("f", b""), &[(136, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfb")]);
    assert_eq!(unpack(&negative).unwrap()[0].0.meta.mtime.seconds, -5);
}

#[test]
fn a_hidden_size_does_not_smuggle_a_member() {
    // Met in tar-rs 0.4.46, which splits records at newlines: it sees SMUGGLED where others see file content.
    let smuggled = pack(&[file("SMUGGLED", b"")])[..512].to_vec();
    let records = b"30 SCHILY.xattr.user.x=a\nb=cd\n12 size=512\n";
    let body = forged(&(file("file", b"").0, Vec::new()), &[]);
    let archive = [extension(b'x', records), body[..512].to_vec(), smuggled, pack(&[file("last", b"")])].concat();
    let names: Vec<_> = unpack(&archive).unwrap().into_iter().map(|(e, _)| e.path).collect();
    assert_eq!(names, [Path::new("file"), Path::new("last")]);
}

#[test]
fn global_headers_hold_until_a_member_says_otherwise() {
    let archive = [
        extension(b'g', b"12 uid=1234\n14 comment=hi\n"),
        extension(b'x', b"8 uid=7\n"),
        pack(&[file("a", b""), file("b", b"")]),
    ]
    .concat();
    let uids: Vec<_> = unpack(&archive).unwrap().into_iter().map(|(e, _)| e.meta.uid).collect();
    assert_eq!(uids, [7, 1234]);
    assert!(unpack(&[extension(b'g', b"11 uid=1234\n"), pack(&[])].concat()).is_err(), "wrong length");
}

#[test]
fn the_bytes_are_those_of_go() {
    let plain = pack(&[file("dir/f", b"hi")]);
    let header = &plain[..512];
    assert_eq!(&header[100..148], b"0000644\x000000000\x000000000\x0000000000002\x0000000000000\0");
    assert_eq!(&header[257..265], b"ustar\x0000");
    assert_eq!(&header[265..345], [&[0u8; 64][..], b"0000000\x000000000\0"].concat());
    assert_eq!(&header[154..156], b"\0 ", "checksum ends in NUL and space");
    let (mut fine, content) = file("dir/f", b"hi");
    fine.meta.mtime = Mtime { seconds: 1, nanos: 500_000_000 };
    fine.meta.xattrs.insert("user.a".into(), b"b".to_vec());
    let archive = pack(&[(fine, content)]);
    assert_eq!(&archive[..18], b"dir/PaxHeaders.0/f");
    assert_eq!(&archive[512..512 + 41], b"25 SCHILY.xattr.user.a=b\n13 mtime=1.5\n\0\0\0");
    assert_eq!(plain.len(), 512 + 512 + 1024);
}

/// Archives that GNU tar makes, read as GNU tar means them.
#[test]
fn gnu_tar_archives_are_read() {
    let tmp = tempfile::tempdir().unwrap();
    let at = |p: &str| tmp.path().join(p);
    let long = "l".repeat(150);
    std::fs::create_dir_all(at("src").join(&long)).unwrap();
    std::fs::write(at("src").join(&long).join("f"), "deep").unwrap();
    std::fs::write(at("src/plain"), "plain").unwrap();
    std::fs::hard_link(at("src/plain"), at("src/second")).unwrap();
    std::os::unix::fs::symlink(&long, at("src/sym")).unwrap();
    let sparse = std::fs::File::create(at("src/sparse")).unwrap();
    sparse.set_len(5 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"mid", 1 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"late", (3 << 20) + 5).unwrap();
    drop(sparse);
    for format in [
        &["--format=gnu"][..],
        &["--format=posix"],
        &["--format=gnu", "-S"],
        &["--format=posix", "-S"],
        &["--format=posix", "-S", "--sparse-version=0.0"],
        &["--format=posix", "-S", "--sparse-version=0.1"],
    ] {
        let out = std::process::Command::new("tar")
            .arg("-C")
            .arg(at("src"))
            .args(format)
            .args(["--sort=name", "-cf", "-", "."])
            .output();
        let Ok(out) = out else {
            eprintln!("skip: needs GNU tar");
            return;
        };
        let members = unpack(&out.stdout).unwrap_or_else(|e| panic!("{format:?}: {e}"));
        let find = |path: &str| {
            members.iter().find(|(e, _)| e.path == Path::new(path)).unwrap_or_else(|| panic!("{format:?}: {path}"))
        };
        assert_eq!(find(&format!("{long}/f")).1, b"deep");
        assert_eq!(find("sym").0.kind, Kind::Symlink { target: long.clone().into() });
        assert_eq!(find("second").0.kind, Kind::Hardlink { target: "plain".into() });
        assert_eq!(find("").0.kind, Kind::Directory);
        let sparse = find("sparse");
        assert_eq!(sparse.0.kind, Kind::File { size: 5 << 20 }, "{format:?}");
        assert!(sparse.1 == std::fs::read(at("src/sparse")).unwrap(), "{format:?}: content");
    }
}
