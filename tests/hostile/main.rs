//! Layers made to do harm: each is refused with a reason or applied harmlessly, by every reader alike, and nothing
//! outside of the target changes.

mod forge;
mod readers;

use std::io::Write;
use std::time::{Duration, Instant};

use dockless::base::{Cancel, DiffId, Digest};
use dockless::layer::{Compression, DirOptions, DirTarget, Encoder, apply};
use dockless::sys::Root;
use forge::{archive, device, dir, extended, file, hardlink, member, pax, symlink};
use readers::{Listing, Place};

enum Expected {
    /// The error holds this.
    Refused(&'static str),
    /// These paths and no others, in order.
    Harmless(&'static [&'static str]),
}
use Expected::{Harmless, Refused};

struct Case {
    name: &'static str,
    /// Below this lies a layer with `keep`, `etc/passwd` and a symlink `var/run` to `/run`.
    layer: Vec<u8>,
    expected: Expected,
}

fn base() -> Vec<u8> {
    archive(&[
        dir("etc/"),
        file("etc/passwd", "root"),
        file("keep", "kept"),
        dir("run/"),
        dir("var/"),
        symlink("var/run", "/run"),
    ])
}

const BASE: [&str; 6] = ["etc", "etc/passwd", "keep", "run", "var", "var/run"];

