//! S3 buckets: one object in, one object out, for pipelines that have no registry, and the blobs of step caches. The
//! same transport as registries have; rusty-s3 makes and signs the requests.

mod shelf;
mod status;
mod transfer;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, Response};
use rusty_s3::{Credentials, S3Action, UrlStyle};
use url::Url;

use super::config::Place;
use super::ecr::AwsKeys;
use super::error::{Error, Result, Service};
use super::transport::{Call, Transport, authority};
use super::watch::Watch;
use super::{Limits, Registry};
use crate::base::Env;

pub use shelf::Shelf;
pub use status::Held;

/// Where a bucket is when nobody says: as Amazon's own tools have it.
const DEFAULT_REGION: &str = "us-east-1";
/// A signed request is good for this long: longer than all tries of one of them.
const SIGNED_FOR: Duration = Duration::from_secs(3600);

/// `s3://BUCKET/KEY`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectAddress {
    bucket: String,
    key: String,
}

impl ObjectAddress {
    pub fn new(bucket: impl Into<String>, key: impl Into<String>) -> Self {
        Self { bucket: bucket.into(), key: key.into() }
    }

    /// Whether a text is meant to be one.
    pub fn is_meant(text: &str) -> bool {
        text.starts_with("s3://")
    }

    pub fn key(&self) -> &str {
        &self.key
    }
}

impl FromStr for ObjectAddress {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts = text.strip_prefix("s3://").and_then(|rest| rest.split_once('/'));
        match parts {
            Some((bucket, key)) if !bucket.is_empty() && !key.is_empty() && !key.ends_with('/') => {
                Ok(Self { bucket: bucket.to_owned(), key: key.to_owned() })
            }
            _ => Err(Error::Config { place: text.to_owned(), reason: "is not s3://BUCKET/KEY".to_owned() }),
        }
    }
}

impl fmt::Display for ObjectAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.key)
    }
}

/// How a bucket stands in an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Addressing {
    /// As its server has it: Amazon's in the host name, all others' in the path.
    #[default]
    Auto,
    Path,
    Host,
}

/// What flags say of a bucket; what they do not say is in the environment, under the names that Amazon's tools read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BucketSettings {
    /// `https://minio.example:9000`; none: Amazon's of the region.
    pub endpoint: Option<String>,
    pub region: Option<String>,
    pub addressing: Addressing,
    pub keys: Option<AwsKeys>,
}

/// One object of a bucket, there or not.
pub struct Object {
    address: ObjectAddress,
    transport: Arc<Transport>,
    limits: Limits,
    place: Place,
    bucket: rusty_s3::Bucket,
    credentials: Option<Credentials>,
    /// For errors: where the credentials are from.
    source: String,
}

