//! One JSON object as a job.
//!
//! | field | takes |
//! |---|---|
//! | `id` | a name |
//! | `command` or `argv` | a text for the shell, or a list of words executed as given |
//! | `max_retries` | a whole number |
//! | `backoff_base` | a number |
//! | `timeout` | a number of seconds, a text such as `"5m"`, or `"none"` |
//! | `cwd` | a folder; a relative one counts from the folder of the enqueue |
//! | `env` | an object, merged over the environment of the enqueue; `null` unsets |
//! | `shell` | a list of words that the command is added to |
//! | `queue` | a name |
//! | `priority` | a whole number from -100 to 100 |
//! | `delay` or `at` | a number of seconds or a text such as `"10m"`, or a time such as `"2026-12-01 22:00"` |
//! | `after` | the id of a job that has to complete first, or a list of such ids |
//! | `after_any` | the same of jobs that have to end first, however they do |
//! | `name` | a text for people |
//! | `tags` | an object of texts, added to those of the enqueue |
//! | `key` | a text that no other job is enqueued under |
//! | `if_exists` | what becomes of the job if one is: `skip`, `error`, `replace` or `retry` |
//!
//! `null` for a field means that it is not set. `command`, words of `argv`, `cwd` and values of `env` may be
//! no UTF-8, see [`bytes`]; names of variables are always text.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::super::bytes;
use super::super::local::{self, BadTime};
use super::Maker;
use super::error::{InputError, Problem, shown};
use crate::model::{
    BACKOFF_BASE_MAX, BadName, Command, DURATION_MAX, EnvChange, IfExists, JobKey, JobName, JobSpec, Need,
    PRIORITY_RANGE, RETRIES_MAX, SettingKey, Start, Tags, TimeLimit, parse_duration,
};

/// All fields, in the order in which they are named to people.
const FIELDS: [&str; 19] = [
    "id",
    "command",
    "argv",
    "max_retries",
    "backoff_base",
    "timeout",
    "cwd",
    "env",
    "shell",
    "queue",
    "priority",
    "delay",
    "at",
    "after",
    "after_any",
    "name",
    "tags",
    "key",
    "if_exists",
];

/// Other words for fields, which no likeness of letters would find.
const OTHER_WORDS: [(&str, &str); 25] = [
    ("cmd", "command"),
    ("exec", "command"),
    ("run", "command"),
    ("script", "command"),
    ("jobid", "id"),
    ("attempts", "max_retries"),
    ("retries", "max_retries"),
    ("dir", "cwd"),
    ("directory", "cwd"),
    ("folder", "cwd"),
    ("workdir", "cwd"),
    ("prio", "priority"),
    ("nice", "priority"),
    ("wait", "delay"),
    ("start", "at"),
    ("startat", "at"),
    ("runat", "at"),
    ("needs", "after"),
    ("depends", "after"),
    ("dependson", "after"),
    ("requires", "after"),
    ("dependencies", "after"),
    ("title", "name"),
    ("label", "name"),
    ("labels", "tags"),
];

/// The job that `text` describes, which starts with `{` after blanks.
pub(super) fn parse(text: &[u8], maker: &Maker<'_>) -> Result<JobSpec, InputError> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let Strict(value) = Strict::deserialize(&mut json).map_err(|error| InputError::of_json(&error, text))?;
    json.end().map_err(|error| match InputError::of_json(&error, text) {
        InputError::Job { at, .. } => InputError::Job { at, problem: Problem::Trailing },
        other @ (InputError::DuplicateId { .. }
        | InputError::DuplicateKey { .. }
        | InputError::NeedsLater { .. }
        | InputError::Changed
        | InputError::Unreadable(_)) => other,
    })?;
    match value {
        Value::Object(map) => Ok(Fields(map).spec(maker)?),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(Problem::no_object(text).into())
        }
    }
}

/// What is left of the object.
struct Fields(Map<String, Value>);

