//! What headers and addresses say: names of files, dates.

use reqwest::Url;

/// The last name of an address, else `download`, as BuildKit has it.
pub fn of_address(url: &Url) -> String {
    let name = url.path().rsplit('/').find(|part| !part.is_empty()).unwrap_or_default();
    file_name(&percent_decode(name)).unwrap_or_else(|| "download".to_owned())
}

/// The `filename` of a `Content-Disposition` (RFC 6266), `filename*` first.
pub fn of_disposition(header: &str) -> Option<String> {
    let (mut plain, mut extended) = (None, None);
    for (key, value) in parameters(header.split_once(';')?.1) {
        match key.to_ascii_lowercase().as_str() {
            "filename" => plain = Some(value),
            // RFC 5987: charset'language'percent-encoded.
            "filename*" => {
                extended = value.get(..5).filter(|charset| charset.eq_ignore_ascii_case("utf-8")).and_then(|_| {
                    let name = value[5..].splitn(3, '\'').nth(2)?;
                    Some(percent_decode(name))
                });
            }
            _ => {}
        }
    }
    extended.or(plain).filter(|name| !name.ends_with('/')).and_then(|name| file_name(&name))
}

/// Only a name, never a path: it becomes a file.
fn file_name(text: &str) -> Option<String> {
    let name = text.rsplit('/').next()?;
    (!matches!(name, "" | "." | "..") && !name.contains('\0') && name.len() <= 255).then(|| name.to_owned())
}

/// `key=token; key="quoted \" string"`
fn parameters(mut text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    while let Some((key, rest)) = text.split_once('=') {
        let rest = rest.trim_start();
        let mut value = String::new();
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut letters = quoted.char_indices();
            let mut end = quoted.len();
            while let Some((at, letter)) = letters.next() {
                match letter {
                    '"' => {
                        end = at + 1;
                        break;
                    }
                    '\\' => value.extend(letters.next().map(|(_, escaped)| escaped)),
                    letter => value.push(letter),
                }
            }
            text = quoted[end..].trim_start().trim_start_matches(';');
        } else {
            let (token, rest) = rest.split_once(';').unwrap_or((rest, ""));
            value.push_str(token.trim());
            text = rest;
        }
        found.push((key.trim().to_owned(), value));
    }
    found
}

fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let mut byte = [0];
        if *first == b'%' && tail.len() >= 2 && hex::decode_to_slice(&tail[..2], &mut byte).is_ok() {
            bytes.push(byte[0]);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110) as seconds since 1970.
pub fn http_date(text: &str) -> Option<i64> {
    let time = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(time.as_second())
}

/// An address without the password and the signature that it may carry.
pub fn redact(address: &str) -> String {
    let Ok(mut url) = Url::parse(address) else {
        return address.split(['?', '#']).next().unwrap_or_default().to_owned();
    };
    if url.password().is_some() {
        let _ = url.set_password(Some("xxxxx"));
    }
    let query = url.query().is_some();
    url.set_query(None);
    url.set_fragment(None);
    if query { format!("{url}?…") } else { url.to_string() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_come_from_headers_and_addresses_and_are_never_paths() {
        let dispositions = [
            ("attachment; filename=a.tar", Some("a.tar")),
            ("attachment; filename=\"a b.tar\"; size=3", Some("a b.tar")),
            ("attachment; filename=\"a\\\"b\"", Some("a\"b")),
            ("attachment; filename=x; filename*=UTF-8''%e2%82%ac.txt", Some("€.txt")),
            ("attachment; filename=\"../../etc/passwd\"", Some("passwd")),
            ("attachment; filename=\"dir/\"", None),
            ("attachment; filename=\"..\"", None),
            ("attachment; filename=\"", None),
            ("attachment", None),
            ("inline; filename*=x", None),
        ];
        for (header, name) in dispositions {
            assert_eq!(of_disposition(header).as_deref(), name, "{header}");
        }
        let addresses = [
            ("https://h/a/b.tgz?x=1", "b.tgz"),
            ("https://h/a/", "a"),
            ("https://h", "download"),
            ("https://h/a%2Fb", "b"),
            ("https://h/%2E%2E", "download"),
            ("https://h/a%20b", "a b"),
        ];
        for (address, name) in addresses {
            assert_eq!(of_address(&Url::parse(address).unwrap()), name, "{address}");
        }
    }

    #[test]
    fn dates_are_read_and_secrets_not_shown() {
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(http_date("yesterday"), None);
        assert_eq!(redact("https://u:secret@h/p?sig=secret#f"), "https://u:xxxxx@h/p?…");
        assert_eq!(redact("not an address?secret"), "not an address");
    }

    proptest! {
        #[test]
        fn any_header_gives_a_name_or_none(header in "\\PC{0,60}", tail in "[;=\"\\\\'*%a-z/.]{0,30}") {
            for text in [header.clone(), format!("attachment;{tail}"), format!("{header};filename{tail}")] {
                if let Some(name) = of_disposition(&text) {
                    prop_assert!(!name.contains('/') && !name.is_empty());
                }
            }
        }
    }
}
