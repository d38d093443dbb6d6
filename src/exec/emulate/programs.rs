//! Programs that the kernel would start with the wrong loader: it looks for the loader that a program names in the root
//! that the process has, which is the host's. Such a program runs from a copy that names the loader by its path on the
//! host.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, Statx, StatxFlags};

use super::errno;
use super::files::link_to;

/// The copies of one step.
pub struct Programs {
    directory: PathBuf,
    /// Which path of the step each copy stands for.
    originals: Mutex<HashMap<Vec<u8>, Vec<u8>>>,
}

/// How a program starts.
#[derive(Debug, PartialEq, Eq)]
pub enum Kind {
    /// With another program that reads it, and perhaps one argument for that.
    Script { interpreter: Vec<u8>, argument: Option<Vec<u8>> },
    /// With a loader.
    Dynamic(Loader),
    /// As it is: static, or nothing that the kernel knows.
    Plain,
    /// For the 32-bit calls of this processor.
    Narrow,
    /// For another processor.
    Foreign,
}

/// What a program says of its loader.
#[derive(Debug, PartialEq, Eq)]
pub struct Loader {
    pub path: Vec<u8>,
    /// Where in the file its header is.
    header: u64,
}

/// The kernel reads no more of a script's first line.
const FIRST: usize = 256;
/// A program header of 64 bits: type, flags, offset, addresses, sizes, alignment.
const HEADER: usize = 56;
const PT_INTERP: u32 = 3;
/// How a program says which processor it is for.
const MACHINE: u16 = if cfg!(target_arch = "x86_64") { 62 } else { 183 };

impl Programs {
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), originals: Mutex::default() }
    }

    /// The path of the step that a copy stands for.
    pub fn original(&self, host: &[u8]) -> Option<Vec<u8>> {
        if !host.starts_with(self.directory.as_os_str().as_bytes()) {
            return None;
        }
        self.originals.lock().unwrap_or_else(PoisonError::into_inner).get(host).cloned()
    }

    /// A copy of a program that names this loader. `shown` is the program's path in the step.
    pub fn with_loader(&self, program: &File, shown: &[u8], loader: &Loader, host: &[u8]) -> io::Result<Vec<u8>> {
        let stat = rustix::fs::statx(program, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS | StatxFlags::BTIME)?;
        // The name is what ps shows.
        let name = Path::new(OsStr::from_bytes(shown)).file_name().ok_or_else(|| errno(libc::EACCES))?;
        let folder = self.directory.join(key(&stat));
        let copy = folder.join(name);
        if !copy.exists() {
            fs::create_dir_all(&folder)?;
            let beside =
                tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempfile_in(&folder)?;
            copy_program(program, beside.as_file(), loader, host)?;
            beside.persist(&copy).map_err(|error| error.error)?;
        }
        let copy = copy.into_os_string().into_encoded_bytes();
        let mut originals = self.originals.lock().unwrap_or_else(PoisonError::into_inner);
        originals.entry(copy.clone()).or_insert_with(|| shown.to_vec());
        Ok(copy)
    }
}

/// What tells one content of one file from every other.
fn key(stat: &Statx) -> String {
    let (birth, change) = (stat.stx_btime, stat.stx_mtime);
    format!(
        "{:x}-{:x}-{:x}.{:x}-{:x}.{:x}-{:x}",
        rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor),
        stat.stx_ino,
        birth.tv_sec,
        birth.tv_nsec,
        change.tv_sec,
        change.tv_nsec,
        stat.stx_size
    )
}

/// The loader's new path goes behind the end of the file, where nothing else is.
fn copy_program(from: &File, to: &File, loader: &Loader, host: &[u8]) -> io::Result<()> {
    let mut source = from;
    let mut sink = to;
    let length = io::copy(&mut source, &mut sink)?;
    let path = [host, b"\0"].concat();
    to.write_all_at(&path, length)?;
    let size = path.len() as u64;
    // p_offset; p_filesz and p_memsz.
    to.write_all_at(&length.to_le_bytes(), loader.header + 8)?;
    to.write_all_at(&size.to_le_bytes(), loader.header + 32)?;
    to.write_all_at(&size.to_le_bytes(), loader.header + 40)
}

/// Opens a program that was looked at.
pub fn open(program: &OwnedFd) -> io::Result<File> {
    File::open(link_to(program)).map_err(|error| match error.raw_os_error() {
        Some(libc::ENXIO) => errno(libc::EACCES),
        _ => error,
    })
}

/// Whether a program is for the 32-bit calls of this processor.
pub fn is_narrow(program: &File) -> io::Result<bool> {
    let mut start = [0; 5];
    let length = program.read_at(&mut start, 0)?;
    Ok(start[..length] == *b"\x7fELF\x01")
}

