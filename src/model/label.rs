//! What people find a job by besides its id: a name and tags.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::{NAME_BYTES_MAX, TAG_KEY_BYTES_MAX, TAG_VALUE_BYTES_MAX, TAGS_MAX};

/// Why a text cannot be a name, or a tag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadLabel {
    /// A name that is none.
    #[error(
        "the name `{0}` is not taken: it is 1 to {NAME_BYTES_MAX} bytes of text, without control characters or blanks at its ends"
    )]
    Name(String),
    /// The part of a tag before its value.
    #[error("the tag `{0}` is not taken: its key is 1 to {TAG_KEY_BYTES_MAX} of A-Z a-z 0-9 . _ -")]
    Key(String),
    /// The value of a tag: of this key, this text.
    #[error(
        "the value `{1}` of the tag `{0}` is not taken: it is up to {TAG_VALUE_BYTES_MAX} bytes of text, without control characters"
    )]
    Value(String, String),
    /// A tag without a value.
    #[error("`{0}` is no tag: it is written KEY=VALUE")]
    NoValue(String),
    /// More than there may be.
    #[error("there are more than {TAGS_MAX} tags")]
    TooMany,
}

/// The start of a text, short enough for a message.
fn short(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    let mut chars = text.chars();
    let start: String = chars.by_ref().take(CHARS_MAX).collect();
    if chars.next().is_some() { start + "…" } else { start }
}

fn is_text(text: &str, bytes_max: usize) -> bool {
    text.len() <= bytes_max && !text.contains(char::is_control)
}

/// What people call a job: any number of jobs may have the same name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobName(String);

impl JobName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for JobName {
    type Err = BadLabel;

    fn from_str(text: &str) -> Result<Self, BadLabel> {
        let fits = !text.is_empty() && text.trim() == text && is_text(text, NAME_BYTES_MAX);
        if fits { Ok(Self(text.to_owned())) } else { Err(BadLabel::Name(short(text))) }
    }
}

impl fmt::Display for JobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A job's tags: keys with values, never more than [`TAGS_MAX`], each within its bounds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tags(BTreeMap<String, String>);

impl Tags {
    /// Sets a tag; the value that it had before is replaced.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), BadLabel> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if !(1..=TAG_KEY_BYTES_MAX).contains(&key.len()) || !key.bytes().all(allowed) {
            return Err(BadLabel::Key(short(key)));
        }
        if !is_text(value, TAG_VALUE_BYTES_MAX) {
            return Err(BadLabel::Value(key.to_owned(), short(value)));
        }
        if self.0.len() == TAGS_MAX && !self.0.contains_key(key) {
            return Err(BadLabel::TooMany);
        }
        self.0.insert(key.to_owned(), value.to_owned());
        Ok(())
    }

    /// Sets a tag as people type it: `KEY=VALUE`.
    pub fn set_typed(&mut self, typed: &str) -> Result<(), BadLabel> {
        let (key, value) = typed.split_once('=').ok_or_else(|| BadLabel::NoValue(short(typed)))?;
        self.set(key, value)
    }

    /// Sets all of `others`.
    pub fn set_all(&mut self, others: &Self) -> Result<(), BadLabel> {
        others.iter().try_for_each(|(key, value)| self.set(key, value))
    }

    /// The tags in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// The value of a tag.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Tags {
    /// As they are typed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let typed: Vec<String> = self.iter().map(|(key, value)| format!("{key}={value}")).collect();
        f.pad(&typed.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_texts() {
        for good in ["nightly", "Größe der Bilder 2", "a", &"é".repeat(64), "-x", "a=b"] {
            assert_eq!(good.parse::<JobName>().unwrap().as_str(), good);
        }
        for bad in ["", " ", "a ", " a", "a\nb", "a\u{9b}b", "\0", &"é".repeat(65), &"x".repeat(129)] {
            assert!(matches!(bad.parse::<JobName>(), Err(BadLabel::Name(_))), "{bad:?}");
        }
    }

    #[test]
    fn tags_are_bounded() {
        let set = |key: &str, value: &str| Tags::default().set(key, value);
        for (key, value) in [("a", ""), ("A-z_0.9", "x y=ä"), (&"k".repeat(64), &"v".repeat(128))] {
            assert_eq!(set(key, value), Ok(()));
        }
        for key in ["", "a b", "ä", "a=b", "a/b", &"k".repeat(65)] {
            assert!(matches!(set(key, "v"), Err(BadLabel::Key(_))), "{key:?}");
        }
        for value in ["a\nb", "\u{7f}", &"v".repeat(129)] {
            assert!(matches!(set("k", value), Err(BadLabel::Value(..))), "{value:?}");
        }
        let mut tags = Tags::default();
        (0..16).for_each(|n| tags.set(&format!("k{n}"), "1").unwrap());
        assert_eq!(tags.set("k16", "1"), Err(BadLabel::TooMany));
        assert_eq!(tags.set("k15", "2"), Ok(()), "that one is there");
        assert_eq!(tags.get("k15"), Some("2"));
    }

    #[test]
    fn tags_are_typed_with_their_values() {
        let mut tags = Tags::default();
        tags.set_typed("b=1=2").unwrap();
        tags.set_typed("a=").unwrap();
        assert_eq!(tags.to_string(), "a= b=1=2");
        assert_eq!(tags.set_typed("night"), Err(BadLabel::NoValue("night".to_owned())));
        assert_eq!(tags.set_typed("=1"), Err(BadLabel::Key(String::new())), "nobody can type the key of names");
    }
}
