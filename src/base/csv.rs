//! The comma-separated `key=value` lists of `-o`, `--secret`, `--mount` and their like: one line of RFC 4180, as
//! Docker reads them, so that `"name=a,b"` is one field.

/// The fields of one line. Quotes around a field keep its commas; `""` inside them is one quote.
pub fn fields(line: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        if let Some(quoted) = rest.strip_prefix('"') {
            let (field, after) = quoted_field(quoted).ok_or_else(|| format!("{line:?}: a quote is not closed"))?;
            fields.push(field);
            match after.strip_prefix(',') {
                Some(next) => rest = next,
                None if after.is_empty() => return Ok(fields),
                None => return Err(format!("{line:?}: text after a closing quote")),
            }
            continue;
        }
        let (field, next) = match rest.split_once(',') {
            Some((field, next)) => (field, Some(next)),
            None => (rest, None),
        };
        if field.contains('"') {
            return Err(format!("{line:?}: a quote inside a field that is not quoted"));
        }
        fields.push(field.to_owned());
        match next {
            Some(next) => rest = next,
            None => return Ok(fields),
        }
    }
}

/// What stands before the closing quote, and what after it.
fn quoted_field(text: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let end = rest.find('"')?;
        field.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(more) => {
                field.push('"');
                rest = more;
            }
            None => return Some((field, rest)),
        }
    }
}

/// The line that [`fields`] reads as these.
pub fn line<'a>(fields: impl IntoIterator<Item = &'a str>) -> String {
    let quoted = |field: &str| {
        if field.contains([',', '"']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field.to_owned() }
    };
    fields.into_iter().map(quoted).collect::<Vec<_>>().join(",")
}

/// Fields split at their first `=`; a field without one has no value. Keys are lower-cased and trimmed.
pub fn pairs(line: &str) -> Result<Vec<(String, Option<String>)>, String> {
    Ok(fields(line)?
        .into_iter()
        .map(|field| match field.split_once('=') {
            Some((key, value)) => (key.trim().to_ascii_lowercase(), Some(value.to_owned())),
            None => (field.trim().to_ascii_lowercase(), None),
        })
        .collect())
}

/// A switch inside such a list: `ro`, `ro=true`, `ro=0`.
pub fn switch(key: &str, value: Option<&str>) -> Result<bool, String> {
    match value {
        None | Some("true" | "1" | "t" | "T" | "True" | "TRUE") => Ok(true),
        Some("false" | "0" | "f" | "F" | "False" | "FALSE") => Ok(false),
        Some(other) => Err(format!("{key}={other:?} is neither true nor false")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quotes_keep_commas() {
        let cases: [(&str, &[&str]); 6] = [
            ("type=oci,dest=x", &["type=oci", "dest=x"]),
            ("type=image,\"name=a,b\",push=true", &["type=image", "name=a,b", "push=true"]),
            ("\"a\"\"b\"", &["a\"b"]),
            ("", &[""]),
            ("a,", &["a", ""]),
            ("\"a\",", &["a", ""]),
        ];
        for (line, expected) in cases {
            assert_eq!(fields(line).unwrap(), expected, "{line}");
        }
        for line in ["\"a", "a\"b", "\"a\"b"] {
            assert!(fields(line).is_err(), "{line}");
        }
    }

    proptest! {
        #[test]
        fn quoting_any_fields_gives_them_back(list in proptest::collection::vec(".{0,8}", 1..5)) {
            let line = list.iter().map(|f| format!("\"{}\"", f.replace('"', "\"\""))).collect::<Vec<_>>().join(",");
            prop_assert_eq!(fields(&line).unwrap(), &list[..]);
            prop_assert_eq!(fields(&super::line(list.iter().map(String::as_str))).unwrap(), list);
        }

        #[test]
        fn no_line_panics(line in ".{0,40}") {
            let _ = pairs(&line);
        }
    }
}
