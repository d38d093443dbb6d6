//! `struct stat`, `struct statx` and `struct statfs` as the kernel lays them out in memory.

use rustix::fs::{StatFs, Statx};

/// `struct stat` of this architecture.
pub fn stat_bytes(x: &Statx) -> Vec<u8> {
    let device = |major, minor| rustix::fs::makedev(major, minor);
    let mut bytes = Bytes(Vec::with_capacity(144));
    bytes.u64(device(x.stx_dev_major, x.stx_dev_minor));
    bytes.u64(x.stx_ino);
    #[cfg(target_arch = "x86_64")]
    {
        bytes.u64(x.stx_nlink.into());
        bytes.u32(x.stx_mode.into());
    }
    #[cfg(target_arch = "aarch64")]
    {
        bytes.u32(x.stx_mode.into());
        bytes.u32(x.stx_nlink);
    }
    bytes.u32(x.stx_uid);
    bytes.u32(x.stx_gid);
    #[cfg(target_arch = "x86_64")]
    bytes.u32(0);
    bytes.u64(device(x.stx_rdev_major, x.stx_rdev_minor));
    #[cfg(target_arch = "aarch64")]
    bytes.u64(0);
    bytes.u64(x.stx_size);
    #[cfg(target_arch = "x86_64")]
    bytes.u64(x.stx_blksize.into());
    #[cfg(target_arch = "aarch64")]
    {
        bytes.u32(x.stx_blksize);
        bytes.u32(0);
    }
    bytes.u64(x.stx_blocks);
    for time in [&x.stx_atime, &x.stx_mtime, &x.stx_ctime] {
        bytes.u64(time.tv_sec.cast_unsigned());
        bytes.u64(time.tv_nsec.into());
    }
    #[cfg(target_arch = "x86_64")]
    bytes.0.resize(144, 0);
    #[cfg(target_arch = "aarch64")]
    bytes.0.resize(128, 0);
    bytes.0
}

/// `struct statx`, the same on every architecture; fields younger than the common ones are left zero, as the mask
/// says.
pub fn statx_bytes(x: &Statx) -> Vec<u8> {
    let mut bytes = Bytes(Vec::with_capacity(256));
    bytes.u32(x.stx_mask);
    bytes.u32(x.stx_blksize);
    bytes.u64(x.stx_attributes.bits());
    bytes.u32(x.stx_nlink);
    bytes.u32(x.stx_uid);
    bytes.u32(x.stx_gid);
    bytes.u16(x.stx_mode);
    bytes.u16(0);
    bytes.u64(x.stx_ino);
    bytes.u64(x.stx_size);
    bytes.u64(x.stx_blocks);
    bytes.u64(x.stx_attributes_mask.bits());
    for time in [&x.stx_atime, &x.stx_btime, &x.stx_ctime, &x.stx_mtime] {
        bytes.u64(time.tv_sec.cast_unsigned());
        bytes.u32(time.tv_nsec);
        bytes.u32(0);
    }
    bytes.u32(x.stx_rdev_major);
    bytes.u32(x.stx_rdev_minor);
    bytes.u32(x.stx_dev_major);
    bytes.u32(x.stx_dev_minor);
    bytes.u64(x.stx_mnt_id);
    bytes.0.resize(256, 0);
    bytes.0
}

/// `struct statfs` of 64-bit architectures.
/// `id` tells file systems apart.
pub fn statfs_bytes(x: &StatFs, id: u64) -> Vec<u8> {
    let mut bytes = Bytes(Vec::with_capacity(120));
    for word in [x.f_type as u64, x.f_bsize as u64, x.f_blocks, x.f_bfree, x.f_bavail, x.f_files, x.f_ffree] {
        bytes.u64(word);
    }
    bytes.u64(id);
    for word in [x.f_namelen as u64, x.f_frsize as u64, x.f_flags as u64] {
        bytes.u64(word);
    }
    bytes.0.resize(120, 0);
    bytes.0
}

struct Bytes(Vec<u8>);

impl Bytes {
    fn u16(&mut self, value: u16) {
        self.0.extend(value.to_ne_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.0.extend(value.to_ne_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend(value.to_ne_bytes());
    }
}
