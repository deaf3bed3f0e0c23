//! JSON without the liberties of JSON: no member twice, no deep nesting, no endless documents.
//!
//! Parsers disagree on which of two equal members wins (RFC 8259, section 4), and a verifier that reads another
//! one than its neighbour can be talked into anything; so a document that has two is refused.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// How large a document may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Objects and arrays within each other.
    pub(crate) depth: usize,
    /// Values altogether.
    pub(crate) values: usize,
}

/// Reads `bytes` as one JSON object.
pub(crate) fn object(bytes: &[u8], limits: Limits) -> Result<Map<String, Value>, serde_json::Error> {
    let left = Cell::new(limits.values);
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { depth: limits.depth, left: &left }.deserialize(&mut reader)?;
    reader.end()?;
    match value {
        Value::Object(map) => Ok(map),
        _ => Err(Error::custom("not an object")),
    }
}

#[derive(Clone, Copy)]
struct Strict<'a> {
    depth: usize,
    left: &'a Cell<usize>,
}

impl Strict<'_> {
    fn inner<E: Error>(self) -> Result<Self, E> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| E::custom("nested too deeply"))?;
        Ok(Self { depth, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let left = self.left.get().checked_sub(1).ok_or_else(|| D::Error::custom("too many values"))?;
        self.left.set(left);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut map = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(inner)?;
            if map.insert(name, value).is_some() {
                return Err(Error::custom("a member appears twice"));
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { depth: 3, values: 6 };

    #[test]
    fn what_is_plain_is_read_as_it_is() {
        let text = r#"{"a": [1, -2, "x"], "b": {"c": 1.5}}"#;
        assert_eq!(
            Value::Object(object(text.as_bytes(), Limits { depth: 2, values: 8 }).unwrap()),
            serde_json::from_str::<Value>(text).unwrap()
        );
    }

    #[test]
    fn liberties_are_refused() {
        for text in [
            r#"{"a": 1, "a": 1}"#,
            r#"{"a": 1, "\u0061": 2}"#,
            r#"{"x": {"a": 1, "a": 2}}"#,
            r#"{"x": [{"a": 1, "a": 2}]}"#,
            r#"{"a": [[[1]]]}"#,
            r#"{"a": [1, 2, 3, 4, 5]}"#,
            r"[1]",
            r#""text""#,
            r"{} {}",
            r"{}x",
            r#"{"a": NaN}"#,
            r#"{"a": 1e999}"#,
            r#"{"a": 1,}"#,
            "",
            "{\"a\": \"\u{1}\"}",
        ] {
            assert!(object(text.as_bytes(), LIMITS).is_err(), "{text}");
        }
        assert!(object(b"{\"a\": \"\xff\"}", LIMITS).is_err());
    }
}
