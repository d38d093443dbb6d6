//! PAX records (pax(1), "pax Extended Header"), read by their lengths. tar-core has read them before; it skips what
//! it cannot parse, and a skipped `size` would let an archive show different members to different readers.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::{XATTR, XATTR_ENCODED};
use crate::sys::Mtime;

/// Libarchive writes no padding, others do.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What the records of one extended header say, as far as tar-core does not say it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pax {
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub mtime: Option<Mtime>,
    pub xattrs: BTreeMap<OsString, Vec<u8>>,
    /// Keys that only make sense for one member.
    pub single: Option<String>,
}

impl Pax {
    /// Fails with what is wrong.
    pub fn parse(mut data: &[u8]) -> Result<Self, String> {
        let mut pax = Self::default();
        let mut encoded = BTreeMap::new();
        while !data.is_empty() {
            let (key, value, rest) = record(data).ok_or("malformed PAX record")?;
            data = rest;
            let key = std::str::from_utf8(key).map_err(|_| "PAX key is not UTF-8".to_owned())?;
            let number = || decimal(value).ok_or_else(|| format!("PAX {key} is not a number"));
            match key {
                // An empty value says: as if the record were not there.
                "uid" if !value.is_empty() => pax.uid = Some(id(key, number()?)?),
                "gid" if !value.is_empty() => pax.gid = Some(id(key, number()?)?),
                "mtime" if !value.is_empty() => {
                    pax.mtime = Some(time(value).ok_or("PAX mtime is not a time")?);
                }
                "size" => {
                    if !value.is_empty() {
                        number()?;
                    }
                    pax.single = Some(key.to_owned());
                }
                "path" | "linkpath" => pax.single = Some(key.to_owned()),
                _ if key.starts_with("GNU.sparse.") => pax.single = Some(key.to_owned()),
                _ => {
                    if let Some(name) = key.strip_prefix(XATTR) {
                        pax.xattrs.insert(xattr_name(name.as_bytes().to_vec())?, value.to_vec());
                    } else if let Some(name) = key.strip_prefix(XATTR_ENCODED) {
                        let name = percent_decode(name.as_bytes()).ok_or("PAX xattr name is badly encoded")?;
                        let value = BASE64.decode(value).map_err(|_| "PAX xattr value is not base64".to_owned())?;
                        encoded.insert(xattr_name(name)?, value);
                    }
                }
            }
        }
        // Archivers that write both forms mean the same by them.
        for (name, value) in encoded {
            pax.xattrs.entry(name).or_insert(value);
        }
        Ok(pax)
    }
}

/// `LENGTH KEY=VALUE\n`, where the length counts itself. Values may hold any byte, newlines too.
fn record(data: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = data.iter().take(20).position(|b| *b == b' ')?;
    let length = usize::try_from(decimal(&data[..space])?).ok()?;
    let (record, rest) = data.split_at_checked(length)?;
    let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|b| *b == b'=')?;
    Some((&record[..equals], &record[equals + 1..], rest))
}

fn decimal(text: &[u8]) -> Option<u64> {
    // `parse` alone would take a plus sign, which other readers do not.
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// To chown(2) the highest id means "leave it as it is".
pub fn id(what: &str, number: u64) -> Result<u32, String> {
    u32::try_from(number).ok().filter(|id| *id != u32::MAX).ok_or_else(|| format!("{what} {number} is no possible id"))
}

/// `[-]SECONDS[.FRACTION]`; digits beyond nanoseconds are cut off, as the clock would.
fn time(text: &[u8]) -> Option<Mtime> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(text) => (true, text),
        None => (false, text),
    };
    let (seconds, fraction) = match text.iter().position(|b| *b == b'.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &b""[..]),
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds = i64::try_from(decimal(seconds)?).ok()?;
    let nanos = fraction
        .iter()
        .chain(std::iter::repeat(&b'0'))
        .take(9)
        .fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    Some(match (negative, nanos) {
        (false, _) => Mtime { seconds, nanos },
        (true, 0) => Mtime { seconds: -seconds, nanos },
        (true, _) => Mtime { seconds: -seconds - 1, nanos: 1_000_000_000 - nanos },
    })
}

