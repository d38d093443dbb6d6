//! Here-documents: `<<EOF`, `<<-EOF`, `<<"EOF"`, `3<<EOF`.

use super::shell::Lexer;
use super::variables::Variables;

/// One here-document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The line that ends it: for a COPY also the name of the file.
    pub name: String,
    /// Variables in it are expanded: nothing of the name was quoted.
    pub expand: bool,
    /// `<<-`: leading tabs are taken off.
    pub chomp: bool,
    pub content: String,
}

/// The here-document that a word announces, without content; none when the word is not one.
pub fn parse(word: &str) -> Result<Option<Heredoc>, String> {
    let Some(rest) = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<") else {
        return Ok(None);
    };
    let (chomp, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let rest = rest.trim_start_matches(['\t', '\n', '\x0c', '\r', ' ']);
    if rest.is_empty() || rest.contains('<') {
        return Ok(None);
    }
    let nothing = Variables::new();
    let lexer = Lexer { keep_unset: true, ..Lexer::new('\\') };
    let words = lexer.expand(rest, &nothing)?.words;
    let [name] = &words[..] else { return Ok(None) };
    // With a quote in the raw word that is not in the name, part of the name was quoted.
    let raw = Lexer { raw_quotes: true, ..lexer }.expand(rest, &nothing)?.words;
    let quotes = |text: &str| text.matches(['\'', '"']).count();
    let expand = raw.first().is_some_and(|raw| quotes(raw) == quotes(name));
    Ok(Some(Heredoc { name: name.clone(), expand, chomp, content: String::new() }))
}

/// All here-documents that a line announces, in order.
pub fn in_line(line: &str) -> Result<Vec<Heredoc>, String> {
    let lexer = Lexer { raw_quotes: true, raw_escapes: true, keep_unset: true, ..Lexer::new('\\') };
    // A line that is no well-formed sequence of words announces none.
    let words = lexer.expand(line, &Variables::new()).map(|e| e.words).unwrap_or_default();
    words.iter().filter_map(|word| parse(word).transpose()).collect()
}

/// Without the tabs that begin each line.
pub fn chomped(content: &str) -> String {
    content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_a_shell_reads() {
        let heredoc =
            |name: &str, expand, chomp| Some(Heredoc { name: name.into(), expand, chomp, content: String::new() });
        let cases = [
            ("<<EOF", heredoc("EOF", true, false)),
            ("<<-EOF", heredoc("EOF", true, true)),
            ("<< EOF", heredoc("EOF", true, false)),
            ("3<<EOF", heredoc("EOF", true, false)),
            ("<<'EOF'", heredoc("EOF", false, false)),
            ("<<\"EOF\"", heredoc("EOF", false, false)),
            ("<<E\"O\"F", heredoc("EOF", false, false)),
            ("<<a\\ b", heredoc("a b", true, false)),
            ("<<$X", heredoc("$X", true, false)),
            ("<<", None),
            ("<<<EOF", None),
            ("<EOF", None),
            ("x<<EOF", None),
            ("EOF", None),
        ];
        for (word, expected) in cases {
            assert_eq!(parse(word).unwrap(), expected, "{word}");
        }
    }

    #[test]
    fn finds_all_in_a_line_and_none_in_quotes() {
        let names = |line: &str| in_line(line).unwrap().into_iter().map(|h| h.name).collect::<Vec<_>>();
        assert_eq!(names("RUN cat <<A 3<<B > x"), ["A", "B"]);
        assert_eq!(names("RUN echo \"<<A\" '<<B' \\<<C"), Vec::<String>::new());
        assert_eq!(names("COPY << EOF /x"), ["EOF"]);
    }

    #[test]
    fn chomps_tabs_only() {
        assert_eq!(chomped("\t\ta\n \tb\n\n\tc"), "a\n \tb\n\nc");
    }
}
