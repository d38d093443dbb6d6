//! Amazon's registries without a helper: access keys become a password through `GetAuthorizationToken`.

use base64::Engine as _;
use jiff::Timestamp;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Body, Method, StatusCode};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use url::Url;

use super::Credential;
use super::config::Place;
use super::error::{Error, Result};
use super::keychain::{Found, Search};
use super::transport::{Call, Transport, authority};
use super::watch::Watch;
use crate::base::{Env, Secret};

const TARGET: &str = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken";
const ANSWER: u64 = 1024 * 1024;

/// Access keys for Amazon's registries and buckets, from flags, a resource's source or the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsKeys {
    pub access_key_id: String,
    pub secret_access_key: Secret,
    pub session_token: Option<Secret>,
}

impl AwsKeys {
    pub(super) fn of_env(env: &Env) -> Option<Self> {
        Some(Self {
            access_key_id: env.nonempty("AWS_ACCESS_KEY_ID")?.to_owned(),
            secret_access_key: Secret::from(env.nonempty("AWS_SECRET_ACCESS_KEY")?),
            session_token: env.nonempty("AWS_SESSION_TOKEN").map(Secret::from),
        })
    }
}

/// The region of an ECR host: `ACCOUNT.dkr.ecr.REGION.amazonaws.com`, in China with `.cn`.
pub fn region(host: &str) -> Option<&str> {
    let (account, rest) = host.split_once(".dkr.ecr.")?;
    let region = rest.strip_suffix(".cn").unwrap_or(rest).strip_suffix(".amazonaws.com")?;
    let word = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    (word(account) && word(region)).then_some(region)
}

impl Transport {
    /// Asks a cloud for the password of its own registry, where keys for it are at hand.
    pub(super) fn find_cloud_credential(&self, registry: &str, search: &mut Search, watch: Watch<'_>) -> Result<()> {
        let Some(region) = region(registry) else { return Ok(()) };
        let Some(keys) = &self.aws else {
            search.tried.push("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY".to_owned());
            return Ok(());
        };
        let failed = |reason: String| Error::Credential {
            registry: registry.to_owned(),
            reason: format!("failed to get ECR credentials: {reason}"),
        };
        let address = match &self.aws_endpoint {
            Some(endpoint) => endpoint.clone(),
            None if registry.ends_with(".cn") => format!("https://api.ecr.{region}.amazonaws.com.cn/"),
            None => format!("https://api.ecr.{region}.amazonaws.com/"),
        };
        let url = Url::parse(&address).map_err(|error| failed(format!("{address}: {error}")))?;
        let place = Place { host: authority(&url), scheme: None, prefix: String::new() };
        let body = "{}";
        let signed = Signed { keys, region, host: &place.host, path: url.path(), body, time: Timestamp::now() };
        let headers = signed
            .headers()
            .ok_or_else(|| failed("the access keys hold characters that no header can carry".to_owned()))?;
        let make_body = || Ok(Body::from(body));
        let call = Call {
            method: Method::POST,
            headers,
            body: Some(&make_body),
            ..Call::outside(&place, url, "get ECR credentials", self.patience.tries)
        };
        let response = self.send(&call, watch)?;
        if response.status() != StatusCode::OK {
            return Err(failed(self.refusal(response, &call, watch).to_string()));
        }
        let bytes = self.body(response, ANSWER, watch)?.map_err(failed)?;
        let password = parse_answer(&bytes).ok_or_else(|| failed("the answer holds no token".to_owned()))?;
        search.found =
            Some(Found { credential: password, source: format!("ECR, by access key {}", keys.access_key_id) });
        Ok(())
    }
}

fn parse_answer(bytes: &[u8]) -> Option<Credential> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer {
        authorization_data: Vec<Data>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Data {
        authorization_token: String,
    }
    let answer: Answer = serde_json::from_slice(bytes).ok()?;
    let token = &answer.authorization_data.first()?.authorization_token;
    let pair = String::from_utf8(base64::engine::general_purpose::STANDARD.decode(token).ok()?).ok()?;
    let (user, password) = pair.split_once(':')?;
    Some(Credential::Password { user: user.to_owned(), password: Secret::from(password) })
}

/// A POST to ECR, to be signed by AWS's Signature Version 4.
struct Signed<'a> {
    keys: &'a AwsKeys,
    region: &'a str,
    host: &'a str,
    path: &'a str,
    body: &'a str,
    time: Timestamp,
}

