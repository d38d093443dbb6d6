//! What is known of an object without getting it, and making it as good as new.

use std::time::SystemTime;

use reqwest::StatusCode;
use reqwest::header::{CONTENT_LENGTH, HeaderName, HeaderValue, LAST_MODIFIED};
use rusty_s3::S3Action as _;

use super::Object;
use crate::base::Cancel;
use crate::registry::error::Result;
use crate::registry::watch::Watch;

/// S3 copies no more in one request.
const MOST_COPIED: u64 = 5 << 30;

/// An object that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    pub bytes: Option<u64>,
    pub modified: Option<SystemTime>,
}

impl Object {
    /// None where it is not there.
    pub fn status(&self, cancel: &Cancel) -> Result<Option<Held>> {
        let what = format!("look at {}", self.address);
        let watch = Watch::new(cancel);
        let action = self.bucket.head_object(self.credentials.as_ref(), &self.address.key);
        let call = self.call(&action, &what);
        let response = self.transport.send(&call, watch)?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        if !response.status().is_success() {
            return Err(self.explained(self.transport.refusal(response, &call, watch)));
        }
        let header = |name: HeaderName| response.headers().get(name).and_then(|value| value.to_str().ok());
        Ok(Some(Held {
            bytes: header(CONTENT_LENGTH).and_then(|length| length.parse().ok()),
            modified: header(LAST_MODIFIED).and_then(date),
        }))
    }

    /// Copies the object onto itself: rules that remove what is old count from now. One that is too large for it stays
    /// as it is.
    pub fn touch(&self, held: &Held, cancel: &Cancel) -> Result<()> {
        if held.bytes.is_none_or(|bytes| bytes > MOST_COPIED) {
            return Ok(());
        }
        let what = format!("renew {}", self.address);
        let source = format!("/{}/{}", self.bucket.name(), escaped(&self.address.key));
        let mut action = self.bucket.put_object(self.credentials.as_ref(), &self.address.key);
        // Without a change to it, S3 refuses to copy an object onto itself.
        let headers = [("x-amz-copy-source", source.as_str()), ("x-amz-metadata-directive", "REPLACE")];
        for (name, value) in headers {
            action.headers_mut().insert(name, value);
        }
        let mut call = self.call(&action, &what);
        for (name, value) in headers {
            let value = HeaderValue::from_str(value).map_err(|error| self.invalid(&what, error.to_string()))?;
            call.headers.insert(HeaderName::from_static(name), value);
        }
        call.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        let watch = Watch::new(cancel);
        // S3 begins its answer before it knows how it will end.
        let text = self.text(self.send(&call, watch)?, &what, watch)?;
        match text.contains("<Error>") {
            true => Err(self.invalid(&what, text)),
            false => Ok(()),
        }
    }
}

/// `Wed, 21 Oct 2015 07:28:00 GMT`
fn date(text: &str) -> Option<SystemTime> {
    jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok().map(SystemTime::from)
}

/// A key as it stands in an address, its slashes as they are.
fn escaped(key: &str) -> String {
    let mut text = String::with_capacity(key.len());
    for byte in key.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => text.push(char::from(byte)),
            other => text.push_str(&format!("%{other:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_escaped_and_dates_are_read() {
        assert_eq!(escaped("blobs/sha256:ab c"), "blobs/sha256%3Aab%20c");
        let seconds = |text| date(text)?.duration_since(std::time::UNIX_EPOCH).ok().map(|since| since.as_secs());
        assert_eq!(seconds("Wed, 21 Oct 2015 07:28:00 GMT"), Some(1_445_412_480));
        assert_eq!(seconds("yesterday"), None);
    }
}
