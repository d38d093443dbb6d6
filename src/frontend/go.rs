//! Text as Go's `fmt`, `strconv`, `time` and `encoding/json` write it: history lines and LLB attributes are made of
//! it, and must be equal byte for byte.

use std::fmt::Write as _;

/// `%q` of a string.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            c if c < ' ' || c == '\x7f' => push(&mut out, format_args!("\\x{:02x}", c as u32)),
            c if is_print(c) => out.push(c),
            c if (c as u32) < 0x10000 => push(&mut out, format_args!("\\u{:04x}", c as u32)),
            c => push(&mut out, format_args!("\\U{:08x}", c as u32)),
        }
    }
    out.push('"');
    out
}

/// `%q` of a list of strings.
pub fn quoted_list<S: AsRef<str>>(items: &[S]) -> String {
    format!("[{}]", items.iter().map(|i| quote(i.as_ref())).collect::<Vec<_>>().join(" "))
}

/// `%v` of a list of strings.
pub fn list<S: AsRef<str>>(items: &[S]) -> String {
    format!("[{}]", items.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(" "))
}

/// `json.Marshal` of a list of strings: HTML's characters and two line separators are escaped.
pub fn json_list<S: AsRef<str>>(items: &[S]) -> String {
    let items: Vec<&str> = items.iter().map(AsRef::as_ref).collect();
    serde_json::Value::from(items)
        .to_string()
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

/// A `time.Duration` of nanoseconds, as it prints itself.
pub fn duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let n = nanos.unsigned_abs();
    let fraction = |value: u64, unit: u64| {
        let (whole, rest) = (value / unit, value % unit);
        let digits = unit.ilog10() as usize;
        let text = format!("{rest:0digits$}");
        match text.trim_end_matches('0') {
            "" => whole.to_string(),
            rest => format!("{whole}.{rest}"),
        }
    };
    let text = match n {
        0 => "0s".to_owned(),
        1..1_000 => format!("{n}ns"),
        1_000..1_000_000 => format!("{}µs", fraction(n, 1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", fraction(n, 1_000_000)),
        _ => {
            let seconds = fraction(n % 60_000_000_000, 1_000_000_000);
            match n / 60_000_000_000 {
                0 => format!("{seconds}s"),
                minutes @ 1..60 => format!("{minutes}m{seconds}s"),
                minutes => format!("{}h{}m{seconds}s", minutes / 60, minutes % 60),
            }
        }
    };
    format!("{sign}{text}")
}

/// Reads what `time.ParseDuration` reads, into nanoseconds.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {}", quote(text));
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let digits = |s: &str| s.bytes().take_while(u8::is_ascii_digit).count();
        let whole = digits(rest);
        let (number, after) = rest.split_at(whole);
        let (decimals, after) = match after.strip_prefix('.') {
            Some(after) => after.split_at(digits(after)),
            None => ("", after),
        };
        if number.is_empty() && decimals.is_empty() {
            return Err(invalid());
        }
        let unit_len = after.bytes().take_while(|b| *b != b'.' && !b.is_ascii_digit()).count();
        let (unit, after) = after.split_at(unit_len);
        let scale: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "" => return Err(format!("time: missing unit in duration {}", quote(text))),
            other => return Err(format!("time: unknown unit {} in duration {}", quote(other), quote(text))),
        };
        let number: i128 = if number.is_empty() { 0 } else { number.parse().map_err(|_| invalid())? };
        total = number.checked_mul(scale).and_then(|n| total.checked_add(n)).ok_or_else(invalid)?;
        // Digits beyond a nanosecond of an hour do not count.
        let decimals = &decimals[..decimals.len().min(18)];
        if !decimals.is_empty() {
            let fraction: i128 = decimals.parse().map_err(|_| invalid())?;
            total += fraction * scale / 10_i128.pow(u32::try_from(decimals.len()).unwrap_or(0));
        }
        rest = after;
    }
    i64::try_from(if negative { -total } else { total }).map_err(|_| invalid())
}

/// Reads what `strconv.ParseBool` reads.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// Reads a decimal integer of at most `bits` bits as `strconv.ParseInt` does: a plus sign is fine.
pub fn parse_int(text: &str, bits: u32) -> Option<i64> {
    if text.is_empty() || text.starts_with("+-") {
        return None;
    }
    let number: i64 = text.strip_prefix('+').unwrap_or(text).parse().ok()?;
    let limit = 1_i128 << (bits - 1);
    (-limit..limit).contains(&i128::from(number)).then_some(number)
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String does not fail.
    let _ = out.write_fmt(text);
}

fn is_print(c: char) -> bool {
    if c.is_ascii() {
        return (' '..='~').contains(&c);
    }
    // The standard library escapes what does not print, and combining marks where they come first; Go prints those.
    let mut pair = String::from("a");
    pair.push(c);
    !c.is_whitespace() && pair.escape_debug().count() == 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quotes_as_go_does() {
        let cases = [
            ("a\"b\\", "\"a\\\"b\\\\\""),
            ("\u{7}\u{0}\n", "\"\\a\\x00\\n\""),
            ("é☺", "\"é☺\""),
            ("\u{a0}\u{200b}", "\"\\u00a0\\u200b\""),
            ("e\u{301}", "\"e\u{301}\""),
            ("\u{e000}", "\"\\ue000\""),
            ("\u{10ffff}", "\"\\U0010ffff\""),
        ];
        for (text, expected) in cases {
            assert_eq!(quote(text), expected);
        }
        assert_eq!(quoted_list(&["a", "b c"]), "[\"a\" \"b c\"]");
        assert_eq!(quoted_list::<&str>(&[]), "[]");
        assert_eq!(list(&["a", "b c"]), "[a b c]");
        assert_eq!(json_list(&["<a&b>", "\"\t"]), "[\"\\u003ca\\u0026b\\u003e\",\"\\\"\\t\"]");
    }

    #[test]
    fn durations_read_and_print_as_gos_do() {
        let cases = [
            ("0", "0s"),
            ("5s", "5s"),
            ("90s", "1m30s"),
            ("1h", "1h0m0s"),
            ("1.5h", "1h30m0s"),
            ("100ms", "100ms"),
            ("1500ms", "1.5s"),
            ("1us", "1µs"),
            ("15ns", "15ns"),
            ("-3m2.5s", "-3m2.5s"),
            ("1h2m3.004s", "1h2m3.004s"),
        ];
        for (text, expected) in cases {
            assert_eq!(duration(parse_duration(text).unwrap()), expected, "{text}");
        }
        for text in ["", "5", "s", "1x", ".", "1.2.3s", "9999999999999h", "-"] {
            assert!(parse_duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn integers_have_a_width() {
        assert_eq!(parse_int("+5", 32), Some(5));
        assert_eq!(parse_int("-1", 32), Some(-1));
        assert_eq!(parse_int("2147483648", 32), None);
        assert_eq!(parse_int("", 32), None);
        assert_eq!(parse_int("1_000", 32), None);
    }

    proptest! {
        #[test]
        fn reading_durations_never_panics(text in "[-+]?[0-9.hmsnuµ]{0,40}") {
            if let Ok(nanos) = parse_duration(&text) {
                prop_assert_eq!(parse_duration(&duration(nanos)), Ok(nanos));
            }
        }
    }
}
