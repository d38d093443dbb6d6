//! Variables of a stage: build arguments and environment, in the order in which they were last set.

use std::collections::HashMap;

/// An ordered map. Setting a name again moves it to the end, as LLB's environment lists do.
#[derive(Debug, Clone, Default)]
pub struct Variables {
    /// Emptied where a name moved on.
    slots: Vec<Option<(String, String)>>,
    index: HashMap<String, usize>,
}

impl Variables {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        // Emptied slots are dropped before they outnumber the others.
        if self.slots.len() > 2 * self.index.len() + 8 {
            self.slots.retain(Option::is_some);
            self.index = self.slots.iter().flatten().enumerate().map(|(i, (name, _))| (name.clone(), i)).collect();
        }
        match self.index.get_mut(name) {
            Some(slot) => {
                self.slots[*slot] = None;
                *slot = self.slots.len();
            }
            None => {
                self.index.insert(name.to_owned(), self.slots.len());
            }
        }
        self.slots.push(Some((name.to_owned(), value.into())));
    }

    pub fn remove(&mut self, name: &str) {
        if let Some(slot) = self.index.remove(name) {
            self.slots[slot] = None;
        }
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        let slot = *self.index.get(name)?;
        self.slots[slot].as_ref().map(|(_, value)| value.as_str())
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.slots.iter().flatten().map(|(name, _)| name.as_str())
    }

    /// `NAME=value` lines.
    pub fn to_env(&self) -> Vec<String> {
        self.slots.iter().flatten().map(|(name, value)| format!("{name}={value}")).collect()
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Variables {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(pairs: I) -> Self {
        let mut variables = Self::new();
        pairs.into_iter().for_each(|(name, value)| variables.set(name, value));
        variables
    }
}

#[cfg(test)]
mod tests {
    use super::Variables;

    #[test]
    fn setting_again_moves_to_the_end() {
        let mut variables = Variables::from_iter([("a", "1"), ("b", "2")]);
        variables.set("a", "3");
        assert_eq!(variables.to_env(), ["b=2", "a=3"]);
        for i in 0..100 {
            variables.set("c", i.to_string());
        }
        assert_eq!(variables.to_env(), ["b=2", "a=3", "c=99"]);
        assert_eq!((variables.get("b"), variables.get("c")), (Some("2"), Some("99")));
        variables.remove("a");
        assert_eq!(variables.to_env(), ["b=2", "c=99"]);
    }
}
