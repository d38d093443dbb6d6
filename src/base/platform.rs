//! Platforms as `os/arch[/variant]` (image-spec, image-index.md), normalised the way containerd does.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What an image is made for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    pub os: String,
    #[serde(rename = "architecture")]
    pub arch: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("platform {0:?} is malformed, expected os/arch or os/arch/variant, such as linux/arm64/v8")]
pub struct ParsePlatformError(String);

impl Platform {
    pub fn new(os: &str, arch: &str, variant: &str) -> Self {
        let (arch, default_variant) = match arch {
            "x86_64" | "x86-64" => ("amd64", ""),
            "i386" | "i686" => ("386", ""),
            "aarch64" => ("arm64", ""),
            "armhf" => ("arm", "v7"),
            "armel" => ("arm", "v6"),
            "arm" => ("arm", "v7"),
            other => (other, ""),
        };
        let variant = match (arch, variant) {
            // v8 and v1 are what the bare names already mean.
            ("arm64", "v8" | "8") | ("amd64", "v1") => "",
            ("arm", "7") => "v7",
            ("arm", "6") => "v6",
            ("arm", "5") => "v5",
            (_, "") => default_variant,
            (_, given) => given,
        };
        Self { os: os.to_ascii_lowercase(), arch: arch.to_owned(), variant: variant.to_owned() }
    }

    /// The platform that this binary runs on.
    pub fn host() -> Self {
        Self::new("linux", std::env::consts::ARCH, "")
    }

    /// Whether an image made for `other` runs where this platform is asked for.
    ///
    /// An arm host runs what older variants were made for; nothing else is guessed.
    pub fn accepts(&self, other: &Self) -> bool {
        if self.os != other.os || self.arch != other.arch {
            return false;
        }
        self.variant == other.variant
            || (self.arch == "arm" && other.variant <= self.variant)
            || other.variant.is_empty()
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.arch)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

/// Those that Go knows on Linux: a lone word that is none of them is a mistake.
const ARCHITECTURES: [&str; 14] = [
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le", "riscv64",
    "s390x", "sparc64",
];

impl FromStr for Platform {
    type Err = ParsePlatformError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let lower = text.trim().to_ascii_lowercase();
        let word = |s: &&str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        let parts: Vec<&str> = lower.split('/').collect();
        if !parts.iter().all(word) {
            return Err(ParsePlatformError(text.to_owned()));
        }
        match parts[..] {
            ["local"] => Ok(Self::host()),
            // containerd reads a lone word as either; only the operating systems we could mean are listed.
            [os @ ("linux" | "windows" | "darwin" | "freebsd")] => Ok(Self::new(os, std::env::consts::ARCH, "")),
            [arch] => Some(Self::new("linux", arch, ""))
                .filter(|platform| ARCHITECTURES.contains(&platform.arch.as_str()))
                .ok_or_else(|| ParsePlatformError(text.to_owned())),
            [os, arch] => Ok(Self::new(os, arch, "")),
            [os, arch, variant] => Ok(Self::new(os, arch, variant)),
            _ => Err(ParsePlatformError(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_normalises() {
        let cases = [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("Linux/AARCH64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("arm64", "linux/arm64"),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), expected, "{text}");
        }
        for text in ["", "linux/", "a/b/c/d", "linux/am d64", "amd46"] {
            assert!(text.parse::<Platform>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_arm_host_accepts_older_variants_only() {
        let v7 = Platform::new("linux", "arm", "v7");
        assert!(v7.accepts(&Platform::new("linux", "arm", "v6")));
        assert!(!Platform::new("linux", "arm", "v6").accepts(&v7));
        assert!(!v7.accepts(&Platform::new("linux", "amd64", "")));
    }
}
