//! "Did you mean": the nearest of the words that would have been right.

/// Farther words have nothing to do with what was meant.
const FARTHEST: usize = 2;

/// The option nearest to the word; none when the word is an option itself, so that the mistake is another one.
pub fn nearest<'a>(word: &str, options: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut best = None;
    let mut limit = FARTHEST + 1;
    for option in options {
        if option == word {
            return None;
        }
        let distance = distance(word, option, limit);
        if distance < limit {
            limit = distance;
            best = Some(option);
        }
    }
    best
}

/// As [`nearest`], whatever the case; the answer is in the case of the word.
pub fn nearest_in_any_case<'a>(word: &str, options: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let lower: Vec<String> = options.into_iter().map(str::to_lowercase).collect();
    let found = nearest(&word.to_lowercase(), lower.iter().map(String::as_str))?;
    let upper = word == word.to_uppercase() && word != word.to_lowercase();
    Some(if upper { found.to_uppercase() } else { found.to_owned() })
}

/// The number of letters to insert, delete or replace; `limit` when it is not less than that.
fn distance(a: &str, b: &str, limit: usize) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(256).collect(), b.chars().take(256).collect());
    if a.len().abs_diff(b.len()) >= limit {
        return limit;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()].min(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant() {
        assert_eq!(nearest("fron", ["from", "chown", "chmod"]), Some("from"));
        assert_eq!(nearest("from", ["from", "fromm"]), None, "it is right already");
        assert_eq!(nearest("zebra", ["from"]), None);
        assert_eq!(nearest("ab", ["xbb", "abb"]), Some("abb"), "the nearest, not the first");
        assert_eq!(nearest_in_any_case("FORM", ["FROM", "RUN"]), Some("FROM".into()));
        assert_eq!(nearest_in_any_case("copi", ["COPY"]), Some("copy".into()));
    }
}
