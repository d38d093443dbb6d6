//! Long bodies: asked for again from where they broke, bounded, watched for a peer that drips.

use reqwest::StatusCode;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, IF_MATCH, RANGE};

use super::error::{Error, Result};
use super::transport::{Call, Transport};
use super::watch::{Pace, Watch};

impl Transport {
    /// Gets a whole body, of `size` bytes where that is known before. Returns how many there were. `call.tries` counts
    /// the failures in a row without a new byte.
    ///
    /// Where the size is not known, nobody knows the content either: then a body that breaks is only gone on with while
    /// its entity tag stays the same.
    pub(super) fn download(
        &self,
        mut call: Call<'_>,
        mut size: Option<u64>,
        watch: Watch<'_>,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<u64> {
        let tries = call.tries;
        let pinned = size.is_none();
        let (host, what) = (call.place.host.clone(), call.what.to_owned());
        let invalid = |reason: String| Error::Invalid { registry: host.clone(), what: what.clone(), reason };
        let mut at = 0;
        let mut failures = 0;
        loop {
            if at > 0
                && let Ok(range) = format!("bytes={at}-").parse()
            {
                call.headers.insert(RANGE, range);
            }
            call.tries = tries.saturating_sub(failures);
            let mut response = self.send(&call, watch)?;
            // Bytes that come again because the server knows no ranges.
            let mut skip = match response.status() {
                StatusCode::OK => at,
                StatusCode::PARTIAL_CONTENT if at > 0 && range_start(response.headers()) == Some(at) => 0,
                StatusCode::PARTIAL_CONTENT => {
                    return Err(invalid("answers another range than was asked for".to_owned()));
                }
                _ => return Err(self.refusal(response, &call, watch)),
            };
            if at == 0 && pinned {
                size = header(response.headers(), CONTENT_LENGTH.as_str()).and_then(|length| length.parse().ok());
                if let Some(tag) = response.headers().get(ETAG) {
                    call.headers.insert(IF_MATCH, tag.clone());
                }
            }
            let mut pace = Pace::new();
            let before = at;
            let broken = loop {
                match self.chunk(&mut response, &mut pace, watch)? {
                    Ok(Some(bytes)) => {
                        let again = skip.min(bytes.len() as u64) as usize;
                        skip -= again as u64;
                        let bytes = &bytes[again..];
                        at += bytes.len() as u64;
                        if let Some(size) = size.filter(|size| at > *size) {
                            return Err(invalid(format!("is longer than the {size} bytes that were told")));
                        }
                        sink(bytes)?;
                    }
                    Ok(None) if size.is_none_or(|size| at == size) => break None,
                    Ok(None) => break Some(format!("ended after {at} of {} bytes", size.unwrap_or_default())),
                    Err(reason) => break Some(reason),
                }
            };
            let Some(reason) = broken else { return Ok(at) };
            failures = if at > before { 1 } else { failures + 1 };
            if failures >= tries {
                return Err(Error::Unreachable { registry: host, what, cause: reason });
            }
            watch.sleep(self.backoff(failures))?;
        }
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn range_start(headers: &HeaderMap) -> Option<u64> {
    header(headers, CONTENT_RANGE.as_str())?.strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok()
}
