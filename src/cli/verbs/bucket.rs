//! Images in S3 buckets, by `push` and `pull`: what goes up, what comes down, and the flags that say where.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::base::{Platform, Reference, Secret};
use crate::cli::exit::{Exit, usage};
use crate::cli::given::Given;
use crate::cli::progress::{Display, Mode};
use crate::cli::session::{Out, Session};
use crate::export::{self, Dest, LayerOptions};
use crate::image::{self, ImageConfig};
use crate::registry::{self, Addressing, AwsKeys, BucketSettings, ObjectAddress};

use super::export::tgz;
use super::import::{self, Format as ImportFormat};

/// Flags of a bucket.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "With s3://BUCKET/KEY")]
pub struct Flags {
    /// Address of the S3 server [default: $AWS_ENDPOINT_URL_S3, $AWS_ENDPOINT_URL, else Amazon's of the region]
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// Region of the bucket [default: $AWS_REGION, $AWS_DEFAULT_REGION, else us-east-1]
    #[arg(long, value_name = "NAME")]
    region: Option<String>,
    /// Where the bucket's name stands in addresses: auto puts it into the host's name at Amazon, into the path elsewhere
    #[arg(long, value_name = "auto|path|host", value_parser = addressing)]
    addressing: Option<Addressing>,
    /// Access key [default: $AWS_ACCESS_KEY_ID, with $AWS_SECRET_ACCESS_KEY and $AWS_SESSION_TOKEN]
    #[arg(long, value_name = "ID", requires = "secret_access_key_file")]
    access_key_id: Option<String>,
    /// File that holds its secret: on a command line others could read it
    #[arg(long, value_name = "FILE", requires = "access_key_id")]
    secret_access_key_file: Option<PathBuf>,
}

fn addressing(text: &str) -> Result<Addressing, String> {
    match text {
        "auto" => Ok(Addressing::Auto),
        "path" => Ok(Addressing::Path),
        "host" => Ok(Addressing::Host),
        other => Err(format!("{other:?} is not known (auto, path, host)")),
    }
}

impl Flags {
    /// An error when flags of a bucket stand beside the name of an image.
    pub fn refuse(&self) -> anyhow::Result<()> {
        let Self { endpoint, region, addressing, access_key_id, secret_access_key_file: _ } = self;
        if endpoint.is_some() || region.is_some() || addressing.is_some() || access_key_id.is_some() {
            return Err(usage("--endpoint, --region, --addressing and the access key are for s3://BUCKET/KEY"));
        }
        Ok(())
    }

    fn settings(&self, session: &Session) -> anyhow::Result<BucketSettings> {
        let keys = match (&self.access_key_id, &self.secret_access_key_file) {
            (Some(id), Some(file)) => {
                let path = session.absolute(file);
                let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
                let secret_access_key = Secret::from(text.trim_end_matches(['\n', '\r']));
                Some(AwsKeys { access_key_id: id.clone(), secret_access_key, session_token: None })
            }
            _ => None,
        };
        Ok(BucketSettings {
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            addressing: self.addressing.unwrap_or_default(),
            keys,
        })
    }
}

/// What an object holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// rootfs/ and metadata.json, for Concourse's s3 resource with `unpack: true`
    RootfsTgz,
    /// An archive for `docker load`
    Docker,
    /// An OCI archive
    Oci,
}

impl Format {
    /// What a key's ending says.
    fn of(key: &str) -> anyhow::Result<Self> {
        if key.ends_with(".tgz") || key.ends_with(".tar.gz") {
            return Ok(Self::RootfsTgz);
        }
        if key.ends_with(".tar") {
            return Ok(Self::Docker);
        }
        Err(usage(format!(
            "{key}: neither .tgz (a root file system) nor .tar (an image archive); say which with --format"
        )))
    }
}

fn parse(text: &str) -> anyhow::Result<ObjectAddress> {
    text.parse().map_err(|error: registry::Error| usage(error.to_string()))
}

pub struct Push<'a> {
    pub image: &'a str,
    pub to: &'a str,
    pub format: Option<Format>,
    pub platform: Option<&'a Platform>,
    pub quiet: bool,
    pub flags: &'a Flags,
}

