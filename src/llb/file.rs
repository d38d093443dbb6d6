//! File ops: one or more actions, each on the result of the one before.

use super::build::{Draft, Output};
use super::pb;
use pb::file_action::Action;

/// A file op on its way.
#[derive(Debug, Clone)]
pub struct FileActions {
    draft: Draft,
    base: i64,
    /// The other input and what is done.
    actions: Vec<(i64, Action)>,
}

/// Leaves a file's time as it is.
pub const NO_TIMESTAMP: i64 = -1;

/// Leaves a file's mode as it is.
pub const NO_MODE: i32 = -1;

impl FileActions {
    /// Acts on a file system; none is `scratch`.
    pub fn on(base: Option<Output>) -> Self {
        let mut draft = Draft::default();
        let base = draft.input_or_scratch(base);
        Self { draft, base, actions: Vec::new() }
    }

    /// The input that user names are looked up in.
    pub fn base(&self) -> i64 {
        self.base
    }

    pub fn copy(&mut self, from: Option<Output>, copy: pb::FileActionCopy) {
        let from = self.draft.input_or_scratch(from);
        self.actions.push((from, Action::Copy(copy)));
    }

    pub fn mkdir(&mut self, mkdir: pb::FileActionMkDir) {
        self.actions.push((-1, Action::Mkdir(mkdir)));
    }

    pub fn mkfile(&mut self, mkfile: pb::FileActionMkFile) {
        self.actions.push((-1, Action::Mkfile(mkfile)));
    }

    pub fn is_empty(&self) -> bool {
        self.actions.is_empty()
    }

    /// The op; its only output is what the last action leaves.
    pub fn into_draft(mut self) -> Draft {
        let inputs = i64::try_from(self.draft.inputs.len()).unwrap_or(i64::MAX);
        let count = self.actions.len();
        let actions = (0_i64..).zip(self.actions).map(|(i, (secondary_input, action))| pb::FileAction {
            // Results of earlier actions are numbered after the inputs.
            input: if i == 0 { self.base } else { inputs + i - 1 },
            secondary_input,
            output: if usize::try_from(i + 1) == Ok(count) { 0 } else { -1 },
            action: Some(action),
        });
        self.draft.op = Some(pb::op::Op::File(pb::FileOp { actions: actions.collect() }));
        self.draft
    }
}

/// The owner that `user[:group]` means; names are looked up in the input.
pub fn owner(spec: &str, input: i64) -> pb::ChownOpt {
    let part = |text: &str| {
        use pb::user_opt::User;
        let id = if text == "root" || text.is_empty() { Some(0) } else { text.parse::<i32>().ok() };
        let user = match id {
            // Go's conversion: -1 is the largest id.
            Some(id) => User::ById(id.cast_unsigned()),
            None => User::ByName(pb::NamedUserOpt { name: text.to_owned(), input }),
        };
        pb::UserOpt { user: Some(user) }
    };
    let (user, group) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (spec, None),
    };
    pb::ChownOpt { user: Some(part(user)), group: group.map(part) }
}

/// The owner with these ids.
pub fn owner_ids(uid: u32, gid: u32) -> pb::ChownOpt {
    let id = |id| Some(pb::UserOpt { user: Some(pb::user_opt::User::ById(id)) });
    pb::ChownOpt { user: id(uid), group: id(gid) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_ids_or_names() {
        use pb::user_opt::User::{ById, ByName};
        let name = |name: &str| ByName(pb::NamedUserOpt { name: name.into(), input: 3 });
        let cases = [
            ("1000", Some(ById(1000)), None),
            ("root:root", Some(ById(0)), Some(ById(0))),
            ("app:1", Some(name("app")), Some(ById(1))),
            (":staff", Some(ById(0)), Some(name("staff"))),
        ];
        for (spec, user, group) in cases {
            let owner = owner(spec, 3);
            assert_eq!(owner.user.unwrap().user, user, "{spec}");
            assert_eq!(owner.group.and_then(|g| g.user), group, "{spec}");
        }
    }
}
