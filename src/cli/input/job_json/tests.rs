use super::super::{Asked, Base, any::base, job};
use super::*;
use crate::model::Millis;

/// Something for every field that the command line can ask for.
fn asked() -> Asked {
    Asked {
        id: "one".parse().ok(),
        folder: Some("/elsewhere".into()),
        max_retries: Some(1),
        timeout: Some(TimeLimit::Unlimited),
        queue: "slow".parse().ok(),
        priority: -3,
        start: Start::After(Duration::from_secs(9)),
        needs: vec![need("first", false)],
        name: "nightly".parse().ok(),
        tags: tags(&["a=1", "b=1"]),
        key: "k 1".parse().ok(),
        if_exists: IfExists::Retry,
    }
}

fn need(id: &str, any: bool) -> Need {
    Need { id: id.parse().unwrap(), any }
}

fn tags(typed: &[&str]) -> Tags {
    let mut tags = Tags::default();
    for tag in typed {
        tags.set_typed(tag).unwrap();
    }
    tags
}

fn parsed(text: &str) -> JobSpec {
    job(text.as_bytes(), &base()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn refused(text: impl AsRef<[u8]>) -> String {
    job(text.as_ref(), &base()).unwrap_err().to_string()
}

#[test]
fn what_is_not_set_comes_from_the_base() {
    let base = Base { asked: asked(), ..base() };
    let nulls = r#"{"command":"echo","id":null,"argv":null,"max_retries":null,"backoff_base":null,"timeout":null,
        "cwd":null,"env":null,"shell":null,"queue":null,"priority":null,"delay":null,"at":null,"after":null,
        "after_any":null,"name":null,"tags":null,"key":null,"if_exists":null}"#;
    for text in [r#"{"command":"echo"}"#, " \n{ \"command\" : \"echo\" }\n ", nulls] {
        let spec = job(text.as_bytes(), &base).unwrap();
        let expected = JobSpec {
            id: "one".parse().ok(),
            env: base.env.clone(),
            max_retries: Some(1),
            timeout: Some(TimeLimit::Unlimited),
            queue: "slow".parse().unwrap(),
            priority: -3,
            start: Start::After(Duration::from_secs(9)),
            needs: vec![need("first", false)],
            name: "nightly".parse().ok(),
            tags: tags(&["a=1", "b=1"]),
            key: "k 1".parse().ok(),
            if_exists: IfExists::Retry,
            ..JobSpec::new(Command::Shell(b"echo".to_vec()), "/elsewhere")
        };
        assert_eq!(spec, expected);
    }
}

#[test]
fn what_is_set_wins() {
    let base = Base { asked: asked(), ..base() };
    let text = r#"{"id":"j1","argv":["echo",{"base64":"/w=="},""],"max_retries":0,"backoff_base":2.5,"timeout":"5m",
        "cwd":"/tmp","env":{"B":"2","C":null,"D":{"base64":"/w=="}},"shell":["/bin/bash","-c"],"queue":"mail",
        "priority":0,"at":"2027-01-15T08:00:01Z","after":["x","7"],"after_any":"y","name":"Ü 1",
        "tags":{"b":"","c":"3"},"key":"k","if_exists":"error"}"#;
    let spec = job(text.as_bytes(), &base).unwrap();
    let command = Command::Argv(vec![b"echo".to_vec(), b"\xff".to_vec(), vec![]]);
    let change = [(b"B", Some(b"2".to_vec())), (b"C", None), (b"D", Some(b"\xff".to_vec()))];
    let expected = JobSpec {
        id: Some("j1".parse().unwrap()),
        env: base.env.clone(),
        env_change: change.into_iter().map(|(name, value)| (name.to_vec(), value)).collect(),
        max_retries: Some(0),
        backoff_base: Some(2.5),
        timeout: Some(TimeLimit::After(Duration::from_secs(300))),
        shell: Some(vec!["/bin/bash".to_owned(), "-c".to_owned()]),
        queue: "mail".parse().unwrap(),
        priority: 0,
        start: Start::At(Millis(1_800_000_001_000)),
        needs: vec![need("first", false), need("x", false), need("7", false), need("y", true)],
        name: "Ü 1".parse().ok(),
        tags: tags(&["a=1", "b=", "c=3"]),
        key: "k".parse().ok(),
        if_exists: IfExists::Error,
        ..JobSpec::new(command, "/tmp")
    };
    assert_eq!(spec, expected);
}