pub fn push(push: &Push<'_>, session: &Session) -> anyhow::Result<Exit> {
    let address = parse(push.to)?;
    let format = push.format.map_or_else(|| Format::of(address.key()), Ok)?;
    let (state, cancel) = (session.state()?, session.cancel()?);
    let object = state.registry()?.object(&address, &push.flags.settings(session)?, &session.env)?;
    let given = Given::new(push.image, push.platform, session)?;
    let work = tempfile::Builder::new().prefix("push-").tempdir_in(state.tmp()?)?;
    let path = work.path().join("object");
    write(&given, format, &path, session).with_context(|| format!("pack {}", push.image))?;
    let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
    let display = Display::start(if push.quiet { Mode::Quiet } else { Mode::Auto }, &session.env);
    let sent = display.progress().step(&format!("push {address}"), |step| object.upload(&file, step, &cancel));
    display.finish();
    sent?;
    let mut out = Out::new();
    out.line(address.to_string())?;
    out.finish()?;
    Ok(Exit::Success)
}

fn write(given: &Given, format: Format, path: &Path, session: &Session) -> anyhow::Result<()> {
    let (dest, options) = (Dest::File(path.to_owned()), LayerOptions::default());
    let images = [(&given.image, given.references.as_slice())];
    let (tmp, cancel) = (session.state()?.tmp()?, session.cancel()?);
    match format {
        Format::RootfsTgz => tgz(given, path, session),
        Format::Docker => export::docker(&images, &*given.blobs, &dest, &options, &tmp, &cancel),
        Format::Oci => export::oci(&images, &*given.blobs, &dest, &options, &tmp, &cancel),
    }
}

pub struct Pull<'a> {
    pub from: &'a str,
    pub name: Option<&'a Reference>,
    pub platform: Option<&'a Platform>,
    pub quiet: bool,
    pub flags: &'a Flags,
}

/// Fetches an object and takes the image in it into the local store, whichever form it has.
pub fn pull(pull: &Pull<'_>, session: &Session) -> anyhow::Result<Exit> {
    let address = parse(pull.from)?;
    let (state, cancel) = (session.state()?, session.cancel()?);
    let object = state.registry()?.object(&address, &pull.flags.settings(session)?, &session.env)?;
    let mut file = tempfile::Builder::new().prefix("pull-").tempfile_in(state.tmp()?)?;
    let display = Display::start(if pull.quiet { Mode::Quiet } else { Mode::Auto }, &session.env);
    let got = display.progress().step(&format!("pull {address}"), |step| {
        let out = file.as_file_mut();
        object.download(&mut |bytes| out.write_all(bytes), step, &cancel)
    });
    display.finish();
    got?;
    let store = session.images()?;
    let _pin = store.pin(&cancel)?;
    let mut out = Out::new();
    match image::open(file.path(), &state.tmp()?) {
        Ok(opened) => {
            let images: Vec<_> = opened
                .images
                .iter()
                .filter(|(image, _)| pull.platform.is_none_or(|wanted| wanted.accepts(&image.config.platform)))
                .collect();
            if images.len() != 1 && pull.name.is_some() {
                return Err(usage(format!(
                    "{address} holds {} images; they keep the names that they have",
                    images.len()
                )));
            }
            for (image, references) in images {
                store.adopt(image, &*opened.blobs)?;
                let names = pull.name.map_or(references.as_slice(), std::slice::from_ref);
                name(image, names, &mut out, session)?;
            }
        }
        Err(image::Error::NotAnImage(_)) => {
            let Some(wanted) = pull.name else {
                return Err(usage(format!("{address} is a root file system: give the image a name")));
            };
            let config = ImageConfig::new(pull.platform.cloned().unwrap_or_else(Platform::host));
            let path = file.path().to_str().context("the state folder's name is not UTF-8")?;
            let message = format!("Imported from {address}");
            let image = import::import(path, ImportFormat::Auto, config, &message, session)
                .with_context(|| format!("import {address}"))?;
            name(&image, std::slice::from_ref(wanted), &mut out, session)?;
        }
        Err(error) => return Err(error).with_context(|| format!("load {address}")),
    }
    out.finish()?;
    Ok(Exit::Success)
}

fn name(image: &image::Image, names: &[Reference], out: &mut Out, session: &Session) -> anyhow::Result<()> {
    let store = session.images()?;
    if names.is_empty() {
        store.add(&image.manifest_descriptor)?;
        out.line(image.config_digest.to_string())?;
    }
    for name in names {
        let name = name.clone().or_latest();
        store.tag(&image.manifest_descriptor, &name)?;
        out.line(name.to_string())?;
    }
    Ok(())
}
