//! `config`.

use std::fmt::Display;
use std::io::Write;

use serde_json::{Map, Value};

use super::super::args;
use super::super::context::{Context, stdout};
use super::super::exit::{Exit, Failure};
use super::super::render::human;
use super::status::shell_word;
use crate::model::{QueueName, Retention, SettingKey, Settings, parse_age, parse_duration};
use crate::store::StoreError;

pub(crate) fn config(context: &Context, args: args::Config) -> Result<Exit, Failure> {
    match args {
        args::Config::Set(args) => set(context, &args),
        args::Config::Get(args) => get(context, &args),
        args::Config::List(args) => list(context, &args),
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
    if key.is_of_all_queues() && args.scope.queue.is_some() {
        let failure = Failure::from(StoreError::OfAllQueues(key));
        return Err(failure.next(format_args!("queuectl config set {} {}", key.name(), shell_word(&args.value))));
    }
    let mut settings = Settings::default();
    settings.set(key, &args.value).map_err(|error| Failure::new(Exit::Usage, error))?;
    // These are the ages that jobs go at.
    if key.is_of_all_queues() && parse_duration(&args.value).is_some() && parse_age(&args.value).is_none() {
        let message = format!("{} = {}: of what? A number alone would be seconds", key.name(), args.value);
        return Err(Failure::new(Exit::Usage, message)
            .next(format_args!("queuectl config set {} {}d    days", key.name(), args.value))
            .or(format_args!("queuectl config set {} {}jobs    the newest", key.name(), args.value)));
    }
    let mut queue = context.open_or_create()?;
    let scope = args.scope.queue.as_ref();
    context.first(&mut queue, |queue| queue.write(|tx| tx.set(scope, key, &args.value)))?;
    print(format_args!("✓ {} = {}{}", key.name(), settings.get(key), of(scope)))?;
    queue.leave();
    Ok(Exit::Done)
}

fn unset(context: &Context, args: &args::ConfigUnset) -> Result<Exit, Failure> {
    let key = key(&args.key)?;
    let mut queue = context.open()?;
    let scope = args.scope.queue.as_ref();
    let was_set = context.first(&mut queue, |queue| queue.write(|tx| tx.unset(scope, key)))?;
    let (settings, common) = queue.read(|snapshot| Ok((snapshot.settings(scope)?, snapshot.settings_set(None)?)))?;
    let origin = if common.contains(&key) { "as all queues" } else { "default" };
    let (name, value) = (key.name(), settings.get(key));
    if was_set {
        print(format_args!("✓ {name} = {value}{} ({origin})", of(scope)))?;
    } else {
        print(format_args!("{name} was not set{}: it is {value} ({origin})", of(scope)))?;
    }
    queue.leave();
    Ok(Exit::Done)
}

fn get(context: &Context, args: &args::ConfigGet) -> Result<Exit, Failure> {
    let key = key(&args.key)?;
    let Found { settings, .. } = settings(context, args.scope.queue.as_ref())?;
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

/// Whose settings, after their value.
fn of(scope: Option<&QueueName>) -> String {
    scope.map_or_else(String::new, |queue| format!(" in queue {queue}"))
}

/// Settings, and which of them were set.
#[derive(Default)]
struct Found {
    settings: Settings,
    /// For the queue that was asked for.
    own: Vec<SettingKey>,
    /// For all queues.
    common: Vec<SettingKey>,
}

/// Where there is no queue file yet, the defaults hold.
fn settings(context: &Context, scope: Option<&QueueName>) -> Result<Found, Failure> {
    match context.open_read_only() {
        Err(failure) if failure.exit == Exit::NotFound => Ok(Found::default()),
        Err(failure) => Err(failure),
        Ok(queue) => {
            let found = queue.read(|snapshot| {
                let own = if scope.is_some() { snapshot.settings_set(scope)? } else { Vec::new() };
                Ok(Found { settings: snapshot.settings(scope)?, own, common: snapshot.settings_set(None)? })
            })?;
            queue.leave();
            Ok(found)
        }
    }
}

fn list(context: &Context, args: &args::ConfigList) -> Result<Exit, Failure> {
    let scope = args.scope.queue.as_ref();
    let Found { settings, own, common } = settings(context, scope)?;
    let mut out = stdout();
    if args.json {
        let object: Map<String, Value> =
            SettingKey::ALL.iter().map(|key| (key.name().to_owned(), value(&settings, *key))).collect();
        writeln!(out, "{}", Value::from(object))?;
    } else {
        let mut table = human::table(&["SETTING", "VALUE", "", "MEANING"]);
        for key in SettingKey::ALL {
            let origin = match (own.contains(&key), common.contains(&key)) {
                (true, _) => "",
                (false, true) => scope.map_or("", |_| "all queues"),
                (false, false) => "default",
            };
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
        SettingKey::Parallel => settings.parallel.map_or_else(|| "none".into(), Value::from),
        SettingKey::Paused => settings.paused.into(),
        SettingKey::RetainCompleted => retention(settings.retain_completed),
        SettingKey::RetainDead => retention(settings.retain_dead),
        SettingKey::RetainCancelled => retention(settings.retain_cancelled),
        SettingKey::RetainOutput => retention(settings.retain_output),
    }
}

fn retention(kept: Retention) -> Value {
    match kept {
        Retention::For(long) => long.as_secs_f64().into(),
        Retention::Forever | Retention::Newest(_) => kept.to_string().into(),
    }
}
