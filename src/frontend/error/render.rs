//! Errors and warnings with the source lines that they are about.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::{Error, Place};
use crate::frontend::input::Warning;

/// Lines shown of a long instruction; the rest is folded.
const SHOWN_LINES: usize = 8;

impl Error {
    /// This error and those found beside it, each with its source lines and what may help.
    pub fn render(&self, renderer: &Renderer) -> String {
        let mut out = snippet(Level::ERROR, &self.described(), self.place.as_ref(), self.hint.as_deref(), renderer);
        for more in &self.more {
            out.push('\n');
            out.push_str(&more.render(renderer));
        }
        out
    }

    /// The message and what caused it.
    fn described(&self) -> String {
        match &self.source {
            Some(source) => format!("{}: {source:#}", self.message),
            None => self.message.clone(),
        }
    }
}

impl Warning {
    /// The warning with its source lines and where the rule is explained.
    pub fn render(&self, renderer: &Renderer) -> String {
        let text = format!("{}: {}", self.rule, self.message);
        let hint = (!self.url.is_empty()).then_some(self.url.as_str());
        snippet(Level::WARNING, &text, self.place.as_ref(), hint, renderer)
    }
}

fn snippet(level: Level<'_>, text: &str, place: Option<&Place>, hint: Option<&str>, renderer: &Renderer) -> String {
    let title = level.primary_title(text);
    let mut group = match place {
        None => Group::with_title(title),
        Some(place) => {
            let lines = place.bytes();
            let span = place.span.clone().unwrap_or_else(|| first_lines(&place.text, lines));
            let source =
                Snippet::source(&*place.text).path(&*place.file).annotation(AnnotationKind::Primary.span(span));
            title.element(source)
        }
    };
    if let Some(hint) = hint {
        group = group.element(Level::HELP.message(hint));
    }
    let mut out = renderer.render(&[group]);
    out.push('\n');
    out
}

/// Without the blanks around, and no more lines than a screen shows.
fn first_lines(text: &str, lines: std::ops::Range<usize>) -> std::ops::Range<usize> {
    let body = &text[lines.clone()];
    let start = lines.start + (body.len() - body.trim_start().len());
    let shown: usize = text[start..lines.end].split_inclusive('\n').take(SHOWN_LINES).map(str::len).sum();
    let end = start + text[start..start + shown].trim_end().len();
    start..end
}
