//! Nothing that can be written into a Dockerfile makes the frontend panic, hang or contradict itself.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use broken_input::dockerfile as check;
use dockless::frontend;
use proptest::prelude::*;

#[path = "support/broken_input.rs"]
mod broken_input;

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
        broken_input::ignore(format!("{path}\n{}", lines.join("\n")).as_bytes());
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

/// What the fuzzers found worth keeping (`fuzz/run` gathers it), and what once broke something.
#[test]
fn the_corpora_of_the_fuzzers_hold() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let targets: [(&str, fn(&[u8])); 4] = [
        ("dockerfile", broken_input::dockerfile),
        ("expand", broken_input::word),
        ("flags", broken_input::flags),
        ("ignore", broken_input::ignore),
    ];
    for (name, target) in targets {
        let inputs: Vec<_> = fs::read_dir(corpora.join(name)).expect("a corpus").collect();
        assert!(!inputs.is_empty(), "{name} has no corpus");
        for input in inputs {
            target(&fs::read(input.expect("an entry").path()).expect("an input"));
        }
    }
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
