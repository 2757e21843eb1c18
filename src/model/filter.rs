//! Which jobs: the one thing that `list`, `logs`, `wait` and the verbs are asked for besides ids.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use regex_lite::Regex;

use super::{Command, JobName, Millis, QueueName, StateKind, Tags};

/// What jobs have to be. Everything that is said has to hold; what is empty or `None` is not asked for.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// In one of these states.
    pub states: BTreeSet<StateKind>,
    /// In this queue; jobs of runs are in none.
    pub queue: Option<QueueName>,
    /// Part of the run of this number.
    pub run: Option<u64>,
    /// With all of these tags.
    pub tags: Tags,
    /// Of this name.
    pub name: Option<JobName>,
    /// Moved at this time or later.
    pub since: Option<Millis>,
    /// With this in the command, as it is shown.
    pub command: Option<Pattern>,
    /// Whose last attempt has ended with this exit code.
    pub exit_code: Option<i32>,
    /// Held back by a person, or not.
    pub held: Option<bool>,
}

impl Filter {
    /// Every job in one of these states; in any, if there are none.
    pub fn of_states(states: impl IntoIterator<Item = StateKind>) -> Self {
        Self { states: states.into_iter().collect(), ..Self::default() }
    }

    /// The same jobs as far as they are in one of these states; `None` if none can be.
    #[must_use]
    pub fn within(&self, states: impl IntoIterator<Item = StateKind>) -> Option<Self> {
        let states: BTreeSet<StateKind> =
            states.into_iter().filter(|kind| self.states.is_empty() || self.states.contains(kind)).collect();
        (!states.is_empty()).then(|| Self { states, ..self.clone() })
    }
}

/// A regular expression.
#[derive(Debug, Clone)]
pub struct Pattern(Regex);

impl Pattern {
    /// Whether it matches somewhere in a command, as that is shown.
    pub fn is_in(&self, command: &Command) -> bool {
        self.0.is_match(&command.to_string())
    }
}

impl fmt::Display for Pattern {
    /// As it was typed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

impl FromStr for Pattern {
    type Err = String;

    /// The error is in words.
    fn from_str(text: &str) -> Result<Self, String> {
        Regex::new(text).map(Self).map_err(|error| format!("it is no regular expression: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use StateKind::{Completed, Dead, Pending};

    #[test]
    fn what_is_left_of_the_states() {
        let within = |own: &[StateKind], states: &[StateKind]| {
            let filter = Filter::of_states(own.iter().copied()).within(states.iter().copied());
            filter.map(|filter| filter.states.into_iter().collect::<Vec<_>>())
        };
        assert_eq!(within(&[], &[Dead, Pending]), Some(vec![Pending, Dead]));
        assert_eq!(within(&[Dead, Completed], &[Dead, Pending]), Some(vec![Dead]));
        assert_eq!(within(&[Completed], &[Dead, Pending]), None, "which is not all of them");
    }

    #[test]
    fn patterns_see_what_is_shown() {
        let pattern = |text: &str| text.parse::<Pattern>().unwrap();
        let argv = Command::Argv(vec![b"echo".to_vec(), b"a b\xff".to_vec()]);
        assert!(pattern("^echo 'a b\u{fffd}'$").is_in(&argv));
        assert!(!pattern("^b").is_in(&argv));
        assert!("(".parse::<Pattern>().unwrap_err().contains("no regular expression"));
    }
}
