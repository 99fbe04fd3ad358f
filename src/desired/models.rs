//! Models: entries of the catalogue and fallbacks inlined.

use std::collections::BTreeMap;

use serde_json::Value;

use super::agent::Context;
use super::read::{ComponentName, Day, Field, Kind, Map, Node, Spot, check, closest, list_of, patch};
use super::written::{self, Model};
use crate::model::{Diagnostic, Timestamp};

/// Days before a model retires in which that is a warning.
const SOON: i64 = 30;

/// When a model that an agent uses is taken away.
#[derive(Debug, Clone)]
pub(super) struct Retirement {
    day: String,
    at: Timestamp,
    model: String,
    /// Where it is said; the message is filled in when it is known what time it is.
    place: Diagnostic,
}

/// The model of each role, and when they retire.
pub(super) fn read(
    context: &Context<'_>,
    models: &BTreeMap<String, Model>,
    at: &Node,
) -> (BTreeMap<String, Value>, Vec<Retirement>) {
    let (mut read, mut retirements) = (BTreeMap::new(), vec![]);
    for (role, model) in models {
        if context.has_enough() {
            break;
        }
        let Some(node) = at.get(role) else { continue };
        let own = without(node, &["use", "fallbacks"]);
        let whole = match &model.r#use {
            None => Some(own),
            Some(name) => entry(context, name, node.nearest(["use"])).map(|entry| patch(entry, &own)),
        };
        let fallbacks: Option<Vec<Node>> = model
            .fallbacks
            .iter()
            .zip(node.get("fallbacks").and_then(Node::list).unwrap_or_default())
            .map(|(name, item)| entry(context, name, &item.spot))
            .collect();
        let (Some(whole), Some(fallbacks)) = (whole, fallbacks) else { continue };
        let found = check(written::catalogue_entry(), &whole);
        if found.has_errors() {
            found.0.into_iter().for_each(|error| {
                let message = error.message.replace("the file", &format!("the model `{role}`"));
                let error = Diagnostic { message, ..error };
                // Written out, it is the place of the role that lacks something.
                context.error(if model.r#use.is_some() {
                    error
                } else {
                    error.hint("or take it from the catalogue: `use: <name>`")
                });
            });
            continue;
        }
        for used in std::iter::once(&whole).chain(&fallbacks) {
            retirements.extend(retirement(used));
        }
        let mut value = without(&whole, &["retires"]).to_value();
        if let Some(fields) = value.as_object_mut()
            && !fallbacks.is_empty()
        {
            let inlined = fallbacks.iter().map(|fallback| without(fallback, &["retires"]).to_value()).collect();
            fields.insert("fallbacks".to_owned(), Value::Array(inlined));
        }
        read.insert(role.clone(), value);
    }
    (read, retirements)
}

/// The entry of the catalogue that is called `name` at `spot`.
fn entry(context: &Context<'_>, name: &ComponentName, spot: &Spot) -> Option<Node> {
    let catalogue = match context.catalogue() {
        Ok(catalogue) => catalogue,
        Err(errors) => {
            context.errors(errors);
            return None;
        }
    };
    let found = catalogue.get(&name.0);
    if found.is_none() && !context.has_enough() {
        let known = || catalogue.fields().iter().map(|field| &*field.key);
        let error = spot.error(format!("the catalogue `shared/models.yaml` has no model `{}`", name.0));
        context.error(match closest(&name.0, known()) {
            Some(meant) => error.hint(format!("did you mean `{meant}`?")),
            None if known().next().is_none() => error.hint("it is empty or missing"),
            None => error.hint(format!("it has {}", list_of(known(), "and"))),
        });
    }
    found.filter(|entry| context.may_copy(entry, spot)).cloned()
}

/// A map without some of its fields.
fn without(node: &Node, keys: &[&str]) -> Node {
    let fields: Vec<Field> = node.fields().iter().filter(|field| !keys.contains(&&*field.key)).cloned().collect();
    Node { spot: node.spot.clone(), kind: Kind::Map(Map(fields)) }
}

fn retirement(model: &Node) -> Option<Retirement> {
    let day = model.get("retires")?;
    let text = day.text()?.to_owned();
    let at = Day(text.clone()).start()?;
    let name = model.get("model").and_then(Node::text).unwrap_or_default().to_owned();
    Some(Retirement { day: text, at, model: name, place: day.spot.error("") })
}

// === impl Retirement ===

impl Retirement {
    /// What to say of it at `now`: nothing while it is far away.
    pub(super) fn at(&self, now: Timestamp) -> Option<Diagnostic> {
        let say = |message: String| Diagnostic { message, ..self.place.clone() };
        let left = self.at.as_second() - now.as_second();
        if left <= 0 {
            let message = format!("the model `{}` has retired on {}", self.model, self.day);
            return Some(say(message).hint("use another model: a release with this one would not answer"));
        }
        if left < SOON * 86_400 {
            let warning = say(format!("the model `{}` retires on {}", self.model, self.day));
            let warning = Diagnostic { severity: crate::model::Severity::Warning, ..warning };
            return Some(
                warning.hint("move to another one before: after that day no release with it can be the way back"),
            );
        }
        None
    }
}