impl Fields {
    fn spec(mut self, maker: &Maker<'_>) -> Result<JobSpec, Problem> {
        self.all_known()?;
        let mut spec = maker.start(self.command()?);
        spec.id = self.name("id")?.or(spec.id);
        spec.queue = self.name("queue")?.unwrap_or(spec.queue);
        spec.max_retries = self.read("max_retries", SettingKey::MaxRetries.range(), retries)?.or(spec.max_retries);
        spec.priority = self.read("priority", "a whole number from -100 to 100", priority)?.unwrap_or(spec.priority);
        spec.start = self.start(maker)?.unwrap_or(spec.start);
        self.needs("after", false, &mut spec.needs)?;
        self.needs("after_any", true, &mut spec.needs)?;
        spec.name = self.label()?.or(spec.name);
        self.tags(&mut spec.tags)?;
        self.once(&mut spec)?;
        spec.backoff_base = self.read("backoff_base", SettingKey::BackoffBase.range(), backoff_base)?;
        let takes = format_args!("a number of seconds or {}", SettingKey::Timeout.range());
        spec.timeout = self.read("timeout", takes, time_limit)?.or(spec.timeout);
        spec.shell = self.read("shell", r#"a list of texts such as ["/bin/bash","-c"]"#, shell)?;
        let takes = format_args!("a folder: {}", bytes::TAKES);
        spec.cwd = self.read("cwd", takes, |value| folder(value, &maker.base.cwd))?.unwrap_or(spec.cwd);
        spec.env_change = self.take("env").map(|value| env(&value)).transpose()?.unwrap_or_default();
        maker.finish(spec)
    }

    fn all_known(&self) -> Result<(), Problem> {
        let unknown = self.0.keys().find(|name| !FIELDS.contains(&name.as_str()));
        unknown.map_or(Ok(()), |name| {
            let hint = nearest(name)
                .map_or_else(|| format!("a job has {}", FIELDS.join(", ")), |known| format!("did you mean `{known}`?"));
            Err(Problem::UnknownField { name: shown(name.as_bytes()), hint })
        })
    }

    fn take(&mut self, field: &str) -> Option<Value> {
        // Most jobs have few of the fields.
        if self.0.is_empty() {
            return None;
        }
        self.0.remove(field).filter(|value| !value.is_null())
    }

    fn read<T>(
        &mut self,
        field: &str,
        takes: impl fmt::Display,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        let Some(value) = self.take(field) else { return Ok(None) };
        read(&value).map(Some).ok_or_else(|| Problem::field(field, takes, &value))
    }

    fn name<T: FromStr<Err = BadName>>(&mut self, field: &str) -> Result<Option<T>, Problem> {
        let text = self.read(field, "a text", |value| value.as_str().map(str::to_owned))?;
        Ok(text.map(|text| text.parse()).transpose()?)
    }

    fn start(&mut self, maker: &Maker<'_>) -> Result<Option<Start>, Problem> {
        let delay =
            self.read("delay", "a number of seconds or a duration up to 365d, such as 90s, 5m or 1h30m", delay)?;
        let Some(at) = self.take("at") else { return Ok(delay.map(Start::After)) };
        if delay.is_some() {
            return Err(Problem::TwoStarts);
        }
        let time = at.as_str().map_or(Err(BadTime::Shape), |text| maker.base.local.parse(text));
        time.map(|time| Some(Start::At(time))).map_err(|bad| match bad {
            BadTime::Shape => Problem::field("at", local::TAKES, &at),
            BadTime::Unclear(why) => Problem::Unclear(why),
        })
    }

    fn needs(&mut self, field: &str, any: bool, needs: &mut Vec<Need>) -> Result<(), Problem> {
        const TAKES: &str = r#"an id or a list of ids such as ["dump","7"]"#;
        let Some(given) = self.take(field) else { return Ok(()) };
        let ids = given.as_array().map_or(std::slice::from_ref(&given), Vec::as_slice);
        ids.iter().try_for_each(|id| {
            let id = id.as_str().ok_or_else(|| Problem::field(field, TAKES, &given))?.parse()?;
            needs.push(Need { id, any });
            Ok(())
        })
    }

    fn label(&mut self) -> Result<Option<JobName>, Problem> {
        let text = self.read("name", "a text", |value| value.as_str().map(str::to_owned))?;
        Ok(text.map(|text| text.parse()).transpose()?)
    }

    fn once(&mut self, spec: &mut JobSpec) -> Result<(), Problem> {
        if let Some(text) = self.read("key", "a text", |value| value.as_str().map(str::to_owned))? {
            spec.key = Some(text.parse::<JobKey>()?);
        }
        if let Some(rule) = self.read("if_exists", "skip, error, replace or retry", if_exists)? {
            spec.if_exists = rule;
            if spec.key.is_none() {
                return Err(Problem::NoKey);
            }
        }
        Ok(())
    }

    fn tags(&mut self, tags: &mut Tags) -> Result<(), Problem> {
        const TAKES: &str = r#"an object of texts such as {"night":"1"}"#;
        let Some(given) = self.take("tags") else { return Ok(()) };
        let given = given.as_object().ok_or_else(|| Problem::field("tags", TAKES, &given))?;
        given.iter().try_for_each(|(key, value)| {
            let text = value.as_str().ok_or_else(|| Problem::field(&format!("tags.{key}"), "a text", value))?;
            Ok(tags.set(key, text)?)
        })
    }

    fn command(&mut self) -> Result<Command, Problem> {
        match (self.take("command"), self.take("argv")) {
            (None, None) => Err(Problem::NoCommand),
            (Some(_), Some(_)) => Err(Problem::TwoCommands),
            (Some(Value::String(text)), None) => Ok(Command::Shell(text.into_bytes())),
            (Some(text), None) => text_of("command", &text).map(Command::Shell),
            (None, Some(words)) => argv(&words).map(Command::Argv),
        }
    }
}

fn text_of(field: &str, value: &Value) -> Result<Vec<u8>, Problem> {
    bytes::from_json(value).map_err(|_| Problem::text_field(field, value))
}

fn argv(value: &Value) -> Result<Vec<Vec<u8>>, Problem> {
    let Some(words) = value.as_array() else {
        return Err(Problem::field("argv", r#"a list of texts such as ["echo","hi"]"#, value));
    };
    let word = |(index, word)| text_of(&format!("argv[{index}]"), word);
    words.iter().enumerate().map(word).collect()
}

fn env(value: &Value) -> Result<EnvChange, Problem> {
    let Some(variables) = value.as_object() else {
        return Err(Problem::secret_field("env", r#"an object such as {"NAME":"value","OTHER":null}"#, value));
    };
    let change = |(name, value): (&String, &Value)| {
        let new = if value.is_null() { None } else { Some(variable(name, value)?) };
        Ok((name.clone().into_bytes(), new))
    };
    variables.iter().map(change).collect()
}

fn variable(name: &str, value: &Value) -> Result<Vec<u8>, Problem> {
    bytes::from_json(value).map_err(|_| Problem::secret_field(&format!("env.{name}"), bytes::TAKES, value))
}

fn retries(value: &Value) -> Option<u32> {
    value.as_u64()?.try_into().ok().filter(|count| *count <= RETRIES_MAX)
}

fn if_exists(value: &Value) -> Option<IfExists> {
    IfExists::from_name(value.as_str()?)
}

fn priority(value: &Value) -> Option<i8> {
    value.as_i64()?.try_into().ok().filter(|priority| PRIORITY_RANGE.contains(priority))
}

fn delay(value: &Value) -> Option<Duration> {
    if let Some(text) = value.as_str() {
        return parse_duration(text);
    }
    Duration::try_from_secs_f64(value.as_f64()?).ok().filter(|delay| *delay <= DURATION_MAX)
}

fn backoff_base(value: &Value) -> Option<f64> {
    value.as_f64().filter(|base| (0.0..=BACKOFF_BASE_MAX).contains(base))
}

fn time_limit(value: &Value) -> Option<TimeLimit> {
    if let Some(text) = value.as_str() {
        return text.parse().ok();
    }
    Duration::try_from_secs_f64(value.as_f64()?).ok().and_then(TimeLimit::from_duration)
}

/// Words that can be executed: a program, and no NUL.
fn shell(value: &Value) -> Option<Vec<String>> {
    let word = |word: &Value| word.as_str().filter(|text| !text.contains('\0')).map(str::to_owned);
    let words: Vec<String> = value.as_array()?.iter().map(word).collect::<Option<_>>()?;
    words.first().is_some_and(|program| !program.is_empty()).then_some(words)
}

fn folder(value: &Value, cwd: &Path) -> Option<PathBuf> {
    let bytes = bytes::from_json(value).ok().filter(|bytes| !bytes.is_empty())?;
    // By its components, so that `.` and `x/` leave no trace in what is shown.
    Some(cwd.join(OsStr::from_bytes(&bytes)).components().collect())
}

/// The field that was probably meant by `name`.
fn nearest(name: &str) -> Option<&'static str> {
    let bare = |name: &str| name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    // Beyond this length it is like none of them, and comparing takes the square of the time.
    let name = Some(bare(name)).filter(|name| (1..=40).contains(&name.len()))?;
    if let Some((_, known)) = OTHER_WORDS.iter().find(|(other, _)| *other == name) {
        return Some(known);
    }
    let contains = |known: &str| known.len() > 2 && name.contains(known) || name.len() > 2 && known.contains(&name);
    // What contains the other is as good as one slip.
    let slips = |known: &'static str| {
        let bare = bare(known);
        let slips = strsim::damerau_levenshtein(&name, &bare);
        (if contains(&bare) { slips.min(1) } else { slips }, known)
    };
    let close = |(slips, known): &(usize, &str)| *slips <= known.len() / 3;
    FIELDS.into_iter().map(slips).filter(close).min_by_key(|(slips, _)| *slips).map(|(_, known)| known)
}

/// A JSON value in which no object has a field twice: with two ids, which was meant?
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Strict(value)) = list.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(name) = object.next_key::<String>()? {
            if fields.contains_key(&name) {
                return Err(A::Error::custom(format_args!("the field `{}` is given twice", shown(name.as_bytes()))));
            }
            let Strict(value) = object.next_value()?;
            fields.insert(name, value);
        }
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests;
