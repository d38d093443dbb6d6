//! The `.env` file beside a compose file: variables that the caller's environment does not have.

use std::collections::BTreeMap;

use super::template::interpolate;

/// Reads `KEY=VALUE` lines; values may use variables of `env`, and those above them. Compose's quotes: nothing means
/// anything in single ones; double ones have escapes, and span lines as single ones do.
pub fn read(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<BTreeMap<String, String>, String> {
    let mut read: BTreeMap<String, String> = BTreeMap::new();
    let mut rest = text.trim_start_matches('\u{feff}');
    while !rest.is_empty() {
        let line = rest.split_once('\n').map_or(rest, |(line, _)| line);
        let entry = line.trim();
        let entry = entry.strip_prefix("export ").map_or(entry, str::trim_start);
        // A name alone is the caller's variable, which is there anyway.
        let Some((key, value)) = entry.split_once('=').filter(|_| !entry.starts_with('#')) else {
            rest = &rest[(line.len() + 1).min(rest.len())..];
            continue;
        };
        let (key, value) = (key.trim_end(), value.trim_start());
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(format!("{line:?} is not KEY=VALUE"));
        }
        let get = |name: &str| env(name).or_else(|| read.get(name).cloned());
        let value = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => {
                // From the quote on, which may be closed on a later line.
                let after = line.split_once('=').map_or("", |(_, after)| after).trim_start();
                let start = line.len() - after.len() + quote.len_utf8();
                let (value, length) =
                    quoted(&rest[start..], quote).ok_or_else(|| format!("{key}: a quote is not closed"))?;
                let end = start + length;
                let after = rest[end..].find('\n').map_or(rest.len(), |at| end + at + 1);
                rest = &rest[after..];
                if quote == '"' { interpolate(&value, &get)? } else { value }
            }
            _ => {
                rest = &rest[(line.len() + 1).min(rest.len())..];
                let value = if value.starts_with('#') { "" } else { value.split(" #").next().unwrap_or_default() };
                interpolate(value.trim_end(), &get)?
            }
        };
        read.insert(key.to_owned(), value);
    }
    Ok(read)
}

/// What stands before the closing quote, and how long that was with the quote. An escaped sign is doubled, for who
/// puts variables in.
fn quoted(text: &str, quote: char) -> Option<(String, usize)> {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            _ if letter == quote => return Some((value, at + 1)),
            '\\' if quote == '"' => match letters.next()?.1 {
                'n' => value.push('\n'),
                'r' => value.push('\r'),
                't' => value.push('\t'),
                '$' => value.push_str("$$"),
                other @ ('"' | '\\') => value.push(other),
                other => value.extend(['\\', other]),
            },
            letter => value.push(letter),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_quotes_and_variables() {
        let text = "\u{feff}# a note\n\nA=1\nexport B = two words # note\nC='$A #'\nD=\"x\\n$A ${NONE:-d} \\$A\" # note\n\
                    E=\"one\ntwo\"\nF=\nG=$HOST-$A\nALONE\nH=a#b\r\nI=#n\nJ=\"\"\nK=a=b";
        let env = |name: &str| (name == "HOST").then(|| "h".to_owned());
        let read = read(text, &env).unwrap();
        let expected = [
            ("A", "1"),
            ("B", "two words"),
            ("C", "$A #"),
            ("D", "x\n1 d $A"),
            ("E", "one\ntwo"),
            ("F", ""),
            ("G", "h-1"),
            ("H", "a#b"),
            ("I", ""),
            ("J", ""),
            ("K", "a=b"),
        ];
        assert_eq!(read, expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
        assert_eq!(super::read("A='x\n", &env).unwrap_err(), "A: a quote is not closed");
        assert_eq!(super::read("a b=c", &env).unwrap_err(), "\"a b=c\" is not KEY=VALUE");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(A=|['\"$\\\\\n{} #=a]){0,30}") {
            let _ = read(&text, &|_| None);
        }
    }
}
