//! Plain command strings run without a shell. Each of these strings runs twice, once as a command and once as the
//! arguments of a real `/bin/sh -c`, and both have to end alike. So do those that are executed, and each other shell that
//! is installed and may be somebody's `/bin/sh`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};

use super::support::Bench;

/// The environment, but for what shells add and what is of one job only.
const SURROUNDINGS: &str = "#!/bin/sh\nenv | grep -vE '^(_|SHLVL|OLDPWD|LOGNAME|QUEUECTL_[A-Z_]*)=' | sort; /bin/pwd\n";

/// Programs and what is none, in the folder `bin`, which is on the path, and in the job's folder.
fn bench() -> Bench {
    let bench = Bench::new();
    let programs: [(&str, &str, u32); 12] = [
        ("args", "#!/bin/sh\nprintf '<%s>' \"$0\" \"$@\"; echo; echo \"$#\" >&2\n", 0o755),
        ("surroundings", SURROUNDINGS, 0o755),
        ("no-first-line", "echo \"$0\" \"$@\"; exit 3\n", 0o755),
        ("empty", "", 0o755),
        ("no-such-interpreter", "#!/no/such/interpreter\n", 0o755),
        ("not-executable", "#!/bin/sh\necho no\n", 0o644),
        ("fails", "#!/bin/sh\necho out; echo err >&2; exit 42\n", 0o755),
        ("killed", "#!/bin/sh\nkill -KILL $$\n", 0o755),
        ("terminated", "#!/bin/sh\nkill -TERM $$\n", 0o755),
        ("reads", "#!/bin/sh\ncat; echo end\n", 0o755),
        ("7up", "#!/bin/sh\necho seven\n", 0o755),
        ("not-a-program", "\u{7f}ELF\0garbage", 0o755),
    ];
    fs::create_dir_all(bench.file("bin/a-folder")).unwrap();
    for (name, text, mode) in programs {
        for folder in ["bin", "."] {
            let file = bench.file(folder).join(name);
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        }
    }
    bench
}

