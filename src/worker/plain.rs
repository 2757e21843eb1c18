//! Plain command strings: those that mean the same without a shell, which costs half a job to start.
//!
//! Whoever is not sure asks the shell: a string is plain only if no shell that may stand behind `/bin/sh` (dash, bash,
//! ksh93, mksh, zsh, yash, busybox) would do more with it than split it at blanks and execute the program. What then
//! cannot be executed is left to the shell all the same, so that the exit code and the words are the shell's own.
//!
//! Four things can be told apart all the same:
//! - `true` and `false` alone are programs here: one that comes earlier in the path is what runs, where a shell has
//!   its own.
//! - A job that a signal ends is told as that. A shell that stays beside its command ends with 128 and the number.
//! - What shells add is not there: the variables `_` and `SHLVL`, zsh's `OLDPWD` and `LOGNAME`, a warning that a locale
//!   is missing.
//! - A busybox that was built to prefer its applets runs its own `ls` or `gzip`, whatever is in the path. Those that
//!   distributions install as `/bin/sh` do not.

use crate::model::Environment;

/// The only words before a command that a plain one can do without: others may be no shell at all.
const USUAL_SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// First words that some shell takes for itself, those of the shells before left out. All that busybox has (`builtintab`
/// in its `shell/ash.c`) others have too. `true` and `false` are looked at apart.
const TAKEN_BY_SHELLS: [&str; 6] = [
    // What POSIX names, and dash: its `builtins.def` and `mktokens`.
    ". : alias bg break case cd chdir command continue do done echo elif else esac eval exec exit export fc fg fi \
     for getopts hash if in jobs kill local newgrp printf pwd read readonly return set shift test then time times \
     trap type ulimit umask unalias unset until wait while",
    // bash: `compgen -bk`.
    "bind builtin caller compgen complete compopt coproc declare dirs disown enable function help history let \
     logout mapfile popd pushd readarray select shopt source suspend typeset",
    // ksh93, old and new: `data/builtins.c`, `data/aliases.c` and `data/keywords.c` of its source.
    "alarm autoload cat cmp compound enum float functions getconf global hist integer login mknod nameref \
     namespace nohup poll print r redirect sleep stop vmstate whence",
    // mksh, Android's too: `funcs.c`, the aliases of its `main.c`, and the keywords of its `syn.c`.
    "realpath rename",
    // zsh when it is called `sh`: `Src/builtin.c`, and the keywords of its `Src/hashtable.c`.
    "bye disable emulate end foreach getln limit nocorrect noglob pushln rehash repeat run-help sched setopt \
     ttyctl unfunction unhash unlimit unsetopt where which which-command zcompile zmodload",
    // yash: `builtin.c`.
    "array bindkey",
];

/// Variables that some shell owns: it changes them before it passes them on, or they change what it does. They were
/// found by giving each name that stands in the shell's binary to it; others are from its manual.
const OWNED_BY_SHELLS: &str = "ARGV0 A__z COLUMNS CPUTYPE DIRSTACK ENV FPATH FUNCNAME GROUPS HISTCMD HOSTTYPE IFS LINENO LINES MACHTYPE \
    OLDPWD OPTARG OPTERR OPTIND OSTYPE PATHSEP PGRP PIPESTATUS POSIXLY_CORRECT PPID PS1 PS2 PS3 PS4 RANDOM \
    SECONDS SHELLOPTS SHLVL SRANDOM TTY USER_ID VENDOR ZSH_ARGZERO ZSH_EXECUTION_STRING ZSH_NAME ZSH_PATCHLEVEL \
    ZSH_VERSION _ signals";

/// What else shells own begins like this.
const OWNED_BY_SHELLS_PREFIXES: [&[u8]; 5] = [b"BASH", b"COMP_", b"EPOCH", b"KSH", b"YASH"];

/// Variables that mksh makes numbers. People do set these.
const NUMBERS_TO_SHELLS: [&[u8]; 2] = [b"HISTSIZE", b"TMOUT"];

fn taken_by_shells() -> impl Iterator<Item = &'static str> {
    TAKEN_BY_SHELLS.iter().flat_map(|words| words.split(' '))
}

/// The words of a plain command: the program first. `None` if it takes a shell.
pub(super) fn words(text: &[u8]) -> Option<Vec<&[u8]>> {
    if !text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"_./:,+@%=- \t".contains(byte)) {
        return None;
    }
    let words: Vec<&[u8]> = text.split(|byte| b" \t".contains(byte)).filter(|word| !word.is_empty()).collect();
    let program = *words.first()?;
    let is_taken = taken_by_shells().any(|word| word.as_bytes() == program);
    // As programs they know two options which the shell's do not.
    let is_truth = matches!(program, b"true" | b"false");
    let is_plain = !is_taken && !program.contains(&b'=') && !b"-%".contains(&program[0]);
    (is_plain && (!is_truth || words.len() == 1)).then_some(words)
}

/// Whether `shell` is the one that plain commands can do without.
pub(super) fn is_usual(shell: &[String]) -> bool {
    shell == USUAL_SHELL
}

/// Whether a shell would pass this environment on as it is, and search the path as anybody does.
pub(super) fn is_passed_on(env: &Environment) -> bool {
    env.get(b"PATH".as_slice()).is_some_and(|path| is_plain_path(path))
        && env.iter().all(|(name, value)| is_name(name) && !is_owned(name, value))
}

