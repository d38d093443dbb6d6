//! A line that is cut, garbled, slow or silent, and a peer that stops in the middle of what it sends.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bollard_buildkit_proto::moby::filesync::packet::BytesMessage;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tonic::{Request, Status};

use super::peer::Peer;
use super::{RECEIVE, receive, send_archive, shared, sharing, solve};
use crate::base::Cancel;
use crate::remote::{Address, Error};

/// What becomes of the bytes that a peer says.
#[derive(Debug, Clone, Copy)]
enum Line {
    /// They come one by one.
    Slow,
    /// After so many there are no more.
    Cut(usize),
    /// After so many there is noise.
    Noise(usize),
    /// After so many nothing is said any more, and nobody hangs up.
    Silent(usize),
}

/// Stands between us and a peer that means well. `heard` counts what the peer said.
fn between(peer: &Peer, line: Line, heard: &Arc<AtomicUsize>) -> Peer {
    let Address::Unix(path) = &peer.address else { panic!("{}", peer.address) };
    let (path, heard) = (path.clone(), heard.clone());
    Peer::listening(move |ours| carry(path.clone(), ours, line, heard.clone()))
}

async fn carry(path: PathBuf, ours: UnixStream, line: Line, heard: Arc<AtomicUsize>) {
    let Ok(theirs) = UnixStream::connect(path).await else { return };
    let (mut from_us, mut to_us) = ours.into_split();
    let (mut from_them, mut to_them) = theirs.into_split();
    let up = async {
        // One that stops to listen says so by hanging up.
        let _ = tokio::io::copy(&mut from_us, &mut to_them).await;
        std::future::pending::<()>().await;
    };
    let down = async {
        let mut buffer = vec![0; 4096];
        while let Ok(length @ 1..) = from_them.read(&mut buffer).await {
            let before = heard.fetch_add(length, Ordering::Relaxed);
            let left = |limit: usize| limit.saturating_sub(before).min(length);
            let passed = match line {
                Line::Slow => {
                    for byte in &buffer[..length] {
                        if to_us.write_all(&[*byte]).await.is_err() {
                            return;
                        }
                    }
                    continue;
                }
                Line::Cut(limit) | Line::Noise(limit) | Line::Silent(limit) => left(limit),
            };
            if to_us.write_all(&buffer[..passed]).await.is_err() {
                return;
            }
            match line {
                Line::Slow => {}
                Line::Cut(_) if passed < length => return,
                Line::Noise(_) if passed < length => {
                    let _ = to_us.write_all(&[0xff; 4096]).await;
                    return;
                }
                Line::Silent(_) if passed < length => std::future::pending().await,
                Line::Cut(_) | Line::Noise(_) | Line::Silent(_) => {}
            }
        }
    };
    tokio::select! { () = up => {}, () = down => {} }
}

/// Builds that ask for files and leave an archive.
fn honest() -> Peer {
    Peer::solving(|session| async move {
        receive(&session, &[("dir-name", "context")], |_| vec![0]).await?;
        send_archive(&session, b"the archive").await
    })
}

fn build_over(line: Line, cancel: &Cancel) -> (Result<(), Error>, usize) {
    let peer = honest();
    let heard = Arc::new(AtomicUsize::new(0));
    let middle = between(&peer, line, &heard);
    let result = solve(&middle, sharing(&peer), Some(&peer.path("archive")), cancel);
    (result, heard.load(Ordering::Relaxed))
}

#[test]
fn a_slow_line_is_only_slow_and_a_broken_one_is_an_error_wherever_it_breaks() {
    let (built, all) = build_over(Line::Slow, &Cancel::new());
    built.unwrap();
    // Twelve places, from the first byte on; the last bytes may be ones that nobody needs.
    for at in (0..all * 3 / 4).step_by(all / 16) {
        for line in [Line::Cut(at), Line::Noise(at)] {
            let (result, _) = build_over(line, &Cancel::new());
            let error = result.expect_err(&format!("{line:?} of {all}"));
            assert!(matches!(error, Error::Call { .. } | Error::Connect { .. }), "{line:?}: {error}");
        }
    }
}

#[test]
fn a_silent_line_can_be_left() {
    let cancel = Cancel::new();
    let raised = cancel.clone();
    let peer = Peer::solving(move |_| {
        raised.cancel();
        std::future::pending()
    });
    let middle = between(&peer, Line::Silent(usize::MAX), &Arc::default());
    let error = solve(&middle, shared(), None, &cancel).unwrap_err();
    assert!(matches!(error, Error::Cancelled(_)), "{error}");

    let cancel = Cancel::new();
    cancel.cancel();
    let (result, _) = build_over(Line::Silent(0), &cancel);
    assert!(matches!(result, Err(Error::Cancelled(_))), "{result:?}");
}

#[test]
fn half_an_archive_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("archive");
    let arriving = archive.clone();
    let peer = Peer::solving(move |session| {
        let arriving = arriving.clone();
        async move {
            let (sender, receiver) = mpsc::channel(1);
            let call = session.both::<_, BytesMessage>(RECEIVE, Request::new(receiver));
            let half = async {
                let _ = sender.send(BytesMessage { data: b"half of".to_vec() }).await;
                while std::fs::metadata(&arriving).is_err() {
                    tokio::task::yield_now().await;
                }
            };
            // The call goes away with its stream, which is not the end of one.
            tokio::select! {
                answered = call => return answered.and(Err(Status::aborted("it was taken for whole"))),
                () = half => {}
            }
            let again = send_archive(&session, b"another").await;
            super::must(again.is_err(), "a second try")
        }
    });
    let error = solve(&peer, shared(), Some(&archive), &Cancel::new()).unwrap_err().to_string();
    assert!(error.ends_with("and its image did not arrive"), "{error}");
}
