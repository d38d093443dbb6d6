//! Sends the files of a shared folder, as fsutil's protocol has it: first what there is, then the bytes of those
//! that the other side asks for because it does not have them yet.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::fsutil::types::{Packet, Stat};
use tokio::sync::mpsc;
use tonic::metadata::MetadataMap;
use tonic::{Request, Status, Streaming};

use crate::remote::grpc::{CHUNK, Outgoing, outgoing};
use crate::snapshot::{Node, Tree};
use crate::source::local::{LocalContext, LocalOptions};
use crate::sys::Kind;

/// What the other side may have asked for and not got yet. It asks for a file once; more than this is an attack on
/// our memory.
const MAX_ASKED: usize = 1 << 22;

type Sender = mpsc::Sender<Result<Packet, Status>>;

pub async fn send(
    locals: &BTreeMap<String, PathBuf>,
    request: Request<Streaming<Packet>>,
) -> Result<Outgoing<Packet>, Status> {
    let headers = request.metadata();
    let name = values(headers, "dir-name").into_iter().next().unwrap_or_default();
    let Some(dir) = locals.get(&name) else {
        return Err(Status::not_found(format!("no folder {name:?} is shared with this build")));
    };
    let options = LocalOptions {
        include: values(headers, "include-patterns"),
        exclude: values(headers, "exclude-patterns"),
        follow: values(headers, "followpaths"),
        cache: None,
    };
    let context = LocalContext::open(dir, options).map_err(|error| Status::invalid_argument(error.to_string()))?;
    let (sender, packets) = outgoing();
    let (asked, asking) = mpsc::channel(MAX_ASKED);
    tokio::spawn(listen(request.into_inner(), asked));
    tokio::task::spawn_blocking(move || {
        let said = match serve(&context, &sender, asking) {
            Ok(()) => packet(PacketType::PacketFin),
            Err(Stop::Gone) => return,
            Err(Stop::Failed(why)) => Packet { data: why.into_bytes(), ..packet(PacketType::PacketErr) },
        };
        // Nothing can be done for a reader that went away.
        let _ = sender.blocking_send(Ok(said));
    });
    Ok(packets)
}

/// What the other side says.
enum Asked {
    File(u32),
    Finished,
}

async fn listen(mut packets: Streaming<Packet>, asked: mpsc::Sender<Asked>) {
    while let Ok(Some(packet)) = packets.message().await {
        let word = match packet.r#type() {
            PacketType::PacketReq => Asked::File(packet.id),
            PacketType::PacketFin => Asked::Finished,
            PacketType::PacketErr => {
                let why = String::from_utf8_lossy(&packet.data).into_owned();
                return tracing::debug!(why, "the engine gave up on a folder");
            }
            PacketType::PacketStat | PacketType::PacketData => return tracing::debug!("the engine sends files"),
        };
        // Never waits: a queue that is full has no honest reason.
        if asked.try_send(word).is_err() {
            return;
        }
    }
}

/// Why sending ends before its time.
enum Stop {
    /// Nobody listens any more.
    Gone,
    Failed(String),
}

fn serve(context: &LocalContext, sender: &Sender, mut asked: mpsc::Receiver<Asked>) -> Result<(), Stop> {
    let files = list(context, sender)?;
    while let Some(word) = asked.blocking_recv() {
        let Asked::File(id) = word else { return Ok(()) };
        let path = files.get(&id).ok_or_else(|| Stop::Failed(format!("there is no file {id} to ask for")))?;
        let Some(path) = path else {
            put(sender, end(id))?;
            continue;
        };
        contents(context, path, id, sender).map_err(|stop| match stop {
            Stop::Failed(why) => Stop::Failed(format!("read {}: {why}", path.display())),
            gone @ Stop::Gone => gone,
        })?;
    }
    Err(Stop::Gone)
}

