//! Mounts a layered root, in the way that this kernel takes it.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags};

use super::plan::HostPath;
use crate::sys::mount;

/// Mounts an overlay as `name`, a new directory in the scratch space, which is the working directory. `lower` topmost first.
pub fn overlay(name: &str, lower: &[HostPath], upper: &Path, work: &Path) -> io::Result<()> {
    fs::create_dir(name)?;
    // A `volatile` overlay leaves this mark, and refuses to be mounted over it. What it tells of, data that a power
    // cut may have lost, is no news: nothing here is ever synced, and an unfinished step is never used.
    let _ = fs::remove_dir_all(work.join("work/incompat"));
    // Whatever the first way met, the second knows it better: it is the one that old kernels have.
    one_by_one(name, lower, upper, work).or_else(|_| all_at_once(name, lower, upper, work))
}

/// A call for each layer: Linux 6.8 and later, for paths of up to 255 bytes without a backslash. Nothing has to be made
/// first, so a layer costs half of what it costs in the other way.
fn one_by_one(name: &str, lower: &[HostPath], upper: &Path, work: &Path) -> io::Result<()> {
    use rustix::mount::{fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount};

    // Of these two the kernel takes a backslash for a mark on the next character.
    if [upper, work].iter().any(|path| path.as_os_str().as_bytes().contains(&b'\\')) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let scratch = rustix::fs::open(".", OFlags::PATH, Mode::empty())?;
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    // Nearly all are beside each other: from there their paths are short, for the kernel to walk, and in its list of mounts.
    let beside = lower.first().and_then(|path| path.as_ref().parent()?.parent()).unwrap_or(Path::new("/"));
    std::env::set_current_dir(beside)?;
    let named = lower.iter().try_for_each(|path| {
        let path = path.as_ref();
        fsconfig_set_string(&context, "lowerdir+", path.strip_prefix(beside).unwrap_or(path))
    });
    rustix::process::fchdir(&scratch)?;
    named?;
    fsconfig_set_string(&context, "upperdir", upper)?;
    fsconfig_set_string(&context, "workdir", work)?;
    fsconfig_set_flag(&context, "userxattr")?;
    fsconfig_set_flag(&context, "volatile")?;
    fsconfig_create(&context)?;
    let mounted = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    move_mount(&mounted, "", &scratch, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    Ok(())
}

/// mount(2) takes one page of options, in which `:`, `,` and `\` have meanings. So the layers get links with numbers
/// for names, in a directory that becomes the working directory: 500 layers, all that overlayfs can take, fit.
fn all_at_once(name: &str, lower: &[HostPath], upper: &Path, work: &Path) -> io::Result<()> {
    let scratch = rustix::fs::open(".", OFlags::PATH, Mode::empty())?;
    let links = format!("{name}.layers");
    fs::create_dir(&links)?;
    std::env::set_current_dir(&links)?;
    let names: Vec<_> = (0..lower.len()).map(|number| number.to_string()).collect();
    for (name, path) in names.iter().zip(lower) {
        symlink(path, name)?;
    }
    symlink(upper, "u")?;
    symlink(work, "w")?;
    let place = PathBuf::from("..").join(name);
    let options = format!("lowerdir={},upperdir=u,workdir=w,userxattr", names.join(":"));
    match mount::mount("overlay", &place, MountFlags::empty(), &format!("{options},volatile")) {
        // Before Linux 5.10 there is no such option.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            mount::mount("overlay", &place, MountFlags::empty(), &options)?;
        }
        result => result?,
    }
    rustix::process::fchdir(&scratch)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use nix::sched::{CloneFlags, unshare};

    use super::*;

    type Way = fn(&str, &[HostPath], &Path, &Path) -> io::Result<()>;

    /// Mounts `count` layers in a mount namespace and a working directory of this thread's own, and says what is seen.
    fn seen(way: Way, count: usize, inside: &str) -> io::Result<Vec<String>> {
        let dir = tempfile::tempdir()?;
        let base = dir.path().join(inside);
        fs::create_dir_all(&base)?;
        let lower: Vec<_> = (0..count).map(|number| base.join(number.to_string())).collect();
        for (number, path) in lower.iter().enumerate() {
            fs::create_dir(path)?;
            fs::write(path.join("topmost"), number.to_string())?;
            fs::write(path.join(format!("own{number:03}")), "")?;
        }
        let (upper, work) = (base.join("upper"), base.join("work"));
        fs::create_dir(&upper)?;
        fs::create_dir(&work)?;
        let lower: Vec<_> = lower.iter().map(HostPath::from).collect();
        std::thread::scope(|scope| {
            let mounted = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNS)?;
                mount::make_private()?;
                std::env::set_current_dir(dir.path())?;
                fs::create_dir("root")?;
                way("root", &lower, &upper, &work)?;
                assert_eq!(std::env::current_dir()?, dir.path(), "back where it was");
                fs::write("root/written", "")?;
                let mut names = fs::read_dir("root")?
                    .map(|entry| Ok(entry?.file_name().into_string().unwrap()))
                    .collect::<io::Result<Vec<_>>>()?;
                names.sort();
                assert_eq!(fs::read_to_string("root/topmost")?, "0");
                mount::detach(Path::new("root"))?;
                assert!(upper.join("written").exists());
                Ok(names)
            });
            mounted.join().unwrap()
        })
    }

    #[test]
    fn both_ways_show_the_same_layers() {
        match seen(all_at_once, 1, "plain") {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return eprintln!("skip: needs the right to mount an overlay: {error}");
            }
            result => assert_eq!(result.unwrap(), ["own000", "topmost", "written"]),
        }
        // The last is as many as overlayfs takes.
        for count in [2, 40, 500] {
            let all = seen(all_at_once, count, "a:b,c").unwrap();
            assert_eq!(all.len(), count + 2);
            match seen(one_by_one, count, "a:b,c") {
                Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) => {
                    return eprintln!("skip: layers one by one need Linux 6.8: {error}");
                }
                result => assert_eq!(result.unwrap(), all),
            }
        }
    }

    #[test]
    fn what_one_way_cannot_the_other_can() {
        let made = |name: &str, lower: &[HostPath], upper: &Path, work: &Path| {
            fs::remove_dir(name)?;
            overlay(name, lower, upper, work)
        };
        let long = format!("{0}/{0}/back\\slash", "long".repeat(50));
        match seen(made, 3, &long) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                eprintln!("skip: needs the right to mount an overlay: {error}");
            }
            result => assert_eq!(result.unwrap().len(), 5),
        }
    }
}
