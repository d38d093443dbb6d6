//! Who a process believes to be: user and group ids, groups and capabilities, and the rules by which the kernel lets
//! a process change them. Values only; nothing here calls the kernel.

/// The ids of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ids {
    pub real: u32,
    pub effective: u32,
    pub saved: u32,
    /// Used for files; follows the effective one unless it was set by itself.
    pub files: u32,
}

impl Ids {
    pub fn all(id: u32) -> Self {
        Self { real: id, effective: id, saved: id, files: id }
    }

    fn has(self, id: u32) -> bool {
        [self.real, self.effective, self.saved].contains(&id)
    }

    fn set_effective(&mut self, id: u32) {
        self.effective = id;
        self.files = id;
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Credentials {
    pub user: Ids,
    pub group: Ids,
    pub groups: Vec<u32>,
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
    /// Capabilities stay when the last root id goes.
    pub keep: bool,
}

/// A change is refused, or asks for what cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused;

type Result = std::result::Result<(), Refused>;

pub const CAP_CHOWN: u64 = 1 << 0;
pub const CAP_SETGID: u64 = 1 << 6;
pub const CAP_SETUID: u64 = 1 << 7;
pub const CAP_MKNOD: u64 = 1 << 27;
/// The capabilities that the kernel takes away from whoever stops doing files as root: chown, dac_override,
/// dac_read_search, fowner, fsetid, linux_immutable, mknod, mac_override.
const FILE_CAPABILITIES: u64 = 0b1_1111 | 1 << 9 | CAP_MKNOD | 1 << 32;

/// The argument of a call that leaves an id as it is.
pub const UNCHANGED: u32 = u32::MAX;

/// What a container's root has.
pub const CONTAINER: u64 = super::super::launch::KEPT;

impl Credentials {
    /// A process that was started as this user.
    pub fn new(uid: u32, gid: u32, groups: Vec<u32>) -> Self {
        let capabilities = if uid == 0 { CONTAINER } else { 0 };
        Self {
            user: Ids::all(uid),
            group: Ids::all(gid),
            groups,
            effective: capabilities,
            permitted: capabilities,
            inheritable: 0,
            keep: false,
        }
    }

    pub fn can(&self, capability: u64) -> bool {
        self.effective & capability != 0
    }

    /// Does to files what root does, and makes them root's.
    pub fn is_root_for_files(&self) -> bool {
        self.user.files == 0 && self.group.files == 0
    }

    /// The same process, acting on files as who it really is: what access(2) asks about.
    pub fn really(&self) -> Self {
        let mut who = self.clone();
        who.user.files = who.user.real;
        who.group.files = who.group.real;
        who
    }

    /// In this group, by id or by list.
    pub fn in_group(&self, gid: u32) -> bool {
        self.group.files == gid || self.groups.contains(&gid)
    }

    pub fn setuid(&mut self, uid: u32) -> Result {
        let before = self.user;
        if self.can(CAP_SETUID) {
            self.user = Ids::all(uid);
        } else if uid == self.user.real || uid == self.user.saved {
            self.user.set_effective(uid);
        } else {
            return Err(Refused);
        }
        self.user_changed(before);
        Ok(())
    }

    pub fn setreuid(&mut self, real: u32, effective: u32) -> Result {
        let before = self.user;
        self.user = reset(self.can(CAP_SETUID), before, real, effective)?;
        self.user_changed(before);
        Ok(())
    }

    pub fn setresuid(&mut self, real: u32, effective: u32, saved: u32) -> Result {
        let before = self.user;
        self.user = reset_all(self.can(CAP_SETUID), before, real, effective, saved)?;
        self.user_changed(before);
        Ok(())
    }

    pub fn setgid(&mut self, gid: u32) -> Result {
        if self.can(CAP_SETGID) {
            self.group = Ids::all(gid);
        } else if gid == self.group.real || gid == self.group.saved {
            self.group.set_effective(gid);
        } else {
            return Err(Refused);
        }
        Ok(())
    }

    pub fn setregid(&mut self, real: u32, effective: u32) -> Result {
        self.group = reset(self.can(CAP_SETGID), self.group, real, effective)?;
        Ok(())
    }

    pub fn setresgid(&mut self, real: u32, effective: u32, saved: u32) -> Result {
        self.group = reset_all(self.can(CAP_SETGID), self.group, real, effective, saved)?;
        Ok(())
    }

    /// Always answers with the id before; a refused change is no error.
    pub fn setfsuid(&mut self, uid: u32) -> u32 {
        let before = self.user;
        if uid != UNCHANGED && (self.can(CAP_SETUID) || before.has(uid) || before.files == uid) {
            self.user.files = uid;
            if before.files == 0 && uid != 0 {
                self.effective &= !FILE_CAPABILITIES;
            } else if before.files != 0 && uid == 0 {
                self.effective |= self.permitted & FILE_CAPABILITIES;
            }
        }
        before.files
    }

    pub fn setfsgid(&mut self, gid: u32) -> u32 {
        let before = self.group;
        if gid != UNCHANGED && (self.can(CAP_SETGID) || before.has(gid) || before.files == gid) {
            self.group.files = gid;
        }
        before.files
    }

    pub fn setgroups(&mut self, mut groups: Vec<u32>) -> Result {
        if !self.can(CAP_SETGID) {
            return Err(Refused);
        }
        groups.sort_unstable();
        self.groups = groups;
        Ok(())
    }

    pub fn capset(&mut self, effective: u64, permitted: u64, inheritable: u64) -> Result {
        // Effective only what is permitted, permitted only what was; inheritable too, as none beyond is ever held.
        if permitted & !self.permitted != 0
            || effective & !permitted != 0
            || inheritable & !(self.inheritable | self.permitted) != 0
        {
            return Err(Refused);
        }
        (self.effective, self.permitted, self.inheritable) = (effective, permitted, inheritable);
        Ok(())
    }

    /// A new program: whose, if it is a setuid or a setgid one.
    pub fn execute(&mut self, setuid: Option<u32>, setgid: Option<u32>) {
        if let Some(uid) = setuid {
            self.user.effective = uid;
        }
        if let Some(gid) = setgid {
            self.group.effective = gid;
        }
        for ids in [&mut self.user, &mut self.group] {
            ids.saved = ids.effective;
            ids.files = ids.effective;
        }
        self.permitted = if self.user.effective == 0 || self.user.real == 0 { CONTAINER } else { 0 };
        self.effective = if self.user.effective == 0 { self.permitted } else { 0 };
        self.keep = false;
    }

    /// The kernel ties capabilities to root: they go with the last of the three ids, and sleep and wake with the
    /// effective one.
    fn user_changed(&mut self, before: Ids) {
        let root = |ids: Ids| ids.has(0);
        if root(before) && !root(self.user) && !self.keep {
            self.permitted = 0;
            self.effective = 0;
        } else if before.effective == 0 && self.user.effective != 0 {
            self.effective = 0;
        } else if before.effective != 0 && self.user.effective == 0 {
            self.effective = self.permitted;
        }
    }
}

/// setreuid(2) and setregid(2).
fn reset(free: bool, before: Ids, real: u32, effective: u32) -> std::result::Result<Ids, Refused> {
    let mut after = before;
    if real != UNCHANGED {
        if !free && real != before.real && real != before.effective {
            return Err(Refused);
        }
        after.real = real;
    }
    if effective != UNCHANGED {
        if !free && !before.has(effective) {
            return Err(Refused);
        }
        after.effective = effective;
    }
    if real != UNCHANGED || (effective != UNCHANGED && effective != before.real) {
        after.saved = after.effective;
    }
    after.files = after.effective;
    Ok(after)
}

/// setresuid(2) and setresgid(2).
fn reset_all(free: bool, before: Ids, real: u32, effective: u32, saved: u32) -> std::result::Result<Ids, Refused> {
    if !free && [real, effective, saved].into_iter().any(|id| id != UNCHANGED && !before.has(id)) {
        return Err(Refused);
    }
    let or = |new: u32, old: u32| if new == UNCHANGED { old } else { new };
    let effective = or(effective, before.effective);
    Ok(Ids { real: or(real, before.real), effective, saved: or(saved, before.saved), files: effective })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> Credentials {
        Credentials::new(0, 0, vec![])
    }

    fn ids(user: Ids) -> [u32; 4] {
        [user.real, user.effective, user.saved, user.files]
    }

    #[test]
    fn root_that_drops_everything_cannot_come_back() {
        let mut apt = root();
        apt.setgroups(vec![65534]).unwrap();
        apt.setresgid(65534, 65534, 65534).unwrap();
        apt.setresuid(42, 42, 42).unwrap();
        assert_eq!(ids(apt.user), [42; 4]);
        assert_eq!((apt.effective, apt.permitted), (0, 0));
        assert_eq!(apt.setuid(0), Err(Refused));
        assert_eq!(apt.setresuid(UNCHANGED, 0, UNCHANGED), Err(Refused));
        assert_eq!(apt.setgid(0), Err(Refused));
        assert_eq!(apt.setgroups(vec![0]), Err(Refused));
    }

    #[test]
    fn an_effective_id_can_be_put_aside_and_taken_back() {
        let mut process = root();
        process.setresuid(UNCHANGED, 33, UNCHANGED).unwrap();
        assert_eq!(ids(process.user), [0, 33, 0, 33]);
        assert_eq!((process.effective, process.permitted), (0, CONTAINER), "capabilities sleep");
        process.setuid(0).unwrap();
        assert_eq!((process.user.effective, process.effective), (0, CONTAINER), "and wake");
    }

    #[test]
    fn setuid_of_a_user_moves_the_effective_id_only() {
        let mut process = Credentials::new(1000, 1000, vec![]);
        process.execute(Some(0), None);
        assert_eq!(ids(process.user), [1000, 0, 0, 0]);
        assert_eq!(process.effective, CONTAINER);
        process.effective = 0;
        process.setuid(1000).unwrap();
        assert_eq!(ids(process.user), [1000, 1000, 0, 1000]);
        assert_eq!(process.setuid(7), Err(Refused), "neither real nor saved");
        process.setuid(0).unwrap();
        assert_eq!(process.user.effective, 0, "the saved id is a way back");
    }

    #[test]
    fn setreuid_saves_what_it_sets() {
        let mut process = root();
        process.setreuid(5, 6).unwrap();
        assert_eq!(ids(process.user), [5, 6, 6, 6]);
        let mut swap = Credentials::new(1, 1, vec![]);
        swap.user.effective = 2;
        swap.setreuid(2, 1).unwrap();
        assert_eq!(ids(swap.user), [2, 1, 1, 1], "a swap is always allowed");
    }

    #[test]
    fn capabilities_can_be_kept_over_a_change_of_user() {
        let mut process = root();
        process.keep = true;
        process.setresuid(7, 7, 7).unwrap();
        assert_eq!((process.effective, process.permitted), (0, CONTAINER));
        process.capset(CAP_CHOWN, CAP_CHOWN, 0).unwrap();
        assert!(process.can(CAP_CHOWN));
        assert_eq!(process.capset(CAP_SETUID, CAP_SETUID, 0), Err(Refused), "dropped is dropped");
        process.execute(None, None);
        assert_eq!((process.effective, process.keep), (0, false));
    }

    #[test]
    fn the_id_for_files_goes_its_own_way() {
        let mut process = root();
        assert_eq!(process.setfsuid(9), 0);
        assert_eq!((process.user.files, process.can(CAP_CHOWN)), (9, false));
        assert_eq!(process.setfsuid(UNCHANGED), 9, "the way to ask");
        assert_eq!(process.setfsuid(0), 9);
        assert!(process.can(CAP_CHOWN));
        let mut user = Credentials::new(5, 5, vec![]);
        assert_eq!(user.setfsuid(0), 5);
        assert_eq!(user.user.files, 5, "refused without an error");
    }

    #[test]
    fn an_ordinary_program_makes_the_effective_id_the_saved_one() {
        let mut process = root();
        process.setresuid(1, 2, 3).unwrap();
        process.execute(None, Some(8));
        assert_eq!(ids(process.user), [1, 2, 2, 2]);
        assert_eq!(ids(process.group), [0, 8, 8, 8]);
        assert!(process.in_group(8));
    }
}
