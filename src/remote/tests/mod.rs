//! What an engine may do to us, and what it may not, told by a peer that tries.

mod hostile;
pub(crate) mod peer;
mod stores;
mod tls;
mod work;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::fsutil::types::{Packet, Stat};
use bollard_buildkit_proto::health::{HealthCheckRequest, HealthCheckResponse};
use bollard_buildkit_proto::moby::buildkit::secrets::v1::{GetSecretRequest, GetSecretResponse};
use bollard_buildkit_proto::moby::filesync::packet::BytesMessage;
use bollard_buildkit_proto::moby::filesync::v1::{CredentialsRequest, CredentialsResponse};
use bollard_buildkit_proto::moby::sshforward::v1::{CheckAgentRequest, CheckAgentResponse};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;
use tonic::{Code, Request, Status};

use super::grpc::Channel;
use super::{Address, Caches, Client, Error, Reach, Shared, Solve, Stores, Work};
use crate::base::{Cancel, Env, Progress, Secret};
use crate::llb::pb;
use crate::registry::{Credential, Registry, Settings};
use peer::Peer;

const FILES: &str = "/moby.filesync.v1.FileSync/DiffCopy";
const RECEIVE: &str = "/moby.filesync.v1.FileSend/DiffCopy";

fn shared() -> Shared {
    let credential = Credential::Password { user: "me".to_owned(), password: Secret::from("pass") };
    let settings =
        Settings { credentials: BTreeMap::from([("r.example".to_owned(), credential)]), ..Settings::default() };
    Shared {
        locals: BTreeMap::new(),
        behind_mtimes: None,
        secrets: BTreeMap::from([("known".to_owned(), Secret::from("value"))]),
        ssh: BTreeMap::new(),
        registry: Registry::new(&Env::default(), settings).unwrap(),
        stores: Stores::default(),
    }
}

/// With a context that has one of everything, beside a file that nobody may see.
fn sharing(peer: &Peer) -> Shared {
    let dir = peer.path("context");
    fs::create_dir_all(dir.join("sub")).unwrap();
    fs::write(dir.join("a"), "1").unwrap();
    fs::write(dir.join("sub/b"), "22").unwrap();
    fs::write(dir.join("sub-c"), "").unwrap();
    fs::hard_link(dir.join("a"), dir.join("sub/linked")).unwrap();
    std::os::unix::fs::symlink("../../outside", dir.join("out")).unwrap();
    std::os::unix::net::UnixListener::bind(dir.join("talk")).unwrap();
    fs::write(peer.path("outside"), "secret").unwrap();
    Shared { locals: BTreeMap::from([("context".to_owned(), dir)]), ..shared() }
}

fn connect(address: &Address, cancel: &Cancel) -> Result<Client, Error> {
    Client::connect(address, &Reach::default(), cancel)
}

fn solve(peer: &Peer, shared: Shared, archive: Option<&Path>, cancel: &Cancel) -> Result<(), Error> {
    let client = connect(&peer.address, cancel)?;
    let definition = pb::Definition::default();
    let progress = Progress::none();
    client.solve(Solve {
        work: Work::Definition(&definition),
        shared,
        caches: Caches::default(),
        archive,
        entitlements: Vec::new(),
        progress: &progress,
        cancel,
    })?;
    Ok(())
}

/// Fails the build with what is wrong.
fn must(holds: bool, what: impl std::fmt::Debug) -> Result<(), Status> {
    if holds { Ok(()) } else { Err(Status::aborted(format!("{what:?}"))) }
}

/// How a transfer of a folder ended: what there is, and the bytes that were asked for.
type Received = (Vec<Stat>, BTreeMap<u32, Vec<u8>>);