impl Signed<'_> {
    fn headers(&self) -> Option<HeaderMap> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-amz-json-1.1"));
        headers.insert("x-amz-target", HeaderValue::from_static(TARGET));
        headers.insert("x-amz-date", self.date("%Y%m%dT%H%M%SZ").parse().ok()?);
        if let Some(token) = &self.keys.session_token {
            let mut token = HeaderValue::from_bytes(token.expose()).ok()?;
            token.set_sensitive(true);
            headers.insert("x-amz-security-token", token);
        }
        let mut authorization = HeaderValue::from_str(&self.authorization()).ok()?;
        authorization.set_sensitive(true);
        headers.insert(AUTHORIZATION, authorization);
        Some(headers)
    }

    fn date(&self, format: &str) -> String {
        self.time.strftime(format).to_string()
    }

    fn authorization(&self) -> String {
        let time = self.date("%Y%m%dT%H%M%SZ");
        let scope = format!("{}/{}/ecr/aws4_request", self.date("%Y%m%d"), self.region);
        let mut fields = vec![
            ("content-type", "application/x-amz-json-1.1".to_owned()),
            ("host", self.host.to_owned()),
            ("x-amz-date", time.clone()),
        ];
        if let Some(token) = &self.keys.session_token {
            fields.push(("x-amz-security-token", String::from_utf8_lossy(token.expose()).into_owned()));
        }
        fields.push(("x-amz-target", TARGET.to_owned()));
        let signed: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
        let signed = signed.join(";");
        let lines: String = fields.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let request = format!("POST\n{}\n\n{lines}\n{signed}\n{}", self.path, hash(self.body));
        let to_sign = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hash(&request));
        let key = signing_key(self.keys.secret_access_key.expose(), &self.date("%Y%m%d"), self.region, "ecr");
        let signature = hex::encode(hmac(&key, to_sign.as_bytes()));
        format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={signed}, Signature={signature}",
            self.keys.access_key_id
        )
    }
}

fn signing_key(secret: &[u8], day: &str, region: &str, service: &str) -> [u8; 32] {
    let first = hmac(&[b"AWS4", secret].concat(), day.as_bytes());
    [region, service, "aws4_request"].iter().fold(first, |key, part| hmac(&key, part.as_bytes()))
}

fn hash(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}

/// HMAC-SHA256 (RFC 2104): two lines are less than a crate.
fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0; 64];
    if key.len() > block.len() {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let inner = Sha256::new().chain_update(block.map(|b| b ^ 0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(block.map(|b| b ^ 0x5c)).chain_update(inner).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_amazons_hosts() {
        let cases = [
            ("123.dkr.ecr.eu-west-1.amazonaws.com", Some("eu-west-1")),
            ("123.dkr.ecr.cn-north-1.amazonaws.com.cn", Some("cn-north-1")),
            ("123.dkr.ecr.eu-west-1.amazonaws.com.evil.example", None),
            ("evil.example/x.dkr.ecr.eu-west-1.amazonaws.com", None),
            ("public.ecr.aws", None),
        ];
        for (host, expected) in cases {
            assert_eq!(region(host), expected, "{host}");
        }
    }

    #[test]
    fn hmac_is_that_of_rfc_4231() {
        let cases: [(&[u8], &[u8], &str); 3] = [
            (&[0x0b; 20], b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
            (
                b"Jefe",
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                &[0xaa; 131],
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
        ];
        for (key, message, expected) in cases {
            assert_eq!(hex::encode(hmac(key, message)), expected);
        }
    }

    #[test]
    fn the_signature_is_that_of_amazons_own_example() {
        let key = signing_key(b"wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "20150830", "us-east-1", "iam");
        assert_eq!(hex::encode(key), "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9");
        let to_sign = "AWS4-HMAC-SHA256\n20150830T123600Z\n20150830/us-east-1/iam/aws4_request\nf536975d06c0309214f805bb90ccff089219ecd68b2577efef23edd43b7e1a59";
        assert_eq!(
            hex::encode(hmac(&key, to_sign.as_bytes())),
            "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
        );
    }

    #[test]
    fn an_answer_is_a_password() {
        let token = base64::engine::general_purpose::STANDARD.encode("AWS:secret");
        let answer =
            format!(r#"{{"authorizationData":[{{"authorizationToken":"{token}","proxyEndpoint":"https://x"}}]}}"#);
        assert_eq!(
            parse_answer(answer.as_bytes()),
            Some(Credential::Password { user: "AWS".into(), password: "secret".into() })
        );
        assert_eq!(parse_answer(b"{}"), None);
    }
}
