//! A bucket and a registry in memory, over [`HostileRegistry`]: what is sent is kept, and every request is known.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::hostile_registry::{HostileRegistry, Reply, Request};

/// By path, without the query.
pub type Objects = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

pub struct Kept {
    pub server: HostileRegistry,
    pub objects: Objects,
}

/// When everything in the bucket was made.
pub const LONG_AGO: &str = "Wed, 21 Oct 2015 07:28:00 GMT";

fn found(objects: &Objects, path: &str) -> Reply {
    match objects.lock().unwrap().get(path) {
        Some(bytes) => Reply::bytes(bytes.clone()).header("Last-Modified", LONG_AGO),
        None => Reply::status(404),
    }
}

impl Kept {
    /// An S3 server that believes every signature.
    pub fn bucket() -> Self {
        Self::start(|objects, request, path| {
            let copied = request.headers.contains_key("x-amz-copy-source");
            match request.method.as_str() {
                "PUT" if copied => Reply::bytes("<CopyObjectResult/>"),
                "PUT" => {
                    objects.lock().unwrap().insert(path, request.body.clone());
                    Reply::status(200)
                }
                _ => found(objects, &path),
            }
        })
    }

    pub fn registry() -> Self {
        Self::start(|objects, request, path| match request.method.as_str() {
            "GET" if path == "/v2/" => Reply::status(200),
            "POST" => Reply::status(202).header("Location", format!("{path}session")),
            "PUT" => {
                let path = match request.path.split_once("/uploads/session?digest=") {
                    Some((folder, digest)) => format!("{folder}/{}", digest.replace("%3A", ":")),
                    None => path,
                };
                objects.lock().unwrap().insert(path, request.body.clone());
                Reply::status(201)
            }
            _ => found(objects, &path).header("Content-Type", "application/vnd.oci.image.manifest.v1+json"),
        })
    }

    fn start(answer: impl Fn(&Objects, &Request, String) -> Reply + Send + Sync + 'static) -> Self {
        let objects = Objects::default();
        let own = objects.clone();
        let server = HostileRegistry::start(move |request, _| {
            let path = request.path.split('?').next().unwrap_or_default().to_owned();
            answer(&own, request, path)
        });
        Self { server, objects }
    }

    /// Requests since the last time, as a method and a path without its query.
    pub fn asked(&self) -> Vec<(String, String)> {
        let asked = std::mem::take(&mut *self.server.asked.lock().unwrap());
        let line = |request: Request| (request.method, request.path.split('?').next().unwrap_or_default().to_owned());
        asked.into_iter().map(line).collect()
    }

    pub fn paths(&self) -> Vec<String> {
        self.objects.lock().unwrap().keys().cloned().collect()
    }
}
