//! Ignore files (`.dockerignore`): lines to patterns as moby's reader makes them.

/// The patterns of an ignore file, ready for [`crate::base::patterns::Matcher`].
///
/// Comments start in the first column; a leading slash means nothing; blank lines are dropped.
pub fn parse(text: &str) -> Vec<String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.lines().filter(|line| !line.starts_with('#')).filter_map(pattern).collect()
}

fn pattern(line: &str) -> Option<String> {
    let line = line.trim();
    if line.is_empty() {
        return None;
    }
    let (bang, rest) = match line.strip_prefix('!') {
        Some(rest) => ("!", rest.trim()),
        None => ("", line),
    };
    if rest.is_empty() {
        return Some(bang.to_owned());
    }
    let cleaned = crate::base::clean::path(rest);
    let relative = if cleaned.len() > 1 { cleaned.strip_prefix('/').unwrap_or(&cleaned) } else { &cleaned };
    Some(format!("{bang}{relative}"))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn reads_lines_as_moby_does() {
        let text = "\u{feff}test1\n/test2\n/a/file/here\n\nlastfile\n# this is a comment\n! /inverted/abs/path\n!\n! \n  x/ \r\n #no comment\n/\n";
        assert_eq!(
            parse(text),
            ["test1", "test2", "a/file/here", "lastfile", "!inverted/abs/path", "!", "!", "x", "#no comment", "/"]
        );
    }
}
