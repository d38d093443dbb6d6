//! `metadata.json` as docker-image-resource has it: what a program saw that ran inside the image.

use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::Serialize;

use crate::image::ImageConfig;
use crate::sys::Root;

/// What dockerd gives a container whose image says nothing.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[derive(Serialize)]
struct Metadata {
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    env: Vec<String>,
}

/// The file's bytes. `rootfs` is where the image was unpacked.
pub fn metadata(config: &ImageConfig, rootfs: &Root) -> Vec<u8> {
    let accounts = read_accounts(rootfs);
    let seen = seen(config, &accounts);
    let mut bytes = serde_json::to_vec(&seen).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

struct Account {
    name: String,
    uid: u32,
    home: String,
}

fn read_accounts(rootfs: &Root) -> Option<Vec<Account>> {
    parse_accounts(BufReader::new(rootfs.open_file(Path::new("etc/passwd")).ok()?))
}

/// None when one line has not its seven columns: the original gives up on the whole file then.
fn parse_accounts(file: impl BufRead) -> Option<Vec<Account>> {
    let mut accounts = Vec::new();
    for line in file.lines() {
        let line = line.ok()?;
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let columns: Vec<&str> = line.split(':').collect();
        if columns.len() != 7 {
            return None;
        }
        let Ok(uid) = columns[2].parse() else { continue };
        accounts.push(Account { name: columns[0].to_owned(), uid, home: columns[5].to_owned() });
    }
    Some(accounts)
}

fn seen(config: &ImageConfig, accounts: &Option<Vec<Account>>) -> Metadata {
    let known = accounts.as_deref().unwrap_or_default();
    let wanted = config.config.user.split(':').next().unwrap_or("");
    let uid = match wanted {
        "" => Some(0),
        text => text.parse().ok().or_else(|| known.iter().find(|a| a.name == text).map(|a| a.uid)),
    };
    let account = uid.and_then(|uid| known.iter().find(|a| a.uid == uid));
    let mut env: Vec<String> = Vec::new();
    // dockerd begins with PATH, lets the image replace it, and appends the rest; runc adds HOME where it is missing.
    let path = config.config.env.iter().rev().find(|line| line.starts_with("PATH="));
    env.push(path.cloned().unwrap_or_else(|| format!("PATH={PATH}")));
    env.extend(
        config.config.env.iter().filter(|line| !line.starts_with("PATH=") && !line.starts_with("HOSTNAME=")).cloned(),
    );
    if !env.iter().any(|line| line.starts_with("HOME=")) {
        env.push(format!("HOME={}", account.map_or("/", |account| &account.home)));
    }
    Metadata { user: account.map(|account| account.name.clone()), env }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Platform;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n";

    #[test]
    fn it_is_what_a_program_inside_would_see() {
        let cases: [(&str, &[&str], &str, &str); 6] = [
            ("", &["PATH=/bin"], PASSWD, r#"{"user":"root","env":["PATH=/bin","HOME=/root"]}"#),
            ("1000:5", &["A=b", "PATH=/bin"], PASSWD, r#"{"user":"app","env":["PATH=/bin","A=b","HOME=/home/app"]}"#),
            ("app", &["PATH=/bin", "HOME=/x"], PASSWD, r#"{"user":"app","env":["PATH=/bin","HOME=/x"]}"#),
            ("77", &["PATH=/bin"], PASSWD, r#"{"env":["PATH=/bin","HOME=/"]}"#),
            ("", &["PATH=/bin"], "root:x:0:0\n", r#"{"env":["PATH=/bin","HOME=/"]}"#),
            ("", &[], "", r#"{"env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin","HOME=/"]}"#),
        ];
        for (user, env, passwd, expected) in cases {
            let mut config = ImageConfig::new(Platform::host());
            config.config.user = user.to_owned();
            config.config.env = env.iter().map(|line| (*line).to_owned()).collect();
            let metadata = seen(&config, &parse_accounts(passwd.as_bytes()));
            assert_eq!(serde_json::to_string(&metadata).unwrap(), expected, "{user:?} {passwd:?}");
        }
    }
}
