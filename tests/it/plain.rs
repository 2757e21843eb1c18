//! Plain command strings run without a shell. Each of these strings runs twice, once as a command and once as the
//! arguments of a real `/bin/sh -c`, and both have to end alike.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};

use super::support::Bench;

/// Programs and what is none, in the folder `bin`, which is on the path, and in the job's folder.
fn bench() -> Bench {
    let bench = Bench::new();
    let programs: [(&str, &str, u32); 12] = [
        ("args", "#!/bin/sh\nprintf '<%s>' \"$0\" \"$@\"; echo; echo \"$#\" >&2\n", 0o755),
        ("surroundings", "#!/bin/sh\nenv | grep -v -e '^_=' -e '^SHLVL=' -e '^QUEUECTL_' | sort; /bin/pwd\n", 0o755),
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

#[test]
fn a_plain_command_means_what_it_means_to_a_shell() {
    let bench = bench();
    let strings = strings(&bench);
    let mut jobs = String::new();
    for string in &strings {
        // As for a command, so that it is not taken for an option of the shell.
        let blank: &[u8] = if string.starts_with(b"-") || string.starts_with(b"+") { b" " } else { b"" };
        let script = text(&[blank, string].concat());
        for words in [json!({"command": text(string)}), json!({"argv": ["/bin/sh", "-c", script]})] {
            writeln!(jobs, "{words}").unwrap();
        }
    }
    let path = format!("{}:/usr/bin:/bin", bench.file("bin").display());
    fs::write(bench.file("jobs"), jobs).unwrap();
    bench.ok("config set max-retries 0");
    bench.cmd(["enqueue", "--quiet", "--file", "jobs"]).env("PATH", path).run().ok();
    // One at a time: some write files.
    bench.work();

    let ends: BTreeMap<u64, Value> = bench.ok("export").lines().filter_map(end_of_attempt).collect();
    let end = |seq: usize| &ends[&u64::try_from(seq).unwrap()];
    for (at, string) in strings.iter().enumerate() {
        let (plain, shell) = (end(2 * at + 1), end(2 * at + 2));
        if let Some(signal) = plain.get("signal").and_then(Value::as_i64).filter(|_| plain != shell) {
            // A shell that stays beside its command, as some do, ends with a number instead, and says the rest.
            assert_eq!(shell["exit_code"], 128 + signal, "{:?}", String::from_utf8_lossy(string));
            continue;
        }
        assert_eq!(plain, shell, "{:?}", String::from_utf8_lossy(string));
    }
    // They had something to tell.
    let told = ["stdout", "stderr", "signal"].map(|field| ends.values().filter(|end| end.get(field).is_some()).count());
    assert!(told[0] > 600 && told[1] > 600 && told[2] > 0, "{told:?}");
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