/// Strings that mean something to a shell, or look as if, one a line.
const TO_A_SHELL: &str = r#":
: x
true --help
false --version
/bin/true x
/bin/false x
pwd
cd /
cd bin
cd nowhere
echo
echo -n x
echo -e a
echo a  b
printf x%sy z
test
test a = b
[ a ]
kill
type args
command args
command -v args
exec args x
exec no-such-program
eval args
exit 7
exit
return 3
break
unset PATH
umask
ulimit -n
read x
wait
wait 1
jobs
alias
hash
local x
shift
trap
readonly
. args
. ./fails
source args
if
then
fi
do
done
while
case
esac
for
in x
{
}
!
! true
! false
function
select
a=b
a=b args $a
PATH=/nowhere args
=x
-x
+x
--
- x
%1
%
@
,
+
/
//
./
..
.
bin/
bin
bin/args/
/dev/null
~
~/x
args ~
args ~root x=~
args *
args b*
args ?in
args [b]in
args {a,b}
args a{b
args #c
args a#c
args \a
args \
args 'a
args "a
args $((1+2))
args $(args x)
args `args x`
args;args
args&&args
args||args
fails&&args
fails||args
(args)
{ args; }
args >out; args <out
args !
args ^x
args a=b c=d
args =
args %s %%
args -
args --
args .
args ..
args / // /./
args 2
args 2>out
2 args
é
args é€
nohup args
env args
sleep 0
cat
sh
sh -c args
sh -c
dash -c x
ls nowhere
ls -d bin
cat nowhere
getconf
realpath bin
which args"#;

fn strings(bench: &Bench) -> Vec<Vec<u8>> {
    let words = [
        "args",
        "surroundings",
        "no-first-line",
        "empty",
        "no-such-interpreter",
        "not-executable",
        "fails",
        "killed",
        "terminated",
        "reads",
        "7up",
        "not-a-program",
        "a-folder",
        "no-such-program",
        "true",
        "false",
    ];
    let mut strings: Vec<String> = Vec::new();
    for word in words {
        let absolute = bench.file("bin").join(word);
        let names = [word.to_owned(), format!("./{word}"), format!("bin/{word}"), absolute.display().to_string()];
        for name in names {
            strings.extend(
                ["", " x", "  -v \t--a=b,c:d  e@f+g%h ", " ''", " 'a b' \"c\" $HOME"]
                    .map(|rest| format!("{name}{rest}")),
            );
        }
    }
    let unseen = ["args\nargs", "args \r", "args\x0bx", "args x\n", "\nargs", " args"];
    strings.extend(TO_A_SHELL.lines().chain(unseen).map(str::to_owned));
    strings.push(format!("args {}", "x".repeat(100_000)));
    strings.push(format!("args {}", "x ".repeat(40_000)));
    // What runs beside the last command may be ended before it says anything.
    let bytes = (1..=u8::MAX).filter(|byte| !b"&|".contains(byte));
    let bytes = bytes.flat_map(|byte| [[b"args a", &[byte][..], b"b"].concat(), vec![byte, b'x']]);
    strings.into_iter().map(String::into_bytes).chain(bytes).collect()
}

fn text(bytes: &[u8]) -> Value {
    std::str::from_utf8(bytes).map_or_else(|_| json!({"base64": BASE64_STANDARD.encode(bytes)}), |text| json!(text))
}

/// How each string ends as a command, and as the argument of `shell -c`.
fn ends(bench: &Bench, shell: &str, strings: &[Vec<u8>]) -> Vec<(Value, Value)> {
    let mut jobs = String::new();
    for string in strings {
        // As for a command, so that it is not taken for an option of the shell.
        let blank: &[u8] = if string.starts_with(b"-") || string.starts_with(b"+") { b" " } else { b"" };
        let script = text(&[blank, string].concat());
        for words in [json!({"command": text(string)}), json!({"argv": [shell, "-c", script]})] {
            writeln!(jobs, "{words}").unwrap();
        }
    }
    let path = format!("{}:/usr/bin:/bin", bench.file("bin").display());
    fs::write(bench.file("jobs"), jobs).unwrap();
    bench.ok("config set max-retries 0");
    let before = bench.json("list --json").as_array().unwrap().len();
    bench.cmd(["enqueue", "--quiet", "--file", "jobs"]).env("PATH", path).run().ok();
    // One at a time: some write files.
    bench.work();
    let mut ends: BTreeMap<u64, Value> = bench.ok("export").lines().filter_map(end_of_attempt).collect();
    let mut end = |n: usize| ends.remove(&u64::try_from(before + n).unwrap()).unwrap();
    (0..strings.len()).map(|at| (end(2 * at + 1), end(2 * at + 2))).collect()
}

/// Whether a command ends as a shell says it does. A shell that stays beside its command, as some do, ends with a number
/// where that is killed, and says the rest.
fn is_alike(plain: &Value, shell: &Value) -> bool {
    let signal = plain.get("signal").and_then(Value::as_i64);
    plain == shell || signal.is_some_and(|signal| shell["exit_code"].as_i64().is_some_and(|code| code % 128 == signal))
}

#[test]
fn a_plain_command_means_what_it_means_to_a_shell() {
    let bench = bench();
    let strings = strings(&bench);
    let ends = ends(&bench, "/bin/sh", &strings);
    for (string, (plain, shell)) in strings.iter().zip(&ends) {
        assert!(is_alike(plain, shell), "{:?}: {plain} {shell}", String::from_utf8_lossy(string));
    }
    // They had something to tell.
    let all = || ends.iter().flat_map(|(plain, shell)| [plain, shell]);
    let told = ["stdout", "stderr", "signal"].map(|field| all().filter(|end| end.get(field).is_some()).count());
    assert!(told[0] > 600 && told[1] > 600 && told[2] > 0, "{told:?}");
    bench.check();
}

#[test]
fn a_plain_command_means_the_same_to_whatever_may_be_called_sh() {
    let bench = bench();
    let mut strings: Vec<Vec<u8>> =
        ["true", "false", "/bin/true", "/bin/false"].map(|it| it.as_bytes().to_vec()).into();
    for word in ["args", "surroundings", "fails", "killed", "terminated", "reads", "7up"] {
        let names = [word.to_owned(), format!("./{word}"), format!("{}/{word}", bench.file("bin").display())];
        let rests = ["", " x", "  -v \t--a=b,c:d  e@f+g%h ", " = =x %1 - -- +x @ a=/b:/c ./ .. : //"];
        strings.extend(names.iter().flat_map(|name| rests.map(|rest| format!("{name}{rest}").into_bytes())));
    }
    for shell in ["dash", "bash", "zsh", "ksh93", "mksh", "yash", "busybox"] {
        let Some(file) = ["/usr/bin", "/bin"].map(|bin| Path::new(bin).join(shell)).into_iter().find(|it| it.exists())
        else {
            continue;
        };
        // They behave as they are called.
        let folder = bench.file(&format!("as-{shell}"));
        fs::create_dir(&folder).unwrap();
        std::os::unix::fs::symlink(file, folder.join("sh")).unwrap();
        let called = folder.join("sh").display().to_string();
        for (string, (plain, shell)) in strings.iter().zip(ends(&bench, &called, &strings)) {
            assert!(is_alike(&plain, &shell), "{called}: {:?}: {plain} {shell}", String::from_utf8_lossy(string));
        }
    }
    bench.check();
}

/// How a job ended, from a line of an export.
fn end_of_attempt(line: &str) -> Option<(u64, Value)> {
    const SAME: [&str; 7] = ["exit_code", "signal", "outcome", "error", "stdout", "stderr", "stdout_file"];
    let mut line: Value = serde_json::from_str(line).unwrap();
    let attempt = line.get_mut("attempt")?.as_object_mut()?;
    let seq = attempt["seq"].as_u64()?;
    attempt.retain(|field, _| SAME.contains(&field.as_str()));
    Some((seq, line["attempt"].take()))
}
