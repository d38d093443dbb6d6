//! `type=s3`: the words are BuildKit's.

use std::time::Duration;

use crate::base::{Env, Secret};
use crate::cli::flags;
use crate::engine::shared::BucketCache;
use crate::registry::{Addressing, AwsKeys, BucketSettings};

/// The spec as typed. BuildKit's defaults are ours.
#[derive(Debug, PartialEq, Eq)]
pub struct BucketSpec {
    bucket: Option<String>,
    settings: BucketSettings,
    key_id: Option<String>,
    secret_key: Option<Secret>,
    session_token: Option<Secret>,
    prefix: String,
    manifests: String,
    blobs: String,
    names: Vec<String>,
    pub refresh: Duration,
    pub at_once: usize,
}

impl Default for BucketSpec {
    fn default() -> Self {
        Self {
            bucket: None,
            settings: BucketSettings::default(),
            key_id: None,
            secret_key: None,
            session_token: None,
            prefix: String::new(),
            manifests: "manifests/".to_owned(),
            blobs: "blobs/".to_owned(),
            names: vec!["buildkit".to_owned()],
            refresh: Duration::from_secs(24 * 3600),
            at_once: 4,
        }
    }
}

impl BucketSpec {
    /// Takes a key of either direction. False for every other.
    pub fn set(&mut self, key: &str, text: &str) -> Result<bool, String> {
        let owned = || text.to_owned();
        match key {
            "bucket" => self.bucket = Some(owned()),
            "region" => self.settings.region = Some(owned()),
            "endpoint_url" => self.settings.endpoint = Some(owned()),
            "use_path_style" => {
                let path = crate::base::csv::switch(key, Some(text))?;
                self.settings.addressing = if path { Addressing::Path } else { Addressing::Host };
            }
            "access_key_id" => self.key_id = Some(owned()),
            "secret_access_key" => self.secret_key = Some(owned().into()),
            "session_token" => self.session_token = Some(owned().into()),
            "prefix" => self.prefix = owned(),
            "manifests_prefix" => self.manifests = owned(),
            "blobs_prefix" => self.blobs = owned(),
            "name" => self.names = text.split(';').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Takes a key that only a cache that is written has.
    pub fn set_written(&mut self, key: &str, text: &str) -> Result<bool, String> {
        match key {
            "touch_refresh" => {
                self.refresh = flags::duration(text).map_err(|reason| format!("touch_refresh: {reason}"))?;
            }
            "upload_parallelism" => match text.parse() {
                Ok(count @ 1..) => self.at_once = count,
                _ => return Err(format!("upload_parallelism={text} is no positive number")),
            },
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub fn cache(self, env: &Env) -> Result<BucketCache, String> {
        let bucket = self.bucket.or_else(|| env.nonempty("AWS_BUCKET").map(str::to_owned));
        let bucket = bucket.ok_or("it has no bucket=, and AWS_BUCKET is not set")?;
        if self.names.is_empty() {
            return Err("name= names nothing".to_owned());
        }
        let keys = match (self.key_id, self.secret_key, self.session_token) {
            (Some(access_key_id), Some(secret_access_key), session_token) => {
                Some(AwsKeys { access_key_id, secret_access_key, session_token })
            }
            (None, None, None) => None,
            _ => return Err("access_key_id and secret_access_key belong together".to_owned()),
        };
        let settings = BucketSettings { keys, ..self.settings };
        let at = |folder: String| format!("{}{folder}", self.prefix);
        let (manifests, blobs) = (at(self.manifests), at(self.blobs));
        Ok(BucketCache { bucket, settings, manifests, blobs, names: self.names })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)], env: &Env) -> Result<BucketCache, String> {
        let mut spec = BucketSpec::default();
        for (key, value) in pairs {
            assert!(spec.set(key, value)?, "{key}");
        }
        spec.cache(env)
    }

    #[test]
    fn a_bucket_is_laid_out_as_buildkit_lays_it_out() {
        let none = Env::of([]);
        let plain = read(&[("bucket", "b")], &none).unwrap();
        assert_eq!(
            (&*plain.manifests, &*plain.blobs, &*plain.names),
            ("manifests/", "blobs/", &["buildkit".to_owned()][..])
        );
        assert_eq!(plain.settings, BucketSettings::default());
        let all = [
            ("prefix", "team/"),
            ("manifests_prefix", "m-"),
            ("blobs_prefix", "b-"),
            ("name", "main;latest"),
            ("endpoint_url", "http://m:9000"),
            ("use_path_style", "true"),
            ("region", "eu-west-1"),
            ("access_key_id", "id"),
            ("secret_access_key", "key"),
            ("session_token", "token"),
        ];
        let env = Env::of([("AWS_BUCKET", "b2")]);
        let cache = read(&all, &env).unwrap();
        assert_eq!((&*cache.bucket, &*cache.manifests, &*cache.blobs), ("b2", "team/m-", "team/b-"));
        assert_eq!(cache.names, ["main", "latest"]);
        assert_eq!(cache.to_string(), "s3://b2/team/m-main;latest");
        let keys = cache.settings.keys.clone().unwrap();
        assert_eq!((keys.access_key_id.as_str(), keys.session_token), ("id", Some(Secret::from("token"))));
        assert_eq!(cache.settings.addressing, Addressing::Path);
    }

    #[test]
    fn half_a_spec_is_refused() {
        let none = Env::of([]);
        for (pairs, reason) in [
            (&[("region", "r")][..], "it has no bucket=, and AWS_BUCKET is not set"),
            (&[("bucket", "b"), ("access_key_id", "i")], "access_key_id and secret_access_key belong together"),
            (&[("bucket", "b"), ("name", ";")], "name= names nothing"),
        ] {
            assert_eq!(read(pairs, &none).unwrap_err(), reason);
        }
        let mut spec = BucketSpec::default();
        assert_eq!(
            spec.set_written("upload_parallelism", "0").unwrap_err(),
            "upload_parallelism=0 is no positive number"
        );
        assert!(spec.set_written("touch_refresh", "1h").unwrap());
        assert_eq!(spec.refresh, Duration::from_secs(3600));
        assert!(!spec.set_written("mode", "max").unwrap());
    }
}
