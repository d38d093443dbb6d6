//! EXPOSE: `80`, `80-90/udp`, and the mappings that were never meant to be here.

use std::net::IpAddr;

use super::Planner;
use super::stage::StageState;
use crate::frontend::error::{Error, Result};
use crate::frontend::go::{self, quote};
use crate::frontend::instruction::Step;
use crate::frontend::lint::rules;

impl Planner<'_> {
    pub fn expose(&mut self, state: &mut StageState, step: &Step, ports: &[String]) -> Result<()> {
        let place = self.source.place(step.lines.clone());
        let mut exposed = Vec::new();
        for word in ports {
            let expansion = self.lexer.expand(word, &state.env).map_err(|m| Error::new(m).at_word(&place, word))?;
            self.spend(expansion.text.len())?;
            for port in &expansion.words {
                let spec = parse(port).map_err(|m| Error::new(m).at_word(&place, port))?;
                if spec.protocol != spec.protocol.to_lowercase() {
                    state.linter.report(&rules::EXPOSE_PROTO_CASING, &step.lines, || {
                        format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase")
                    });
                }
                if spec.mapped {
                    state.linter.report(&rules::EXPOSE_INVALID_FORMAT, &step.lines, || {
                        format!(
                            "EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
                        )
                    });
                }
                let protocol = spec.protocol.to_lowercase();
                exposed.extend((spec.first..=spec.last).map(|n| format!("{n}/{protocol}")));
                // Ten ranges over all ports say nothing that one does not.
                if exposed.len() > 10 * 65536 {
                    return Err(Error::new("EXPOSE names more than 655360 ports"));
                }
            }
        }
        for port in &exposed {
            state.image.config.exposed_ports.insert(port.clone(), serde_json::json!({}));
        }
        self.note(state, format!("EXPOSE {}", go::list(&exposed)));
        Ok(())
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Spec {
    first: u16,
    last: u16,
    /// As it was typed.
    protocol: String,
    /// An address or a port of the host was given.
    mapped: bool,
}

/// Reads `[[address:]host:]port[-port][/protocol]`.
fn parse(text: &str) -> Result<Spec, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (address, host, container) = match &parts[..] {
        [port] => (String::new(), "", *port),
        [host, port] => (String::new(), *host, *port),
        [address @ .., host, port] => (address.join(":"), *host, *port),
        [] => (String::new(), "", ""),
    };
    let invalid = |what: &str| format!("invalid port: {}: {what}", quote(text));
    let (ports, protocol) = container.split_once('/').unwrap_or((container, ""));
    if ports.is_empty() {
        return Err(invalid("no port specified"));
    }
    let protocol = match protocol.to_lowercase().as_str() {
        "" => "tcp",
        "tcp" | "udp" | "sctp" => protocol,
        _ => return Err(invalid(&format!("invalid proto: {protocol}"))),
    };
    if !address.is_empty() {
        let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(&address);
        if bare.parse::<IpAddr>().is_err() {
            return Err(format!("invalid IP address: {address}"));
        }
    }
    let (first, last) = range(ports).ok_or_else(|| format!("invalid containerPort: {ports}"))?;
    if !host.is_empty() {
        let (host_first, host_last) = range(host).ok_or_else(|| format!("invalid hostPort: {host}"))?;
        if last - first != host_last - host_first && last != first {
            return Err(format!("invalid ranges specified for container and host Ports: {ports} and {host}"));
        }
    }
    Ok(Spec { first, last, protocol: protocol.to_owned(), mapped: !address.is_empty() || !host.is_empty() })
}

fn range(text: &str) -> Option<(u16, u16)> {
    let port = |text: &str| u16::try_from(go::parse_int(text, 64)?).ok();
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_ports_ranges_and_mappings() {
        let spec = |first, last, protocol: &str, mapped| Spec { first, last, protocol: protocol.into(), mapped };
        let cases = [
            ("80", spec(80, 80, "tcp", false)),
            ("80/UDP", spec(80, 80, "UDP", false)),
            ("8000-8002/sctp", spec(8000, 8002, "sctp", false)),
            ("8080:80", spec(80, 80, "tcp", true)),
            ("127.0.0.1:8080-8090:80", spec(80, 80, "tcp", true)),
            ("[::1]::80", spec(80, 80, "tcp", true)),
            ("0", spec(0, 0, "tcp", false)),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn refuses_with_the_reason() {
        let cases = [
            ("", "invalid port: \"\": no port specified"),
            ("80/foo", "invalid port: \"80/foo\": invalid proto: foo"),
            ("abc", "invalid containerPort: abc"),
            ("65536", "invalid containerPort: 65536"),
            ("90-80", "invalid containerPort: 90-80"),
            ("x:1:80", "invalid IP address: x"),
            ("y:80", "invalid hostPort: y"),
            ("1-3:80-81", "invalid ranges specified for container and host Ports: 80-81 and 1-3"),
        ];
        for (text, message) in cases {
            assert_eq!(parse(text).unwrap_err(), message, "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "[0-9:/\\-\\[\\]a-z]{0,20}") {
            let _ = parse(&text);
        }
    }
}
