//! Where an engine is: `buildkit://HOST:PORT`, `unix://PATH`, `docker://PATH`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where buildkitd listens when its address names no port.
const PORT: u16 = 1234;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Tcp {
        host: String,
        port: u16,
    },
    Unix(PathBuf),
    /// A Docker daemon's socket: its own BuildKit answers there after an upgrade.
    Docker(PathBuf),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no engine: {reason} (local, buildkit://HOST:PORT, unix://PATH, docker://PATH)")]
pub struct InvalidAddress {
    text: String,
    reason: &'static str,
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let invalid = |reason| InvalidAddress { text: text.to_owned(), reason };
        let Some((scheme, rest)) = text.split_once("://") else { return Err(invalid("it names no scheme")) };
        let path = || match rest.starts_with('/') {
            true => Ok(PathBuf::from(rest)),
            false => Err(invalid("the path of a socket begins with /")),
        };
        match scheme {
            // buildctl's word for the same.
            "buildkit" | "tcp" => {
                let (host, port) = match rest.rsplit_once(':') {
                    // The colons of an IPv6 address stand in brackets.
                    Some((host, port)) if !port.ends_with(']') => {
                        (host, port.parse().map_err(|_| invalid("the port is no number"))?)
                    }
                    _ => (rest, PORT),
                };
                let host = host.trim_start_matches('[').trim_end_matches(']');
                if host.is_empty() || host.contains('/') {
                    return Err(invalid("it names no host"));
                }
                Ok(Self::Tcp { host: host.to_owned(), port })
            }
            "unix" => path().map(Self::Unix),
            "docker" => path().map(Self::Docker),
            "docker-container" | "podman-container" | "kube-pod" | "ssh" | "nerdctl-container" => {
                Err(invalid("only sockets are connected to, and no program is started to reach one"))
            }
            _ => Err(invalid("its scheme is not known")),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "buildkit://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "buildkit://{host}:{port}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Docker(path) => write!(f, "docker://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown() {
        let cases = [
            ("buildkit://h:9", "buildkit://h:9"),
            ("buildkit://h", "buildkit://h:1234"),
            ("tcp://10.0.0.1:1", "buildkit://10.0.0.1:1"),
            ("tcp://[::1]:1", "buildkit://[::1]:1"),
            ("tcp://[::1]", "buildkit://[::1]:1234"),
            ("unix:///run/buildkit/buildkitd.sock", "unix:///run/buildkit/buildkitd.sock"),
            ("docker:///var/run/docker.sock", "docker:///var/run/docker.sock"),
        ];
        for (text, shown) in cases {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), shown, "{text}");
        }
        let refused = [
            ("/run/x.sock", "it names no scheme"),
            ("unix://x.sock", "begins with /"),
            ("buildkit://:1", "no host"),
            ("buildkit://h:x", "the port is no number"),
            ("kube-pod://p", "no program is started"),
            ("http://h", "scheme is not known"),
        ];
        for (text, part) in refused {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
