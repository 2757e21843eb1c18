//! `config`.

use std::fmt::Display;
use std::io::Write;

use serde_json::{Map, Value};

use super::super::args;
use super::super::context::{Context, stdout};
use super::super::exit::{Exit, Failure};
use super::super::render::human;
use crate::model::{SettingKey, Settings};

pub(crate) fn config(context: &Context, args: args::Config) -> Result<Exit, Failure> {
    match args {
        args::Config::Set(args) => set(context, &args),
        args::Config::Get(args) => get(context, &args),
        args::Config::List(args) => list(context, args.json),
        args::Config::Unset(args) => unset(context, &args),
    }
}

fn key(name: &str) -> Result<SettingKey, Failure> {
    SettingKey::from_name(name).ok_or_else(|| {
        let near = SettingKey::ALL
            .into_iter()
            .map(|key| (strsim::damerau_levenshtein(key.name(), name), key.name()))
            .min()
            .filter(|(distance, _)| *distance <= 3);
        let names: Vec<&str> = SettingKey::ALL.iter().map(|key| key.name()).collect();
        let hint =
            near.map_or_else(|| format!("there are {}", names.join(", ")), |(_, near)| format!("did you mean {near}?"));
        Failure::new(Exit::NotFound, format!("there is no setting `{}`; {hint}", human::plain(name)))
            .next("queuectl config list")
    })
}

fn set(context: &Context, args: &args::ConfigSet) -> Result<Exit, Failure> {
    let key = key(&args.key)?;
    // Checked before a queue is made for it.
    let mut settings = Settings::default();
    settings.set(key, &args.value).map_err(|error| Failure::new(Exit::Usage, error))?;
    let queue = context.open_or_create()?;
    queue.write(|tx| tx.set(key, &args.value))?;
    print(format_args!("✓ {} = {}", key.name(), settings.get(key)))?;
    queue.leave();
    Ok(Exit::Done)
}

fn unset(context: &Context, args: &args::ConfigUnset) -> Result<Exit, Failure> {
    let key = key(&args.key)?;
    let queue = context.open()?;
    let was_set = queue.write(|tx| tx.unset(key))?;
    let default = Settings::default().get(key);
    if was_set {
        print(format_args!("✓ {} = {default} (default)", key.name()))?;
    } else {
        print(format_args!("{} was not set: it is {default} by default", key.name()))?;
    }
    queue.leave();
    Ok(Exit::Done)
}

fn get(context: &Context, args: &args::ConfigGet) -> Result<Exit, Failure> {
    let key = key(&args.key)?;
    let (settings, _) = settings(context)?;
    if args.json {
        print(value(&settings, key))?;
    } else {
        print(settings.get(key))?;
    }
    Ok(Exit::Done)
}

/// One line of result.
fn print(line: impl Display) -> Result<(), Failure> {
    let mut out = stdout();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// The settings, and which of them were set. Where there is no queue yet, the defaults hold.
fn settings(context: &Context) -> Result<(Settings, Vec<SettingKey>), Failure> {
    match context.open_read_only() {
        Err(failure) if failure.exit == Exit::NotFound => Ok((Settings::default(), Vec::new())),
        Err(failure) => Err(failure),
        Ok(queue) => {
            let found = queue.read(|snapshot| Ok((snapshot.settings()?, snapshot.settings_set()?)))?;
            queue.leave();
            Ok(found)
        }
    }
}

fn list(context: &Context, is_json: bool) -> Result<Exit, Failure> {
    let (settings, set) = settings(context)?;
    let mut out = stdout();
    if is_json {
        let object: Map<String, Value> =
            SettingKey::ALL.iter().map(|key| (key.name().to_owned(), value(&settings, *key))).collect();
        writeln!(out, "{}", Value::from(object))?;
    } else {
        let mut table = human::table(&["SETTING", "VALUE", "", "MEANING"]);
        for key in SettingKey::ALL {
            let origin = if set.contains(&key) { "" } else { "default" };
            table.add_row(human::row(
                [key.name(), &human::plain(&settings.get(key)), origin, key.purpose()].map(str::to_owned),
            ));
        }
        writeln!(out, "{table}")?;
    }
    out.flush()?;
    Ok(Exit::Done)
}

/// As JSON: numbers as numbers, durations in seconds, sizes in bytes, the shell as a list of words.
fn value(settings: &Settings, key: SettingKey) -> Value {
    match key {
        SettingKey::MaxRetries => settings.max_retries.into(),
        SettingKey::BackoffBase => settings.backoff_base.into(),
        SettingKey::MaxBackoff => settings.max_backoff.as_secs_f64().into(),
        SettingKey::Timeout => match settings.timeout {
            crate::model::TimeLimit::Unlimited => "none".into(),
            crate::model::TimeLimit::After(limit) => limit.as_secs_f64().into(),
        },
        SettingKey::KillGrace => settings.kill_grace.as_secs_f64().into(),
        SettingKey::MaxLosses => settings.max_losses.into(),
        SettingKey::OutputLimit => settings.output_limit.into(),
        SettingKey::Shell => settings.shell.clone().into(),
    }
}
