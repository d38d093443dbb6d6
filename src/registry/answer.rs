//! What an answer that is no success means: whether to ask again, when, and what it says.

use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Response, StatusCode};

use super::error::{Error, Refusal, Result, Service};
use super::transport::{Call, Transport, lock};
use super::watch::{Pace, Watch};

/// What an error's body may say at most.
const ERROR_BODY: usize = 64 * 1024;

impl Transport {
    /// The error that an answer is.
    pub fn refusal(&self, response: Response, call: &Call<'_>, watch: Watch<'_>) -> Error {
        let status = response.status().as_u16();
        let limit = rate_limit(response.headers());
        let credentials = match self.host(&call.place.host) {
            // Who answers challenges himself holds the lock, and knows his credentials.
            Ok(host) if call.authorise && matches!(status, 401 | 403 | 404 | 429) => {
                lock(&host.auth).describe(call.repository)
            }
            _ => None,
        };
        let message = match self.body_start(response, watch) {
            Ok(body) => message_of(&body),
            Err(_) => None,
        };
        Error::Refused(Box::new(Refusal {
            service: Service::Registry,
            registry: call.place.host.clone(),
            what: call.what.to_owned(),
            status,
            message,
            credentials,
            limit,
        }))
    }

    fn body_start(&self, mut response: Response, watch: Watch<'_>) -> Result<Vec<u8>> {
        let mut pace = Pace::new();
        let mut body = Vec::new();
        while let Ok(Some(bytes)) = self.chunk(&mut response, &mut pace, watch)? {
            body.extend_from_slice(&bytes);
            if body.len() >= ERROR_BODY {
                body.truncate(ERROR_BODY);
                break;
            }
        }
        Ok(body)
    }
}

pub(super) fn is_retryable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// What Docker Hub and others say about the quota, for the error message.
fn rate_limit(headers: &HeaderMap) -> Option<String> {
    let text = |name: &str| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let remaining = text("ratelimit-remaining").or(text("x-ratelimit-remaining"));
    match (text("ratelimit-limit").or(text("x-ratelimit-limit")), remaining) {
        (None, None) => text("retry-after").map(|wait| format!("try again after {wait}")),
        (limit, remaining) => {
            Some(format!("rate limit {}, remaining {}", limit.unwrap_or("?"), remaining.unwrap_or("?")))
        }
    }
}

/// The server's own words: of the spec's JSON, of a token server's, of S3's XML, or the first line of a text.
pub(super) fn message_of(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let words = match serde_json::from_slice::<serde_json::Value>(body) {
        Ok(json) => {
            let first = json.get("errors").and_then(|errors| errors.get(0)).unwrap_or(&json);
            let field = |name: &str| first.get(name).and_then(|v| v.as_str()).filter(|v| !v.is_empty());
            match (field("code"), field("message").or(field("details")).or(field("error_description"))) {
                (Some(code), Some(message)) => format!("{code}: {message}"),
                (Some(word), None) | (None, Some(word)) => word.to_owned(),
                (None, None) => field("error")?.to_owned(),
            }
        }
        // S3's words; a proxy's page for people helps nobody here.
        Err(_) if text.trim_start().starts_with('<') => {
            let element = |name: &str| {
                let (_, rest) = text.split_once(&format!("<{name}>"))?;
                Some(rest.split_once(&format!("</{name}>"))?.0)
            };
            let code = element("Code")?;
            element("Message").map_or_else(|| code.to_owned(), |message| format!("{code}: {message}"))
        }
        Err(_) => text.lines().map(str::trim).find(|line| !line.is_empty())?.to_owned(),
    };
    // Enough for every message of a real registry, too little to flood a log; no control characters for a terminal.
    Some(words.chars().filter(|c| !c.is_control()).take(300).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_registrys_own_words() {
        let cases: [(&str, Option<&str>); 9] = [
            (
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}}]}"#,
                Some("MANIFEST_UNKNOWN: manifest unknown"),
            ),
            (r#"{"details":"incorrect username or password"}"#, Some("incorrect username or password")),
            (r#"{"error":"invalid_grant"}"#, Some("invalid_grant")),
            ("<html><body>no</body></html>", None),
            (
                "<?xml version=\"1.0\"?>\n<Error><Code>NoSuchKey</Code><Message>It is gone.</Message><Key>x</Key></Error>",
                Some("NoSuchKey: It is gone."),
            ),
            ("\n  too many requests\nsecond line", Some("too many requests")),
            ("\u{1b}[31mred", Some("[31mred")),
            ("", None),
            ("{}", None),
        ];
        for (body, expected) in cases {
            assert_eq!(message_of(body.as_bytes()).as_deref(), expected, "{body}");
        }
    }
}
