//! Files of /proc that would tell a step about the host, or about who its processes are to the kernel, told anew.

use std::fmt::Write as _;
use std::io;
use std::os::fd::OwnedFd;

use super::credentials::{CONTAINER, Credentials, Ids};
use super::names::process_of;
use super::paths::Named;
use crate::exec::view;

/// What is mounted, as far as a step can see: its root, and what every step has. In the order of `/proc/mounts`: what,
/// where, kind, options.
const MOUNTS: [(&str, &str, &str, &str); 4] = [
    ("overlay", "/", "overlay", "rw,relatime"),
    ("proc", "/proc", "proc", "rw,nosuid,nodev,noexec,relatime"),
    ("tmpfs", "/dev", "tmpfs", "rw,nosuid,mode=755"),
    ("sysfs", "/sys", "sysfs", "ro,nosuid,nodev,noexec,relatime"),
];

impl Named<'_> {
    /// A file with what a path of /proc shall tell; none where it may tell what it does.
    pub(super) fn told(&self, path: &[u8]) -> io::Result<Option<OwnedFd>> {
        if !path.starts_with(b"/proc/") && path != b"/etc/mtab" {
            return Ok(None);
        }
        let real = self.names.real(self.thread(), path, true, None)?;
        let Some(names) = real.strip_prefix(b"/proc/").and_then(|rest| std::str::from_utf8(rest).ok()) else {
            return Ok(None);
        };
        let names: Vec<_> = names.split('/').collect();
        let (process, file) = match names[..] {
            [process, file] | [process, "task", _, file] => (process, file),
            _ => return Ok(None),
        };
        let text = match file {
            "mounts" => mounts(),
            "mountinfo" => mount_info(),
            "status" => {
                let process = match process {
                    "self" | "thread-self" => process_of(self.thread())?,
                    number => match number.parse() {
                        Ok(number) if self.names.is_ours(number) => number,
                        _ => return Ok(None),
                    },
                };
                let text = std::fs::read_to_string(format!("{process}/status"))?;
                status(&text, &self.supervisor.credentials(process)?)
            }
            _ => return Ok(None),
        };
        view::memory_file(text.as_bytes(), 0o444, (0, 0)).map(Some)
    }
}

fn mounts() -> String {
    MOUNTS.iter().map(|(what, at, kind, options)| format!("{what} {at} {kind} {options} 0 0\n")).collect()
}

fn mount_info() -> String {
    let lines = MOUNTS.iter().enumerate();
    lines
        .map(|(number, (what, at, kind, options))| {
            let parent = if number == 0 { 1 } else { 2 };
            format!("{} {parent} 0:{} / {at} {options} - {kind} {what} rw\n", number + 2, number + 30)
        })
        .collect()
}

/// A process's status with the credentials that it believes to have.
fn status(text: &str, who: &Credentials) -> String {
    let ids = |ids: Ids| format!("{}\t{}\t{}\t{}", ids.real, ids.effective, ids.saved, ids.files);
    let groups: String = who.groups.iter().map(|group| format!("{group} ")).collect();
    let set = |set: u64| format!("{set:016x}");
    let mut told = String::with_capacity(text.len());
    for line in text.lines() {
        let value = match line.split_once(':').map_or("", |(name, _)| name) {
            "Uid" => ids(who.user),
            "Gid" => ids(who.group),
            "Groups" => groups.clone(),
            "CapInh" => set(who.inheritable),
            "CapPrm" => set(who.permitted),
            "CapEff" => set(who.effective),
            "CapBnd" => set(CONTAINER),
            _ => {
                told.push_str(line);
                told.push('\n');
                continue;
            }
        };
        let name = line.split(':').next().unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = writeln!(told, "{name}:\t{value}");
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_tells_who_the_process_believes_to_be() {
        let mut who = Credentials::new(1000, 100, vec![100, 27]);
        who.user.effective = 0;
        let text =
            "Name:\tsh\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nGroups:\t \nCapEff:\t00000000a80425fb\nSeccomp:\t2\n";
        assert_eq!(
            status(text, &who),
            "Name:\tsh\nUid:\t1000\t0\t1000\t1000\nGid:\t100\t100\t100\t100\nGroups:\t100 27 \n\
             CapEff:\t0000000000000000\nSeccomp:\t2\n"
        );
    }

    #[test]
    fn the_root_is_mounted_first() {
        assert!(mounts().starts_with("overlay / overlay rw,relatime 0 0\n"));
        assert!(mount_info().starts_with("2 1 0:30 / / rw,relatime - overlay overlay rw\n3 2 0:31 / /proc "));
    }
}