/// Tells of every entry, parents first and names sorted bytewise; returned are the files that may be asked for, by
/// the number of their packet; none where there is nothing to read.
fn list(context: &LocalContext, sender: &Sender) -> Result<HashMap<u32, Option<PathBuf>>, Stop> {
    let mut files = HashMap::new();
    let mut seen: HashMap<(u64, u64), PathBuf> = HashMap::new();
    let mut number = 0;
    // Not by recursion: a folder may be nested deeper than a thread's stack allows.
    let mut open = vec![(PathBuf::new(), names(context, Path::new(""))?)];
    while let Some((dir, left)) = open.last_mut() {
        let Some(name) = left.next() else {
            open.pop();
            continue;
        };
        let path = dir.join(name);
        // A file that went away since the walk was never there.
        let Some(node) = context.lookup(&path).map_err(failed)? else { continue };
        let mut linked = None;
        if let (Kind::File { .. }, Some(inode)) = (&node.kind, node.inode) {
            linked = seen.get(&inode).cloned();
            if linked.is_none() {
                seen.insert(inode, path.clone());
            }
        }
        match node.kind {
            Kind::File { .. } if linked.is_none() => drop(files.insert(number, Some(path.clone()))),
            // Goes as an empty file, which is what the steps here make of one.
            Kind::Socket => drop(files.insert(number, None)),
            _ => {}
        }
        let stat = stat(&path, &node, linked.as_deref())?;
        put(sender, Packet { stat: Some(stat), ..packet(PacketType::PacketStat) })?;
        number += 1;
        if node.is_dir() {
            let names = names(context, &path)?;
            open.push((path, names));
        }
    }
    put(sender, packet(PacketType::PacketStat))?;
    Ok(files)
}

fn names(context: &LocalContext, dir: &Path) -> Result<std::vec::IntoIter<std::ffi::OsString>, Stop> {
    Ok(context.read_dir(dir).map_err(failed)?.into_iter())
}

fn contents(context: &LocalContext, path: &Path, id: u32, sender: &Sender) -> Result<(), Stop> {
    let mut file = context.open(path).map_err(failed)?;
    let mut buffer = vec![0; CHUNK];
    loop {
        let length = file.read(&mut buffer).map_err(failed)?;
        if length == 0 {
            return put(sender, end(id));
        }
        put(sender, Packet { id, data: buffer[..length].to_vec(), ..packet(PacketType::PacketData) })?;
    }
}

/// Says that this was all of a file.
fn end(id: u32) -> Packet {
    Packet { id, ..packet(PacketType::PacketData) }
}

fn put(sender: &Sender, packet: Packet) -> Result<(), Stop> {
    sender.blocking_send(Ok(packet)).map_err(|_| Stop::Gone)
}

fn failed(error: std::io::Error) -> Stop {
    Stop::Failed(error.to_string())
}

fn packet(kind: PacketType) -> Packet {
    Packet { r#type: kind.into(), ..Packet::default() }
}

/// Go's `os.FileMode`, which is how modes travel.
mod go {
    pub const DIRECTORY: u32 = 1 << 31;
    pub const SYMLINK: u32 = 1 << 27;
    pub const DEVICE: u32 = 1 << 26;
    pub const FIFO: u32 = 1 << 25;
    pub const SETUID: u32 = 1 << 23;
    pub const SETGID: u32 = 1 << 22;
    pub const CHARACTER: u32 = 1 << 21;
    pub const STICKY: u32 = 1 << 20;
}

fn stat(path: &Path, node: &Node, linked: Option<&Path>) -> Result<Stat, Stop> {
    let text = |path: &Path| match path.to_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(Stop::Failed(format!("the name of {path:?} is no text, and the engine takes no other"))),
    };
    let meta = &node.meta;
    let mut stat = Stat {
        path: text(path)?,
        mode: go_mode(&node.kind, meta.mode),
        uid: meta.uid,
        gid: meta.gid,
        mod_time: meta.mtime.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(meta.mtime.nanos)),
        ..Stat::default()
    };
    for (name, value) in &meta.xattrs {
        stat.xattrs.insert(String::from_utf8_lossy(name.as_bytes()).into_owned(), value.clone());
    }
    match (&node.kind, linked) {
        (_, Some(first)) => stat.linkname = text(first)?,
        (Kind::File { size }, None) => stat.size = i64::try_from(*size).unwrap_or(i64::MAX),
        (Kind::Symlink { target }, None) => stat.linkname = text(target)?,
        (Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor }, None) => {
            (stat.devmajor, stat.devminor) = (i64::from(*major), i64::from(*minor));
        }
        _ => {}
    }
    Ok(stat)
}