fn cases(outside: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name, members: &[Vec<u8>], expected| cases.push(Case { name, layer: archive(members), expected });
    let up = "../".repeat(30);

    add("a name that goes up", &[file("../escape", "x")], Refused("leads out of the archive"));
    add("a name that goes down, then up", &[file("a/b/../../../escape", "x")], Refused("leads out of the archive"));
    add("an absolute name", &[file("/etc/shadow", "x")], Harmless(&["etc/shadow"]));
    add("an absolute name that goes up", &[file("/../../x", "x")], Harmless(&["x"]));
    add("a PAX path that goes up", &[pax(&[("path", b"../x")]), file("x", "")], Refused("leads out of the archive"));
    add(
        "a GNU long name that goes up",
        &[extended(b'L', b"../x\0"), file("x", "")],
        Refused("leads out of the archive"),
    );
    add("a name with a NUL", &[pax(&[("path", b"a\0b")]), file("x", "")], Refused("leads out of the archive"));
    add("a name with a newline", &[pax(&[("path", b"a\nb")]), file("x", "")], Harmless(&["a\nb"]));
    add("an empty name", &[member(b'0', "").bytes()], Refused("tar header"));
    add("the root as a file", &[file("./", "x")], Refused("root can only be a directory"));
    add("the root as a symlink", &[symlink("/", outside)], Refused("root can only be a directory"));
    add("the root as a directory", &[dir("./")], Harmless(&[]));

    add("a file through a symlink that goes up", &[symlink("l", &up), file("l/x", "x")], Harmless(&["l", "x"]));
    add("a file through an absolute symlink", &[symlink("l", outside), file("l/x", "x")], Harmless(&["l", "…"]));
    add(
        "a file through two symlinks",
        &[symlink("a", ".."), symlink("a/b", ".."), file("b/x", "x")],
        Harmless(&["a", "b", "x"]),
    );
    add(
        "a file over a symlink that leads out",
        &[symlink("l", &format!("{outside}/secret")), file("l", "x")],
        Harmless(&["l"]),
    );
    add(
        "a folder over a symlink that leads out",
        &[symlink("l", outside), dir("l"), file("l/secret", "x")],
        Harmless(&["l", "l/secret"]),
    );
    add(
        "a symlink over a folder in use",
        &[dir("d"), file("d/a", ""), symlink("d", &up), file("d/b", "")],
        Harmless(&["b", "d"]),
    );
    add("a symlink to itself as a folder", &[symlink("l", "l"), file("l/x", "")], Refused("apply \"l/x\""));
    add("a file through a symlink of the layer below", &[file("var/run/x", "")], Harmless(&["run/x"]));

    add("a hard link that goes up", &[hardlink("h", "../secret")], Refused("leads out of the archive"));
    add("an absolute hard link", &[hardlink("h", "/etc/passwd")], Harmless(&["h"]));
    add(
        "a hard link through a symlink",
        &[symlink("l", outside), hardlink("h", "l/secret")],
        Refused("which is not in the image"),
    );
    add(
        "a hard link to a symlink, then a file",
        &[symlink("l", &format!("{outside}/secret")), hardlink("h", "l"), file("h", "x")],
        Harmless(&["h", "l"]),
    );
    add("a hard link to itself", &[file("f", "x"), hardlink("f", "f")], Harmless(&["f"]));
    add("a hard link to a folder", &[hardlink("h", "etc")], Refused("hard link"));
    add("a hard link to the root", &[hardlink("h", "/")], Refused("leads out of the archive"));
    add("a hard link to nothing", &[hardlink("h", "nothing")], Refused("which is not in the image"));

    add("a whiteout of the parent", &[file("d/.wh...", "")], Refused("whiteout of"));
    add("a whiteout of the folder", &[file(".wh..", "")], Refused("whiteout of"));
    add(
        "a whiteout through a symlink that leads out",
        &[symlink("l", outside), file("l/.wh.secret", "")],
        Harmless(&["l"]),
    );
    add("a whiteout of a symlink that leads out", &[symlink("l", outside), file(".wh.l", "")], Harmless(&["l"]));
    add(
        "opaque through a symlink that leads out",
        &[symlink("l", outside), file("l/.wh..wh..opq", "")],
        Harmless(&["l"]),
    );
    add("a whiteout that is a folder", &[dir(".wh.nothing")], Harmless(&[]));
    add("a device that overlayfs takes for a whiteout", &[device("keep2", 0, 0)], Harmless(&[]));
    add(
        "attributes that overlayfs obeys",
        &[
            pax(&[
                ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
                ("SCHILY.xattr.user.overlay.opaque", b"y"),
                ("SCHILY.xattr.user.dockless.stat", b"0:0:104755:0.0"),
            ]),
            dir("etc"),
        ],
        Harmless(&[]),
    );

    add("devices", &[device("null", 1, 3), device("disk", 8, 0)], Harmless(&[]));
    add(
        "a device with numbers that do not exist",
        &[member(b'3', "d").patch(329, b"7777777\0").bytes()],
        Refused("is not possible"),
    );
    add("a file over a fifo", &[member(b'6', "p").bytes(), file("p", "x")], Harmless(&["p"]));
    add("a file through a fifo", &[member(b'6', "p").bytes(), file("p/x", "x")], Refused("apply \"p/x\""));
    add("a file below a file", &[file("keep/x", "x")], Refused("apply \"keep/x\""));
    add(
        "one name as everything",
        &[file("n", "1"), dir("n"), file("n/x", ""), symlink("n", "keep"), member(b'6', "n").bytes(), file("n", "2")],
        Harmless(&["n"]),
    );

    add(
        "a size of eight exbibytes",
        &[member(b'0', "f").patch(124, b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff").bytes()],
        Refused("size is not possible"),
    );
    add(
        "a size of more than 64 bits",
        &[member(b'0', "f").patch(124, b"\x80\0\0\x01\0\0\0\0\0\0\0\0").bytes()],
        Refused("size is not possible"),
    );
    add("a negative size", &[member(b'0', "f").patch(124, &[0xff; 12]).bytes()], Refused("size"));
    add(
        "a size of eight gigabytes and no content",
        &[member(b'0', "f").patch(124, b"77777777777\0").bytes()],
        Refused("ends inside a member"),
    );
    add(
        "a PAX size of more than 64 bits",
        &[pax(&[("size", b"99999999999999999999")]), file("f", "")],
        Refused("PAX size is not a number"),
    );
    add(
        "an id of 2^32-1, which chown takes for no change",
        &[pax(&[("uid", b"4294967295")]), file("f", "")],
        Refused("no possible id"),
    );
    add(
        "a sparse file of eight exbibytes",
        &[
            pax(&[
                ("GNU.sparse.major", b"1"),
                ("GNU.sparse.minor", b"0"),
                ("GNU.sparse.name", b"s"),
                ("GNU.sparse.realsize", b"9223372036854775807"),
            ]),
            member(b'0', "f").content(&[b"0\n".as_slice(), &[0; 510]].concat()).bytes(),
        ],
        Refused("size is not possible"),
    );
    add(
        "a sparse map of a billion entries",
        &[
            pax(&[
                ("GNU.sparse.major", b"1"),
                ("GNU.sparse.minor", b"0"),
                ("GNU.sparse.name", b"s"),
                ("GNU.sparse.realsize", b"10"),
            ]),
            member(b'0', "f").content(&[b"1000000000\n".as_slice(), &[b'0'; 501]].concat()).bytes(),
        ],
        Refused("sparse"),
    );
    add(
        "a sparse map that overlaps",
        &[pax(&[("GNU.sparse.map", b"0,5,3,5"), ("GNU.sparse.size", b"20")]), file("f", "0123456789")],
        Refused("overlap"),
    );
    add(
        "a sparse map past the end",
        &[
            pax(&[("GNU.sparse.map", b"0,5,18446744073709551610,5"), ("GNU.sparse.size", b"20")]),
            file("f", "0123456789"),
        ],
        Refused("past the end"),
    );
    add(
        "a sparse map of other size than the content",
        &[pax(&[("GNU.sparse.map", b"0,5"), ("GNU.sparse.size", b"20")]), file("f", "0123456789")],
        Refused("does not add up"),
    );

    add(
        "a PAX header of two gigabytes",
        &[member(b'x', "x").patch(124, b"20000000000\0").bytes()],
        Refused("exceeds limit"),
    );
    add(
        "a long name of two megabytes",
        &[extended(b'L', &vec![b'a'; 2 << 20]), file("f", "")],
        Refused("exceeds limit"),
    );
    add(
        "a path of 5000 bytes",
        &[pax(&[("path", "a/".repeat(2500).as_bytes())]), file("f", "")],
        Refused("path exceeds limit"),
    );
    add("a name of 256 bytes", &[pax(&[("path", &[b'a'; 256])]), file("f", "")], Refused("apply"));
    add("headers upon headers", &vec![extended(b'K', b"x"); 2], Refused("duplicate"));
    add("a global path", &[extended(b'g', b"10 path=x\n"), file("f", "")], Refused("for all members"));
    add("a lone block of zeros", &[vec![0; 512], file("f", "")], Refused("lone block of zeros"));
    add("a member of unknown type", &[member(b'M', "f").bytes()], Refused("is not supported"));
    add(
        "a wrong checksum",
        &[file("f", "").into_iter().enumerate().map(|(i, b)| if i == 0 { b'g' } else { b }).collect()],
        Refused("checksum"),
    );
    add("an attribute without a name", &[pax(&[("SCHILY.xattr.", b"x")]), file("f", "")], Refused("no possible name"));
    add(
        "a size hidden behind a newline",
        &[
            pax(&[("SCHILY.xattr.user.x", b"a\nb=cd"), ("size", b"512")]),
            file("f", ""),
            file("SMUGGLED", "")[..512].to_vec(),
            file("last", ""),
        ],
        Harmless(&["f", "last"]),
    );
    cases.push(Case { name: "noise", layer: vec![0x5a; 4096], expected: Refused("tar header") });
    cases.push(Case { name: "zeros", layer: vec![0; 1 << 20], expected: Harmless(&[]) });
    cases.push(Case { name: "nothing", layer: Vec::new(), expected: Harmless(&[]) });
    cases.push(Case {
        name: "half a header",
        layer: file("f", "")[..300].to_vec(),
        expected: Refused("ends inside a header"),
    });
    cases.push(Case {
        name: "a zip archive",
        layer: [b"PK\x03\x04".as_slice(), &[1; 2000]].concat(),
        expected: Refused("tar header"),
    });
    cases
}

/// Names beside those of the base layer. What symlinks to `outside` made inside of the root goes by one name.
fn news(listing: &Listing, outside: &str) -> Vec<String> {
    let mirrored = outside.trim_start_matches('/');
    let first = mirrored.split('/').next().unwrap();
    let mut news: Vec<String> = listing
        .keys()
        .filter(|path| !BASE.contains(&path.as_str()))
        .map(|path| if path.split('/').next() == Some(first) { "…".to_owned() } else { path.clone() })
        .collect();
    news.dedup();
    news.sort();
    news.dedup();
    news
}

#[test]
fn each_hostile_layer_is_refused_or_harmless_for_every_reader() {
    /// Far more than any needs on a busy machine, and far less than a loop takes.
    const LIMIT: Duration = Duration::from_secs(30);
    let place = Place::new();
    let mut wrong = Vec::new();
    for Case { name, layer, expected } in cases(&place.outside()) {
        let started = Instant::now();
        let layers = [base(), layer];
        let directory = place.to_directory(&layers);
        let (lazy, unpacked) = place.to_snapshot(&layers);
        for (reader, found) in [("directory", &directory), ("index", &lazy), ("snapshot", &unpacked)] {
            match (&expected, found) {
                // The index makes nothing, so what only fails when it is made passes it.
                (Refused(_), Ok(_))
                    if reader == "index" && directory.as_ref().is_err_and(|e| e.starts_with("apply")) => {}
                (Refused(reason), Err(error)) if error.contains(reason) || reader != "directory" => {}
                (Harmless(names), Ok(listing)) => {
                    let news = news(listing, &place.outside());
                    if news != *names {
                        wrong.push(format!("{name}: {reader} has {news:?}, expected {names:?}"));
                    }
                    for kept in BASE.iter().filter(|kept| !listing.contains_key(**kept)) {
                        wrong.push(format!("{name}: {reader} lost {kept}"));
                    }
                }
                (Refused(reason), found) => wrong.push(format!("{name}: {reader}: {found:?}, expected {reason:?}")),
                // It would hide a file of the layer below from overlayfs, and from nobody else.
                (Harmless(_), Err(error)) if error.contains("a device 0:0 means a removed file here") => {}
                (Harmless(_), Err(error)) => wrong.push(format!("{name}: {reader} refuses it: {error}")),
            }
        }
        if let (Ok(directory), Ok(lazy), Ok(unpacked)) = (&directory, &lazy, &unpacked) {
            for (reader, other) in [("index", lazy), ("snapshot", unpacked)] {
                if other != directory {
                    let differs: Vec<_> = directory.iter().filter(|(k, v)| other.get(*k) != Some(v)).collect();
                    wrong.push(format!("{name}: {reader} differs from the directory: {differs:?}"));
                }
            }
        }
        if started.elapsed() > LIMIT {
            wrong.push(format!("{name}: took {:?}", started.elapsed()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn compressed(plain: &[u8], compression: Compression) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new(), compression, None).unwrap();
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn applied(stored: &[u8], expected: DiffId) -> Result<(), String> {
    let tmp = tempfile::tempdir().unwrap();
    let mut target = DirTarget::new(Root::open(tmp.path()).unwrap(), DirOptions::default());
    apply(&mut &stored[..], Some(&expected), &mut target, &Cancel::new()).map(drop).map_err(|error| error.to_string())
}

#[test]
fn every_cut_and_every_flipped_byte_is_noticed() {
    let noise: String =
        (0..4000u32).map(|i| char::from(b'a' + (i.wrapping_mul(2_654_435_761) >> 27) as u8 % 26)).collect();
    let plain = archive(&[dir("d"), file("d/f", &noise), symlink("l", "d"), file("empty", "")]);
    let diff_id = DiffId(Digest::of(&plain));
    for compression in [Compression::Uncompressed, Compression::Gzip, Compression::Zstd] {
        let stored = compressed(&plain, compression);
        applied(&stored, diff_id).unwrap();
        let step = stored.len().div_ceil(120);
        for at in (0..stored.len()).step_by(step) {
            assert!(applied(&stored[..at], diff_id).is_err(), "{compression:?} cut at {at}");
            let mut flipped = stored.clone();
            flipped[at] ^= 0x55;
            // Bytes 4 to 9 of a gzip header are a time and the like: they change the blob's digest, and nothing else.
            let unused = compression == Compression::Gzip && (4..10).contains(&at);
            assert_eq!(applied(&flipped, diff_id).is_err(), !unused, "{compression:?} flipped at {at}");
        }
    }
    let other = DiffId(Digest::of("other"));
    let error = applied(&plain, other).unwrap_err();
    assert_eq!(error, format!("layer has diff ID {diff_id}, expected {other}"));
}
