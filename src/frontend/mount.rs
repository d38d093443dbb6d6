//! `RUN --mount=type=…,key=value,…`

use super::error::{Error, Result};
use super::go;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountType {
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    Shared,
    Private,
    Locked,
}

/// One mount of a RUN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub kind: MountType,
    pub from: String,
    pub source: String,
    pub target: String,
    pub read_only: bool,
    /// Of a tmpfs; 0 for no limit.
    pub size: i64,
    pub id: String,
    pub sharing: Option<Sharing>,
    pub required: bool,
    /// The variable that a secret becomes.
    pub env: Option<String>,
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];

/// The stage, image or context that a mount names, before anything is expanded. It decides which stages are built,
/// so it cannot hold variables.
pub fn source_stage(text: &str) -> Result<String> {
    let mut from = String::new();
    for field in fields(text)? {
        let Some((key, value)) = field.split_once('=') else { continue };
        if !key.eq_ignore_ascii_case("from") {
            continue;
        }
        if value.find('$').is_some_and(|at| at + 1 < value.len()) {
            let message = format!(
                "'{}' doesn't support variable expansion, define alias stage instead",
                key.to_ascii_lowercase()
            );
            return Err(Error::new(message).about(value));
        }
        from = value.to_owned();
    }
    Ok(from)
}

impl Mount {
    /// Reads a mount; `expand` replaces the variables in each value.
    pub fn parse(text: &str, expand: &mut dyn FnMut(&str) -> Result<String>) -> Result<Self> {
        let mut mount = Self {
            kind: MountType::Bind,
            from: String::new(),
            source: String::new(),
            target: String::new(),
            read_only: false,
            size: 0,
            id: String::new(),
            sharing: None,
            required: false,
            env: None,
            mode: None,
            uid: None,
            gid: None,
        };
        let mut read_only = None;
        for field in fields(text)? {
            match field.split_once('=') {
                Some((key, value)) => {
                    let value = expand(value)?;
                    mount.set(&key.to_ascii_lowercase(), value, &field, &mut read_only)?;
                }
                None => match field.to_ascii_lowercase().as_str() {
                    "readonly" | "ro" => read_only = Some(true),
                    "readwrite" | "rw" => read_only = Some(false),
                    "required" => {
                        mount.only_for("required", &[MountType::Secret, MountType::Ssh])?;
                        mount.required = true;
                    }
                    _ => return Err(Error::new(format!("invalid field '{field}' must be a key=value pair"))),
                },
            }
        }
        mount.read_only = read_only.unwrap_or(!matches!(mount.kind, MountType::Cache | MountType::Tmpfs));
        mount.check()?;
        Ok(mount)
    }

    fn set(&mut self, key: &str, value: String, field: &str, read_only: &mut Option<bool>) -> Result<()> {
        let flag =
            |value: &str| go::parse_bool(value).ok_or_else(|| Error::new(format!("invalid value for {key}: {value}")));
        let number = |value: &str, radix| {
            u32::from_str_radix(value, radix)
                .ok()
                .filter(|_| !value.starts_with('+'))
                .ok_or_else(|| Error::new(format!("invalid value {value} for {key}")))
        };
        match key {
            "type" => {
                self.kind = match value.to_ascii_lowercase().as_str() {
                    "bind" => MountType::Bind,
                    "cache" => MountType::Cache,
                    "tmpfs" => MountType::Tmpfs,
                    "secret" => MountType::Secret,
                    "ssh" => MountType::Ssh,
                    _ => {
                        let error = Error::new(format!("unsupported mount type {}", go::quote(&value))).about(&value);
                        return Err(error.did_you_mean(&value, ["bind", "cache", "tmpfs", "secret", "ssh"]));
                    }
                }
            }
            "from" => self.from = value,
            "source" | "src" => self.source = value,
            "target" | "dst" | "destination" => self.target = value,
            "readonly" | "ro" => *read_only = Some(flag(&value)?),
            "readwrite" | "rw" => *read_only = Some(!flag(&value)?),
            "required" => {
                self.only_for(key, &[MountType::Secret, MountType::Ssh])?;
                self.required = flag(&value)?;
            }
            "size" => {
                self.only_for(key, &[MountType::Tmpfs])?;
                self.size = bytes(&value).ok_or_else(|| Error::new(format!("invalid value for {key}: {value}")))?;
            }
            "id" => self.id = value,
            "sharing" => {
                self.sharing = Some(match value.to_ascii_lowercase().as_str() {
                    "shared" => Sharing::Shared,
                    "private" => Sharing::Private,
                    "locked" => Sharing::Locked,
                    _ => {
                        let error =
                            Error::new(format!("unsupported sharing value {}", go::quote(&value))).about(&value);
                        return Err(error.did_you_mean(&value, ["shared", "private", "locked"]));
                    }
                });
            }
            "mode" => self.mode = Some(number(&value, 8)?),
            "uid" => self.uid = Some(number(&value, 10)?),
            "gid" => self.gid = Some(number(&value, 10)?),
            "env" => self.env = Some(value),
            _ => {
                let error = Error::new(format!("unexpected key '{key}' in '{field}'")).about(field);
                return Err(error.did_you_mean(key, KEYS));
            }
        }
        Ok(())
    }