/// Whether all shells make the same file names of the path. Without one each has its own; of a folder that is empty,
/// relative, or ends in a slash they make different ones, which scripts see as `$0`. `%` marks the functions of some.
fn is_plain_path(path: &[u8]) -> bool {
    path.split(|byte| *byte == b':').all(|folder| folder.starts_with(b"/") && !folder.ends_with(b"/"))
        && !path.contains(&b'%')
}

fn is_name(name: &[u8]) -> bool {
    name.first().is_some_and(|first| !first.is_ascii_digit())
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

fn is_owned(name: &[u8], value: &[u8]) -> bool {
    let is_number = || value.len() < 10 && value.iter().all(u8::is_ascii_digit) && !matches!(value, [] | [b'0', ..]);
    OWNED_BY_SHELLS.split(' ').any(|owned| owned.as_bytes() == name)
        || OWNED_BY_SHELLS_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || NUMBERS_TO_SHELLS.contains(&name) && !is_number()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::specimen::Specimen;

    /// The words, joined by `|`.
    fn split(text: &str) -> Option<String> {
        let words = words(text.as_bytes())?;
        Some(words.iter().map(|word| String::from_utf8_lossy(word)).collect::<Vec<_>>().join("|"))
    }

    #[test]
    fn plain_commands_are_split_at_blanks() {
        for (text, expected) in [
            ("true", "true"),
            (" \tgzip  -9\tfile.txt ", "gzip|-9|file.txt"),
            ("./sim --seed=7 a=b,c:d @x +y %z -", "./sim|--seed=7|a=b,c:d|@x|+y|%z|-"),
            ("/usr/bin/echo x", "/usr/bin/echo|x"),
            ("7z a x.7z", "7z|a|x.7z"),
            ("truely", "truely"),
        ] {
            assert_eq!(split(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn whatever_a_shell_may_see_more_in_takes_one() {
        for text in [
            "",
            " ",
            "\t",
            "a=b",
            "A=b prog",
            "-x",
            "%1",
            "echo x",
            ". file",
            ":",
            "true --help",
            "false x",
            "sleep 1",
            "time x",
            "a;b",
            "a b&",
            "a|b",
            "a>b",
            "a<b",
            "a\nb",
            "a #b",
            "$x",
            "`a`",
            "'a'",
            "\"a\"",
            "a\\b",
            "~/a",
            "a *",
            "a ?",
            "[ x",
            "a {b,c}",
            "! a",
            "(a)",
            "a^b",
            "a\u{e9}",
            "a\rb",
            "a\x0bb",
            "a\0b",
        ] {
            assert_eq!(split(text), None, "{text:?}");
        }
        for byte in 0..=u8::MAX {
            let is_plain = words(&[b'x', byte, b'x']).is_some();
            assert_eq!(is_plain, byte.is_ascii_alphanumeric() || b"_./:,+@%- \t".contains(&byte), "{byte}");
        }
    }

    #[test]
    fn the_words_that_shells_take_are_sorted_and_complete_as_far_as_bash_can_tell() {
        assert!(TAKEN_BY_SHELLS.iter().all(|words| words.split(' ').is_sorted()));
        assert!(taken_by_shells().all(|word| words(word.as_bytes()).is_none()));
        let list = Specimen::sh("command -v bash >/dev/null && bash -c 'compgen -bk'; :").text();
        let known = |word: &str| ["true", "false"].contains(&word) || words(word.as_bytes()).is_none();
        assert_eq!(list.lines().filter(|word| !known(word)).collect::<Vec<_>>(), Vec::<&str>::new());
    }

    #[test]
    fn an_environment_that_a_shell_would_change_takes_one() {
        let passed = |more: &[(&str, &str)]| {
            let pairs = [("PATH", "/bin"), ("HOME", "/"), ("a_1", "")].into_iter().chain(more.iter().copied());
            is_passed_on(&pairs.map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect())
        };
        assert!(passed(&[]) && passed(&[("PATH", "/a:/b//c:/.")]));
        for pair in [("HISTSIZE", "1000"), ("TMOUT", "9"), ("ZSH", "/x"), ("LC_ALL", "C"), ("PS", "1"), ("COMP", "1")] {
            assert!(passed(&[pair]), "{pair:?}");
        }
        for pair in [
            ("PATH", ""),
            ("PATH", "/bin:%builtin"),
            ("PATH", ":/bin"),
            ("PATH", "/bin:"),
            ("PATH", "/bin::/usr/bin"),
            ("PATH", "/bin/:/usr/bin"),
            ("PATH", "/"),
            ("PATH", "bin:/bin"),
            ("PATH", "~/bin:/bin"),
            ("BASH_FUNC_x%%", "() { :; }"),
            ("a-b", "1"),
            ("1a", "1"),
            ("", "1"),
            ("IFS", "x"),
            ("SHELLOPTS", "xtrace"),
            ("BASH_ENV", "x"),
            ("BASHPID", "1"),
            ("EPOCHSECONDS", "1"),
            ("COMP_WORDBREAKS", " "),
            ("RANDOM", "1"),
            ("PS4", "+ "),
            ("KSHUID", "1"),
            ("HISTSIZE", ""),
            ("HISTSIZE", "010"),
            ("TMOUT", "soon"),
        ] {
            assert!(!passed(&[pair]), "{pair:?}");
        }
        assert!(!is_passed_on(&Environment::new()), "no path");
    }
}
