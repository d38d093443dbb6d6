//! The memory of a process whose call waits.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::unix::fs::FileExt;

use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::Pid;

/// A path's length, and an attribute's name's, with their NUL, at most.
pub const MAX_STRING: usize = 4096;
/// Reads must not run into the next page, which may not be there.
const PAGE: usize = 4096;
/// Most paths are shorter; the first read takes no more.
const FIRST: usize = 256;

/// Reads exactly this much.
pub fn read(thread: i32, address: u64, buffer: &mut [u8]) -> io::Result<()> {
    match read_some(thread, address, buffer)? {
        length if length == buffer.len() => Ok(()),
        _ => Err(io::Error::from_raw_os_error(libc::EFAULT)),
    }
}

pub fn read_u32(thread: i32, address: u64) -> io::Result<u32> {
    let mut bytes = [0; 4];
    read(thread, address, &mut bytes)?;
    Ok(u32::from_ne_bytes(bytes))
}

/// Reads up to a NUL, which is not returned.
pub fn read_string(thread: i32, address: u64) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    while text.len() < MAX_STRING {
        let at = address + text.len() as u64;
        let to_page_end = PAGE - (at % PAGE as u64) as usize;
        let most = if text.is_empty() { FIRST } else { MAX_STRING - text.len() };
        let start = text.len();
        text.resize(start + to_page_end.min(most), 0);
        let length = read_some(thread, at, &mut text[start..])?;
        text.truncate(start + length);
        if let Some(end) = text[start..].iter().position(|byte| *byte == 0) {
            text.truncate(start + end);
            return Ok(text);
        }
        if length == 0 {
            return Err(io::Error::from_raw_os_error(libc::EFAULT));
        }
    }
    Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG))
}

/// Writes where the process itself may not: into what it maps read-only.
pub fn write_through(thread: i32, address: u64, bytes: &[u8]) -> io::Result<()> {
    let written = File::options().write(true).open(path(thread))?.write_at(bytes, address)?;
    if written == bytes.len() { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EFAULT)) }
}

pub fn write(thread: i32, address: u64, bytes: &[u8]) -> io::Result<()> {
    let remote = [RemoteIoVec { base: place(address)?, len: bytes.len() }];
    let written = match process_vm_writev(Pid::from_raw(thread), &[IoSlice::new(bytes)], &remote) {
        // Some containers' filters do not know this call, but no filter knows what a file is for.
        Err(nix::Error::EPERM | nix::Error::ENOSYS) => {
            File::options().write(true).open(path(thread))?.write_at(bytes, address)?
        }
        result => result?,
    };
    if written == bytes.len() { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EFAULT)) }
}

fn read_some(thread: i32, address: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let remote = [RemoteIoVec { base: place(address)?, len: buffer.len() }];
    match process_vm_readv(Pid::from_raw(thread), &mut [IoSliceMut::new(buffer)], &remote) {
        Err(nix::Error::EPERM | nix::Error::ENOSYS) => File::open(path(thread))?.read_at(buffer, address),
        result => Ok(result?),
    }
}

fn place(address: u64) -> io::Result<usize> {
    usize::try_from(address).map_err(|_| io::Error::from_raw_os_error(libc::EFAULT))
}

/// Relative: a supervisor's working directory is its own /proc.
fn path(thread: i32) -> String {
    format!("{thread}/mem")
}
