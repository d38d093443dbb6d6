//! What is lost on the way, in a line for each class: what this host refused, what a plain consumer cannot keep.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::layer::{Loss, Lost};

/// What the host refused.
pub fn lines(lost: &Lost) -> Vec<String> {
    let classes = [(&lost.owners, "owners"), (&lost.devices, "device nodes"), (&lost.xattrs, "extended attributes")];
    let told = classes.into_iter().filter(|(loss, _)| loss.count > 0);
    told.map(|(Loss { count, example }, class)| {
        let first = example.as_ref().map(|path| format!(", the first of /{}", path.display())).unwrap_or_default();
        format!("this host refused {count} {class}{first}")
    })
    .collect()
}

/// How many files have something that will not be kept, and the first of them, by class.
#[derive(Debug, Default)]
pub struct Tally(BTreeMap<&'static str, (u64, PathBuf)>);

impl Tally {
    pub fn note(&mut self, class: &'static str, path: &Path) {
        self.0.entry(class).or_insert_with(|| (0, path.to_owned())).0 += 1;
    }

    /// A line for each class, each beginning with `who`: «git does not keep».
    pub fn lines(self, who: &str) -> Vec<String> {
        let told = self.0.into_iter();
        told.map(|(class, (count, first))| format!("{who} {class}: {count}, the first is /{}", first.display()))
            .collect()
    }
}
