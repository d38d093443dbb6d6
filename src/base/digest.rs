//! Content digests (OCI image-spec, descriptor.md) and the types that keep their meanings apart:
//! a digest of stored bytes, of plain layer bytes, of a stack of layers, of a plan.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

/// The SHA-256 of some stored bytes, written `sha256:<64 hex>`.
///
/// The spec registers other algorithms; no registry or builder in use makes them, and they are refused by name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseDigestError {
    #[error("digest {0:?} has no algorithm, expected sha256:<64 hex digits>")]
    NoAlgorithm(String),
    #[error("digest algorithm {0:?} is not supported, expected sha256")]
    Algorithm(String),
    #[error("digest {0:?} is malformed, expected sha256:<64 lower-case hex digits>")]
    Hex(String),
}

impl Digest {
    /// Digests bytes that are already in memory; streams use [`Hasher`].
    pub fn of(bytes: impl AsRef<[u8]>) -> Self {
        Self(sha2::Sha256::digest(bytes.as_ref()).into())
    }

    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 hex digits alone: a blob's file name in an OCI layout.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }

    /// The 12 hex digits that people know an image by.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..6])
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (algorithm, hex) = text.split_once(':').ok_or_else(|| ParseDigestError::NoAlgorithm(text.to_owned()))?;
        if algorithm != "sha256" {
            return Err(ParseDigestError::Algorithm(algorithm.to_owned()));
        }
        let mut bytes = [0; 32];
        // Upper case is outside the spec's grammar, and would give one blob two file names.
        if hex.bytes().any(|b| b.is_ascii_uppercase()) || hex::decode_to_slice(hex, &mut bytes).is_err() {
            return Err(ParseDigestError::Hex(text.to_owned()));
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A running SHA-256.
#[derive(Clone, Default)]
pub struct Hasher(sha2::Sha256);

impl Hasher {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn update(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.update(bytes.as_ref());
    }

    /// Feeds a field with its length before it, so that no two lists of fields run together to the same bytes.
    pub fn field(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

impl std::io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

macro_rules! digest_of {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Digest);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseDigestError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

digest_of!(
    /// The digest of a layer's plain, uncompressed tar (image-spec, config.md).
    DiffId
);
digest_of!(
    /// The digest of a stack of layers, lowest first (image-spec, config.md, "Layer ChainID").
    ChainId
);
digest_of!(
    /// The digest of a marshalled LLB op: what a plan calls one of its steps.
    VertexDigest
);

impl ChainId {
    /// Of the lowest layer alone.
    pub fn first(layer: DiffId) -> Self {
        Self(layer.0)
    }

    /// Of this stack with one more layer on top.
    pub fn then(self, layer: DiffId) -> Self {
        Self(Digest::of(format!("{self} {layer}")))
    }

    /// Of a whole stack; none for a stack of no layers (`scratch`).
    pub fn of(layers: impl IntoIterator<Item = DiffId>) -> Option<Self> {
        layers.into_iter().fold(None, |below, layer| Some(below.map_or(Self::first(layer), |chain| chain.then(layer))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn parses_and_prints_the_spec_form() {
        assert_eq!(EMPTY.parse::<Digest>().unwrap().to_string(), EMPTY);
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(Digest::of(b"").short(), "e3b0c44298fc");
    }

    #[test]
    fn refuses_what_the_spec_refuses() {
        let cases = [
            ("e3b0", "digest \"e3b0\" has no algorithm, expected sha256:<64 hex digits>"),
            ("md5:00", "digest algorithm \"md5\" is not supported, expected sha256"),
            ("sha256:e3b0", "digest \"sha256:e3b0\" is malformed, expected sha256:<64 lower-case hex digits>"),
            (
                "sha256:../../etc/passwd",
                "digest \"sha256:../../etc/passwd\" is malformed, expected sha256:<64 lower-case hex digits>",
            ),
        ];
        for (text, message) in cases {
            assert_eq!(text.parse::<Digest>().unwrap_err().to_string(), message);
        }
        assert!(EMPTY.to_uppercase().replace("SHA", "sha").parse::<Digest>().is_err(), "upper-case hex");
    }

    #[test]
    fn a_chain_of_one_is_its_layer_and_of_two_is_the_hash_of_both() {
        let (a, b) = (DiffId(Digest::of("a")), DiffId(Digest::of("b")));
        assert_eq!(ChainId::of([]), None);
        assert_eq!(ChainId::of([a]).unwrap().0, a.0);
        assert_eq!(ChainId::of([a, b]).unwrap().0, Digest::of(format!("{a} {b}")));
    }

    #[test]
    fn fields_do_not_run_together() {
        let hash = |fields: &[&str]| {
            let mut hasher = Hasher::new();
            fields.iter().for_each(|f| hasher.field(f));
            hasher.finish()
        };
        assert_ne!(hash(&["ab", "c"]), hash(&["a", "bc"]));
    }
}