#[test]
fn commands_are_byte_for_byte_what_json_says() {
    for (json, bytes) in [
        (r#"" echo  hi\t""#, &b" echo  hi\t"[..]),
        (r#""a\u00e9\n\\n""#, "aé\n\\n".as_bytes()),
        (r#"{"base64":"ZWNobyD/"}"#, b"echo \xff"),
    ] {
        assert_eq!(parsed(&format!(r#"{{"command":{json}}}"#)).command, Command::Shell(bytes.to_vec()));
    }
}

#[test]
fn folders_count_from_the_base() {
    for (json, folder) in [
        (r#""/a/b/""#, &b"/a/b"[..]),
        (r#""sub/./x""#, b"/work/sub/x"),
        (r#"".""#, b"/work"),
        (r#""..""#, b"/work/.."),
        (r#"{"base64":"Y2Fm6Q=="}"#, b"/work/caf\xe9"),
    ] {
        let spec = parsed(&format!(r#"{{"command":"x","cwd":{json}}}"#));
        assert_eq!(spec.cwd.as_os_str().as_bytes(), folder);
    }
}

#[test]
fn time_limits_are_seconds_or_texts() {
    let after = |ms| TimeLimit::After(Duration::from_millis(ms));
    for (json, limit) in [
        ("90", after(90_000)),
        ("0.5", after(500)),
        (r#""1h30m""#, after(5_400_000)),
        (r#""90""#, after(90_000)),
        (r#""none""#, TimeLimit::Unlimited),
    ] {
        assert_eq!(parsed(&format!(r#"{{"command":"x","timeout":{json}}}"#)).timeout, Some(limit), "{json}");
    }
}

#[test]
fn a_start_is_a_delay_or_a_time() {
    let at = |ms: u64| Start::At(Millis(1_800_000_000_000 + ms));
    for (field, start) in [
        (r#""delay":90"#, Start::After(Duration::from_secs(90))),
        (r#""delay":0.5"#, Start::After(Duration::from_millis(500))),
        (r#""delay":"1h 30m""#, Start::After(Duration::from_secs(5_400))),
        (r#""delay":0"#, Start::After(Duration::ZERO)),
        (r#""at":"2027-01-15 08:00:02""#, at(2_000)),
        (r#""at":"2027-01-15T09:00:02+01:00""#, at(2_000)),
        (r#""at":"08:00:02""#, at(2_000)),
        (r#""at":"08:00","delay":null"#, at(86_400_000)),
    ] {
        assert_eq!(parsed(&format!(r#"{{"command":"x",{field}}}"#)).start, start, "{field}");
    }
}

#[test]
fn values_that_a_field_does_not_take() {
    let priority = "`priority` takes a whole number from -100 to 100, not ";
    let delay = "`delay` takes a number of seconds or a duration up to 365d, such as 90s, 5m or 1h30m, not ";
    let at = "`at` takes a time such as 22:00, 2026-12-01 22:00 or 2026-12-01T22:00:00+01:00, not ";
    let retries = "`max_retries` takes a whole number from 0 to 1000000, not ";
    let base = "`backoff_base` takes a number from 0 to 1000, not ";
    let timeout = "`timeout` takes a number of seconds or a duration from 1ms to 365d, such as 90s, 5m or 1h30m, or `none`, \
                   not ";
    let text = r#"a text, or {"base64":"…"} where it is not UTF-8, not "#;
    let shell = r#"`shell` takes a list of texts such as ["/bin/bash","-c"], not "#;
    for (field, given, message) in [
        ("max_retries", "-1", format!("{retries}`-1`")),
        ("max_retries", "1000001", format!("{retries}`1000001`")),
        ("max_retries", "99999999999999999999", format!("{retries}`1e+20`")),
        ("max_retries", "3.5", format!("{retries}`3.5`")),
        ("max_retries", r#""3""#, format!("{retries}`\"3\"`")),
        ("backoff_base", "-0.1", format!("{base}`-0.1`")),
        ("backoff_base", "1000.5", format!("{base}`1000.5`")),
        ("backoff_base", "[2]", format!("{base}`[2]`")),
        ("timeout", "0", format!("{timeout}`0`")),
        ("timeout", "-5", format!("{timeout}`-5`")),
        ("timeout", "1e300", format!("{timeout}`1e+300`")),
        ("timeout", "true", format!("{timeout}`true`")),
        ("timeout", r#""soon""#, format!("{timeout}`\"soon\"`")),
        ("cwd", r#""""#, format!("`cwd` takes a folder: {text}`\"\"`")),
        ("cwd", "7", format!("`cwd` takes a folder: {text}`7`")),
        ("env", r#"["A=1"]"#, r#"`env` takes an object such as {"NAME":"value","OTHER":null}, not a list"#.to_owned()),
        ("env", r#"{"A":1}"#, format!("`env.A` takes {text}a number")),
        ("shell", r#""bash -c""#, format!("{shell}`\"bash -c\"`")),
        ("shell", "[]", format!("{shell}`[]`")),
        ("shell", r#"[""]"#, format!("{shell}`[\"\"]`")),
        ("shell", r#"["a\u0000"]"#, format!("{shell}`[\"a\\u0000\"]`")),
        ("priority", "101", format!("{priority}`101`")),
        ("priority", "1.0", format!("{priority}`1.0`")),
        ("priority", r#""high""#, format!("{priority}`\"high\"`")),
        ("delay", "-1", format!("{delay}`-1`")),
        ("delay", "31536001", format!("{delay}`31536001`")),
        ("delay", r#""none""#, format!("{delay}`\"none\"`")),
        ("at", "22", format!("{at}`22`")),
        ("at", r#""tomorrow""#, format!("{at}`\"tomorrow\"`")),
        ("name", "1", "`name` takes a text, not `1`".to_owned()),
        ("tags", r#"["a"]"#, r#"`tags` takes an object of texts such as {"night":"1"}, not `["a"]`"#.to_owned()),
        ("tags", r#"{"a":1}"#, "`tags.a` takes a text, not `1`".to_owned()),
        ("id", "5", "`id` takes a text, not `5`".to_owned()),
        ("queue", "{}", "`queue` takes a text, not `{}`".to_owned()),
    ] {
        assert_eq!(refused(format!(r#"{{"command":"x","{field}":{given}}}"#)), message);
    }
    assert_eq!(refused(r#"{"command":["x"]}"#), format!("`command` takes {text}`[\"x\"]`"));
    assert_eq!(refused(r#"{"command":{"base64":"!"}}"#), format!("`command` takes {text}`{{\"base64\":\"!\"}}`"));
    assert_eq!(refused(r#"{"argv":["x",1]}"#), format!("`argv[1]` takes {text}`1`"));
    assert_eq!(refused(r#"{"argv":"x y"}"#), r#"`argv` takes a list of texts such as ["echo","hi"], not `"x y"`"#);
    assert_eq!(
        refused(format!(r#"{{"command":"x","shell":"{}"}}"#, "b".repeat(99))),
        format!("{shell}`\"{}…`", "b".repeat(59))
    );
}

#[test]
fn names_and_specs_are_checked() {
    for (text, message) in [
        (r#"{"command":"x","id":"a b"}"#, "job id `a b` has a character that is not allowed"),
        (r#"{"command":"x","id":"\u001b[2J"}"#, r"job id `\u{1b}[2J` has a character"),
        (r#"{"command":"x","queue":""}"#, "queue name `` is empty"),
        (r#"{"command":"x","name":"a\nb"}"#, r"the name `a\nb` is not taken: it is 1 to 128 bytes of text"),
        (r#"{"command":"x","tags":{"a b":"1"}}"#, "the tag `a b` is not taken: its key is 1 to 64 of"),
        (r#"{"command":"x","tags":{"a":"\u0007"}}"#, r"the value `\u{7}` of the tag `a` is not taken"),
        (r#"{"command":"x","delay":1,"at":"22:00"}"#, "a job takes `delay` or `at`, not both"),
        (r#"{"command":" "}"#, "the command is empty"),
        (r#"{"argv":[]}"#, "the command is empty"),
        (r#"{"command":"a\u0000"}"#, "NUL byte"),
        (r#"{"command":"x","env":{"A=":"1"}}"#, "`A=` cannot be an environment variable"),
        (r#"{"command":"x","env":{"\u0007":"\u0000"}}"#, r"`\u{7}` cannot be an environment variable"),
        ("{}", "a job needs `command`, a text for the shell, or `argv`"),
        (r#"{"command":null}"#, "a job needs `command`"),
        (r#"{"command":"x","argv":["x"]}"#, "a job takes `command` or `argv`, not both"),
    ] {
        let error = refused(text);
        assert!(error.contains(message), "{text}: {error}");
    }
}

#[test]
fn unknown_fields_are_matched_with_known_ones() {
    for (name, known) in [
        ("maxRetries", "max_retries"),
        ("max-retries", "max_retries"),
        ("maxretries", "max_retries"),
        ("max_retires", "max_retries"),
        ("MAX_RETRIES", "max_retries"),
        ("retries", "max_retries"),
        ("Command", "command"),
        ("comand", "command"),
        ("cmd", "command"),
        ("args", "argv"),
        ("arg", "argv"),
        ("backoffBase", "backoff_base"),
        ("backoff", "backoff_base"),
        ("timeOut", "timeout"),
        ("timeoutSeconds", "timeout"),
        ("timout", "timeout"),
        ("dir", "cwd"),
        ("workDir", "cwd"),
        ("environment", "env"),
        ("ENV", "env"),
        ("Id", "id"),
        ("job_id", "id"),
        ("qeue", "queue"),
        ("queueName", "queue"),
        ("prio", "priority"),
        ("jobName", "name"),
        ("tag", "tags"),
        ("startAt", "at"),
        ("depends_on", "after"),
        ("afterAny", "after_any"),
    ] {
        let error = refused(format!(r#"{{"command":"x","{name}":1}}"#));
        assert_eq!(error, format!("there is no field `{name}`; did you mean `{known}`?"));
    }
    let all = "a job has id, command, argv, max_retries, backoff_base, timeout, cwd, env, shell, queue, \
               priority, delay, at, after, after_any, name, tags, key, if_exists";
    for name in ["state", "created_at", "", "ä", "width", "xy", "pid"] {
        let error = refused(format!(r#"{{"command":"x","{name}":1}}"#));
        assert_eq!(error, format!("there is no field `{name}`; {all}"));
    }
    let error = refused(format!(r#"{{"command":"x","{}":1}}"#, "command".repeat(100_000)));
    assert!(error.starts_with("there is no field `commandcommand") && error.len() < 250, "{error}");
}

#[test]
fn fields_given_twice() {
    for (text, message) in [
        (r#"{"id":"a","id":"a","command":"x"}"#, "line 1, column 14: the field `id` is given twice"),
        ("{\"command\":\"x\",\n\"command\":\"y\"}", "line 2, column 9: the field `command` is given twice"),
        (r#"{"command":"x","env":{"A":"1","A":"1"}}"#, "line 1, column 33: the field `A` is given twice"),
        (r#"{"id":"a","\u0069d":"b","command":"x"}"#, "line 1, column 19: the field `id` is given twice"),
    ] {
        assert_eq!(refused(text), message);
    }
}

#[test]
fn malformed_json_has_a_place() {
    let deep = format!("{{\"env\":{}", "[".repeat(200));
    for (text, message) in [
        (&br#"{"command":"x""#[..], "line 1, column 14: this is not valid JSON: EOF while parsing an object"),
        (b"{\"command\":\n  echo}", "line 2, column 3: this is not valid JSON: expected value"),
        (b"{'command':'x'}", "line 1, column 2: this is not valid JSON: key must be a string"),
        (br#"{"command":"x",}"#, "line 1, column 16: this is not valid JSON: trailing comma"),
        (b"{\"command\":\"\xff\"}", "line 1, column 13: this is not valid JSON: invalid unicode code point"),
        (br#"{"command":"\ud800"}"#, "line 1, column 19: this is not valid JSON: unexpected end of hex escape"),
        (br#"{"max_retries":1e999}"#, "line 1, column 20: this is not valid JSON: number out of range"),
        (deep.as_bytes(), "line 1, column 134: this is not valid JSON: recursion limit exceeded"),
        (br#"{"command":"x"} {"command":"y"}"#, "line 1, column 17: there is more after the `}` that ends the job"),
        (br#"{"command":"x"}}"#, "line 1, column 16: there is more after the `}` that ends the job"),
    ] {
        let error = refused(text);
        assert!(error.starts_with(message), "{error}");
    }
}

#[test]
fn what_is_no_object_is_probably_a_command() {
    let not_json = "is not JSON of a job, which starts with `{`; for a shell command, type: queuectl enqueue -c";
    for (text, message) in [
        ("echo hi", format!("`echo hi` {not_json} 'echo hi'")),
        ("  ls\n", format!("`ls` {not_json} ls")),
        ("echo 'a'", format!(r"`echo 'a'` {not_json} 'echo '\''a'\'''")),
        ("\"echo\"", format!("`\"echo\"` {not_json} '\"echo\"'")),
        ("[ -f x ]", format!("`[ -f x ]` {not_json} '[ -f x ]'")),
        (&"x".repeat(500), format!("`{0}…` {not_json} '{0}…'", "x".repeat(60))),
    ] {
        assert_eq!(refused(text), message);
    }
    for text in ["", " \n\t"] {
        assert_eq!(refused(text), r#"there is no job in an empty text; one looks like {"command":"echo hi"}"#);
    }
    let list = "a list is not taken; write one JSON object a line and type: queuectl enqueue --file FILE";
    assert_eq!(refused(r#" [ {"command":"x"} ]"#), list);
}
