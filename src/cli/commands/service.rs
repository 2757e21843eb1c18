//! `worker install-service`: a systemd user unit. Its syntax is that of systemd.syntax(7) and systemd.service(5).

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use tempfile::NamedTempFile;

use super::super::args;
use super::super::context::{Context, say, stdout};
use super::super::exit::{Exit, Failure};
use super::super::render::human;
use crate::queue::Queue;

/// How long running jobs have to finish when the service is stopped, in seconds. Shutting down waits 90 seconds or more
/// for the services of a user.
const FINISH_SECONDS: u64 = 30;
/// How long the pool may take for everything else that it does at its end, in seconds.
const ENDING_SECONDS: u64 = 15;

pub(crate) fn install(context: &Context, args: &args::InstallService) -> Result<Exit, Failure> {
    let unit = unit(context, args)?;
    let mut out = stdout();
    if args.print {
        out.write_all(unit.as_bytes())?;
        out.flush()?;
        return Ok(Exit::Done);
    }
    let path = folder_of_units()?.join(format!("{}.service", args.name));
    let cannot = |error: io::Error| Failure::of_writing(&path, &error);
    match fs::read(&path) {
        Ok(there) if there == unit.as_bytes() => writeln!(out, "✓ Service {} is there already", args.name)?,
        Ok(_) if !args.force => {
            return Err(Failure::new(Exit::Refused, format!("{} is there and differs", human::path(&path)))
                .next("the same line with --force    replaces it")
                .or("the same line with --name NAME    makes another service"));
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(cannot(error)),
        _ => {
            write_unit(&path, &unit).map_err(cannot)?;
            writeln!(out, "✓ Service {} written: {}", args.name, human::path(&path))?;
        }
    }
    out.flush()?;
    tell(&args.name);
    Ok(Exit::Done)
}

/// What has to be known, and what to type next.
fn tell(name: &str) {
    if !Path::new("/run/systemd/system").is_dir() {
        say(format_args!("systemd does not run here: nothing will start the service"));
    }
    if !lingers() {
        say(format_args!(
            "lingering is off: the service ends when you log out; to let it run on, type: loginctl enable-linger"
        ));
    }
    say(format_args!(
        "to start it now and at each login, type: systemctl --user daemon-reload && systemctl --user enable --now {name}"
    ));
}

/// Whether systemd runs the user's services while the user is not logged in.
fn lingers() -> bool {
    let uid = nix::unistd::Uid::from_raw(rustix::process::geteuid().as_raw());
    let user = nix::unistd::User::from_uid(uid).ok().flatten();
    user.is_some_and(|user| Path::new("/var/lib/systemd/linger").join(user.name).exists())
}

/// Where systemd looks for what a user has installed.
fn folder_of_units() -> Result<PathBuf, Failure> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let config = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")));
    let config =
        config.ok_or_else(|| Failure::new(Exit::Other, "HOME is not set, so there is no place for the service"))?;
    Ok(config.join("systemd/user"))
}

/// Writes the unit under another name first: systemd may read it at any moment.
fn write_unit(path: &Path, unit: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder)?;
    let mut file = NamedTempFile::new_in(folder)?;
    file.write_all(unit.as_bytes())?;
    file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// The unit. The queue has to exist: a service that makes an empty one in its place would hide the mistake.
fn unit(context: &Context, args: &args::InstallService) -> Result<String, Failure> {
    let folder = context.existing()?;
    let queue = Queue::open_read_only(&folder, context.on_wait()).map_err(|error| context.explain(error))?;
    let kill_grace = queue.read(|snapshot| snapshot.settings(None))?.kill_grace;
    queue.leave();
    let queue = text(&without_steps_up(folder.path())?)?;
    let program = text(&env::current_exe()?)?;
    let mut start = format!("{} --db {} worker start --count {}", word(&program), argument(&queue), args.count);
    for name in &args.queues {
        let _ = write!(start, " --queue {}", argument(name.as_str()));
    }
    let stop_seconds = FINISH_SECONDS + kill_grace.as_secs() + ENDING_SECONDS;
    let (queue, file) = (percent(&queue), percent(&format!("{queue}/queue.redb")));
    Ok(format!(
        "\
# Written by `queuectl worker install-service`.

[Unit]
Description=Workers for the jobs in {queue} (queuectl)
Documentation=man:queuectl(1) man:queuectl-worker-start(1)
# A queue that is not there, or not yet mounted, is not made anew.
AssertPathExists={file}

[Service]
Type=exec
# Jobs run in the folder and with the environment of their enqueue, PATH included.
ExecStart={start}
Restart=on-failure
RestartSec=5
# One job that takes too much memory is no reason to end the others.
OOMPolicy=continue

# Stopping: the first SIGTERM starts nothing new, and what runs has {FINISH_SECONDS} seconds to finish. Then comes the
# second, to the pool alone: it ends what still runs, which waits for the next pool with no retry used up. That takes
# as long as the setting kill-grace; whoever raises it raises TimeoutStopSec, after which everything is killed.
ExecStop=-/bin/sh -c 'kill $$MAINPID && exec timeout {FINISH_SECONDS} tail --pid=$$MAINPID -f /dev/null'
KillMode=mixed
TimeoutStopSec={stop_seconds}

[Install]
WantedBy=default.target
"
    ))
}

/// Without `..`, which systemd does not take.
fn without_steps_up(path: &Path) -> io::Result<PathBuf> {
    if path.components().any(|part| part == Component::ParentDir) { path.canonicalize() } else { Ok(path.to_owned()) }
}

/// A path as a unit can hold it.
fn text(path: &Path) -> Result<String, Failure> {
    let text = path.to_str().filter(|text| !text.contains(char::is_control));
    text.map(str::to_owned).ok_or_else(|| {
        let path = human::path(path);
        Failure::new(Exit::Refused, format!("{path} cannot be in a unit of systemd, since it is not plain text"))
    })
}

/// A word of a command line.
fn word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '.' | ',' | ':' | '@' | '+' | '-');
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("\"{}\"", percent(text).replace('\\', "\\\\").replace('"', "\\\""))
}

/// A word of a command line behind the first, in which variables would be replaced.
fn argument(text: &str) -> String {
    word(&text.replace('$', "$$"))
}

/// Text in which `%` means itself.
fn percent(text: &str) -> String {
    text.replace('%', "%%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_mean_themselves() {
        for (text, written) in [
            ("/usr/bin/queuectl", "/usr/bin/queuectl"),
            ("/home/me/my queue", r#""/home/me/my queue""#),
            ("100%", r#""100%%""#),
            (r#"say "a\b""#, r#""say \"a\\b\"""#),
            ("it's", r#""it's""#),
            ("$HOME", r#""$$HOME""#),
            ("-;-", r#""-;-""#),
            ("", r#""""#),
        ] {
            assert_eq!(argument(text), written);
        }
        assert_eq!(word("/opt/$x"), r#""/opt/$x""#);
    }
}
