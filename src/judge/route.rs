//! Whether a route is in force.

use super::health::{at, list, text};
use crate::model::LiveObject;

/// What must hold of a route, by the Gateway API; a condition that a gateway does not set says nothing.
const NEEDED: [&str; 3] = ["Accepted", "ResolvedRefs", "Programmed"];

/// Whether every gateway that carries an HTTPRoute says of its present generation that it is in force.
///
/// A route that no gateway speaks of is not.
pub fn route_is_in_force(route: &LiveObject) -> bool {
    let generation = at(&route.body, &["metadata", "generation"]).and_then(serde_json::Value::as_i64);
    let parents = list(&route.body, &["status", "parents"]);
    let says = |parent: &serde_json::Value| {
        let of = |kind: &str| {
            list(parent, &["conditions"]).iter().find(|condition| text(condition, &["type"]) == kind)
        };
        let holds = |condition: &serde_json::Value| {
            let observed = at(condition, &["observedGeneration"]).and_then(serde_json::Value::as_i64);
            text(condition, &["status"]) == "True" && observed >= generation
        };
        of("Accepted").is_some() && NEEDED.into_iter().filter_map(of).all(holds)
    };
    !parents.is_empty() && parents.iter().all(says)
}
