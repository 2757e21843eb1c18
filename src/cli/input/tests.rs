//! What all parsers have in common: the base, and that no input makes them panic.

use super::any::{accepted, base};
use super::*;
use crate::model::{ARGUMENT_BYTES_MAX, BadSpec};
use crate::sim::choices::Choices;

#[test]
fn commands_are_taken_as_they_are() {
    let asked = Asked { queue: "mail".parse().ok(), max_retries: Some(7), ..Asked::default() };
    let base = Base { asked, ..base() };
    let spec = shell(b" echo \xff \n".to_vec(), &base).unwrap();
    assert_eq!(spec.command, Command::Shell(b" echo \xff \n".to_vec()));
    assert_eq!((spec.cwd.as_path(), spec.queue.as_str(), spec.max_retries), ("/work".as_ref(), "mail", Some(7)));
    assert!(Arc::ptr_eq(&spec.env, &base.env));
    let words = vec![b"echo".to_vec(), vec![]];
    assert_eq!(argv(words.clone(), &base).unwrap().command, Command::Argv(words));
    for (made, message) in [
        (shell(b" \n".to_vec(), &base), "the command is empty"),
        (argv(vec![], &base), "the command is empty"),
        (argv(vec![b"a\0".to_vec()], &base), "NUL byte"),
    ] {
        let error = made.unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn the_environment_counts_for_every_job() {
    let value = vec![b'x'; 100_000];
    let env: Environment = (0..20).map(|n: u8| (vec![b'A' + n], value.clone())).collect();
    let base = Base { env: Arc::new(env), ..base() };
    assert!(shell(vec![b'x'; 90_000], &base).is_ok());
    let refused = |error| InputError::from(Problem::Spec(error));
    let limit = base.exec_bytes_max;
    let bytes = 20 * (100_003 + 8) + 100_009;
    let error = shell(vec![b'x'; 100_000], &base).unwrap_err();
    assert_eq!(error, refused(BadSpec::TooLong { bytes, limit }));
    // To the byte, although the quick check rounds up.
    let exact = Base { exec_bytes_max: bytes, ..base };
    assert!(shell(vec![b'x'; 100_000], &exact).is_ok());
    assert!(shell(vec![b'x'; 100_001], &exact).is_err());
}

#[test]
fn a_bad_environment_is_named_in_short() {
    let long = vec![b'n'; ARGUMENT_BYTES_MAX];
    let base = Base { env: Arc::new(Environment::from([(long, vec![])])), ..base() };
    for text in ["echo", "echo again"] {
        let error = shell(text.into(), &base).unwrap_err().to_string();
        assert!(error.contains("nnn…") && error.len() < 250, "{error}");
    }
}

/// Bytes, then pieces that steer deep into the parsers, mixed with bytes.
fn input(choices: &mut Choices<'_>, round: usize) -> Vec<u8> {
    const PIECES: &str = "{~}~[~]~:~,~\"~\\~\n~\r\n~\0~#~ ~\\u~d800~-~1e999~0.5~null~true~\"id\":~\"command\":\"a\"~\
        \"argv\":[\"a\"]~\"env\":{\"A\":~\"cwd\":\"..\"~\"timeout\":\"5m\"~\"timeout\":~\"max_retries\":~\"backoff_base\":~\
        \"shell\":[~\"base64\":~{\"command\":\"true\"}\n~\u{feff}~ß";
    let pieces: Vec<&str> = PIECES.split('~').collect();
    let mut input = Vec::new();
    for _ in 0..choices.below(60) {
        let piece = pieces[choices.index(pieces.len())];
        if round.is_multiple_of(3) || choices.below(9) == 0 {
            input.push(u8::try_from(choices.below(256)).unwrap());
        } else {
            input.extend_from_slice(piece.as_bytes());
        }
    }
    input
}

#[test]
fn no_input_makes_a_parser_panic() {
    let mut choices = Choices::seeded(1);
    for round in 0..2_000 {
        accepted(&input(&mut choices, round));
    }
}

#[test]
fn no_damage_to_a_good_input_makes_a_parser_panic() {
    let good = br#"{"id":"a","command":{"base64":"/w=="},"max_retries":3,"timeout":"5m","env":{"A":null}}"#;
    let mut choices = Choices::seeded(42);
    for _ in 0..2_000 {
        let mut input = good.to_vec();
        for _ in 0..=choices.below(3) {
            let at = choices.index(input.len());
            match choices.below(3) {
                0 => input.truncate(at + 1),
                1 => input[at] = u8::try_from(choices.below(256)).unwrap(),
                _ => input.insert(at, u8::try_from(choices.below(128)).unwrap()),
            }
        }
        accepted(&input);
    }
}

#[test]
fn depth_and_length_are_survived() {
    for piece in ["{\"env\":", "[", "{\"a\":[", "{\"command\":\"", "\"", "\\"] {
        accepted(piece.repeat(100_000).as_bytes());
        accepted(format!("{{\"command\":{}", piece.repeat(100_000)).as_bytes());
    }
}