    fn only_for(&self, key: &str, kinds: &[MountType]) -> Result<()> {
        if kinds.contains(&self.kind) {
            return Ok(());
        }
        Err(Error::new(format!("unexpected key '{key}' for mount type '{}'", self.kind.name())))
    }

    fn check(&self) -> Result<()> {
        let kind = self.kind.name();
        if matches!(self.kind, MountType::Bind | MountType::Tmpfs) {
            for (name, value) in [("mode", self.mode), ("uid", self.uid), ("gid", self.gid)] {
                if value.is_some() {
                    return Err(Error::new(format!("{name} not allowed for \"{kind}\" type mounts")));
                }
            }
        }
        if self.kind == MountType::Secret {
            if !self.from.is_empty() {
                return Err(Error::new("secret mount should not have a from"));
            }
            if self.sharing.is_some() {
                return Err(Error::new("secret mount should not define sharing"));
            }
            if self.source.is_empty() && self.target.is_empty() && self.id.is_empty() {
                return Err(Error::new("invalid secret mount. one of source, target required"));
            }
            if !self.source.is_empty() && !self.id.is_empty() {
                return Err(Error::new("both source and id can't be set"));
            }
        }
        if self.sharing.is_some() && self.kind != MountType::Cache {
            return Err(Error::new(format!("invalid cache sharing set for {kind} mount")));
        }
        Ok(())
    }
}

impl MountType {
    fn name(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Cache => "cache",
            Self::Tmpfs => "tmpfs",
            Self::Secret => "secret",
            Self::Ssh => "ssh",
        }
    }
}

/// The fields of one CSV line (RFC 4180), as Go reads it.
pub fn fields(line: &str) -> Result<Vec<String>> {
    let bad = |what: &str| Error::new(format!("failed to parse csv mounts: {what} in field list {}", go::quote(line)));
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut field = String::new();
            let mut chars = quoted.char_indices().peekable();
            let end = loop {
                match chars.next() {
                    None => return Err(bad("missing closing \"")),
                    Some((_, '"')) if chars.next_if(|(_, c)| *c == '"').is_some() => field.push('"'),
                    Some((at, '"')) => break at + 1,
                    Some((_, c)) => field.push(c),
                }
            };
            fields.push(field);
            rest = &quoted[end..];
            match rest.strip_prefix(',') {
                Some(next) => rest = next,
                None if rest.is_empty() => return Ok(fields),
                None => return Err(bad("text after a closing \"")),
            }
        } else {
            let (field, next) = match rest.split_once(',') {
                Some((field, next)) => (field, Some(next)),
                None => (rest, None),
            };
            if field.contains('"') {
                return Err(bad("bare \""));
            }
            fields.push(field.to_owned());
            match next {
                Some(next) => rest = next,
                None => return Ok(fields),
            }
        }
    }
}