fn xattr_name(name: Vec<u8>) -> Result<OsString, String> {
    if name.is_empty() || name.len() > 255 || name.contains(&0) {
        return Err("PAX xattr has no possible name".to_owned());
    }
    Ok(OsString::from_vec(name))
}

fn percent_decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        if *first == b'%' {
            let (digits, tail) = tail.split_at_checked(2)?;
            let mut byte = [0];
            hex::decode_to_slice(digits, &mut byte).ok()?;
            out.push(byte[0]);
            rest = tail;
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64, nanos: u32) -> Option<Mtime> {
        Some(Mtime { seconds, nanos })
    }

    #[test]
    fn times_may_be_negative_and_finer_than_we_keep() {
        let cases: &[(&str, Option<Mtime>)] = &[
            ("0", at(0, 0)),
            ("1.5", at(1, 500_000_000)),
            ("1.", at(1, 0)),
            ("1.1234567899", at(1, 123_456_789)),
            ("-1", at(-1, 0)),
            ("-1.5", at(-2, 500_000_000)),
            ("-0.000000001", at(-1, 999_999_999)),
            ("", None),
            ("+1", None),
            ("1e3", None),
            ("1.2.3", None),
            ("--1", None),
            ("99999999999999999999", None),
        ];
        for (text, expected) in cases {
            assert_eq!(time(text.as_bytes()), *expected, "{text:?}");
        }
    }

    #[test]
    fn values_hold_any_byte_and_lengths_rule() {
        let pax = Pax::parse(b"24 SCHILY.xattr.a=x\ny=1\n16 mtime=-1.250\n").unwrap();
        assert_eq!(pax.xattrs[std::ffi::OsStr::new("a")], b"x\ny=1");
        assert_eq!(pax.mtime, at(-2, 750_000_000));
        let pax = Pax::parse(b"36 LIBARCHIVE.xattr.user.a%3Db=AAEC\n").unwrap();
        assert_eq!(pax.xattrs[std::ffi::OsStr::new("user.a=b")], [0, 1, 2]);
        assert_eq!(Pax::parse(b"11 comment=\n").unwrap_err(), "malformed PAX record");
        assert_eq!(Pax::parse(b"12 comment=\n").unwrap(), Pax::default());
    }

    #[test]
    fn what_other_readers_would_see_differently_is_refused() {
        let cases = [
            ("10 size=x\n", "PAX size is not a number"),
            ("11 size=+1\n", "PAX size is not a number"),
            ("9 uid=-1\n", "PAX uid is not a number"),
            ("18 uid=4294967295\n", "uid 4294967295 is no possible id"),
            ("18 gid=9999999999\n", "gid 9999999999 is no possible id"),
            ("12 mtime=x\n", "malformed PAX record"),
            ("11 mtime=x\n", "PAX mtime is not a time"),
            ("99 size=1\n", "malformed PAX record"),
            ("x size=1\n", "malformed PAX record"),
            ("0 a=b\n", "malformed PAX record"),
            ("18446744073709551616 a=b\n", "malformed PAX record"),
            ("7 a=bc\nx", "malformed PAX record"),
        ];
        for (records, reason) in cases {
            assert_eq!(Pax::parse(records.as_bytes()).unwrap_err(), reason, "{records:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_answer(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Pax::parse(&data);
        }

        #[test]
        fn what_is_written_by_length_is_read_by_length(value in proptest::collection::vec(any::<u8>(), 0..200)) {
            let body = [b" SCHILY.xattr.user.v=", &value[..], b"\n"].concat();
            let length = (1..6).map(|digits| digits + body.len()).find(|n| n.to_string().len() + body.len() == *n).unwrap();
            let record = [length.to_string().as_bytes(), &body].concat();
            prop_assert_eq!(&Pax::parse(&record).unwrap().xattrs[std::ffi::OsStr::new("user.v")], &value);
        }
    }
}
