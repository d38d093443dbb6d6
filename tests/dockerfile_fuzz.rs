//! Nothing that can be written into a Dockerfile makes the frontend panic, hang or contradict itself.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use annotate_snippets::Renderer;
use dockless::base::patterns::Matcher;
use dockless::base::{Digest, Epoch, Platform, Reference};
use dockless::frontend::{self, ImageConfigs, Input, Question, ResolvedImage};
use dockless::image::config::ImageConfig;
use dockless::llb::{Graph, pb, print};
use proptest::prelude::*;

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

fn check(text: &[u8]) {
    let started = Instant::now();
    let _ = frontend::ast::dump("Dockerfile", text);
    let input = input(text);
    let outcome = frontend::build(&input, &Anything);
    match &outcome {
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

/// Lines that are nearly right.
fn line() -> impl Strategy<Value = String> {
    let keyword = prop::sample::select(vec![
        "FROM",
        "RUN",
        "COPY",
        "ADD",
        "ENV",
        "ARG",
        "LABEL",
        "CMD",
        "ENTRYPOINT",
        "EXPOSE",
        "VOLUME",
        "USER",
        "WORKDIR",
        "ONBUILD",
        "ONBUILD RUN",
        "ONBUILD COPY",
        "STOPSIGNAL",
        "HEALTHCHECK",
        "HEALTHCHECK CMD",
        "SHELL",
        "MAINTAINER",
        "from",
        "#",
        "# escape=`",
        "# check=skip=all",
        "# syntax=docker/dockerfile:1",
        "FROM a AS",
        "FROM b AS c\nRUN",
        "FROM scratch AS b\nCOPY",
    ]);
    let word = prop::sample::select(vec![
        "a",
        "b",
        "c",
        "AS",
        "scratch",
        ".",
        "/",
        "..",
        "/x/",
        "--from=a",
        "--from=0",
        "--link",
        "--parents",
        "--chown=a:b",
        "--chmod=7",
        "--chmod=u+x",
        "--exclude=*",
        "--mount=type=cache,target=/c",
        "--mount=from=b,target=/m",
        "--mount=type=secret,id=x",
        "--mount=type=tmpfs,target=$x",
        "--network=none",
        "--platform=$TARGETPLATFORM",
        "--platform=linux/arm",
        "--interval=1s",
        "--unpack",
        "--keep-git-dir",
        "--checksum=sha256:00",
        "--device=x",
        "x=y",
        "x=$x",
        "\"q\"",
        "'",
        "\"",
        "\\",
        "\\\n",
        "\\\n\n",
        "`",
        "`\n",
        "$x",
        "${x}",
        "${x:-y}",
        "${x/a/b}",
        "${x%%*}",
        "${",
        "}",
        "<<E",
        "<<-E\n\tx\n\tE",
        "<<'E'\n$x\nE",
        "E",
        "80",
        "80-90/udp",
        "[\"a\", \"b\"]",
        "[",
        "[1]",
        "é",
        "\u{feff}",
        "\r",
        "\t",
        "https://h/x",
        "https://h/r.git#m:d",
        "git@h:r",
        "*.c",
        "[a-",
        "=",
        "#",
        "SIGTERM",
        "NONE",
        "CMD",
        "1000:1000",
        "ARGUMENT",
    ]);
    (keyword, prop::collection::vec(word, 0..6)).prop_map(|(keyword, words)| format!("{keyword} {}", words.join(" ")))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(text in prop::collection::vec(any::<u8>(), 0..400)) {
        check(&text);
    }

    #[test]
    fn ignore_files(
        lines in prop::collection::vec("!?[ab*?/.\\[\\]\\\\^# é-]{0,12}", 0..8),
        path in "[ab./é-]{0,20}",
    ) {
        let patterns = frontend::ignore::parse(&lines.join("\n"));
        // A pattern that is none is an error, never worse.
        if let Ok(matcher) = Matcher::new(&patterns) {
            let whole = matcher.matches(&path);
            let again = matcher.matches(&path);
            prop_assert_eq!(whole.ok(), again.ok());
            let _ = matcher.decisive(&path);
        }
    }

    #[test]
    fn lines_that_are_nearly_right(lines in prop::collection::vec(line(), 0..12)) {
        check(format!("FROM a\n{}\n", lines.join("\n")).as_bytes());
    }
}

/// More with `PROPTEST_CASES`.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(256)
}

#[test]
fn text_that_wants_to_explode_does_not() {
    let doubling = format!("FROM a\nENV x=0123456789\n{}", "ENV x=$x$x$x$x\n".repeat(40));
    let nested = format!("FROM a\nENV x={}{}\n", "${y:-".repeat(10_000), "}".repeat(10_000));
    let chain: String = (0..3000).map(|i| format!("FROM s{} AS s{i}\nRUN x\n", i - 1)).collect();
    let copies: String = (1..1500)
        .map(|i| format!("FROM a AS s{i}\nCOPY --from=s{} / /\n", if i == 1 { 9999 } else { i - 1 }))
        .collect();
    let onbuild = format!("FROM a\n{} RUN x\n", "ONBUILD ".repeat(10_000));
    let json = format!("FROM a\nRUN {}\n", "[".repeat(100_000));
    let continued = format!("FROM a\nRUN x {}", "\\\n".repeat(100_000));
    let heredocs = format!("FROM a\nRUN {}\n", "<<A ".repeat(5_000));
    let stars = format!("FROM a\nENV v={} w=${{v##{}b}}\n", "a".repeat(2000), "*a".repeat(2000));
    let ports = format!("FROM a\nEXPOSE {}\n", "0-65535 ".repeat(100));
    let replace = format!("FROM a\nENV x={}\nENV y=${{x//a/{}}}\n", "a".repeat(100_000), "b".repeat(100_000));
    for text in
        [doubling, nested, chain.replace("s-1", "a"), copies, onbuild, json, continued, heredocs, stars, ports, replace]
    {
        check(text.as_bytes());
    }
}

#[test]
fn twenty_thousand_lines_are_read_in_no_time() {
    let text =
        "FROM a AS b\nRUN echo \"hello $world\" && \\\n  foo\nENV a=b c=\"d e\"\n# comment\nCOPY x /y/\n".repeat(3334);
    let started = Instant::now();
    frontend::ast::dump("Dockerfile", text.as_bytes()).expect("well-formed");
    let took = started.elapsed();
    // Well under 50 ms when optimised; the tests are not.
    assert!(took < Duration::from_secs(2), "{took:?}");
}
