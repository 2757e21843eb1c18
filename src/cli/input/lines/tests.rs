use std::sync::Arc;

use super::super::any::base;
use super::*;

fn read(input: impl AsRef<[u8]>, format: Format) -> Batch {
    lines(input.as_ref(), format, &base()).unwrap()
}

fn refused(input: impl AsRef<[u8]>, format: Format) -> String {
    lines(input.as_ref(), format, &base()).unwrap_err().to_string()
}

/// Line numbers and commands as people see them.
fn commands(batch: &Batch) -> Vec<(usize, String)> {
    batch.jobs.iter().map(|(line, job)| (*line, job.command.to_string())).collect()
}

#[test]
fn a_job_a_line() {
    for (input, expected) in [
        ("", &[][..]),
        ("\n \n\t\n\r\n# only a comment\n", &[]),
        ("a\nb\n", &[(1, "a"), (2, "b")]),
        ("a\nb", &[(1, "a"), (2, "b")]),
        ("\n# c\n  # c\n\na # b\n#", &[(5, "a # b")]),
        ("  a  b \t\n", &[(1, "a  b")]),
        ("ls a\\ \nls a\\\nls a\\ \t \n", &[(1, "ls a\\ "), (2, "ls a\\"), (3, "ls a\\ ")]),
        ("a {\"x\"}\n{\"b\"\n", &[(1, "a {\"x\"}"), (2, "{\"b\"")]),
        ("{ echo a; }\n", &[(1, "{ echo a; }")]),
        ("{}\n", &[(1, "{}")]),
    ] {
        let batch = read(input, Format::Auto);
        let expected: Vec<_> = expected.iter().map(|(line, command)| (*line, (*command).to_owned())).collect();
        assert_eq!((commands(&batch), batch.warnings), (expected, warnings_of(input)), "{input:?}");
    }
}

fn warnings_of(input: &str) -> Vec<Warning> {
    if input.contains('\r') { vec![Warning::CarriageReturns] } else { vec![] }
}

#[test]
fn commands_are_bytes() {
    let batch = read(b"echo \xff\x01\x0b\n", Format::Auto);
    assert_eq!(batch.jobs[0].1.command, Command::Shell(b"echo \xff\x01\x0b".to_vec()));
}

#[test]
fn json_lines() {
    let input = "\n# jobs\n {\"command\":\"a\",\"id\":\"x\"}\n\n{ \"command\" : \"b\" }\n\t# end\n{\"argv\":[\"c\"]}";
    for format in [Format::Auto, Format::JsonLines] {
        let batch = read(input, format);
        assert_eq!(commands(&batch), [(3, "a".to_owned()), (5, "b".to_owned()), (7, "c".to_owned())]);
    }
    // Said outright, a line that looks like JSON is a command, and the reverse.
    assert_eq!(commands(&read("{\"a\"", Format::Lines)), [(1, "{\"a\"".to_owned())]);
    assert_eq!(commands(&read("{ \"command\":\"a\"}", Format::JsonLines)), [(1, "a".to_owned())]);
}

#[test]
fn what_other_systems_leave_is_dropped_and_said() {
    let (bom, cr) = (Warning::ByteOrderMark, Warning::CarriageReturns);
    for (input, warnings, expected) in [
        ("\u{feff}a\nb\n", vec![bom], ["a", "b"]),
        ("a\r\nb\r\n", vec![cr], ["a", "b"]),
        ("\u{feff}a\nb\r", vec![bom, cr], ["a", "b"]),
        ("a\r \nb\u{feff}", vec![], ["a\r", "b\u{feff}"]),
        ("\u{feff}{\"command\":\"a\"}\r\n{\"command\":\"b\"}\r\n", vec![bom, cr], ["a", "b"]),
        ("\u{feff}# c\r\na\nb\\\r", vec![bom, cr], ["a", "b\\"]),
    ] {
        let batch = read(input, Format::Auto);
        let found: Vec<_> = commands(&batch).into_iter().map(|(_, command)| command).collect();
        assert_eq!((found, batch.warnings), (expected.map(str::to_owned).to_vec(), warnings), "{input:?}");
    }
}

#[test]
fn errors_name_their_line() {
    let long = "x".repeat(LINE_BYTES_MAX + 1);
    let argument = "x".repeat(131_072);
    for (input, message) in [
        ("a\n\nb\0\n", "line 3: a command, argument or folder has a NUL byte"),
        (&format!("a\n{argument}\n"), "line 2: a command or argument of 131072 bytes is too long"),
        (&format!("a\n{long}\n"), "line 2: the line of 25165825 bytes is too long: at most 25165824 are taken"),
        ("{\"command\":\"a\"}\n{\"command\":}\n", "line 2, column 12: this is not valid JSON: expected value"),
        ("{\"command\":\"a\"}\n  {\"command\":}\n", "line 2, column 14: this is not valid JSON"),
        ("{\"command\":\"a\"}\n{\"command\":\"b\"\n", "line 2, column 14: this is not valid JSON: EOF"),
        ("{\"command\":\"a\"}{\"command\":\"b\"}", "line 1, column 16: there is more after the `}`"),
        ("{\"command\":\"a\"}\n\n{\"cmd\":\"b\"}\n", "line 3: there is no field `cmd`; did you mean `command`?"),
        ("{\"command\":\"a\",\"command\":\"b\"}", "line 1, column 24: the field `command` is given twice"),
        (
            "{\"command\":\"a\"}\necho hi\n",
            "line 2: `echo hi` is not JSON of a job, which starts with `{`; --lines takes each line as a shell command",
        ),
    ] {
        let error = refused(input, Format::Auto);
        assert!(error.starts_with(message), "{error}");
    }
    assert!(refused("{\"command\":\"a\"}\0", Format::Lines).starts_with("line 1: a command"));
    assert!(refused("a", Format::JsonLines).starts_with("line 1: `a` is not JSON"));
}

#[test]
fn ids_are_unique_in_a_batch() {
    let input = "{\"command\":\"a\",\"id\":\"x\"}\n#\n{\"command\":\"b\"}\n{\"command\":\"c\",\"id\":\"x\"}\n";
    assert_eq!(refused(input, Format::Auto), "line 4: the id `x` is taken by line 1; give each job its own, or none");
}

#[test]
fn a_large_batch_shares_its_environment() {
    use std::fmt::Write as _;

    let mut input = String::new();
    for n in 0..50_000 {
        writeln!(input, "{{\"command\":\"echo {n}\",\"id\":\"job-{n}\"}}").unwrap();
    }
    let base = base();
    let batch = lines(input.as_bytes(), Format::Auto, &base).unwrap();
    assert_eq!(batch.jobs.len(), 50_000);
    assert!(batch.jobs.iter().all(|(_, job)| Arc::ptr_eq(&job.env, &base.env)));
}
