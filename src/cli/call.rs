//! `--call` and `--check`: what is to be known of a Dockerfile without building it.

use crate::base::csv;
use crate::engine::{SharedCaches, SolveRequest};
use crate::frontend::{Answer, Question};

use super::exit::{Exit, Unsupported, usage};
use super::progress::Display;
use super::session::{Out, Session};
use super::solve::Build;

/// A question, as it was typed.
#[derive(Debug, PartialEq, Eq)]
pub struct Asked {
    question: Question,
    json: bool,
    /// Warnings do not show in the exit code.
    ignore_status: bool,
}

/// `check`, `outline` or `targets`, with `,format=json` and `,ignorestatus=true`; none for `build`.
pub fn parse(text: &str) -> anyhow::Result<Option<Asked>> {
    let mut asked = Asked { question: Question::Check, json: false, ignore_status: false };
    let mut method = None;
    let fields = csv::fields(text).map_err(|reason| usage(format!("--call={text}: {reason}")))?;
    for field in fields.into_iter().filter(|field| !field.is_empty()) {
        match field.split_once('=') {
            Some(("format", "json")) => asked.json = true,
            Some(("format", "text" | "")) => asked.json = false,
            Some(("ignorestatus", value)) => {
                asked.ignore_status = value
                    .parse()
                    .map_err(|_| usage(format!("--call: ignorestatus={value} is neither true nor false")))?;
            }
            None if method.is_none() => method = Some(field),
            _ => return Err(usage(format!("--call={text}: {field:?} is not known"))),
        }
    }
    asked.question = match method.as_deref() {
        None | Some("build") => return Ok(None),
        Some("check" | "lint") => Question::Check,
        Some("outline") => Question::Outline,
        Some("targets") => Question::Targets,
        Some(other) => {
            return Err(Unsupported::instead(format!("--call={other}"), "there are build, check, outline and targets"));
        }
    };
    Ok(Some(asked))
}

/// Prints the answer. Warnings of a check are told by the exit code too.
pub fn run(session: &Session, asked: Asked, build: Build) -> anyhow::Result<Exit> {
    let display = Display::start(build.mode, &session.env);
    let request = SolveRequest {
        plan: build.plan,
        secrets: build.secret_values,
        ssh: Default::default(),
        exports: Vec::new(),
        caches: SharedCaches::default(),
        allow: Vec::new(),
        epoch: build.epoch,
        progress: display.progress(),
        cancel: session.cancel()?,
    };
    let answer = session.frontend()?.ask(&request, asked.question);
    display.finish();
    let answer = answer?;
    let mut out = Out::new();
    if asked.json {
        out.line(format!("{:#}", answer.json()))?;
    } else {
        std::io::Write::write_all(&mut out, answer.text().as_bytes())?;
    }
    out.finish()?;
    match answer {
        Answer::Check(checked) => match checked.error {
            // In JSON it has been told.
            Some(_) if asked.json && asked.ignore_status => Ok(Exit::Success),
            Some(_) if asked.json => Ok(Exit::Process(1)),
            Some(error) => Err(error.into()),
            None if checked.warnings.is_empty() || asked.ignore_status => Ok(Exit::Success),
            None => Ok(Exit::Process(1)),
        },
        Answer::Outline(_) | Answer::Targets(_) => Ok(Exit::Success),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_a_method_and_a_format() {
        let asked = |question, json, ignore_status| Some(Asked { question, json, ignore_status });
        let cases = [
            ("build", None),
            ("", None),
            ("check", asked(Question::Check, false, false)),
            ("lint,format=json", asked(Question::Check, true, false)),
            ("check,ignorestatus=true", asked(Question::Check, false, true)),
            ("outline", asked(Question::Outline, false, false)),
            ("format=json,targets", asked(Question::Targets, true, false)),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text).unwrap(), expected, "{text}");
        }
        for text in ["nothing", "check,outline", "check,format=xml", "check,ignorestatus=perhaps"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
