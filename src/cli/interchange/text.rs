//! The values of the lines: what JSON has no form of its own for.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::de::{Error, MapAccess, Unexpected, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::super::bytes;
use crate::model::{Millis, SettingKey, TimeLimit};

/// Bytes that are mostly text: a string where they are UTF-8, else `{"base64":"…"}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Text(pub Vec<u8>);

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Ok(text) = std::str::from_utf8(&self.0) {
            return serializer.serialize_str(text);
        }
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(bytes::KEY, &bytes::encode(&self.0))?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(bytes::TAKES)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Text, E> {
        Ok(Text(text.as_bytes().to_vec()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Text, E> {
        Ok(Text(text.into_bytes()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Text, A::Error> {
        let Some((key, encoded)) = map.next_entry::<String, String>()?.filter(|(key, _)| key == bytes::KEY) else {
            return Err(A::Error::custom(format_args!("it is not {}", bytes::TAKES)));
        };
        if map.next_key::<String>()?.is_some() {
            return Err(A::Error::custom(format_args!("there is more than `{key}` in a text")));
        }
        bytes::decode(&encoded).map(Text).map_err(A::Error::custom)
    }
}

/// A time: RFC 3339, UTC, with milliseconds. Times that this cannot say are a number of milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct At(pub Millis);

/// The last moment of the year 9999.
const LAST_MS: u64 = 253_402_300_799_999;
/// Longer than any time in that form.
const TIME_BYTES_MAX: usize = 40;

impl Serialize for At {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.0 > LAST_MS { serializer.serialize_u64(self.0.0) } else { serializer.collect_str(&self.0) }
    }
}

impl<'de> Deserialize<'de> for At {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AtVisitor)
    }
}

struct AtVisitor;

impl Visitor<'_> for AtVisitor {
    type Value = At;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a time such as \"2026-01-31T12:00:00.000Z\"")
    }

    fn visit_u64<E: Error>(self, ms: u64) -> Result<At, E> {
        Ok(At(Millis(ms)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<At, E> {
        let time = Some(text).filter(|text| text.len() <= TIME_BYTES_MAX);
        let time = time.and_then(|text| humantime::parse_rfc3339(text).ok());
        let time = time.ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))?;
        Ok(At(Millis::from(time)))
    }
}

/// 128 bits as 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Hex(pub u128);

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:032x}", self.0))
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(HexVisitor)
    }
}

struct HexVisitor;

impl Visitor<'_> for HexVisitor {
    type Value = Hex;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("32 hexadecimal digits")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Hex, E> {
        let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let number = u128::from_str_radix(text, 16).ok().filter(|_| digits);
        number.map(Hex).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

/// A time limit: a number of seconds, a text such as `"5m"`, or `"none"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limit(pub TimeLimit);

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            TimeLimit::Unlimited => serializer.serialize_str("none"),
            TimeLimit::After(limit) if limit.subsec_millis() == 0 => serializer.serialize_u64(limit.as_secs()),
            TimeLimit::After(limit) => serializer.serialize_f64(limit.as_secs_f64()),
        }
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LimitVisitor)
    }
}

struct LimitVisitor;

impl Visitor<'_> for LimitVisitor {
    type Value = Limit;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a number of seconds or {}", SettingKey::Timeout.range())
    }

    fn visit_u64<E: Error>(self, seconds: u64) -> Result<Limit, E> {
        let limit = TimeLimit::from_duration(Duration::from_secs(seconds));
        limit.map(Limit).ok_or_else(|| E::invalid_value(Unexpected::Unsigned(seconds), &self))
    }

    fn visit_f64<E: Error>(self, seconds: f64) -> Result<Limit, E> {
        // To the millisecond, which is what the queue keeps: the nearest number is a hair less or more.
        let limit = Duration::try_from_secs_f64(seconds).ok();
        let limit = limit
            .map(|limit| Duration::from_millis(u64::try_from((limit.as_micros() + 500) / 1_000).unwrap_or(u64::MAX)));
        let limit = limit.and_then(TimeLimit::from_duration);
        limit.map(Limit).ok_or_else(|| E::invalid_value(Unexpected::Float(seconds), &self))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Limit, E> {
        text.parse().map(Limit).map_err(|()| E::invalid_value(Unexpected::Str(text), &self))
    }
}

/// An object whose fields are names of variables; none of them twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(super) struct Named<V>(pub BTreeMap<String, V>);

impl<V> Default for Named<V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<V> Named<V> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Named<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(NamedVisitor(PhantomData))
    }
}

struct NamedVisitor<V>(PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for NamedVisitor<V> {
    type Value = Named<V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object such as {\"NAME\":\"value\"}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Named<V>, A::Error> {
        let mut named = BTreeMap::new();
        while let Some((name, value)) = map.next_entry::<String, V>()? {
            if let Some((name, _)) = named.get_key_value(&name) {
                return Err(A::Error::custom(format_args!("the variable `{name}` is given twice")));
            }
            named.insert(name, value);
        }
        Ok(Named(named))
    }
}