/// `10m`, `1.5g`, `512`: binary units.
pub fn bytes(text: &str) -> Option<i64> {
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.')? + 1;
    let (number, unit) = text.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let power = match unit.as_str() {
        "" | "b" => 0,
        _ => {
            let (first, rest) = unit.split_at(unit.chars().next()?.len_utf8());
            if !matches!(rest, "" | "b" | "ib") {
                return None;
            }
            1 + "kmgtp".find(first)?
        }
    };
    let number: f64 = number.parse().ok()?;
    let scaled = number * 1024_f64.powi(i32::try_from(power).ok()?);
    #[expect(clippy::cast_possible_truncation, reason = "the range is checked, a fraction of a byte is dropped")]
    (scaled.is_finite() && (0.0..9.2e18).contains(&scaled)).then_some(scaled as i64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Mount, String> {
        Mount::parse(text, &mut |v| Ok(v.replace("$x", "X"))).map_err(|e| e.to_string())
    }

    #[test]
    fn reads_every_kind() {
        let mount = parse("type=cache,target=/c,id=$x,sharing=LOCKED,mode=0700,uid=1,gid=2,ro").unwrap();
        assert_eq!((mount.kind, mount.target.as_str(), mount.id.as_str()), (MountType::Cache, "/c", "X"));
        assert_eq!(
            (mount.sharing, mount.mode, mount.uid, mount.gid),
            (Some(Sharing::Locked), Some(0o700), Some(1), Some(2))
        );
        assert!(mount.read_only);
        assert!(parse("target=/x").unwrap().read_only, "a bind is read-only unless it says rw");
        assert!(!parse("target=/x,rw").unwrap().read_only);
        assert!(!parse("target=/x,readonly=false").unwrap().read_only);
        assert!(!parse("type=cache,target=/x").unwrap().read_only);
        assert_eq!(parse("type=tmpfs,target=/x,size=10m").unwrap().size, 10 << 20);
        assert!(parse("type=secret,id=a,required").unwrap().required);
        assert_eq!(parse("type=secret,id=a,env=A").unwrap().env.as_deref(), Some("A"));
        assert_eq!(parse("\"source=/a,b\",target=/x").unwrap().source, "/a,b");
        assert_eq!(source_stage("from=build,target=/x").unwrap(), "build");
    }

    #[test]
    fn refuses_with_the_reason() {
        let cases = [
            ("type=bnd", "unsupported mount type \"bnd\""),
            ("type=bind,tarhet=/x", "unexpected key 'tarhet' in 'tarhet=/x'"),
            ("type=bind,mode=0700", "mode not allowed for \"bind\" type mounts"),
            ("type=bind,size=1", "unexpected key 'size' for mount type 'bind'"),
            ("type=bind,required", "unexpected key 'required' for mount type 'bind'"),
            ("type=secret", "invalid secret mount. one of source, target required"),
            ("type=secret,from=a,id=b", "secret mount should not have a from"),
            ("type=bind,sharing=shared", "invalid cache sharing set for bind mount"),
            ("type=cache,sharing=share", "unsupported sharing value \"share\""),
            ("target", "invalid field 'target' must be a key=value pair"),
            ("type=cache,mode=9", "invalid value 9 for mode"),
            ("type=cache,ro=maybe", "invalid value for ro: maybe"),
            ("\"a", "failed to parse csv mounts: missing closing \" in field list \"\\\"a\""),
        ];
        for (text, message) in cases {
            assert_eq!(parse(text).unwrap_err(), message, "{text}");
        }
        assert!(source_stage("from=$x").is_err());
    }

    #[test]
    fn sizes_have_binary_units() {
        let cases = [("512", 512), ("1k", 1024), ("1KiB", 1024), ("1.5 g", 3 << 29), ("2Tb", 2 << 40)];
        for (text, expected) in cases {
            assert_eq!(bytes(text), Some(expected), "{text}");
        }
        for text in ["", "k", "1x", "-1", "1kk", "1e99"] {
            assert_eq!(bytes(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "[a-z=,\"$0-9é ]{0,40}") {
            let _ = parse(&text);
            let _ = source_stage(&text);
            let _ = bytes(&text);
        }
    }
}
