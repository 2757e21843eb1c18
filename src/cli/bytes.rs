//! Text that need not be UTF-8, in JSON: a string where it is UTF-8, else `{"base64":"…"}`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// The one field of what is not UTF-8.
pub(super) const KEY: &str = "base64";

/// What [`from_json`] takes, for messages.
pub(super) const TAKES: &str = r#"a text, or {"base64":"…"} where it is not UTF-8"#;

/// A JSON value that is no text in either form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadBytes {
    /// Neither a string nor an object with the one field `base64`, itself a string.
    #[error("it is not {TAKES}")]
    Shape,
    /// Another alphabet, no padding, or padding that hides bits.
    #[error("its base64 is not of the standard alphabet with padding")]
    Base64,
}

/// The bytes as JSON.
pub(super) fn to_json(bytes: &[u8]) -> Value {
    std::str::from_utf8(bytes).map_or_else(|_| json!({ KEY: encode(bytes) }), Value::from)
}

/// The bytes that `value` stands for. UTF-8 may come as base64 too.
pub(super) fn from_json(value: &Value) -> Result<Vec<u8>, BadBytes> {
    if let Some(text) = value.as_str() {
        return Ok(text.as_bytes().to_vec());
    }
    let encoded = value.as_object().filter(|object| object.len() == 1).and_then(|object| object.get(KEY)?.as_str());
    decode(encoded.ok_or(BadBytes::Shape)?)
}

/// The value of the field.
pub(super) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The bytes of a value of the field.
pub(super) fn decode(encoded: &str) -> Result<Vec<u8>, BadBytes> {
    STANDARD.decode(encoded).map_err(|_| BadBytes::Base64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_comes_back_as_it_was() {
        for (bytes, shown) in [
            (&b""[..], r#""""#),
            (b"echo hi", r#""echo hi""#),
            ("größe ☃".as_bytes(), r#""größe ☃""#),
            (b"a\0\n\x1b\"\\", r#""a\u0000\n\u001b\"\\""#),
            (b"\xff", r#"{"base64":"/w=="}"#),
            (b"caf\xe9 \xfb\xef\xff", r#"{"base64":"Y2Fm6SD77/8="}"#),
        ] {
            let value = to_json(bytes);
            assert_eq!(value.to_string(), shown);
            assert_eq!(from_json(&serde_json::from_str(shown).unwrap()).unwrap(), bytes);
        }
    }

    #[test]
    fn escapes_are_decoded_and_nothing_else() {
        let value = serde_json::from_str(r#""\u00e9\ud83d\ude00 \\x41 %41 &amp; ""#).unwrap();
        assert_eq!(from_json(&value).unwrap(), "é😀 \\x41 %41 &amp; ".as_bytes());
        assert_eq!(from_json(&json!({"base64": "aGk="})).unwrap(), b"hi");
        assert_eq!(from_json(&json!({"base64": ""})).unwrap(), b"");
    }

    #[test]
    fn other_values_are_refused() {
        for value in [
            json!(null),
            json!(1),
            json!(["a"]),
            json!({}),
            json!({"base64": 1}),
            json!({"base64": "aGk=", "x": 1}),
            json!({"Base64": "aGk="}),
        ] {
            assert_eq!(from_json(&value), Err(BadBytes::Shape), "{value}");
        }
        // No padding, the URL alphabet, bits behind the end, a space.
        for encoded in ["aGk", "_-8=", "aGl=", "aGk =", "a"] {
            assert_eq!(from_json(&json!({"base64": encoded})), Err(BadBytes::Base64), "{encoded}");
        }
    }
}
