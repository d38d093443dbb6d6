//! Calls about who a process is.

use std::io;

use super::call::{Call, Where};
use super::credentials::{CONTAINER, Credentials, Ids};
use super::{CONTINUE, DONE, Reply, Supervisor, errno, lock, memory, value};
use crate::sys::notify::Notification;
use crate::sys::process;

/// As many supplementary groups as the kernel allows.
const MAX_GROUPS: u32 = 65536;
/// The versions of capget's and capset's structures: of 32 and of 64 capabilities.
const CAPABILITY_VERSION_1: u32 = 0x1998_0330;
const CAPABILITY_VERSION_2: u32 = 0x2007_1026;
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

impl Supervisor {
    /// Who a thread's process believes to be.
    pub(super) fn credentials(&self, thread: i32) -> io::Result<Credentials> {
        if let [only] = &lock(&self.credentials)[..] {
            return Ok(only.clone());
        }
        let note = usize::try_from(process::inherited_note(thread)?).unwrap_or(usize::MAX);
        let all = lock(&self.credentials);
        // A process may play with the limit that holds the note; it only fools itself.
        Ok(all.get(note).unwrap_or(&all[0]).clone())
    }

    fn set_credentials(&self, thread: i32, credentials: &Credentials) -> io::Result<()> {
        let note = {
            let mut all = lock(&self.credentials);
            all.iter().position(|known| known == credentials).unwrap_or_else(|| {
                all.push(credentials.clone());
                all.len() - 1
            })
        };
        process::set_inherited_note(thread, note as u64)
    }

    fn change<T>(&self, thread: i32, change: impl FnOnce(&mut Credentials) -> io::Result<T>) -> io::Result<T> {
        let before = self.credentials(thread)?;
        let mut after = before.clone();
        let result = change(&mut after)?;
        if after != before {
            self.set_credentials(thread, &after)?;
        }
        Ok(result)
    }

    pub(super) fn identity(&self, notification: &Notification, call: Call) -> io::Result<Reply> {
        let thread = notification.thread;
        match call {
            Call::GetUid => value(self.credentials(thread)?.user.real),
            Call::GetEuid => value(self.credentials(thread)?.user.effective),
            Call::GetGid => value(self.credentials(thread)?.group.real),
            Call::GetEgid => value(self.credentials(thread)?.group.effective),
            Call::GetResuid(places) => write_ids(thread, places, self.credentials(thread)?.user),
            Call::GetResgid(places) => write_ids(thread, places, self.credentials(thread)?.group),
            Call::GetGroups { room, list } => self.get_groups(thread, room, list),
            Call::CapGet { header, data } => self.get_capabilities(thread, header, data),
            Call::NoteLimit { new: 0, .. } => CONTINUE,
            Call::NoteLimit { old, .. } => {
                // Whoever sets it would be somebody else. It is told that it did; what it was before is nobody's matter.
                if old != 0 {
                    memory::write(thread, old, &[0; 16])?;
                }
                DONE
            }
            Call::GetKeepCaps => value(self.credentials(thread)?.keep),
            Call::SetFsuid(uid) => value(self.change(thread, |who| Ok(who.setfsuid(uid)))?),
            Call::SetFsgid(gid) => value(self.change(thread, |who| Ok(who.setfsgid(gid)))?),
            other => {
                self.change(thread, |who| set(notification, other, who))?;
                DONE
            }
        }
    }

    fn get_groups(&self, thread: i32, room: i32, list: u64) -> io::Result<Reply> {
        let groups = self.credentials(thread)?.groups;
        let count = i32::try_from(groups.len()).unwrap_or(i32::MAX);
        if room < 0 || (room != 0 && room < count) {
            return Err(errno(libc::EINVAL));
        }
        if room != 0 && count != 0 {
            let bytes: Vec<u8> = groups.iter().flat_map(|group| group.to_ne_bytes()).collect();
            memory::write(thread, list, &bytes)?;
        }
        value(count)
    }

    fn get_capabilities(&self, thread: i32, header: u64, data: u64) -> io::Result<Reply> {
        let (version, process) = (memory::read_u32(thread, header)?, memory::read_u32(thread, header + 4)?);
        let words = match version {
            CAPABILITY_VERSION_1 => 1,
            CAPABILITY_VERSION_2 | CAPABILITY_VERSION_3 => 2,
            // A question for the version that the kernel likes.
            _ => return CONTINUE,
        };
        if data == 0 || process != 0 && !is_called(thread, process)? {
            return CONTINUE;
        }
        let who = self.credentials(thread)?;
        let sets = [who.effective, who.permitted, who.inheritable];
        let bytes: Vec<u8> = (0..words)
            .flat_map(|word| sets.map(|set| low_half(set >> (32 * word))))
            .flat_map(u32::to_ne_bytes)
            .collect();
        memory::write(thread, data, &bytes)?;
        DONE
    }

