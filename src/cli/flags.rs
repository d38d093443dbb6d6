//! Words of other tools' command lines: values in their forms (sizes, ages, hosts, limits), and flags that have no
//! meaning without a daemon, which are accepted and named in a warning.

use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::base::Platform;

/// For verbs that take one image where a name may stand for several.
#[derive(Debug, Clone, clap::Args)]
pub struct OnePlatform {
    /// Which platform's image, where there are several
    #[arg(long, value_name = "OS/ARCH")]
    pub platform: Option<Platform>,
}

/// Declares a group of flags that are accepted and warned about by name.
macro_rules! ignored_flags {
    ($(#[$doc:meta])* $name:ident { switches: [$($switch:literal),* $(,)?], values: [$($value:literal),* $(,)?] $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default)]
        pub struct $name(pub Vec<String>);

        impl clap::Args for $name {
            fn augment_args(command: clap::Command) -> clap::Command {
                $crate::cli::flags::add_ignored(command, &[$($switch),*], &[$($value),*])
            }

            fn augment_args_for_update(command: clap::Command) -> clap::Command {
                Self::augment_args(command)
            }
        }

        impl clap::FromArgMatches for $name {
            fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
                Ok(Self($crate::cli::flags::given(matches, &[$($switch),*], &[$($value),*])))
            }

            fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
                *self = Self::from_arg_matches(matches)?;
                Ok(())
            }
        }
    };
}
pub(crate) use ignored_flags;

/// The short forms that docker has of such flags.
const SHORT: [(&str, char); 5] =
    [("memory", 'm'), ("cpu-shares", 'c'), ("host", 'H'), ("context", 'c'), ("log-level", 'l')];

pub(crate) fn add_ignored(mut command: Command, switches: &[&'static str], values: &[&'static str]) -> Command {
    for name in switches {
        // `--rm`, `--rm=true` and `--rm=false` are all typed; none changes anything.
        command = command.arg(
            Arg::new(*name)
                .long(*name)
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true")
                .action(ArgAction::Append)
                .hide(true),
        );
    }
    for name in values {
        let short = SHORT.iter().find(|(long, _)| long == name).map(|(_, short)| *short);
        command = command.arg(Arg::new(*name).long(*name).short(short).action(ArgAction::Append).hide(true));
    }
    command
}

pub(crate) fn given(matches: &ArgMatches, switches: &[&str], values: &[&str]) -> Vec<String> {
    switches
        .iter()
        .chain(values)
        .filter(|name| matches.value_source(name) == Some(clap::parser::ValueSource::CommandLine))
        .map(|name| format!("--{name}"))
        .collect()
}

/// `KEY=value`; the value may be empty, the key may not.
pub fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not KEY=VALUE")),
    }
}

/// `KEY=value`, or `KEY` for an empty value: a label, as docker and buildx read it.
pub fn label(text: &str) -> Result<(String, String), String> {
    if text.contains('=') { key_value(text) } else { key_value(&format!("{text}=")) }
}

/// A size as docker/go-units reads it: `64m`, `1.5GB`, `1024`; units are powers of 1024.
pub fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a size, such as 512m or 2GiB");
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(lower.len());
    let number: f64 = lower[..digits].parse().map_err(|_| wrong())?;
    let unit = match lower[digits..].trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        _ => return Err(wrong()),
    };
    let size = number * 1024_f64.powi(unit);
    // Beyond this a float no longer counts single bytes.
    if (0.0..9e15).contains(&size) { Ok(size as u64) } else { Err(wrong()) }
}

/// A length of time as Go writes it: `24h`, `1h30m`, `90s`, and `7d` for people.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a length of time, such as 48h or 30m");
    let mut total = 0.0;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        total += number
            * match &rest[..unit] {
                "ms" => 0.001,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                "d" => 86400.0,
                _ => return Err(wrong()),
            };
        rest = &rest[unit..];
    }
    Duration::try_from_secs_f64(total).map_err(|_| wrong())
}

/// `host:ip` or `host=ip`; the ip may be IPv6, in brackets or not.
pub fn extra_host(text: &str) -> Result<(String, String), String> {
    let wrong = || format!("{text:?} is not HOST:IP");
    let (host, ip) = text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(wrong)?;
    if ip == "host-gateway" {
        return Err(format!("{text:?}: host-gateway has no meaning without a daemon; name the address"));
    }
    let ip = ip.trim_start_matches('[').trim_end_matches(']');
    match ip.parse::<std::net::IpAddr>() {
        Ok(ip) if !host.is_empty() => Ok((host.to_owned(), ip.to_string())),
        _ => Err(wrong()),
    }
}

/// `nofile=1024:2048`, `core=0`; -1 is unlimited.
pub fn ulimit(text: &str) -> Result<(String, u64, u64), String> {
    let wrong = || format!("{text:?} is not NAME=SOFT[:HARD]");
    const NAMES: [&str; 15] = [
        "as",
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "sigpending",
        "stack",
    ];
    let (name, limits) = text.split_once('=').ok_or_else(wrong)?;
    if !NAMES.contains(&name) {
        return Err(format!("{text:?}: limit {name:?} is not known ({})", NAMES.join(", ")));
    }
    let limit = |text: &str| match text {
        "-1" | "unlimited" => Ok(u64::MAX),
        number => number.parse().map_err(|_| wrong()),
    };
    let (soft, hard) = match limits.split_once(':') {
        Some((soft, hard)) => (limit(soft)?, limit(hard)?),
        None => (limit(limits)?, limit(limits)?),
    };
    if soft > hard {
        return Err(format!("{text:?}: the soft limit is above the hard one"));
    }
    Ok((name.to_owned(), soft, hard))
}

/// A network as it is typed.
pub fn network_name(network: crate::exec::Network) -> String {
    match network {
        crate::exec::Network::Host => "host".to_owned(),
        crate::exec::Network::None => "none".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_need_no_value() {
        for (text, key, value) in [("a=b=c", "a", "b=c"), ("a=", "a", ""), ("a", "a", "")] {
            assert_eq!(label(text), Ok((key.to_owned(), value.to_owned())), "{text}");
        }
        for text in ["", "=b"] {
            assert!(label(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_as_docker_reads_them() {
        for (text, expected) in
            [("0", 0), ("1024", 1024), ("64m", 64 << 20), ("1.5GB", 3 << 29), ("2GiB", 2 << 30), ("1 k", 1024)]
        {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for text in ["", "m", "-1", "1x", "1e400"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn lengths_of_time_as_go_writes_them() {
        for (text, seconds) in [("24h", 86400), ("1h30m", 5400), ("90s", 90), ("7d", 604_800), ("0s", 0)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "1", "h", "1y", "1h-3m"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hosts_and_limits() {
        assert_eq!(extra_host("a:1.2.3.4"), Ok(("a".into(), "1.2.3.4".into())));
        assert_eq!(extra_host("a:::1"), Ok(("a".into(), "::1".into())));
        assert_eq!(extra_host("a=[::1]"), Ok(("a".into(), "::1".into())));
        assert!(extra_host("a:b").is_err());
        assert_eq!(ulimit("nofile=1:2"), Ok(("nofile".into(), 1, 2)));
        assert_eq!(ulimit("core=-1"), Ok(("core".into(), u64::MAX, u64::MAX)));
        assert!(ulimit("nofile=2:1").is_err());
        assert!(ulimit("x=1").is_err());
    }
}
