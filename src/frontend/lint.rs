//! BuildKit's lint rules: which fire, which are skipped, and what they say.

pub mod rules;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::rc::Rc;

use super::directive;
use super::error::{Error, Result};
use super::go;
use super::input::Warning;
use super::parser::Source;
use rules::Rule;

/// What the `check` directive asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    pub skip_all: bool,
    pub skip: BTreeSet<String>,
    pub experimental_all: bool,
    pub experimental: BTreeSet<String>,
    /// Warnings end the build.
    pub error: bool,
}

impl Config {
    /// `skip=A,B;error=true;experimental=all`
    pub fn parse(text: &str) -> Result<Self> {
        let mut config = Self::default();
        for part in text.trim().splitn(3, ';').filter(|_| !text.trim().is_empty()) {
            let Some((key, value)) = part.split_once('=') else {
                return Err(Error::new(format!("invalid check option {}", go::quote(part))));
            };
            let value = value.trim();
            let names = || value.split(',').map(|name| name.trim().to_owned()).collect();
            match key.trim() {
                "skip" if value == "all" => config.skip_all = true,
                "skip" => config.skip = names(),
                "experimental" if value == "all" => config.experimental_all = true,
                "experimental" => config.experimental = names(),
                "error" => {
                    config.error = go::parse_bool(value)
                        .ok_or_else(|| Error::new(format!("failed to parse check option {}", go::quote(part))))?;
                }
                other => {
                    let error = Error::new(format!("invalid check option {}", go::quote(other))).about(other);
                    return Err(error.did_you_mean(other, ["skip", "experimental", "error"]));
                }
            }
        }
        Ok(config)
    }

    fn wants(&self, rule: &Rule) -> bool {
        if rule.experimental {
            self.experimental_all || self.experimental.contains(rule.name)
        } else {
            !self.skip_all && !self.skip.contains(rule.name)
        }
    }
}

/// Collects warnings. Clones with other settings collect into the same list.
#[derive(Debug, Clone)]
pub struct Linter {
    config: Rc<Config>,
    source: Option<Source>,
    warnings: Rc<RefCell<Vec<Warning>>>,
}

impl Linter {
    pub fn new(source: &Source, config: Config) -> Self {
        Self { config: Rc::new(config), source: Some(source.clone()), warnings: Rc::default() }
    }

    /// Reports nothing: for instructions that are not in the file.
    pub fn silent() -> Self {
        Self { config: Rc::default(), source: None, warnings: Rc::default() }
    }

    /// With what a `# check=…` comment directly above an instruction adds.
    pub fn with_comments(&self, comments: &[String]) -> Self {
        let checks = comments.iter().filter_map(|c| directive::directive(c)).find(|d| d.name == "check");
        let value = checks.as_ref().and_then(|d| d.value.split(' ').next());
        // A comment that cannot be read is a comment.
        let Some(Ok(more)) = value.map(Config::parse) else { return self.clone() };
        let mut config = (*self.config).clone();
        config.skip_all |= more.skip_all;
        config.skip.extend(more.skip);
        config.experimental_all |= more.experimental_all;
        config.experimental.extend(more.experimental);
        Self { config: Rc::new(config), ..self.clone() }
    }

    /// Records a warning, unless the rule is skipped here.
    pub fn report(&self, rule: &'static Rule, lines: &RangeInclusive<usize>, message: impl FnOnce() -> String) {
        let Some(source) = &self.source else { return };
        if !self.config.wants(rule) {
            return;
        }
        self.warnings.borrow_mut().push(Warning {
            rule: rule.name,
            description: rule.description,
            message: message(),
            url: rule.url(),
            place: Some(source.place(lines.clone())),
        });
    }

    /// The warnings so far.
    pub fn warnings(&self) -> Vec<Warning> {
        self.warnings.borrow().clone()
    }

    /// The warnings so far; an error where the file asked for one.
    pub fn finish(&self) -> Result<Vec<Warning>> {
        let warnings = self.warnings();
        if self.config.error && !warnings.is_empty() {
            let names: BTreeSet<&str> = warnings.iter().map(|w| w.rule).collect();
            let names: Vec<&str> = names.into_iter().collect();
            let mut error = Error::new(format!("lint violation found for rules: {}", names.join(", ")));
            error.more = warnings
                .iter()
                .map(|w| {
                    let error = Error::new(format!("{}: {}", w.rule, w.message));
                    w.place.iter().fold(error, |e, place| e.at(place))
                })
                .collect();
            return Err(error);
        }
        Ok(warnings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_directive_says_what_counts() {
        let config = Config::parse(" skip=A, B;error=true;experimental=all ").unwrap();
        assert_eq!(config.skip.iter().collect::<Vec<_>>(), ["A", "B"]);
        assert!(config.error && config.experimental_all && !config.skip_all);
        assert!(Config::parse("skip=all").unwrap().skip_all);
        assert_eq!(Config::parse("").unwrap(), Config::default());
        for (text, message) in [
            ("x", "invalid check option \"x\""),
            ("skap=x", "invalid check option \"skap\""),
            ("error=maybe", "failed to parse check option \"error=maybe\""),
        ] {
            assert_eq!(Config::parse(text).unwrap_err().to_string(), message);
        }
    }
}
