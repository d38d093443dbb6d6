//! What a host refused, in a line for each class.

use crate::layer::{Loss, Lost};

pub fn lines(lost: &Lost) -> Vec<String> {
    let classes = [(&lost.owners, "owners"), (&lost.devices, "device nodes"), (&lost.xattrs, "extended attributes")];
    let told = classes.into_iter().filter(|(loss, _)| loss.count > 0);
    told.map(|(Loss { count, example }, class)| {
        let first = example.as_ref().map(|path| format!(", the first of /{}", path.display())).unwrap_or_default();
        format!("this host refused {count} {class}{first}")
    })
    .collect()
}