fn go_mode(kind: &Kind, mode: u32) -> u32 {
    let kind = match kind {
        Kind::Directory => go::DIRECTORY,
        Kind::Symlink { .. } => go::SYMLINK,
        Kind::CharDevice { .. } => go::DEVICE | go::CHARACTER,
        Kind::BlockDevice { .. } => go::DEVICE,
        Kind::Fifo => go::FIFO,
        Kind::File { .. } | Kind::Hardlink { .. } | Kind::Socket => 0,
    };
    let special = [(0o4000, go::SETUID), (0o2000, go::SETGID), (0o1000, go::STICKY)];
    let special = special.iter().filter(|(bit, _)| mode & bit != 0).fold(0, |all, (_, go)| all | go);
    kind | special | (mode & 0o777)
}

/// All values of a header. What is not ASCII travels as in a query, with a second header that says so; old servers send
/// it as it is.
fn values(headers: &MetadataMap, key: &str) -> Vec<String> {
    let all = headers.get_all(key).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let encoded = headers.get(format!("{key}-encoded").as_str());
    if encoded.is_none_or(|value| !matches!(value.as_bytes(), b"1" | b"true")) {
        return all.collect();
    }
    let decoded =
        |value: String| url::form_urlencoded::parse(value.as_bytes()).next().map(|(text, _)| text.into_owned());
    all.filter_map(decoded).collect()
}

#[cfg(test)]
mod tests {
    use tonic::metadata::MetadataValue;

    use super::*;

    #[test]
    fn modes_travel_as_go_has_them() {
        let cases = [
            (Kind::Directory, 0o1777, go::DIRECTORY | go::STICKY | 0o777),
            (Kind::File { size: 0 }, 0o6755, go::SETUID | go::SETGID | 0o755),
            (Kind::Symlink { target: "x".into() }, 0o777, go::SYMLINK | 0o777),
            (Kind::CharDevice { major: 1, minor: 3 }, 0o666, go::DEVICE | go::CHARACTER | 0o666),
            (Kind::Fifo, 0o600, go::FIFO | 0o600),
            (Kind::Socket, 0o755, 0o755),
        ];
        for (kind, mode, expected) in cases {
            assert_eq!(go_mode(&kind, mode), expected, "{kind:?}");
        }
    }

    #[test]
    fn headers_hold_many_values_and_those_that_are_no_ascii() {
        let mut headers = MetadataMap::new();
        headers.append("exclude-patterns", "a b".parse().unwrap());
        headers.append("exclude-patterns", "!c%20".parse().unwrap());
        assert_eq!(values(&headers, "exclude-patterns"), ["a b", "!c%20"]);
        headers.insert("followpaths", "%C3%A4+b%3D".parse().unwrap());
        headers.insert("followpaths-encoded", "1".parse().unwrap());
        assert_eq!(values(&headers, "followpaths"), ["ä b="]);
        headers.append("include-patterns", MetadataValue::try_from("grün".as_bytes()).unwrap());
        assert_eq!(values(&headers, "include-patterns"), ["grün"]);
        assert_eq!(values(&headers, "dir-name"), [""; 0]);
    }
}
