//! Archives that no archiver makes, byte by byte.

use std::io::Write;

/// A member's header and content, every field open to lies.
pub struct Forged {
    header: [u8; 512],
    content: Vec<u8>,
}

pub fn member(kind: u8, name: &str) -> Forged {
    let mut forged = Forged { header: [0; 512], content: Vec::new() };
    forged.set(0, &name.as_bytes()[..name.len().min(100)]);
    forged.set(100, b"0000755\0");
    forged.set(108, b"0000000\0");
    forged.set(116, b"0000000\0");
    forged.set(124, b"00000000000\0");
    forged.set(136, b"00000000001\0");
    forged.set(156, &[kind]);
    forged.set(257, b"ustar\x0000");
    forged
}

impl Forged {
    pub fn set(&mut self, at: usize, bytes: &[u8]) -> &mut Self {
        self.header[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub fn patch(mut self, at: usize, bytes: &[u8]) -> Self {
        self.set(at, bytes);
        self
    }

    pub fn link(self, target: &str) -> Self {
        self.patch(157, target.as_bytes())
    }

    pub fn content(mut self, content: &[u8]) -> Self {
        let size = format!("{:011o}\0", content.len());
        self.set(124, size.as_bytes());
        self.content = content.to_vec();
        self
    }

    pub fn bytes(mut self) -> Vec<u8> {
        self.set(148, b"        ");
        let sum: u64 = self.header.iter().map(|byte| u64::from(*byte)).sum();
        let sum = format!("{sum:06o}\0 ");
        self.set(148, sum.as_bytes());
        let mut bytes = self.header.to_vec();
        bytes.extend_from_slice(&self.content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }
}

pub fn file(name: &str, content: &str) -> Vec<u8> {
    member(b'0', name).content(content.as_bytes()).bytes()
}

pub fn dir(name: &str) -> Vec<u8> {
    member(b'5', name).bytes()
}

pub fn symlink(name: &str, target: &str) -> Vec<u8> {
    member(b'2', name).link(target).bytes()
}

pub fn hardlink(name: &str, target: &str) -> Vec<u8> {
    member(b'1', name).link(target).bytes()
}

pub fn device(name: &str, major: u32, minor: u32) -> Vec<u8> {
    let number = |n: u32| format!("{n:07o}\0");
    member(b'3', name).patch(329, number(major).as_bytes()).patch(337, number(minor).as_bytes()).bytes()
}

/// An extended header (`x`, `g`) or a GNU long name (`L`, `K`).
pub fn extended(kind: u8, content: &[u8]) -> Vec<u8> {
    member(kind, "ext").content(content).bytes()
}

/// PAX records with their right lengths.
pub fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (key, value) in records {
        let rest = 3 + key.len() + value.len();
        let length = (1..8).map(|digits| rest + digits).find(|n| n.to_string().len() + rest == *n).unwrap();
        write!(body, "{length} {key}=").unwrap();
        body.extend_from_slice(value);
        body.push(b'\n');
    }
    extended(b'x', &body)
}

/// Members and the end mark.
pub fn archive(members: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = members.concat();
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}
