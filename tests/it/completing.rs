//! Completion: the scripts in the shells that are installed, and what is offered.

use super::support::{Bench, Done};

/// What a shell would be offered for the last of these words, each with what is said of it.
fn asked(bench: &Bench, words: &[&str]) -> Done {
    bench.cmd(["--", "queuectl"].iter().chain(words)).env("QUEUECTL_COMPLETE", "fish").run()
}

/// The same without what is said, and nothing may be said on standard error.
#[track_caller]
fn offered(bench: &Bench, words: &[&str]) -> Vec<String> {
    let done = asked(bench, words);
    assert_eq!(done.stderr, "");
    done.ok().lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect()
}

/// A queue with jobs in some states.
fn filled() -> Bench {
    let bench = Bench::new();
    bench.add(r#"{"id":"good","command":"true"}"#);
    bench.add(r#"{"id":"bad","command":"false","max_retries":0}"#);
    bench.work();
    bench.add(r#"{"id":"ns:two:a","command":"true"}"#);
    bench.add(r#"{"id":"ns:two:b","command":"true"}"#);
    bench.add(r#"{"id":"gpu-1","command":"true","queue":"gpu"}"#);
    bench.add(r#"{"id":"gpu-2","command":"true","queue":"gpu"}"#);
    bench
}

/// Runs a script in a shell, `queuectl` being the binary; `None`, and said, if there is no such shell.
fn in_shell(bench: &Bench, shell: &str, script: &str) -> Option<String> {
    if bench.script(&format!("command -v {shell}")).run().code != 0 {
        println!("skipped: there is no {shell}");
        return None;
    }
    let done = bench.script(&format!("exec {shell}")).stdin(script).run();
    assert_eq!(done.stderr, "");
    Some(done.ok())
}

/// Lines of words, and what each shell has to offer for the last of them.
const LINES: [(&str, &str); 8] = [
    ("sho", "show"),
    ("worker sto", "stop"),
    ("show gp", "gpu-2 gpu-1"),
    ("dlq retry ", "bad"),
    ("list --state comp", "completed"),
    ("clean --older-than 1d --state d", "dead"),
    ("worker start --queue g", "gpu"),
    ("config get max-r", "max-retries"),
];

#[test]
fn bash_completes() {
    let bench = filled();
    // What comes behind the last `:` or `=` is what bash replaces.
    let in_pieces = [
        ("show ns:", "two:b two:a"),
        ("show ns:two:", "b a"),
        ("cancel ns:two:b", "b"),
        ("list --state=comp", "completed"),
        ("enqueue --tag k=v --after ns:two", "two:b two:a"),
    ];
    for (line, offers) in LINES.into_iter().chain(in_pieces) {
        let script = format!(
            "source <(queuectl completions bash)\n\
             complete -p queuectl > /dev/null || exit\n\
             COMP_LINE='queuectl {line}'; read -ra COMP_WORDS <<< \"$(sed 's/[:=]/ & /g' <<< \"$COMP_LINE\")\"\n\
             [[ $COMP_LINE == *' ' ]] && COMP_WORDS+=('')\n\
             COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); typed=${{COMP_WORDS[COMP_CWORD]}}\n\
             _queuectl_whole_words queuectl \"${{typed#[:=]}}\" x\n\
             IFS=' '; echo \"${{COMPREPLY[*]}}\"\n"
        );
        let Some(found) = in_shell(&bench, "bash", &script) else { return };
        assert!(found.starts_with(offers), "{line}: {found}");
    }
}

#[test]
fn zsh_completes() {
    let bench = filled();
    for (line, offers) in LINES {
        // What zsh's own functions for completion take, which work on a terminal only.
        let script = format!(
            "compdef() {{ registered=$* }}; _describe() {{ eval 'print -r -- \"${{(@)'$argv[-1]'%%:*}}\"' }}\n\
             source <(queuectl completions zsh)\n\
             [[ $registered == '_clap_dynamic_completer_queuectl queuectl' ]] || exit 9\n\
             line='queuectl {line}'; words=(${{=line}}); [[ $line == *' ' ]] && words+=('')\n\
             CURRENT=$#words; _clap_dynamic_completer_queuectl\n"
        );
        let Some(found) = in_shell(&bench, "zsh -f", &script) else { return };
        assert!(found.starts_with(offers), "{line}: {found}");
    }
}

#[test]
fn fish_completes() {
    let bench = filled();
    for (line, offers) in LINES {
        let script = format!("queuectl completions fish | source\ncomplete -C 'queuectl {line}'\n");
        let Some(found) = in_shell(&bench, "fish --no-config", &script) else { return };
        let words: Vec<&str> = found.lines().map(|line| line.split('\t').next().unwrap()).collect();
        assert!(words.join(" ").starts_with(offers), "{line}: {found}");
    }
}

#[test]
fn commands_are_offered_the_jobs_that_they_take() {
    let bench = filled();
    for (words, ids) in [
        (&["show", ""][..], &["gpu-2", "gpu-1", "ns:two:b", "ns:two:a", "bad", "good"][..]),
        (&["logs", "g"], &["gpu-2", "gpu-1", "good"]),
        (&["cancel", ""], &["gpu-2", "gpu-1", "ns:two:b", "ns:two:a"]),
        (&["wait", "gpu-1", ""], &["gpu-2", "gpu-1", "ns:two:b", "ns:two:a"]),
        (&["retry", ""], &["bad", "good"]),
        (&["remove", "go"], &["good"]),
        (&["dlq", "retry", ""], &["bad"]),
        (&["list", "--run", ""], &["last"]),
        (&["logs", "--state", "dead,comp"], &["dead,completed"]),
        (&["cancel", "--queue", "g"], &["gpu"]),
        (&["edit", ""], &["gpu-2", "gpu-1", "ns:two:b", "ns:two:a", "bad"]),
        (&["edit", "gpu-1", "--after", "go"], &["good"]),
        (&["edit", "--where-queue", "g"], &["gpu"]),
        (&["pause", "gpu-1", ""], &["gpu-2", "gpu-1", "ns:two:b", "ns:two:a"]),
        (&["resume", "--state", "blo"], &["blocked"]),
        (&["signal", "USR1", "--state", "proc"], &["processing"]),
        (&["list", "--columns", "max_r"], &["max_retries", "max_rss_bytes"]),
    ] {
        let mut offered = offered(&bench, words);
        offered.retain(|word| !word.starts_with('-'));
        assert_eq!(offered, ids, "{words:?}");
    }
    let about = asked(&bench, &["show", "ba"]).ok();
    assert_eq!(about, "bad\tdead, false\n");
}

#[test]
fn the_queue_in_the_typed_line_is_the_one_that_is_asked() {
    let (bench, other) = (filled(), Bench::new());
    other.add(r#"{"id":"theirs","command":"true"}"#);
    let folder = other.queue();
    let folder = folder.to_str().unwrap();
    assert_eq!(offered(&bench, &["--db", folder, "show", "t"]), ["theirs"]);
    assert_eq!(offered(&bench, &["show", &format!("--db={folder}"), "t"]), ["theirs"]);
    let by_env = bench.cmd(["--", "queuectl", "show", "t"]).env("QUEUECTL_COMPLETE", "bash");
    let by_env = by_env.env("_CLAP_COMPLETE_INDEX", "2").env("QUEUECTL_DB", folder);
    assert_eq!(by_env.run().ok(), "theirs");
}

#[test]
fn the_newest_are_offered_and_an_old_one_by_its_whole_name() {
    let bench = Bench::new();
    bench.add(r#"{"id":"job-a","command":"true"}"#);
    bench.cmd(["enqueue", "-"]).stdin("true\n".repeat(6_000)).run().ok();
    let mut all = offered(&bench, &["show", ""]);
    all.retain(|word| !word.starts_with('-'));
    assert_eq!((all.len(), all[0].as_str()), (50, "6001"));
    assert_eq!(offered(&bench, &["show", "599"])[..2], ["5999", "5998"]);
    assert_eq!(offered(&bench, &["show", "job"]), [""; 0]);
    assert_eq!(offered(&bench, &["show", "job-a"]), ["job-a"]);
}

#[test]
fn trouble_is_silence() {
    let bench = Bench::new();
    assert_eq!(offered(&bench, &["show", "x"]), [""; 0]);
    assert_eq!(offered(&bench, &["--db", "none/here", "show", "x"]), [""; 0]);
    assert_eq!(offered(&bench, &["nonsense", "--what", "x"]), [""; 0]);
    assert!(!bench.queue().exists());
    bench.enqueue("true");
    assert_eq!(offered(&bench, &["show", "1"]), ["1"]);
    std::fs::write(bench.queue().join("queue.redb"), b"no queue").unwrap();
    assert_eq!(offered(&bench, &["show", "1"]), [""; 0]);
    let done = bench.cmd(["--", "queuectl", "x"]).env("QUEUECTL_COMPLETE", "tcsh").run();
    done.says(7, &[]);
    // Not asked.
    assert!(bench.cmd(["--help"]).env("QUEUECTL_COMPLETE", "").run().ok().contains("completions"));
}
