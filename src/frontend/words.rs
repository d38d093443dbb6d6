//! One line to its words: the keyword, the flags, and the arguments in the notation of the instruction.

use super::error::{Error, Result};
use super::go::quote;
use super::parser::Node;

/// ONBUILD within ONBUILD is refused later, by name; here it must only end.
const MAX_NESTING: usize = 8;

/// A blank inside an instruction.
fn is_blank(c: char) -> bool {
    matches!(c, '\t' | '\x0b' | '\x0c' | '\r' | ' ')
}

/// Cuts a line into an instruction's words.
pub fn node(line: &str, escape: char, nesting: usize) -> Result<Node> {
    let line = line.trim();
    let (keyword, rest) = match line.split_once(is_blank) {
        Some((keyword, rest)) => (keyword, rest.trim_start_matches(is_blank)),
        None => (line, ""),
    };
    let (flags, rest) = flags(rest, escape);
    let mut node = Node { keyword: keyword.to_owned(), flags, ..Node::default() };
    let rest = rest.trim();
    match keyword.to_ascii_lowercase().as_str() {
        "add" | "copy" | "volume" => match json(rest)? {
            Some(words) => (node.args, node.json) = (words, true),
            None => node.args = blank_separated(rest),
        },
        "cmd" | "entrypoint" | "run" | "shell" => (node.args, node.json) = maybe_json(rest)?,
        "arg" => node.args = quoted_words(rest, escape),
        "env" => node.args = pairs(rest, "ENV", escape)?,
        "label" => node.args = pairs(rest, "LABEL", escape)?,
        "expose" | "from" => node.args = blank_separated(rest),
        "healthcheck" => {
            if !rest.is_empty() {
                let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                let (kind, command) = rest.split_at(end);
                let (words, json) = maybe_json(command.trim_start())?;
                node.args.push(kind.to_owned());
                node.args.extend(words);
                node.json = json;
            }
        }
        "onbuild" => {
            if nesting == MAX_NESTING {
                return Err(Error::new("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"));
            }
            if !rest.is_empty() {
                let inner = self::node(rest, escape, nesting + 1)?;
                node.args.push(inner.keyword.clone());
                node.args.extend(inner.args.iter().cloned());
                node.inner = Some(Box::new(inner));
            }
        }
        "maintainer" | "stopsignal" | "user" | "workdir" => {
            if !rest.is_empty() {
                node.args.push(rest.to_owned());
            }
        }
        // Refused later, by name.
        _ => node.args.push(String::new()),
    }
    Ok(node)
}

/// Takes the words that start with `--` off the front. A lone `--` ends them.
fn flags(line: &str, escape: char) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_start();
        if !rest.starts_with("--") {
            return (flags, rest);
        }
        let mut word = String::new();
        let mut quote = None;
        let mut quoted = false;
        let mut chars = rest.char_indices();
        let mut end = rest.len();
        while let Some((at, c)) = chars.next() {
            match quote {
                None if c.is_whitespace() => {
                    end = at;
                    break;
                }
                None if c == '\'' || c == '"' => (quote, quoted) = (Some(c), true),
                Some(open) if c == open => quote = None,
                // In contrast to a shell, the escape works in single quotes too.
                _ if c == escape => word.extend(chars.next().map(|(_, c)| c)),
                _ => word.push(c),
            }
        }
        rest = &rest[end..];
        if word == "--" {
            return (flags, rest);
        }
        if quoted || !word.is_empty() {
            flags.push(word);
        }
    }
}

fn blank_separated(rest: &str) -> Vec<String> {
    if rest.is_empty() {
        return Vec::new();
    }
    let mut words = Vec::new();
    let mut rest = rest;
    while let Some(at) = rest.find(is_blank) {
        words.push(rest[..at].to_owned());
        rest = rest[at..].trim_start_matches(is_blank);
    }
    words.push(rest.to_owned());
    words
}

