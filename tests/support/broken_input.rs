//! What must hold for every input of the frontend, however broken: it ends, it does not panic, and what it says twice
//! is the same. The property tests and the fuzzers (`fuzz/`) both come here.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use annotate_snippets::Renderer;
use dockless::base::patterns::{Matcher, Parents};
use dockless::base::{Digest, Epoch, Platform, Reference, csv};
use dockless::frontend::{self, ImageConfigs, Input, Question, ResolvedImage};
use dockless::image::config::ImageConfig;
use dockless::llb::{Graph, pb, print};

/// Every image exists, and one in three brings triggers.
struct Anything;

impl ImageConfigs for Anything {
    fn resolve(&self, reference: &Reference, platform: &Platform) -> anyhow::Result<ResolvedImage> {
        let digest = Digest::of(reference.to_string());
        let mut config = ImageConfig::new(platform.clone());
        config.rootfs.diff_ids = vec![dockless::base::DiffId(digest)];
        if digest.as_bytes()[0].is_multiple_of(3) {
            config.config.on_build = vec!["COPY --from=b . /".to_owned(), "RUN <<E\nx\nE".to_owned()];
        }
        Ok(ResolvedImage { reference: reference.with_digest(digest), config })
    }

    fn source_date(&self, _: &pb::Definition) -> anyhow::Result<Option<i64>> {
        Ok(Some(86400))
    }
}

fn input(text: &[u8]) -> Input {
    let mut input = Input::new("Dockerfile", text, Epoch::new(std::time::UNIX_EPOCH, None).expect("no date"));
    input.build_platform = Platform::new("linux", "amd64", "");
    input.build_args = BTreeMap::from([("ARGUMENT".to_owned(), "value $x \"".to_owned())]);
    input
}

/// Far above what any of these inputs takes, even unoptimised on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

/// A Dockerfile.
pub fn dockerfile(text: &[u8]) {
    let started = Instant::now();
    let _ = frontend::ast::dump("Dockerfile", text);
    let input = input(text);
    match &frontend::build(&input, &Anything) {
        Err(error) => {
            let _ = error.render(&Renderer::styled());
            let _ = error.to_string();
        }
        Ok(built) => {
            let graph = Graph::decode(&built.definition).expect("a definition of ours is valid");
            let _ = (print::text(&graph), print::json(&graph), print::dot(&graph));
            let again = frontend::build(&input, &Anything).expect("it was built before");
            assert_eq!(built.definition, again.definition, "the same text makes the same graph");
            assert_eq!(built.config.to_bytes(), again.config.to_bytes());
            built.warnings.iter().for_each(|w| drop(w.render(&Renderer::styled())));
        }
    }
    for question in [Question::Check, Question::Outline, Question::Targets] {
        if let Ok(answer) = frontend::ask(question, &input, &Anything) {
            let _ = (answer.text(), answer.json().to_string());
        }
    }
    assert!(started.elapsed() < LIMIT, "{:?} for {:?}", started.elapsed(), String::from_utf8_lossy(text));
}

/// A word, wherever words are expanded: alone, in quotes, and by an instruction that keeps what is not set.
pub fn word(word: &[u8]) {
    let Ok(word) = std::str::from_utf8(word) else { return };
    // One line each: where a line ends is another target's business.
    let word = word.replace(['\n', '\r'], " ");
    for escape in ["", "# escape=`\n"] {
        let text = format!(
            "{escape}FROM a\nARG ARGUMENT\nENV u= v=aXbXc w='a/b/c'\nENV x={word} y=\"{word}\"\nLABEL l={word}\n\
             WORKDIR {word}\nCOPY --chown={word} {word} /{word}\nRUN --mount=type=cache,target=/{word} true\n"
        );
        dockerfile(text.as_bytes());
    }
}

/// Flags, before what every instruction that takes some would be content with.
pub fn flags(flags: &[u8]) {
    let Ok(flags) = std::str::from_utf8(flags) else { return };
    let _ = csv::fields(flags);
    let flags = flags.replace(['\n', '\r'], " ");
    for line in [
        format!("RUN --{flags} true"),
        format!("RUN --mount={flags} true"),
        format!("COPY --{flags} a b /c/"),
        format!("ADD --{flags} a.tar https://h/x https://h/r.git#m:d /c/"),
        format!("HEALTHCHECK --{flags} CMD true"),
        format!("FROM --{flags} a AS b"),
        format!("ONBUILD COPY --{flags} a b"),
        format!("ENV --{flags} a=b"),
    ] {
        dockerfile(format!("FROM a\n{line}\n").as_bytes());
    }
}

/// A path in the first line, an ignore file in the others.
pub fn ignore(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let (path, text) = text.split_once('\n').unwrap_or(("a/b", text));
    let patterns = frontend::ignore::parse(text);
    // A pattern that is none is an error, never worse.
    let Ok(matcher) = Matcher::new(&patterns) else { return };
    let whole = matcher.matches(path);
    assert_eq!(whole, matcher.matches(path), "{path:?} is asked about twice");
    if let Ok(whole) = whole {
        let decided = matcher.decisive(path).is_some_and(|pattern| !pattern.is_exclusion());
        assert_eq!(whole, decided, "the pattern that decided about {path:?} says what was decided");
        // With nothing known of the parents, a walk's question is the same question.
        assert_eq!(matcher.matches_below(path, &Parents::default()).map(|(hit, _)| hit), Ok(whole), "{path:?}");
    }
    let _ = matcher.may_take_back_below(path);
}