/// Takes a shared folder as BuildKit does, but asks for what it is told to.
async fn receive(
    session: &Channel,
    headers: &[(&'static str, &str)],
    ask: impl Fn(&[Stat]) -> Vec<u32>,
) -> Result<Received, Status> {
    let (sender, receiver) = mpsc::channel(64);
    let mut request = Request::new(receiver);
    for (key, value) in headers {
        request.metadata_mut().append(*key, value.parse().unwrap());
    }
    let mut packets = session.both::<Packet, Packet>(FILES, request).await?;
    let (mut stats, mut data, mut left) = (Vec::new(), BTreeMap::<u32, Vec<u8>>::new(), 0);
    let say = |kind: PacketType, id| Packet { r#type: kind.into(), id, ..Packet::default() };
    while let Some(packet) = packets.message().await? {
        match (packet.r#type(), packet.stat) {
            (PacketType::PacketStat, Some(stat)) => stats.push(stat),
            (PacketType::PacketStat, None) => {
                for id in ask(&stats) {
                    left += 1;
                    sender.send(say(PacketType::PacketReq, id)).await.unwrap();
                }
                if left == 0 {
                    sender.send(say(PacketType::PacketFin, 0)).await.unwrap();
                }
            }
            (PacketType::PacketData, _) if packet.data.is_empty() => {
                data.entry(packet.id).or_default();
                left -= 1;
                if left == 0 {
                    sender.send(say(PacketType::PacketFin, 0)).await.unwrap();
                }
            }
            (PacketType::PacketData, _) => data.entry(packet.id).or_default().extend(packet.data),
            (PacketType::PacketFin, _) => return Ok((stats, data)),
            (kind, _) => return Err(Status::aborted(format!("{kind:?} {}", String::from_utf8_lossy(&packet.data)))),
        }
    }
    Err(Status::aborted("it ended early"))
}

#[test]
fn a_folder_is_sent_in_order_and_only_what_is_asked_for() {
    let peer = Peer::solving(|session| async move {
        let everything = |stats: &[Stat]| {
            let files = stats.iter().zip(0..).filter(|(stat, _)| stat.mode >> 27 == 0 && stat.linkname.is_empty());
            files.map(|(_, id)| id).collect()
        };
        let (stats, data) = receive(&session, &[("dir-name", "context")], everything).await?;
        let names: Vec<&str> = stats.iter().map(|stat| stat.path.as_str()).collect();
        must(names == ["a", "out", "sub", "sub/b", "sub/linked", "sub-c", "talk"], &names)?;
        must(stats[1].linkname == "../../outside" && stats[4].linkname == "a", &stats)?;
        must(stats.iter().all(|stat| (stat.uid, stat.gid) == (0, 0)), &stats)?;
        let sent: Vec<(u32, &[u8])> = data.iter().map(|(id, data)| (*id, data.as_slice())).collect();
        must(sent == [(0, &b"1"[..]), (3, b"22"), (5, b""), (6, b"")], &sent)?;
        let headers = [("dir-name", "context"), ("exclude-patterns", "[st]*"), ("exclude-patterns", "out")];
        let (stats, data) = receive(&session, &headers, |_| Vec::new()).await?;
        must(stats.len() == 1 && data.is_empty(), &stats)?;
        let (stats, _) =
            receive(&session, &[("dir-name", "context"), ("followpaths", "sub/b")], |_| Vec::new()).await?;
        must(stats.len() == 2 && stats[1].path == "sub/b", &stats)
    });
    solve(&peer, sharing(&peer), None, &Cancel::new()).unwrap();
}

#[test]
fn what_was_not_shared_is_refused() {
    let refused = |result: Result<Received, Status>, part: &str| {
        let status = result.expect_err(part);
        must(status.message().contains(part), status)
    };
    let peer = Peer::solving(move |session| async move {
        for name in ["other", "", "..", "/etc", "context/sub"] {
            refused(receive(&session, &[("dir-name", name)], |_| Vec::new()).await, "is shared with this build")?;
        }
        // A symlink that leads out is a symlink; a folder, a number of nothing and a link have no bytes to ask for.
        for id in [1, 2, 4, 7, u32::MAX] {
            refused(receive(&session, &[("dir-name", "context")], |_| vec![id]).await, "there is no file")?;
        }
        let (stats, _) =
            receive(&session, &[("dir-name", "context"), ("followpaths", "../outside")], |_| Vec::new()).await?;
        must(stats.iter().all(|stat| !stat.path.contains("outside")), &stats)
    });
    solve(&peer, sharing(&peer), None, &Cancel::new()).unwrap();
}

#[test]
fn secrets_and_credentials_are_those_of_the_build() {
    let peer = Peer::solving(move |session| async move {
        let secret = |id: &str| {
            let question = GetSecretRequest { id: id.to_owned(), ..Default::default() };
            session.unary::<_, GetSecretResponse>("/moby.buildkit.secrets.v1.Secrets/GetSecret", Request::new(question))
        };
        must(secret("known").await?.data == b"value", "the secret")?;
        must(secret("unknown").await.is_err_and(|status| status.code() == Code::NotFound), "an unknown secret")?;

        let credential = |host: &str| {
            let question = CredentialsRequest { host: host.to_owned() };
            session.unary::<_, CredentialsResponse>("/moby.filesync.v1.Auth/Credentials", Request::new(question))
        };
        let known = credential("r.example").await?;
        must((known.username.as_str(), known.secret.as_str()) == ("me", "pass"), "the credential")?;
        must(credential("s.example").await? == CredentialsResponse::default(), "no credential")?;

        let agent = Request::new(CheckAgentRequest { id: String::new() });
        let checked = session.unary::<_, CheckAgentResponse>("/moby.sshforward.v1.SSH/CheckAgent", agent).await;
        must(checked.is_err_and(|status| status.message() == "no ssh agent default was given"), "an agent")?;

        let health = || Request::new(HealthCheckRequest::default());
        session.unary::<_, HealthCheckResponse>("/grpc.health.v1.Health/Check", health()).await?;
        let none = session.unary::<_, HealthCheckResponse>("/moby.upload.v1.Upload/Pull", health()).await;
        must(none.is_err_and(|status| status.code() == Code::Unimplemented), "a method that is not there")?;
        Ok(())
    });
    solve(&peer, shared(), None, &Cancel::new()).unwrap();
}

async fn send_archive(session: &Channel, bytes: &[u8]) -> Result<(), Status> {
    let (sender, receiver) = mpsc::channel(4);
    for data in bytes.chunks(4).map(<[u8]>::to_vec) {
        sender.send(BytesMessage { data }).await.unwrap();
    }
    drop(sender);
    let mut answers = session.both::<_, BytesMessage>(RECEIVE, Request::new(receiver)).await?;
    while answers.message().await?.is_some() {}
    Ok(())
}

#[test]
fn one_archive_is_taken_and_no_second() {
    let peer = Peer::solving(|session| async move {
        send_archive(&session, b"the archive").await?;
        let second = send_archive(&session, b"another").await;
        must(second.is_err_and(|status| status.code() == Code::PermissionDenied), "a second archive")
    });
    let archive = peer.path("archive");
    solve(&peer, shared(), Some(&archive), &Cancel::new()).unwrap();
    assert_eq!(fs::read(&archive).unwrap(), b"the archive");
}

#[test]
fn an_archive_nobody_asked_for_is_refused_and_one_that_does_not_come_is_missed() {
    let uninvited = Peer::solving(|session| async move {
        let sent = send_archive(&session, b"x").await;
        must(sent.is_err_and(|status| status.code() == Code::PermissionDenied), "an archive")
    });
    solve(&uninvited, shared(), None, &Cancel::new()).unwrap();
    let forgetful = Peer::solving(|_| async { Ok(()) });
    let archive = forgetful.path("archive");
    let error = solve(&forgetful, shared(), Some(&archive), &Cancel::new()).unwrap_err().to_string();
    assert!(error.starts_with("build at unix://") && error.ends_with("and its image did not arrive"), "{error}");
}

#[test]
fn an_engine_that_fails_says_why_and_one_that_dies_is_noticed() {
    let failing = Peer::solving(|_| async { Err(Status::unknown("no space left")) });
    let error = solve(&failing, shared(), None, &Cancel::new()).unwrap_err().to_string();
    assert!(error.ends_with(": no space left"), "{error}");

    let (told, dying) = std::sync::mpsc::channel();
    let peer = Peer::solving(move |_| {
        told.send(()).unwrap();
        std::future::pending()
    });
    let dead = peer.dead.clone();
    let killer = std::thread::spawn(move || {
        dying.recv().unwrap();
        dead.notify_one();
    });
    let error = solve(&peer, shared(), None, &Cancel::new()).unwrap_err();
    assert!(matches!(error, Error::Call { what: "build", .. }), "{error}");
    killer.join().unwrap();
}

#[test]
fn a_cancelled_build_ends() {
    let (told, building) = std::sync::mpsc::channel();
    let peer = Peer::solving(move |_| {
        told.send(()).unwrap();
        std::future::pending()
    });
    let cancel = Cancel::new();
    let raised = cancel.clone();
    let raiser = std::thread::spawn(move || {
        building.recv().unwrap();
        raised.cancel();
    });
    let error = solve(&peer, shared(), None, &cancel).unwrap_err();
    assert!(matches!(error, Error::Cancelled(_)), "{error}");
    raiser.join().unwrap();
}

#[test]
fn what_is_no_engine_is_told_apart() {
    let nobody = tempfile::tempdir().unwrap();
    let address = Address::Unix(nobody.path().join("socket"));
    let error = connect(&address, &Cancel::new()).err().unwrap().to_string();
    assert!(error.starts_with(&format!("reach the engine at {address}: No such file")), "{error}");

    let other = Peer::listening(|mut socket| async move {
        let _ = socket.write_all(b"220 mail.example ESMTP\r\n").await;
    });
    let error = solve(&other, shared(), None, &Cancel::new()).unwrap_err();
    assert!(matches!(error, Error::Call { .. } | Error::Connect { .. }), "{error}");

    let answers: [(&[u8], &str); 3] = [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 404 Not Found"),
        (b"HTTP/1.1 101 UPGRADED\r\nUpgr", "HTTP/1.1 101 UPGRADED"),
        (b"", "it hung up"),
    ];
    for (answer, told) in answers {
        let docker = Peer::listening(move |mut socket| async move {
            let mut question = [0; 256];
            let _ = tokio::io::AsyncReadExt::read(&mut socket, &mut question).await;
            let _ = socket.write_all(answer).await;
        });
        let error = connect(&docker.docker(), &Cancel::new()).err().unwrap().to_string();
        assert!(error.ends_with(&format!("does not speak BuildKit's protocol: {told}")), "{error}");
    }
}

#[test]
fn workers_are_listed() {
    let peer = Peer::solving(|_| async { Ok(()) });
    let client = connect(&peer.address, &Cancel::new()).unwrap();
    let workers = client.workers(&[], &Cancel::new()).unwrap();
    assert_eq!(workers.iter().map(|worker| worker.id.as_str()).collect::<Vec<_>>(), ["w1"]);
    let version = workers[0].version.clone().unwrap();
    assert_eq!([version.package, version.version, version.revision], ["peer.example/kit", "v9", "abc"]);
    let error = client.disk_usage(&[], &Cancel::new()).unwrap_err().to_string();
    assert!(error.starts_with("ask what takes up space at unix://"), "{error}");
}