impl Registry {
    pub fn object(&self, address: &ObjectAddress, settings: &BucketSettings, env: &Env) -> Result<Object> {
        let given = |names: [&str; 2]| names.into_iter().find_map(|name| env.nonempty(name)).map(str::to_owned);
        let region = settings.region.clone().or_else(|| given(["AWS_REGION", "AWS_DEFAULT_REGION"]));
        let region = region.unwrap_or_else(|| DEFAULT_REGION.to_owned());
        let endpoint = settings.endpoint.clone().or_else(|| given(["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]));
        let wrong = |endpoint: &str, reason: String| Error::Config { place: format!("endpoint {endpoint}"), reason };
        let amazons = match region.starts_with("cn-") {
            true => format!("https://s3.{region}.amazonaws.com.cn"),
            false => format!("https://s3.{region}.amazonaws.com"),
        };
        let style = match settings.addressing {
            Addressing::Path => UrlStyle::Path,
            Addressing::Host => UrlStyle::VirtualHost,
            // Amazon's certificate is for one label before its name.
            Addressing::Auto if endpoint.is_none() && !address.bucket.contains('.') => UrlStyle::VirtualHost,
            Addressing::Auto => UrlStyle::Path,
        };
        let endpoint = endpoint.unwrap_or(amazons);
        let url = Url::parse(&endpoint).map_err(|error| wrong(&endpoint, error.to_string()))?;
        let bucket = rusty_s3::Bucket::new(url, style, address.bucket.clone(), region)
            .map_err(|error| wrong(&endpoint, error.to_string()))?;
        let (keys, from) = match &settings.keys {
            Some(keys) => (Some(keys.clone()), "the command line"),
            None => (AwsKeys::of_env(env), "the environment"),
        };
        let source = match &keys {
            Some(keys) => format!("access key {} of {from}", keys.access_key_id),
            None => "no access keys: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set".to_owned(),
        };
        let credentials = keys.map(|keys| credentials(&keys)).transpose()?;
        let host = authority(&bucket.object_url(&address.key));
        Ok(Object {
            address: address.clone(),
            transport: Arc::clone(&self.0),
            limits: self.1,
            place: Place { host, scheme: None, prefix: String::new() },
            bucket,
            credentials,
            source,
        })
    }
}

fn credentials(keys: &AwsKeys) -> Result<Credentials> {
    let text = |secret: &crate::base::Secret| {
        let text = secret.expose_str().map(str::to_owned);
        text.ok_or_else(|| Error::Credential { registry: "S3".to_owned(), reason: "they are not UTF-8".to_owned() })
    };
    let (id, secret) = (keys.access_key_id.clone(), text(&keys.secret_access_key)?);
    Ok(match &keys.session_token {
        Some(token) => Credentials::new_with_token(id, secret, text(token)?),
        None => Credentials::new(id, secret),
    })
}

impl Object {
    pub fn address(&self) -> &ObjectAddress {
        &self.address
    }

    /// A request that rusty-s3 described, signed. Its address is a secret: whoever has it may do what it says.
    fn call<'a, A: S3Action<'a>>(&'a self, action: &A, what: &'a str) -> Call<'a> {
        let tries = self.transport.patience.tries;
        let method = Method::from_bytes(A::METHOD.to_str().as_bytes()).unwrap_or(Method::GET);
        Call { method, ..Call::outside(&self.place, action.sign(SIGNED_FOR), what, tries) }
    }

    fn send(&self, call: &Call<'_>, watch: Watch<'_>) -> Result<Response> {
        let response = self.transport.send(call, watch)?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.explained(self.transport.refusal(response, call, watch)))
    }

    /// An error with what is known of the bucket's credentials.
    fn explained(&self, mut error: Error) -> Error {
        if let Error::Refused(refusal) = &mut error {
            refusal.service = Service::Bucket;
            refusal.credentials = Some(self.source.clone());
        }
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Settings;

    #[test]
    fn an_address_names_a_bucket_and_a_key() {
        let parsed: ObjectAddress = "s3://images/app/app-1.tgz".parse().unwrap();
        assert_eq!((parsed.bucket.as_str(), parsed.key.as_str()), ("images", "app/app-1.tgz"));
        assert_eq!(parsed.to_string(), "s3://images/app/app-1.tgz");
        for text in ["s3://images", "s3://images/", "s3:///x", "s3://images/app/", "images/x"] {
            let error = text.parse::<ObjectAddress>().unwrap_err().to_string();
            assert_eq!(error, format!("{text}: is not s3://BUCKET/KEY"));
        }
    }

    #[test]
    fn a_bucket_is_where_flags_say_and_else_the_environment() {
        let flags = |endpoint: Option<&str>, region: Option<&str>, addressing| BucketSettings {
            endpoint: endpoint.map(str::to_owned),
            region: region.map(str::to_owned),
            addressing,
            keys: None,
        };
        type Vars = &'static [(&'static str, &'static str)];
        let cases: &[(&str, BucketSettings, Vars, &str)] = &[
            ("b", BucketSettings::default(), &[], "https://b.s3.us-east-1.amazonaws.com/k"),
            ("b", BucketSettings::default(), &[("AWS_REGION", "eu-west-1")], "https://b.s3.eu-west-1.amazonaws.com/k"),
            ("b", flags(None, Some("cn-north-1"), Addressing::Auto), &[], "https://b.s3.cn-north-1.amazonaws.com.cn/k"),
            ("b.c", BucketSettings::default(), &[], "https://s3.us-east-1.amazonaws.com/b.c/k"),
            ("b", BucketSettings::default(), &[("AWS_ENDPOINT_URL", "http://m:9000")], "http://m:9000/b/k"),
            (
                "b",
                flags(Some("https://f"), None, Addressing::Host),
                &[("AWS_ENDPOINT_URL_S3", "http://m:9000")],
                "https://b.f/k",
            ),
            ("b", flags(None, None, Addressing::Path), &[], "https://s3.us-east-1.amazonaws.com/b/k"),
        ];
        for (bucket, settings, vars, expected) in cases {
            let env = Env::of(vars.iter().copied());
            let registry = Registry::new(&env, Settings::default()).unwrap();
            let address = format!("s3://{bucket}/k").parse().unwrap();
            let object = registry.object(&address, settings, &env).unwrap();
            assert_eq!(object.bucket.object_url("k").as_str(), *expected);
        }
        let registry = Registry::new(&Env::of([]), Settings::default()).unwrap();
        let error =
            registry.object(&"s3://b/k".parse().unwrap(), &flags(Some("x"), None, Addressing::Auto), &Env::of([]));
        assert_eq!(error.err().unwrap().to_string(), "endpoint x: relative URL without a base");
    }
}