    /// A program is about to run: a setuid one makes its caller somebody else.
    pub(super) fn execute(&self, notification: &Notification, file: &Where) -> io::Result<Reply> {
        let thread = notification.thread;
        // What cannot be opened here is an error, or a path that only the kernel can follow; and a program without
        // the bits changes little.
        let Ok(known) = self.files.open(thread, file).and_then(|file| self.files.know(file)) else {
            return CONTINUE;
        };
        let mode = u32::from(known.stat.stx_mode);
        if mode & libc::S_IFMT != libc::S_IFREG || mode & 0o111 == 0 {
            return CONTINUE;
        }
        let owner = known.owner.unwrap_or_default();
        self.becomes(thread, mode, owner.uid, owner.gid)?;
        CONTINUE
    }

    /// Makes a thread's process who a program of this mode and these owners makes it.
    pub(super) fn becomes(&self, thread: i32, mode: u32, uid: u32, gid: u32) -> io::Result<()> {
        let setuid = (mode & libc::S_ISUID != 0).then_some(uid);
        let setgid = (mode & (libc::S_ISGID | libc::S_IXGRP) == libc::S_ISGID | libc::S_IXGRP).then_some(gid);
        self.change(thread, |who| {
            who.execute(setuid, setgid);
            Ok(())
        })
    }
}

/// Whether this is the number by which a thread's process knows itself: in the innermost of its pid namespaces.
fn is_called(thread: i32, number: u32) -> io::Result<bool> {
    let status = std::fs::read_to_string(format!("{thread}/status"))?;
    let own = status.lines().find_map(|line| line.strip_prefix("NStgid:"));
    Ok(own.and_then(|numbers| numbers.split_whitespace().next_back()?.parse().ok()) == Some(number))
}

/// The calls that change something and answer nothing.
fn set(notification: &Notification, call: Call, who: &mut Credentials) -> io::Result<()> {
    let thread = notification.thread;
    match call {
        Call::SetUid(uid) => who.setuid(uid)?,
        Call::SetGid(gid) => who.setgid(gid)?,
        Call::SetReuid(real, effective) => who.setreuid(real, effective)?,
        Call::SetRegid(real, effective) => who.setregid(real, effective)?,
        Call::SetResuid([real, effective, saved]) => who.setresuid(real, effective, saved)?,
        Call::SetResgid([real, effective, saved]) => who.setresgid(real, effective, saved)?,
        Call::SetGroups { count, list } => {
            if count > MAX_GROUPS {
                return Err(errno(libc::EINVAL));
            }
            let mut bytes = vec![0; count as usize * 4];
            if count > 0 {
                memory::read(thread, list, &mut bytes)?;
            }
            who.setgroups(words(&bytes))?;
        }
        Call::CapSet { header, data } => {
            let words_each = match memory::read_u32(thread, header)? {
                CAPABILITY_VERSION_1 => 1,
                CAPABILITY_VERSION_2 | CAPABILITY_VERSION_3 => 2,
                _ => return Err(errno(libc::EINVAL)),
            };
            let mut bytes = vec![0; words_each * 12];
            memory::read(thread, data, &mut bytes)?;
            let words = words(&bytes);
            let known = CONTAINER | who.permitted | who.inheritable;
            let set = |at: usize| {
                let high = words.get(at + 3).copied().unwrap_or(0);
                // A set with every bit means everything there is.
                (u64::from(high) << 32 | u64::from(words[at])) & (known | !every_bit(words[at], high))
            };
            who.capset(set(0), set(1), set(2))?;
        }
        Call::SetKeepCaps(keep) => who.keep = keep,
        _ => return Err(errno(libc::ENOSYS)),
    }
    Ok(())
}

/// All ones if a set asks for all 64 or all 32 capabilities, as libcap does where it does not know how many there are.
fn every_bit(low: u32, high: u32) -> u64 {
    if low == u32::MAX && matches!(high, 0 | u32::MAX) { u64::MAX } else { 0 }
}

fn write_ids(thread: i32, places: [u64; 3], ids: Ids) -> io::Result<Reply> {
    for (place, id) in places.into_iter().zip([ids.real, ids.effective, ids.saved]) {
        memory::write(thread, place, &id.to_ne_bytes())?;
    }
    DONE
}

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]])).collect()
}

fn low_half(set: u64) -> u32 {
    set as u32
}
