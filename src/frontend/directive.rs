//! Parser directives: `# syntax=…`, `# escape=…`, `# check=…` in the first lines of a file.

/// A directive line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directive {
    pub name: &'static str,
    pub value: String,
}

/// Reads directives line by line until the first line that is none.
#[derive(Debug, Default)]
pub struct Reader {
    seen: Vec<&'static str>,
    done: bool,
}

const NAMES: [&str; 3] = ["syntax", "escape", "check"];

impl Reader {
    /// The directive on this line. The second of a name is an error.
    pub fn line(&mut self, line: &str) -> Result<Option<Directive>, String> {
        if self.done {
            return Ok(None);
        }
        match line.strip_prefix('#').and_then(directive) {
            None => {
                self.done = true;
                Ok(None)
            }
            Some(directive) if self.seen.contains(&directive.name) => {
                Err(format!("only one {} parser directive can be used", directive.name))
            }
            Some(directive) => {
                self.seen.push(directive.name);
                Ok(Some(directive))
            }
        }
    }
}

/// `name = value`, whatever stands before it in a comment.
pub fn directive(text: &str) -> Option<Directive> {
    let (name, value) = text.trim_start().split_once('=')?;
    let (name, value) = (name.trim_end(), value.trim());
    let name = NAMES.into_iter().find(|n| n.eq_ignore_ascii_case(name))?;
    (!value.is_empty()).then(|| Directive { name, value: value.to_owned() })
}

/// The value of a directive in a file: also after a `#!` line, as it is for files that are programs.
pub fn find(name: &str, text: &str) -> Option<String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader::default();
    for (number, line) in text.lines().enumerate() {
        if number == 0 && line.starts_with("#!") {
            continue;
        }
        match reader.line(line) {
            Ok(Some(directive)) if directive.name == name => return Some(directive.value),
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_at_the_first_line_that_is_no_directive() {
        let text = "# syntax = docker/dockerfile:1 \n#ESCAPE=`\n\n# check=skip=all\n";
        assert_eq!(find("syntax", text).as_deref(), Some("docker/dockerfile:1"));
        assert_eq!(find("escape", text).as_deref(), Some("`"));
        assert_eq!(find("check", text), None, "after an empty line it is a comment");
        assert_eq!(find("syntax", "# hello\n# syntax=x\n"), None, "after a comment too");
        assert_eq!(find("check", "#!/usr/bin/env x\n# check=error=true").as_deref(), Some("error=true"));
    }

    #[test]
    fn the_same_one_twice_is_an_error() {
        let mut reader = Reader::default();
        assert!(reader.line("# escape=\\").unwrap().is_some());
        assert_eq!(reader.line("# escape=`").unwrap_err(), "only one escape parser directive can be used");
    }
}
