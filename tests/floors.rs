//! Reads the imports and holds them against the floor map: a module imports only from a lower floor, and neighbours
//! on one floor never meet.

use std::fs;
use std::path::{Path, PathBuf};

/// The house, from the ground up. ARCHITECTURE.md says why each module lives where it does.
const FLOORS: &[&[&str]] = &[
    &["base"],
    &["sys"],
    &["exec", "layer", "llb", "store"],
    &["image", "solver"],
    &["frontend", "registry", "snapshot"],
    &["source"],
    &["expand", "export", "ops", "remote"],
    &["engine"],
    &["resource", "task"],
    &["cli"],
];

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|modules| modules.contains(&module))
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// What follows each `crate::` in the code: the first word, or the words of a `{…}` list.
fn imports(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in code.lines().map(|l| l.split("//").next().unwrap_or_default()) {
        for rest in line.split("crate::").skip(1) {
            let list = rest.strip_prefix('{').unwrap_or(rest);
            let word: String = list.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            found.push(word);
        }
    }
    found
}

#[test]
fn imports_go_down_only() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    assert!(files.len() > FLOORS.len(), "no sources under {}", src.display());
    let mut broken = Vec::new();
    for file in files {
        let relative = file.strip_prefix(&src).unwrap();
        let module = relative.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        if matches!(module, "lib" | "main") {
            continue;
        }
        let here = floor(module).unwrap_or_else(|| panic!("{} is on no floor", relative.display()));
        for import in imports(&fs::read_to_string(&file).unwrap()) {
            if import == module {
                continue;
            }
            match floor(&import) {
                Some(there) if there < here => {}
                Some(there) => broken
                    .push(format!("{} (floor {here}, {module}) imports {import} (floor {there})", relative.display())),
                None => broken.push(format!("{} imports crate::{import}, which is on no floor", relative.display())),
            }
        }
    }
    broken.sort();
    broken.dedup();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn lists_and_comments_are_read_right() {
    assert_eq!(imports("use crate::{base::Digest};\n// crate::cli\nlet x = crate::sys::Root;"), ["base", "sys"]);
}
