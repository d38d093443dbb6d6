//! What dockless and the first process of a sandbox tell each other, over a socket that keeps messages apart and
//! carries descriptors.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::MemfdFlags;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::plan::Plan;
use super::{Error, Exit};

/// The first message to a sandbox's process. Its descriptors: the request, as JSON in a memory file, then the step's
/// standard input, if it has one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    Run(Box<Plan>),
    /// Try what works here; the path is an empty directory of the state folder.
    Probe(PathBuf),
}

/// A later message to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Send the step this signal.
    Signal(i32),
    /// End everything now.
    Kill,
}

/// A message from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// With the master side of the step's terminal.
    Terminal,
    /// With the descriptor on which the step's emulated calls arrive.
    Listener,
    /// The process, by number, goes on when it is traced.
    Traceable(u32),
    /// The process could not be started.
    Failed(Failure),
    /// The process ended by itself, and everything it started was ended.
    Exited(i32),
    Signalled(i32),
    /// The answer to a probe.
    Probed(Vec<super::probe::Check>),
}

/// An [`Error`] on its way out of the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failure {
    NotFound { path: String },
    NotExecutable { path: String, errno: i32 },
    Setup { call: String, errno: i32 },
}

impl Failure {
    /// A call that failed, named with its object.
    pub fn setup(call: impl Into<String>, error: &io::Error) -> Self {
        Self::Setup { call: call.into(), errno: error.raw_os_error().unwrap_or(libc::EIO) }
    }
}

impl Failure {
    /// The bare cause.
    pub fn error(&self) -> io::Error {
        io::Error::from_raw_os_error(match self {
            Self::NotFound { .. } => libc::ENOENT,
            Self::NotExecutable { errno, .. } | Self::Setup { errno, .. } => *errno,
        })
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let os = io::Error::from_raw_os_error;
        match failure {
            Failure::NotFound { path } => Self::NotFound { path },
            Failure::NotExecutable { path, errno } => Self::NotExecutable { path, source: os(errno) },
            Failure::Setup { call, errno } => Self::Setup { call, source: os(errno) },
        }
    }
}

impl Message {
    /// How the process ended, if that is what the message says.
    pub fn exit(&self) -> Option<Exit> {
        match self {
            Self::Exited(code) => Some(Exit::Code(*code)),
            Self::Signalled(signal) => Some(Exit::Signal(*signal)),
            _ => None,
        }
    }
}

/// No message is longer; what may be (a request) goes in a file.
const MAX_MESSAGE: usize = 64 * 1024;
/// No message carries more descriptors.
const MAX_DESCRIPTORS: usize = 4;

/// Both ends of a connection.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Sends one message with descriptors.
pub fn send(socket: impl AsFd, message: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(&socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)
    })?;
    Ok(())
}

/// Receives one message; none when the other side is gone.
pub fn receive<T: DeserializeOwned>(socket: impl AsFd) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut bytes = vec![0; MAX_MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(&socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)
    });
    let length = match received {
        Ok(message) => message.bytes,
        Err(rustix::io::Errno::CONNRESET) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if length == 0 {
        return Ok(None);
    }
    Ok(Some((serde_json::from_slice(&bytes[..length])?, descriptors)))
}

/// Puts a request in a file that only exists in memory: it may be long, and hold secrets.
pub fn request_file(request: &Request) -> io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("request", MemfdFlags::CLOEXEC)?);
    file.write_all(&serde_json::to_vec(request)?)?;
    file.rewind()?;
    Ok(file)
}

pub fn read_request(file: OwnedFd) -> io::Result<Request> {
    let mut bytes = Vec::new();
    File::from(file).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn messages_stay_apart_and_carry_descriptors() {
        let (here, there) = pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        send(&here, &Order::Kill, &[file.as_fd(), file.as_fd()]).unwrap();
        send(&here, &Order::Signal(15), &[]).unwrap();
        drop(here);
        let (order, descriptors) = receive::<Order>(&there).unwrap().unwrap();
        assert_eq!((order, descriptors.len()), (Order::Kill, 2));
        assert_eq!(receive::<Order>(&there).unwrap().unwrap().0, Order::Signal(15));
        assert!(receive::<Order>(&there).unwrap().is_none(), "the other side is gone");
    }

    #[test]
    fn a_request_survives_its_file() {
        let request = Request::Probe("/state".into());
        assert_eq!(read_request(request_file(&request).unwrap().into()).unwrap(), request);
    }

    #[test]
    fn a_failure_becomes_the_error_it_stands_for() {
        let error: Error = Failure::Setup { call: "mount /proc".into(), errno: libc::EPERM }.into();
        assert_eq!(error.to_string(), "mount /proc: Operation not permitted (os error 1)");
    }
}
