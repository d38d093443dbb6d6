//! What is said of a Dockerfile without building it (`--call`): as text in the form that buildx prints, and as the
//! JSON that BuildKit's clients read.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::error::Place;
use super::input::{Checked, Needed, Outline, Target, Warning};

/// Lines of an instruction that a location lists one by one.
const MAX_RANGES: usize = 1000;

/// What one may want to know of a Dockerfile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Its mistakes, and the rules that it breaks.
    Check,
    /// What its target can be given.
    Outline,
    /// Its stages.
    Targets,
}

#[derive(Debug)]
pub enum Answer {
    Check(Checked),
    Outline(Outline),
    Targets(Vec<Target>),
}

impl Answer {
    pub fn text(&self) -> String {
        match self {
            Self::Check(checked) => checked.text(),
            Self::Outline(outline) => outline.text(),
            Self::Targets(targets) => targets_text(targets),
        }
    }

    pub fn json(&self) -> Value {
        match self {
            Self::Check(checked) => checked.json(),
            Self::Outline(outline) => outline.json(),
            Self::Targets(targets) => targets_json(targets),
        }
    }
}

impl Checked {
    /// The number of warnings, then each with its lines.
    fn text(&self) -> String {
        let mut text = match self.warnings.len() {
            0 if self.error.is_some() => String::new(),
            0 => "Check complete, no warnings found.\n".to_owned(),
            1 => "Check complete, 1 warning has been found!\n".to_owned(),
            n => format!("Check complete, {n} warnings have been found!\n"),
        };
        for warning in self.sorted() {
            let _ = write!(text, "\nWARNING: {}", warning.rule);
            if !warning.url.is_empty() {
                let _ = write!(text, " - {}", warning.url);
            }
            let _ = writeln!(text, "\n{}", warning.message);
            if let Some(place) = &warning.place {
                text.push_str(&excerpt(place));
            }
        }
        text
    }

    fn json(&self) -> Value {
        let warnings = self.warnings.iter().map(|warning| {
            let mut value = json!({"ruleName": warning.rule, "description": warning.description});
            if !warning.url.is_empty() {
                value["url"] = json!(warning.url);
            }
            value["detail"] = json!(warning.message);
            if let Some(place) = &warning.place {
                value["location"] = location(place);
            }
            value
        });
        let mut value = json!({"warnings": warnings.collect::<Vec<_>>(), "sources": [source(&self.place)]});
        if let Some(error) = &self.error {
            let at = error.place.as_ref().map_or_else(|| json!({}), location);
            value["buildError"] = json!({"message": error.message, "location": at});
        }
        value
    }

    /// By line, as they stand in the file.
    fn sorted(&self) -> Vec<&Warning> {
        let mut warnings: Vec<&Warning> = self.warnings.iter().collect();
        warnings.sort_by_key(|w| w.place.as_ref().map(|p| *p.lines.start()));
        warnings
    }
}

impl Outline {
    fn text(&self) -> String {
        let mut text = String::new();
        if !self.name.is_empty() || !self.description.is_empty() {
            let name = if self.name.is_empty() { "(default)" } else { &self.name };
            let mut rows = vec![vec!["TARGET:", name]];
            if !self.description.is_empty() {
                rows.push(vec!["DESCRIPTION:", &self.description]);
            }
            text.push_str(&columns(&rows, 1));
            text.push('\n');
        }
        if !self.arguments.is_empty() {
            let mut rows = vec![vec!["BUILD ARG", "VALUE", "DESCRIPTION"]];
            rows.extend(self.arguments.iter().map(|a| vec![a.name.as_str(), &a.value, &a.description]));
            text.push_str(&columns(&rows, 3));
            text.push('\n');
        }
        for (title, list) in [("SECRET", &self.secrets), ("SSH", &self.ssh)] {
            if list.is_empty() {
                continue;
            }
            let mut rows = vec![vec![title, "REQUIRED"]];
            rows.extend(list.iter().map(|n| vec![n.name.as_str(), if n.required { "true" } else { "" }]));
            text.push_str(&columns(&rows, 3));
            text.push('\n');
        }
        text
    }

    fn json(&self) -> Value {
        let mut value = json!({"sources": [BASE64_STANDARD.encode(self.source.as_bytes())]});
        for (key, text) in [("name", &self.name), ("description", &self.description)] {
            if !text.is_empty() {
                value[key] = json!(text);
            }
        }
        let arguments = self.arguments.iter().map(|argument| {
            let mut value = json!({"name": argument.name, "location": location(&argument.place)});
            for (key, text) in [("description", &argument.description), ("value", &argument.value)] {
                if !text.is_empty() {
                    value[key] = json!(text);
                }
            }
            value
        });
        let needed = |list: &[Needed]| -> Vec<Value> {
            list.iter()
                .map(|needed| {
                    let mut value = json!({"name": needed.name, "location": location(&needed.place)});
                    if needed.required {
                        value["required"] = json!(true);
                    }
                    value
                })
                .collect()
        };
        for (key, list) in
            [("args", arguments.collect()), ("secrets", needed(&self.secrets)), ("ssh", needed(&self.ssh))]
        {
            if !list.is_empty() {
                value[key] = Value::Array(list);
            }
        }
        value
    }
}

