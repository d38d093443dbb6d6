//! What an engine may read and write of blobs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::mpsc;
use tonic::{Code, Request, Status};

use super::peer::Peer;
use super::{must, shared, solve};
use crate::base::{Cancel, Digest};
use crate::remote::grpc::Channel;
use crate::remote::session::content::{InfoRequest, InfoResponse, ReadContentRequest, ReadContentResponse};
use crate::remote::session::upload::{WriteAction, WriteContentRequest, WriteContentResponse};
use crate::remote::{Shared, Store, Stores};
use crate::store::{BlobStore as _, MemoryBlobs, read_document, write_document};

const INFO: &str = "/containerd.services.content.v1.Content/Info";
const READ: &str = "/containerd.services.content.v1.Content/Read";
const WRITE: &str = "/containerd.services.content.v1.Content/Write";

/// A call about a store.
fn about<T>(store: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if !store.is_empty() {
        request.metadata_mut().insert("buildkit-attachable-store-id", store.parse().unwrap());
    }
    request
}

fn with(stores: impl IntoIterator<Item = (&'static str, Store)>) -> Shared {
    let stores: BTreeMap<String, Store> = stores.into_iter().map(|(id, store)| (id.to_owned(), store)).collect();
    Shared { stores: Stores(stores), ..shared() }
}

#[test]
fn blobs_are_read_from_the_stores_of_the_build_and_no_others() {
    let blobs = Arc::new(MemoryBlobs::new());
    let offered = write_document(&blobs, b"0123456789").unwrap();
    let other = write_document(&blobs, b"other").unwrap();
    let peer = Peer::solving(move |session| async move {
        let info = |store: &'static str, digest: Digest| {
            session.unary::<_, InfoResponse>(INFO, about(store, InfoRequest { digest: digest.to_string() }))
        };
        let told = info("some", offered).await?;
        must(told.info.as_ref().is_some_and(|info| info.size == 10), &told)?;
        must(info("all", other).await.is_ok(), "a store that is shared whole")?;
        for (store, code) in [("", Code::InvalidArgument), ("local:/etc", Code::NotFound), ("ALL", Code::NotFound)] {
            must(info(store, offered).await.is_err_and(|status| status.code() == code), store)?;
        }
        for (offset, size, expected) in [(0, 0, "0123456789"), (3, 4, "3456"), (8, 100, "89"), (20, 0, "")] {
            let question = ReadContentRequest { digest: offered.to_string(), offset, size };
            let mut answers = session.answers::<_, ReadContentResponse>(READ, about("some", question)).await?;
            let mut read = Vec::new();
            while let Some(answer) = answers.message().await? {
                must(answer.offset == offset + read.len() as i64, &answer)?;
                read.extend(answer.data);
            }
            must(read == expected.as_bytes(), &read)?;
        }
        for (store, digest) in [
            ("some", other.to_string()),
            ("all", "sha256:../../etc/passwd".to_owned()),
            ("all", Digest::of("nowhere").to_string()),
            ("none", offered.to_string()),
        ] {
            let question = ReadContentRequest { digest: digest.clone(), offset: 0, size: 0 };
            let read = async {
                let mut answers = session.answers::<_, ReadContentResponse>(READ, about(store, question)).await?;
                while answers.message().await?.is_some() {}
                Ok::<_, Status>(())
            };
            must(read.await.is_err(), (store, digest))?;
        }
        let question = ReadContentRequest { digest: offered.to_string(), offset: -1, size: 0 };
        let read = session.answers::<_, ReadContentResponse>(READ, about("some", question)).await;
        must(read.is_err_and(|status| status.code() == Code::OutOfRange), "before the beginning")
    });
    let some = Store { blobs: blobs.clone(), only: Some(BTreeSet::from([offered])), writable: false };
    let all = Store { blobs, only: None, writable: false };
    solve(&peer, with([("some", some), ("all", all)]), None, &Cancel::new()).unwrap();
}

/// Leaves a blob as containerd's client does; returned is what was last answered.
async fn leave(
    session: &Channel,
    store: &str,
    messages: Vec<WriteContentRequest>,
) -> Result<WriteContentResponse, Status> {
    let (sender, receiver) = mpsc::channel(1);
    let mut answers = session.both::<_, WriteContentResponse>(WRITE, about(store, receiver)).await?;
    let mut last = WriteContentResponse::default();
    for message in messages {
        // One that was refused hears of it in the answer.
        let _ = sender.send(message).await;
        last = answers.message().await?.ok_or_else(|| Status::aborted("no answer"))?;
    }
    Ok(last)
}

fn message(action: WriteAction, of: &[u8], from: usize, to: usize) -> WriteContentRequest {
    WriteContentRequest {
        action: action.into(),
        r#ref: "r".to_owned(),
        total: of.len() as i64,
        expected: Digest::of(of).to_string(),
        offset: from as i64,
        data: of[from..to].to_vec(),
    }
}

#[test]
fn blobs_are_left_where_that_is_allowed_and_as_they_were_promised() {
    use WriteAction::{Commit, Stat, Write};
    const BLOB: &[u8] = b"0123456789";
    let (open, closed) = (Arc::new(MemoryBlobs::new()), Arc::new(MemoryBlobs::new()));
    let peer = Peer::solving(|session| async move {
        let refused = |result: Result<WriteContentResponse, Status>, code: Code| {
            must(result.as_ref().is_err_and(|status| status.code() == code), (code, &result))
        };
        let whole = || vec![message(Stat, BLOB, 0, 0), message(Write, BLOB, 0, 4), message(Write, BLOB, 4, 10)];
        refused(leave(&session, "closed", whole()).await, Code::PermissionDenied)?;
        // Never committed: nothing of it stays.
        let half = leave(&session, "open", whole()).await?;
        must((half.offset, half.total) == (10, 10), &half)?;
        let gap = vec![message(Stat, BLOB, 0, 0), message(Write, BLOB, 4, 10)];
        refused(leave(&session, "open", gap).await, Code::OutOfRange)?;
        let more = WriteContentRequest { total: 4, ..message(Write, BLOB, 0, 10) };
        refused(leave(&session, "open", vec![more]).await, Code::OutOfRange)?;
        let wrong = Digest::of("another").to_string();
        let other = WriteContentRequest { expected: wrong, data: b"x".repeat(10), ..message(Commit, BLOB, 0, 10) };
        refused(leave(&session, "open", vec![other]).await, Code::FailedPrecondition)?;
        let short = vec![message(Write, BLOB, 0, 4), message(Commit, BLOB, 4, 4)];
        refused(leave(&session, "open", short).await, Code::FailedPrecondition)?;

        let mut messages = whole();
        messages.push(message(Commit, BLOB, 10, 10));
        let kept = leave(&session, "open", messages).await?;
        must(kept.digest == Digest::of(BLOB).to_string() && kept.action == Commit as i32, &kept)?;
        refused(leave(&session, "open", whole()).await, Code::AlreadyExists)
    });
    let store = |blobs: &Arc<MemoryBlobs>, writable| Store { blobs: blobs.clone(), only: None, writable };
    solve(&peer, with([("open", store(&open, true)), ("closed", store(&closed, false))]), None, &Cancel::new())
        .unwrap();
    assert_eq!(open.list().unwrap(), [Digest::of(BLOB)]);
    assert_eq!(read_document(&open, &Digest::of(BLOB)).unwrap(), BLOB);
    assert_eq!(closed.list().unwrap(), []);
}
