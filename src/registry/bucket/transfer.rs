//! An object up, whole or in parts, and down.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, ETAG, HeaderValue};
use reqwest::{Body, Response};
use rusty_s3::actions::{CompleteMultipartUploadResponse, CreateMultipartUpload};

use super::Object;
use crate::base::Cancel;
use crate::base::progress::{Counter, Step};
use crate::registry::answer::message_of;
use crate::registry::error::{Error, Result};
use crate::registry::pull::in_parallel;
use crate::registry::transport::{Call, lock};
use crate::registry::watch::Watch;

/// Held in memory while it is sent, once for each part on its way. S3 wants at least 5 MiB, but for the last.
const PART: u64 = 8 << 20;
/// S3's limit.
const MOST_PARTS: u64 = 10_000;
/// What S3 says about an upload is a few lines.
const ANSWER: u64 = 1 << 20;

impl Object {
    /// Sends a file. Ok means that the object is there whole; an error, that it is as it was before.
    pub fn upload(&self, file: &File, step: &Step, cancel: &Cancel) -> Result<()> {
        let size = file.metadata().map_err(|error| self.unreadable(&error))?.len();
        let counter = Mutex::new(step.counter(self.address.to_string(), size));
        let watch = Watch::new(cancel);
        if size <= PART {
            let what = format!("put {}", self.address);
            let action = self.bucket.put_object(self.credentials.as_ref(), &self.address.key);
            let call = self.call(&action, &what);
            self.send_bytes(call, file, 0, size, &counter, watch)?;
            return Ok(());
        }
        let upload = self.begin(watch)?;
        let part = PART.max(size.div_ceil(MOST_PARTS));
        let done = self
            .send_parts(&upload, file, size, part, &counter, cancel)
            .and_then(|tags| self.complete(&upload, &tags, watch));
        if done.is_err()
            && let Err(error) = self.abort(&upload)
        {
            tracing::warn!("{error}; parts of it may be left in the bucket");
        }
        done
    }

    /// Gets the object into `sink`; says how many bytes it has.
    pub fn download(
        &self,
        sink: &mut dyn FnMut(&[u8]) -> std::io::Result<()>,
        step: &Step,
        cancel: &Cancel,
    ) -> Result<u64> {
        let what = format!("get {}", self.address);
        let action = self.bucket.get_object(self.credentials.as_ref(), &self.address.key);
        let mut counter = step.counter(self.address.to_string(), 0);
        let call = self.call(&action, &what);
        let got = self.transport.download(call, None, Watch::new(cancel), &mut |bytes| {
            sink(bytes).map_err(|source| crate::store::Error::Io { path: self.address.to_string(), source })?;
            counter.add(bytes.len() as u64);
            Ok(())
        });
        got.map_err(|error| self.explained(error))
    }

    fn begin(&self, watch: Watch<'_>) -> Result<String> {
        let what = format!("begin {}", self.address);
        let action = self.bucket.create_multipart_upload(self.credentials.as_ref(), &self.address.key);
        let mut call = self.call(&action, &what);
        // Some proxies refuse a POST without a length.
        call.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        let text = self.text(self.send(&call, watch)?, &what, watch)?;
        match CreateMultipartUpload::parse_response(&text) {
            Ok(answer) => Ok(answer.upload_id().to_owned()),
            Err(error) => Err(self.invalid(&what, error.to_string())),
        }
    }

    /// Entity tags in the order of the parts.
    fn send_parts(
        &self,
        upload: &str,
        file: &File,
        size: u64,
        part: u64,
        counter: &Mutex<Counter>,
        cancel: &Cancel,
    ) -> Result<Vec<String>> {
        let numbers: Vec<u16> = (1..).take_while(|number| u64::from(number - 1) * part < size).collect();
        let tags: Mutex<Vec<String>> = Mutex::new(vec![String::new(); numbers.len()]);
        in_parallel(&numbers, self.limits.uploads, cancel, |&number, watch| {
            let what = format!("put part {number} of {}", self.address);
            let start = u64::from(number - 1) * part;
            let action = self.bucket.upload_part(self.credentials.as_ref(), &self.address.key, number, upload);
            let call = self.call(&action, &what);
            let response = self.send_bytes(call, file, start, part.min(size - start), counter, watch)?;
            let tag = response.headers().get(ETAG).and_then(|tag| tag.to_str().ok());
            let tag = tag.ok_or_else(|| self.invalid(&what, "was answered without an entity tag".to_owned()))?;
            tag.clone_into(&mut lock(&tags)[usize::from(number) - 1]);
            Ok(())
        })?;
        Ok(tags.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    fn send_bytes(
        &self,
        call: Call<'_>,
        file: &File,
        start: u64,
        length: u64,
        counter: &Mutex<Counter>,
        watch: Watch<'_>,
    ) -> Result<Response> {
        // A part is sent as one piece: what tells that it moves is that it ends.
        let sent = AtomicU64::new(0);
        let body = || {
            let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
            file.read_exact_at(&mut bytes, start).map_err(|error| self.unreadable(&error))?;
            Ok(Body::from(Bytes::from(bytes)))
        };
        let response = self.send(&Call { body: Some(&body), sent: Some(&sent), ..call }, watch)?;
        lock(counter).add(length);
        Ok(response)
    }

    fn complete(&self, upload: &str, tags: &[String], watch: Watch<'_>) -> Result<()> {
        let what = format!("complete {}", self.address);
        let tags = tags.iter().map(String::as_str);
        let action = self.bucket.complete_multipart_upload(self.credentials.as_ref(), &self.address.key, upload, tags);
        let mut call = self.call(&action, &what);
        let list = action.body();
        let body = || Ok(Body::from(list.clone()));
        call.body = Some(&body);
        let text = self.text(self.send(&call, watch)?, &what, watch)?;
        // S3 begins its answer before it knows how it will end.
        match CompleteMultipartUploadResponse::parse(&text) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.invalid(&what, message_of(text.as_bytes()).unwrap_or_else(|| error.to_string()))),
        }
    }

    /// Takes back an upload: parts that nobody completes are kept, and paid for.
    fn abort(&self, upload: &str) -> Result<()> {
        let what = format!("abort {}", self.address);
        let action = self.bucket.abort_multipart_upload(self.credentials.as_ref(), &self.address.key, upload);
        // Work that was told to stop must still clean up, but not for long.
        let cancel = Cancel::new();
        self.send(&Call { tries: 1, ..self.call(&action, &what) }, Watch::new(&cancel))?;
        Ok(())
    }

    pub(super) fn text(&self, response: Response, what: &str, watch: Watch<'_>) -> Result<String> {
        let bytes = self.transport.body(response, ANSWER, watch)?.map_err(|reason| self.invalid(what, reason))?;
        String::from_utf8(bytes).map_err(|error| self.invalid(what, error.to_string()))
    }

    pub(super) fn invalid(&self, what: &str, reason: String) -> Error {
        Error::Invalid { registry: self.place.host.clone(), what: what.to_owned(), reason }
    }

    fn unreadable(&self, error: &std::io::Error) -> Error {
        Error::Config { place: format!("the file for {}", self.address), reason: error.to_string() }
    }
}
