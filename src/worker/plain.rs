//! Plain command strings: those that mean the same without a shell, which costs half a job to start.
//!
//! Whoever is not sure asks the shell: a string is plain only if no shell that may stand behind `/bin/sh` (dash, bash,
//! a Korn shell, busybox) would do more with it than split it at blanks and execute the program. What then cannot be
//! executed is left to the shell all the same, so that the exit code and the words are the shell's own.

use crate::model::Environment;

/// The only words before a command that a plain one can do without: others may be no shell at all.
const USUAL_SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// First words that some shell takes for itself, sorted. `true` and `false` are looked at apart.
const TAKEN_BY_SHELLS: &[&str] = &[
    ".",
    ":",
    "alarm",
    "alias",
    "autoload",
    "bg",
    "bind",
    "break",
    "builtin",
    "caller",
    "case",
    "cat",
    "cd",
    "chdir",
    "cmp",
    "command",
    "compgen",
    "complete",
    "compopt",
    "compound",
    "continue",
    "coproc",
    "declare",
    "dirs",
    "disown",
    "do",
    "done",
    "echo",
    "elif",
    "else",
    "enable",
    "enum",
    "esac",
    "eval",
    "exec",
    "exit",
    "export",
    "fc",
    "fg",
    "fi",
    "float",
    "for",
    "function",
    "functions",
    "getconf",
    "getopts",
    "global",
    "hash",
    "help",
    "hist",
    "history",
    "if",
    "in",
    "integer",
    "jobs",
    "kill",
    "let",
    "local",
    "login",
    "logout",
    "mapfile",
    "mknod",
    "nameref",
    "namespace",
    "newgrp",
    "nohup",
    "poll",
    "popd",
    "print",
    "printf",
    "pushd",
    "pwd",
    "r",
    "read",
    "readarray",
    "readonly",
    "realpath",
    "redirect",
    "rename",
    "return",
    "select",
    "set",
    "shift",
    "shopt",
    "sleep",
    "source",
    "stop",
    "suspend",
    "test",
    "then",
    "time",
    "times",
    "trap",
    "type",
    "typeset",
    "ulimit",
    "umask",
    "unalias",
    "unset",
    "until",
    "vmstate",
    "wait",
    "whence",
    "which",
    "while",
];

/// Variables that a shell changes before it passes them on, or that change what it does.
const CHANGED_BY_SHELLS: &[&[u8]] =
    &[b"BASHOPTS", b"IFS", b"LINENO", b"OLDPWD", b"OPTIND", b"POSIXLY_CORRECT", b"PPID", b"SHELLOPTS", b"SHLVL", b"_"];

/// The words of a plain command: the program first. `None` if it takes a shell.
pub(super) fn words(text: &[u8]) -> Option<Vec<&[u8]>> {
    if !text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"_./:,+@%=- \t".contains(byte)) {
        return None;
    }
    let words: Vec<&[u8]> = text.split(|byte| b" \t".contains(byte)).filter(|word| !word.is_empty()).collect();
    let program = *words.first()?;
    let is_taken = std::str::from_utf8(program).is_ok_and(|name| TAKEN_BY_SHELLS.binary_search(&name).is_ok());
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
    let is_name = |name: &[u8]| {
        name.first().is_some_and(|first| !first.is_ascii_digit())
            && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
    };
    // Without a path each shell has its own; `%` marks the functions of some.
    let path = env.get(b"PATH".as_slice()).is_some_and(|path| !path.is_empty() && !path.contains(&b'%'));
    path && env.keys().all(|name| is_name(name) && !CHANGED_BY_SHELLS.contains(&name.as_slice()))
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
        assert!(TAKEN_BY_SHELLS.is_sorted());
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
        assert!(passed(&[]) && passed(&[("PATH", ":bin:")]));
        for pair in [
            ("PATH", ""),
            ("PATH", "/bin:%builtin"),
            ("BASH_FUNC_x%%", "() { :; }"),
            ("a-b", "1"),
            ("1a", "1"),
            ("", "1"),
            ("IFS", "x"),
            ("SHELLOPTS", "xtrace"),
        ] {
            assert!(!passed(&[pair]), "{pair:?}");
        }
        assert!(!is_passed_on(&Environment::new()), "no path");
    }
}
