//! What the API server sends, read without `managedFields`: often half of an object, and seldom looked at.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// An object, or a list of objects, without `metadata.managedFields`: they are passed over as they are read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Lean(pub(crate) Value);

/// What is being read.
#[derive(Clone, Copy)]
enum Part {
    /// An object or a list.
    Whole,
    /// Its `metadata`.
    Metadata,
    /// The `items` of a list.
    Items,
}

// === impl Lean ===

impl<'de> Deserialize<'de> for Lean {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Part::Whole.deserialize(from).map(Self)
    }
}

// === impl Part ===

impl<'de> DeserializeSeed<'de> for Part {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Part {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = from.next_key::<String>()? {
            let value = match (self, key.as_str()) {
                (Self::Metadata, "managedFields") => {
                    from.next_value::<IgnoredAny>()?;
                    continue;
                }
                (Self::Whole, "metadata") => from.next_value_seed(Self::Metadata)?,
                (Self::Whole, "items") => from.next_value_seed(Self::Items)?,
                _ => from.next_value()?,
            };
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut list = vec![];
        match self {
            Self::Items => {
                while let Some(item) = from.next_element_seed(Self::Whole)? {
                    list.push(item);
                }
            }
            Self::Whole | Self::Metadata => {
                while let Some(element) = from.next_element()? {
                    list.push(element);
                }
            }
        }
        Ok(Value::Array(list))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
}

#[cfg(test)]
mod tests {
    use kube::core::WatchEvent;
    use serde_json::json;

    use super::*;

    fn read(text: &Value) -> Value {
        let Lean(read) = serde_json::from_str(&text.to_string()).expect("JSON");
        read
    }

    #[test]
    fn nothing_is_left_out_but_managed_fields_where_they_are_the_servers() {
        let spec = json!({"metadata": {"managedFields": [1]}, "items": [{"metadata": {"managedFields": 1}}], "n": [1, -1,
            1.5, u64::MAX, null, true, "a", {"b": []}]});
        let object = |metadata: Value| json!({"kind": "Thing", "metadata": metadata, "spec": spec});
        let (with, without) = (json!({"name": "a", "managedFields": [{}]}), json!({"name": "a"}));
        assert_eq!(read(&object(with.clone())), object(without.clone()));
        assert_eq!(read(&object(without.clone())), object(without.clone()));
        let list = |metadata: Value| json!({"kind": "ThingList", "metadata": {"continue": "x"}, "items": [object(metadata), 7]});
        assert_eq!(read(&list(with.clone())), list(without.clone()));
        for other in
            [json!(7), json!(null), json!("a"), json!([{"metadata": with}]), json!({"items": null, "metadata": 7})]
        {
            assert_eq!(read(&other), other);
        }
        assert!(serde_json::from_str::<Lean>("{\"a\": ").is_err());
    }

    #[test]
    fn an_event_of_a_watch_is_read_whatever_comes_first() {
        let object = r#""object":{"metadata":{"name":"a","managedFields":[{}]}}"#;
        for text in [format!("{{\"type\":\"ADDED\",{object}}}"), format!("{{{object},\"type\":\"ADDED\"}}")] {
            let event: WatchEvent<Lean> = serde_json::from_str(&text).expect("an event");
            let WatchEvent::Added(Lean(read)) = event else { panic!("{event:?}") };
            assert_eq!(read, json!({"metadata": {"name": "a"}}));
        }
    }
}
