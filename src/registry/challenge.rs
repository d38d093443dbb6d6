//! What a registry asks for in `WWW-Authenticate`.

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// The scheme to answer with; Bearer before Basic where a registry offers both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

impl Challenge {
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut basic = None;
        for value in headers.get_all(WWW_AUTHENTICATE) {
            let Ok(text) = value.to_str() else { continue };
            match parse(text) {
                Some(bearer @ Self::Bearer { .. }) => return Some(bearer),
                Some(other) => basic = Some(other),
                None => {}
            }
        }
        basic
    }
}

fn parse(text: &str) -> Option<Challenge> {
    let mut basic = None;
    for challenge in http_auth::parse_challenges(text).ok()? {
        let param = |name: &str| {
            let (_, value) = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?;
            Some(value.to_unescaped()).filter(|value| !value.is_empty())
        };
        if challenge.scheme.eq_ignore_ascii_case("bearer") {
            if let Some(realm) = param("realm") {
                return Some(Challenge::Bearer { realm, service: param("service"), scope: param("scope") });
            }
        } else if challenge.scheme.eq_ignore_ascii_case("basic") {
            basic = Some(Challenge::Basic);
        }
    }
    basic
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer {
            realm: realm.into(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        })
    }

    #[test]
    fn reads_what_registries_send() {
        let cases = [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
                bearer("https://auth.docker.io/token", Some("registry.docker.io"), Some("repository:a/b:pull,push")),
            ),
            (r#"bearer REALM="https://x/t""#, bearer("https://x/t", None, None)),
            (r#"Basic realm="x""#, Some(Challenge::Basic)),
            (r#"Basic realm="x", Bearer realm="https://y""#, bearer("https://y", None, None)),
            (r#"Bearer service="without a realm""#, None),
            (r#"Digest realm="x", nonce="y""#, None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_header_makes_it_fall_over(text in "\\PC{0,200}") {
            let _ = parse(&text);
        }
    }
}
