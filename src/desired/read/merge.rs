//! Merging trees that keep the place where each value was written.

use super::{Field, Kind, Map, Node};

/// Applies `patch` to `target` as a JSON merge patch (RFC 7396).
///
/// Every value of the result points into the file that it came from; the map as a whole keeps the target's place.
pub(in crate::desired) fn patch(target: Node, patch: &Node) -> Node {
    let Kind::Map(Map(fields)) = &patch.kind else { return patch.clone() };
    let (spot, mut merged) = match target.kind {
        Kind::Map(Map(fields)) => (target.spot, fields),
        Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::Text(_) | Kind::List(_) => (patch.spot.clone(), vec![]),
    };
    for field in fields {
        let position = merged.iter().position(|known| known.key == field.key);
        match (&field.value.kind, position) {
            (Kind::Null, Some(n)) => {
                merged.remove(n);
            }
            (Kind::Null, None) => {}
            (_, Some(n)) => {
                let known = merged.remove(n);
                let spot = if field.value.map().is_some() && known.value.map().is_some() {
                    known.spot
                } else {
                    field.spot.clone()
                };
                let value = self::patch(known.value, &field.value);
                merged.insert(n, Field { key: known.key, spot, value });
            }
            (_, None) => {
                let value = self::patch(Node::empty(field.value.spot.clone()), &field.value);
                merged.push(Field { key: field.key.clone(), spot: field.spot.clone(), value });
            }
        }
    }
    Node { spot, kind: Kind::Map(Map(merged)) }
}

/// Lays `defaults` beneath `node`: maps are joined, anything else that `node` says stays.
///
/// A field that is empty in `node` takes the default away; where there is no default, it stays as it was written.
pub(in crate::desired) fn beneath(defaults: &Node, node: Node) -> Node {
    let Node { spot, kind: Kind::Map(Map(mut fields)) } = node else { return node };
    for default in defaults.fields() {
        match fields.iter().position(|field| field.key == default.key) {
            None => fields.push(default.clone()),
            Some(n) if matches!(fields[n].value.kind, Kind::Null) => {
                fields.remove(n);
            }
            Some(n) => {
                let field = fields.remove(n);
                let value = beneath(&default.value, field.value);
                fields.insert(n, Field { value, ..field });
            }
        }
    }
    Node { spot, kind: Kind::Map(Map(fields)) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::{Source, parse_json};
    use super::*;

    fn node(file: &str, value: &Value) -> Node {
        parse_json(&Source::new(file, value.to_string())).expect("JSON")
    }

    // RFC 7396, appendix A.
    #[test]
    fn patches_as_in_the_rfc() {
        for (target, change, result) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a": "b"}), json!(["c"]), json!(["c"])),
            (json!({"a": "foo"}), json!(null), json!(null)),
            (json!({"a": "foo"}), json!("bar"), json!("bar")),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            let merged = patch(node("target", &target), &node("patch", &change));
            assert_eq!(merged.to_value(), result, "{target} with {change}");
        }
    }

    #[test]
    fn every_value_points_into_the_file_it_came_from() {
        let base = node("base", &json!({"a": {"b": 1, "c": 2}, "d": 3}));
        let merged = patch(base, &node("overlay", &json!({"a": {"b": 9}, "e": 4})));
        let file = |path: &[&str]| merged.at(path.iter().copied()).expect("a value").spot.file().to_owned();
        assert_eq!(file(&["a", "b"]), "overlay");
        assert_eq!(file(&["a", "c"]), "base");
        assert_eq!(file(&["a"]), "base");
        assert_eq!(file(&["d"]), "base");
        assert_eq!(file(&["e"]), "overlay");
    }

    #[test]
    fn defaults_lie_beneath() {
        let defaults = node("defaults", &json!({"a": {"x": 1, "y": 2}, "b": [1], "c": 5}));
        let merged = beneath(&defaults, node("agent", &json!({"a": {"y": 3}, "b": [2], "c": null, "d": null})));
        assert_eq!(merged.to_value(), json!({"a": {"x": 1, "y": 3}, "b": [2], "d": null}));
    }
}
