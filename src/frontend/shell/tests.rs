use proptest::prelude::*;

use super::*;

fn variables() -> Variables {
    Variables::from_iter([
        ("PWD", "/home"),
        ("EMPTY", ""),
        ("x", "abcabc"),
        ("path", "a/b/c.tar.gz"),
        ("words", "one  two"),
        ("stars", "a*b*c"),
        ("é", "accent"),
    ])
}

fn text(word: &str) -> Result<String, String> {
    Lexer::new('\\').expand(word, &variables()).map(|e| e.text)
}

#[test]
fn expands_to_one_text() {
    let cases = [
        ("hello", "hello"),
        ("he'll'o", "hello"),
        ("he'\\'o", "he\\o"),
        ("'$PWD'", "$PWD"),
        ("\"$PWD\"", "/home"),
        ("\"he\\\"llo\"", "he\"llo"),
        ("\"he\\$llo\"", "he$llo"),
        ("\"a\\bc\"", "a\\bc"),
        ("he\\llo", "hello"),
        ("hello\\", "hello"),
        ("$PWD/x", "/home/x"),
        ("a$", "a$"),
        ("$$x", "x"),
        ("$1x", "x"),
        ("${1}", ""),
        ("$.", "$."),
        ("\\$PWD", "$PWD"),
        ("${PWD}", "/home"),
        ("${NONE}", ""),
        ("${NONE:-d}", "d"),
        ("${NONE-d}", "d"),
        ("${EMPTY:-d}", "d"),
        ("${EMPTY-d}", ""),
        ("${PWD:-d}", "/home"),
        ("${NONE:-${PWD}}", "/home"),
        ("${NONE:-\"a}b\"}", "a}b"),
        ("${PWD:+y}", "y"),
        ("${EMPTY:+y}", ""),
        ("${EMPTY+y}", "y"),
        ("${NONE+y}", ""),
        ("${PWD:?no}", "/home"),
        ("${EMPTY?no}", ""),
        ("${x#a}", "bcabc"),
        ("${x#*b}", "cabc"),
        ("${x##*b}", "c"),
        ("${x%b*}", "abca"),
        ("${x%%b*}", "a"),
        ("${x%c}", "abcab"),
        ("${x#z}", "abcabc"),
        ("${path##*/}", "c.tar.gz"),
        ("${path%%.*}", "a/b/c"),
        ("${path%.gz}", "a/b/c.tar"),
        ("${x/b/X}", "aXcabc"),
        ("${x//b/X}", "aXcaXc"),
        ("${x//b/}", "acac"),
        ("${path//\\//_}", "a_b_c.tar.gz"),
        ("${stars#a\\*}", "b*c"),
        ("${stars//\\*/-}", "a-b-c"),
        ("${x/?b/_}", "_cabc"),
        ("${NONE#a}", ""),
        ("${é}", "accent"),
        ("<< EOF", "<< EOF"),
        ("a < b", "a < b"),
        ("${PWD:-'}'}", "/home"),
    ];
    for (word, expected) in cases {
        assert_eq!(text(word).as_deref(), Ok(expected), "{word}");
    }
}

#[test]
fn says_what_is_wrong() {
    let cases = [
        ("'a", "failed to process \"'a\": unexpected end of statement while looking for matching single-quote"),
        ("\"a", "failed to process \"\\\"a\": unexpected end of statement while looking for matching double-quote"),
        ("${", "failed to process \"${\": syntax error: missing '}'"),
        ("${x", "failed to process \"${x\": syntax error: missing '}'"),
        ("${x:-", "failed to process \"${x:-\": syntax error: missing '}'"),
        ("${}", "failed to process \"${}\": syntax error: bad substitution"),
        ("${:x}", "failed to process \"${:x}\": syntax error: bad substitution"),
        ("${x^}", "failed to process \"${x^}\": unsupported modifier (^) in substitution"),
        ("${x:#a}", "failed to process \"${x:#a}\": unsupported modifier (:#) in substitution"),
        ("${NONE:?}", "failed to process \"${NONE:?}\": NONE: is not allowed to be unset"),
        ("${EMPTY:?}", "failed to process \"${EMPTY:?}\": EMPTY: is not allowed to be empty"),
        ("${NONE?sorry}", "failed to process \"${NONE?sorry}\": NONE: sorry"),
        ("${x/a}", "failed to process \"${x/a}\": syntax error: missing '/' in ${}"),
        ("${x#\\b}", "failed to process \"${x#\\\\b}\": invalid pattern (\\b) in substitution: invalid escape '\\b'"),
    ];
    for (word, expected) in cases {
        assert_eq!(text(word).unwrap_err(), expected, "{word}");
    }
}

#[test]
fn splits_where_nothing_is_quoted() {
    let words = |word: &str| Lexer::new('\\').expand(word, &variables()).unwrap().words;
    assert_eq!(words("a  b"), ["a", "b"]);
    assert_eq!(words("$words"), ["one", "two"]);
    assert_eq!(words("\"$words\" x"), ["one  two", "x"]);
    assert_eq!(words("a\\ b"), ["a b"]);
    assert_eq!(words("80${EMPTY:-81}"), ["8081"]);
}

#[test]
fn unset_variables_can_stay_as_they_are() {
    let lexer = Lexer { keep_unset: true, raw_quotes: true, ..Lexer::new('\\') };
    let text = |word: &str| lexer.expand(word, &variables()).unwrap().text;
    assert_eq!(text("RUN echo \"$NONE\" '$PWD' ${NONE:-x} $PWD"), "RUN echo \"$NONE\" '$PWD' ${NONE:-x} /home");
}

#[test]
fn tells_which_variables_it_looked_up() {
    let expansion = Lexer::new('\\').expand("$PWD ${a:-$b}", &variables()).unwrap();
    assert_eq!(expansion.found.iter().collect::<Vec<_>>(), ["PWD"]);
    assert_eq!(expansion.missing.iter().collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn a_backtick_can_be_the_escape() {
    let text = |word: &str| Lexer::new('`').expand(word, &variables()).unwrap().text;
    assert_eq!(text("C:\\dir`$PWD"), "C:\\dir$PWD");
}

#[test]
fn nesting_and_growth_have_an_end() {
    let deep = format!("{}{}", "${a:-".repeat(100_000), "}".repeat(100_000));
    assert!(text(&deep).unwrap_err().ends_with("too many substitutions inside each other"));
    let big = Variables::from_iter([("b", "x".repeat(1 << 20).as_str())]);
    let error = Lexer::new('\\').expand(&"$b".repeat(10), &big).unwrap_err();
    assert!(error.ends_with("the result is longer than 4194304 bytes"), "{error}");
}

proptest! {
    #[test]
    fn never_panics(word in "[a$\\{\\}:+?#%/*\\\\'\"<é \\-]{0,40}", raw in any::<bool>(), keep in any::<bool>()) {
        let lexer = Lexer { raw_quotes: raw, raw_escapes: raw, keep_unset: keep, ..Lexer::new('\\') };
        let _ = lexer.expand(&word, &Variables::from_iter([("a", "aa*é")]));
    }

    #[test]
    fn single_quotes_protect_anything(word in "[^']{0,40}") {
        prop_assert_eq!(text(&format!("'{word}'")), Ok(word));
    }
}