/// Words between spaces; quotes and escapes protect, and stay.
fn quoted_words(rest: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = rest.chars().peekable();
    while let Some(c) = chars.next() {
        match quote {
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ => {}
        }
        if c == escape && quote != Some('\'') {
            // At the end of the line an escape stands for nothing, and closes a quote.
            let Some(next) = chars.next() else { break };
            word.push(c);
            word.push(next);
            continue;
        }
        word.push(c);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// `name=value …`, or the old `name the rest`: name, value and separator of each.
fn pairs(rest: &str, keyword: &str, escape: char) -> Result<Vec<String>> {
    let words = quoted_words(rest, escape);
    let Some(first) = words.first() else { return Ok(Vec::new()) };
    if !first.contains('=') {
        let Some((name, value)) = rest.split_once(is_blank) else {
            return Err(
                Error::new(format!("{keyword} must have two arguments")).hint(format!("write {keyword} {rest}=value"))
            );
        };
        return Ok(vec![name.to_owned(), value.trim_start_matches(is_blank).to_owned(), String::new()]);
    }
    let mut pairs = Vec::with_capacity(3 * words.len());
    for word in &words {
        let Some((name, value)) = word.split_once('=') else {
            return Err(Error::new(format!(
                "Syntax error - can't find = in {}. Must be of the form: name=value",
                quote(word)
            ))
            .about(word)
            .hint("a value with spaces needs quotes around it"));
        };
        pairs.extend([name.to_owned(), value.to_owned(), "=".to_owned()]);
    }
    Ok(pairs)
}

/// A JSON list of strings, or else the whole text as one word.
fn maybe_json(rest: &str) -> Result<(Vec<String>, bool)> {
    if rest.is_empty() {
        return Ok((Vec::new(), false));
    }
    Ok(match json(rest)? {
        Some(words) => (words, true),
        None => (vec![rest.to_owned()], false),
    })
}

/// The strings of a JSON list; none when the text is no JSON list. A list of other things is an error.
fn json(rest: &str) -> Result<Option<Vec<String>>> {
    if !rest.starts_with('[') {
        return Ok(None);
    }
    let Ok(list) = serde_json::from_str::<Vec<serde_json::Value>>(rest) else { return Ok(None) };
    let word = |value| match value {
        serde_json::Value::String(word) => Ok(word),
        _ => Err(Error::new("when using JSON array syntax, arrays must be comprised of strings only")),
    };
    list.into_iter().map(word).collect::<Result<_>>().map(Some)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn args(line: &str) -> Vec<String> {
        node(line, '\\', 0).unwrap().args
    }

    #[test]
    fn flags_come_first_and_lose_their_quotes() {
        let node = node("RUN --mount=type=bind,target=/a\\ b --x='y z' --\"a\"= -- --not echo hi", '\\', 0).unwrap();
        assert_eq!(node.flags, ["--mount=type=bind,target=/a b", "--x=y z", "--a="]);
        assert_eq!(node.args, ["--not echo hi"]);
    }

    #[test]
    fn each_instruction_has_its_own_notation() {
        assert_eq!(args("FROM  a \t AS b"), ["a", "AS", "b"]);
        assert_eq!(args("RUN [\"a\", \"b c\"]"), ["a", "b c"]);
        assert_eq!(args("RUN [\"a\", 'b']"), ["[\"a\", 'b']"], "not JSON: a shell command");
        assert_eq!(args("RUN []"), Vec::<String>::new());
        assert_eq!(args("COPY a b  c"), ["a", "b", "c"]);
        assert_eq!(args("COPY [\"a b\", \"c\"]"), ["a b", "c"]);
        assert_eq!(args("ENV a=b c=\"d e\" f=g\\ h"), ["a", "b", "=", "c", "\"d e\"", "=", "f", "g\\ h", "="]);
        assert_eq!(args("ENV a  b  c "), ["a", "b  c", ""]);
        assert_eq!(args("ARG a b=\"c d\""), ["a", "b=\"c d\""]);
        assert_eq!(args("HEALTHCHECK --interval=1s CMD [\"a\"]"), ["CMD", "a"]);
        assert_eq!(args("HEALTHCHECK NONE"), ["NONE"]);
        assert_eq!(args("ONBUILD RUN make all"), ["RUN", "make all"]);
        assert_eq!(args("WORKDIR /a b"), ["/a b"]);
    }

    #[test]
    fn refuses_with_the_reason() {
        let message = |line: &str| node(line, '\\', 0).unwrap_err().message.clone();
        assert_eq!(message("ENV a"), "ENV must have two arguments");
        assert_eq!(message("LABEL a=b c"), "Syntax error - can't find = in \"c\". Must be of the form: name=value");
        assert_eq!(message("CMD [\"a\", 1]"), "when using JSON array syntax, arrays must be comprised of strings only");
    }

    proptest! {
        #[test]
        fn any_line_ends(line in "(RUN|ENV|ONBUILD|COPY|ARG|HEALTHCHECK|X)?[ \\[\\]\"'\\\\=a<\t-]{0,40}") {
            let _ = node(&line, '\\', 0);
        }
    }
}
