//! An error with what it came of, as one line.

/// All causes on one line, without what a later one says again.
pub fn line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let words = cause.to_string();
        if words.is_empty() || line.ends_with(&words) {
            continue;
        }
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(&words);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_said_once() {
        let error = anyhow::anyhow!("no room").context("f: no room").context("").context("copy");
        assert_eq!(line(&error), "copy: f: no room");
    }
}
