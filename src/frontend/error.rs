//! A mistake in a Dockerfile, with the place where it is and what to do about it.

mod render;

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::suggest;

/// Lines of a Dockerfile, and the text to show them from.
#[derive(Clone, PartialEq, Eq)]
pub struct Place {
    pub file: Arc<str>,
    pub text: Arc<str>,
    /// From 1.
    pub lines: RangeInclusive<usize>,
    /// The offending words, where they are known better than by line: bytes of `text`.
    pub span: Option<std::ops::Range<usize>>,
}

/// Why a Dockerfile cannot be built.
///
/// One pointer, because results are many and errors few.
#[derive(Debug)]
pub struct Error(Box<Detail>);

/// What is known of an [`Error`].
#[derive(Debug)]
pub struct Detail {
    pub message: String,
    pub place: Option<Place>,
    /// What the user may do about it.
    pub hint: Option<String>,
    /// What went wrong outside, such as a registry's answer.
    pub source: Option<anyhow::Error>,
    /// Further mistakes in the same file that do not follow from this one.
    pub more: Vec<Error>,
    /// The word that it is about, until the place is known.
    focus: Option<String>,
}

/// Mistakes that do not follow from each other, to be told together.
#[derive(Debug, Default)]
pub(super) struct Errors(Vec<Error>);

/// More mistakes than these help nobody.
const MAX_ERRORS: usize = 20;

impl Errors {
    pub fn push(&mut self, error: Error) {
        if !self.is_full() {
            self.0.push(error);
        }
    }

    /// The value, or none and the error is kept.
    pub fn take<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.push(error)).ok()
    }

    pub fn is_full(&self) -> bool {
        self.0.len() >= MAX_ERRORS
    }

    /// The first one in the file, the others beside it.
    pub fn finish(mut self) -> Result<()> {
        self.0.sort_by_key(|e| e.place.as_ref().map(|p| *p.lines.start()));
        let mut errors = self.0.into_iter();
        let Some(mut first) = errors.next() else { return Ok(()) };
        let mut more = std::mem::take(&mut first.more);
        more.extend(errors);
        more.truncate(MAX_ERRORS - 1);
        first.more = more;
        Err(first)
    }
}

impl IntoIterator for Errors {
    type Item = Error;
    type IntoIter = std::vec::IntoIter<Error>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

pub(super) type Result<T, E = Error> = std::result::Result<T, E>;

impl std::ops::Deref for Error {
    type Target = Detail;

    fn deref(&self) -> &Detail {
        &self.0
    }
}

impl std::ops::DerefMut for Error {
    fn deref_mut(&mut self) -> &mut Detail {
        &mut self.0
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}

impl Error {
    pub fn new(message: impl Into<String>) -> Self {
        Self(Box::new(Detail {
            message: message.into(),
            place: None,
            hint: None,
            source: None,
            more: Vec::new(),
            focus: None,
        }))
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn because(mut self, source: anyhow::Error) -> Self {
        self.source = Some(source);
        self
    }

    /// Names the word that it is about, for whoever knows the place.
    pub(super) fn about(mut self, word: &str) -> Self {
        self.focus.get_or_insert_with(|| word.to_owned());
        self
    }

    /// Points at the place, or at the word in it that the error is about, unless a better one is known.
    pub fn at(self, place: &Place) -> Self {
        self.at_word(place, "")
    }

    /// As [`Error::at`]; at this word when no better one is known, and it stands there as it is.
    pub fn at_word(mut self, place: &Place, word: &str) -> Self {
        if self.place.is_none() {
            let focused = self.focus.take().map(|focus| place.word(&focus)).filter(|p| p.span.is_some());
            self.place = Some(focused.unwrap_or_else(|| place.word(word)));
        }
        self
    }

    /// Asks whether the nearest of the options was meant.
    pub fn did_you_mean<'a>(mut self, word: &str, options: impl IntoIterator<Item = &'a str>) -> Self {
        if self.hint.is_none()
            && let Some(option) = suggest::nearest(word, options)
        {
            self.hint = Some(format!("did you mean {option}?"));
        }
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl Place {
    /// Narrowed to the first occurrence of the word in the lines; unchanged where it does not occur.
    pub fn word(&self, word: &str) -> Self {
        let mut place = self.clone();
        let range = self.bytes();
        if !word.is_empty()
            && let Some(found) = self.text[range.clone()].find(word)
        {
            let start = range.start + found;
            place.span = Some(start..start + word.len());
        }
        place
    }

    /// The bytes of the lines, without the last line's end.
    pub fn bytes(&self) -> std::ops::Range<usize> {
        let start_of = |line: usize| match line {
            0 | 1 => Some(0),
            n => self.text.match_indices('\n').nth(n - 2).map(|(at, _)| at + 1),
        };
        let start = start_of(*self.lines.start()).unwrap_or(self.text.len());
        let end = start_of(self.lines.end() + 1).map_or(self.text.len(), |next| next - 1);
        start..end.max(start)
    }
}

impl fmt::Display for Place {
    /// `Dockerfile:3`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.lines.start())
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}-{}", self.file, self.lines.start(), self.lines.end())
    }
}