pub fn kind(program: &File) -> io::Result<Kind> {
    let mut start = vec![0; FIRST];
    let length = program.read_at(&mut start, 0)?;
    start.truncate(length);
    if let Some(line) = start.strip_prefix(b"#!") {
        return script(line);
    }
    if !start.starts_with(b"\x7fELF") || length < 64 {
        return Ok(Kind::Plain);
    }
    // Class and byte order: 64 bits, little-endian.
    if start[4] != 2 || start[5] != 1 {
        return Ok(if start[4] == 1 { Kind::Narrow } else { Kind::Plain });
    }
    if number(&start, 18, 2) != u64::from(MACHINE) {
        return Ok(Kind::Foreign);
    }
    let (offset, size, count) = (number(&start, 32, 8), number(&start, 54, 2), number(&start, 56, 2));
    for at in (0..count).map(|index| offset + index * size) {
        let mut header = [0; HEADER];
        program.read_exact_at(&mut header, at)?;
        if number(&header, 0, 4) == u64::from(PT_INTERP) {
            let length = usize::try_from(number(&header, 32, 8)).unwrap_or(usize::MAX);
            if length > super::memory::MAX_STRING {
                return Err(errno(libc::ENOEXEC));
            }
            let mut path = vec![0; length];
            program.read_exact_at(&mut path, number(&header, 8, 8))?;
            path.truncate(path.iter().position(|byte| *byte == 0).unwrap_or(length));
            return Ok(Kind::Dynamic(Loader { path, header: at }));
        }
    }
    Ok(Kind::Plain)
}

/// The first line of a script, behind its mark.
fn script(line: &[u8]) -> io::Result<Kind> {
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii();
    let end = line.iter().position(|byte| matches!(byte, b' ' | b'\t')).unwrap_or(line.len());
    let (interpreter, rest) = (line[..end].to_vec(), line[end..].trim_ascii());
    if interpreter.is_empty() {
        return Err(errno(libc::ENOEXEC));
    }
    Ok(Kind::Script { interpreter, argument: (!rest.is_empty()).then(|| rest.to_vec()) })
}

fn number(bytes: &[u8], at: usize, size: usize) -> u64 {
    bytes[at..at + size].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_lines_of_scripts_are_taken_apart() {
        let of = |text: &[u8]| script(text).ok();
        let expected = |interpreter: &str, argument: Option<&str>| {
            Some(Kind::Script {
                interpreter: interpreter.into(),
                argument: argument.map(|text| text.as_bytes().to_vec()),
            })
        };
        for (text, kind) in [
            ("/bin/sh\necho", expected("/bin/sh", None)),
            (" /usr/bin/env  python3 -u \nx", expected("/usr/bin/env", Some("python3 -u"))),
            ("/bin/sh", expected("/bin/sh", None)),
            ("  \n", None),
        ] {
            assert_eq!(of(text.as_bytes()), kind, "{text:?}");
        }
    }

    #[test]
    fn programs_are_told_by_their_first_bytes() {
        let program = |class, order, machine: u16| {
            let mut bytes = vec![0; 64];
            bytes[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, order]);
            bytes[18..20].copy_from_slice(&machine.to_le_bytes());
            bytes
        };
        for (bytes, expected) in [
            (program(2, 1, MACHINE), Kind::Plain),
            (program(2, 1, 243), Kind::Foreign),
            (program(1, 1, 3), Kind::Narrow),
            (b"echo".to_vec(), Kind::Plain),
        ] {
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(&bytes, 0).unwrap();
            assert_eq!(is_narrow(&file).unwrap(), expected == Kind::Narrow);
            assert_eq!(kind(&file).unwrap(), expected);
        }
    }

    #[test]
    fn this_test_runs_from_a_copy_with_another_loader() {
        let own = File::open("/proc/self/exe").unwrap();
        // Which of the two this program is depends on how it was built.
        let loader = match kind(&own).unwrap() {
            Kind::Dynamic(loader) => loader,
            other => return assert_eq!(other, Kind::Plain),
        };
        let dir = tempfile::tempdir().unwrap();
        let programs = Programs::new(dir.path());
        let copy = programs.with_loader(&own, b"/usr/bin/tests", &loader, b"/no/loader").unwrap();
        assert_eq!(programs.original(&copy).unwrap(), b"/usr/bin/tests");
        let copy = File::open(OsStr::from_bytes(&copy)).unwrap();
        match kind(&copy).unwrap() {
            Kind::Dynamic(loader) => assert_eq!(loader.path, b"/no/loader"),
            other => panic!("{other:?}"),
        }
    }
}