/// The stages as a table.
fn targets_text(targets: &[Target]) -> String {
    let names = targets.iter().map(|target| match (target.name.as_str(), target.default) {
        ("", true) => "(default)".to_owned(),
        (name, true) => format!("{name} (default)"),
        (name, false) => name.to_owned(),
    });
    let names: Vec<String> = names.collect();
    let mut rows = vec![vec!["TARGET", "DESCRIPTION"]];
    rows.extend(names.iter().zip(targets).map(|(name, target)| vec![name.as_str(), &target.description]));
    columns(&rows, 1)
}

fn targets_json(targets: &[Target]) -> Value {
    let list = targets.iter().map(|target| {
        let mut value = json!({"location": location(&target.place)});
        if target.default {
            value["default"] = json!(true);
        }
        let words = [
            ("name", &target.name),
            ("description", &target.description),
            ("base", &target.base),
            ("platform", &target.platform),
        ];
        for (key, text) in words.into_iter().filter(|(_, text)| !text.is_empty()) {
            value[key] = json!(text);
        }
        value
    });
    let source = targets.first().map(|target| BASE64_STANDARD.encode(target.place.text.as_bytes()));
    json!({"targets": list.collect::<Vec<_>>(), "sources": source.into_iter().collect::<Vec<_>>()})
}

/// BuildKit's `pb.Location`, a range a line.
fn location(place: &Place) -> Value {
    let range = |first: usize, last: usize| json!({"start": {"line": first}, "end": {"line": last}});
    let (first, last) = (*place.lines.start(), *place.lines.end());
    let ranges = if last - first < MAX_RANGES {
        place.lines.clone().map(|line| range(line, line)).collect()
    } else {
        vec![range(first, last)]
    };
    json!({"ranges": ranges})
}

fn source(place: &Place) -> Value {
    let data = BASE64_STANDARD.encode(place.text.as_bytes());
    json!({"filename": &*place.file, "language": "Dockerfile", "data": data})
}

/// The lines with those around them, marked in the margin.
fn excerpt(place: &Place) -> String {
    let lines: Vec<&str> = place.text.split('\n').collect();
    let (first, last) = (*place.lines.start(), (*place.lines.end()).min(lines.len()));
    if first == 0 || first > lines.len() {
        return String::new();
    }
    // A lone line gets four around it, several get two; where the file ends on one side, the other side has more.
    let wanted = if first == last { 4 } else { 2 };
    let (mut from, mut to, mut added) = (first, last, 0);
    while added < wanted {
        if from > 1 {
            from -= 1;
            added += 1;
        }
        if to < lines.len() {
            to += 1;
            added += 1;
        }
        added += 1;
    }
    let mut text = format!("{}:{first}\n--------------------\n", place.file);
    for number in from..=to {
        let mark = if place.lines.contains(&number) { ">>>" } else { "   " };
        let _ = writeln!(text, " {number:3} | {mark} {}", lines[number - 1].trim_end_matches('\r'));
    }
    text.push_str("--------------------\n");
    text
}

/// Cells below each other, `gap` blanks between; the last column is as wide as it is.
fn columns(rows: &[Vec<&str>], gap: usize) -> String {
    let count = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0) + gap;
    let widths: Vec<usize> = (0..count.saturating_sub(1)).map(width).collect();
    let mut text = String::new();
    for row in rows {
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(text, "{cell:width$}");
        }
        let _ = writeln!(text, "{}", row.last().copied().unwrap_or_default());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str, lines: std::ops::RangeInclusive<usize>) -> Place {
        Place { file: "Dockerfile".into(), text: text.into(), lines, span: None }
    }

    #[test]
    fn an_excerpt_shows_the_lines_around() {
        let text = "one\ntwo\nthree\nfour\nfive\nsix\n";
        assert_eq!(
            excerpt(&place(text, 3..=3)),
            "Dockerfile:3\n--------------------\n   1 |     one\n   2 |     two\n   3 | >>> three\n   4 |     four\n   5 |     five\n--------------------\n"
        );
        assert_eq!(
            excerpt(&place("one\ntwo", 1..=2)),
            "Dockerfile:1\n--------------------\n   1 | >>> one\n   2 | >>> two\n--------------------\n"
        );
        assert_eq!(excerpt(&place("one", 7..=9)), "", "a place that is not in the file");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        assert_eq!(columns(&[vec!["A", "B"], vec!["long", ""]], 2), "A     B\nlong  \n");
    }
}
