//! `flags.json` after flagd's schema v0 (`https://flagd.dev/schema/v0/flags.json`).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// Operators of JsonLogic and those that flagd adds.
const OPERATORS: [&str; 38] = [
    "var",
    "missing",
    "missing_some",
    "if",
    "==",
    "===",
    "!=",
    "!==",
    "!",
    "!!",
    "or",
    "and",
    ">",
    ">=",
    "<",
    "<=",
    "max",
    "min",
    "+",
    "-",
    "*",
    "/",
    "%",
    "map",
    "reduce",
    "filter",
    "all",
    "none",
    "some",
    "merge",
    "in",
    "cat",
    "substr",
    "fractional",
    "starts_with",
    "ends_with",
    "sem_ver",
    "$ref",
];

/// Levels of a targeting rule.
const MAX_DEPTH: usize = 32;

/// All flags of one agent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FlagSet {
    /// By key.
    pub flags: BTreeMap<String, Flag>,
    /// Rules that flags share, by name.
    pub evaluators: BTreeMap<String, Value>,
    /// Given with every evaluation.
    pub metadata: Map<String, Value>,
}

/// One flag.
#[derive(Debug, Clone, PartialEq)]
pub struct Flag {
    /// `ENABLED`; a disabled flag is as if it were not there.
    pub enabled: bool,
    /// Values by name, all of one kind.
    pub variants: BTreeMap<String, Value>,
    /// What their values are.
    pub kind: VariantKind,
    /// The variant where no rule says otherwise; absent: the default in the agent's code.
    pub default_variant: Option<String>,
    /// A rule in JsonLogic that gives the name of a variant.
    pub targeting: Option<Value>,
    /// Given with every evaluation of this flag.
    pub metadata: Map<String, Value>,
}

/// What the values of a flag are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VariantKind {
    /// `true` and `false`.
    Boolean,
    /// Text.
    String,
    /// Numbers.
    Number,
    /// Maps.
    Object,
}

/// What is wrong with one place of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Keys and indices from the top.
    pub path: Vec<String>,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// The way out.
    pub hint: Option<String>,
}

/// Reads the definitions.
///
/// # Errors
///
/// All that is wrong with them.
pub fn parse(file: &Value) -> Result<FlagSet, Vec<Problem>> {
    let mut reader = Reader { problems: vec![], path: vec![] };
    let set = reader.file(file);
    if reader.problems.is_empty() { Ok(set) } else { Err(reader.problems) }
}

struct Reader {
    problems: Vec<Problem>,
    path: Vec<String>,
}

// === impl VariantKind ===

impl VariantKind {
    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Bool(_) => Some(Self::Boolean),
            Value::String(_) => Some(Self::String),
            Value::Number(_) => Some(Self::Number),
            Value::Object(_) => Some(Self::Object),
            Value::Null | Value::Array(_) => None,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Boolean => "a boolean",
            Self::String => "text",
            Self::Number => "a number",
            Self::Object => "a map",
        }
    }
}

// === impl Reader ===

impl Reader {
    fn refuse(&mut self, message: impl Into<String>, hint: Option<&str>) {
        self.problems.push(Problem { path: self.path.clone(), message: message.into(), hint: hint.map(str::to_owned) });
    }

    #[expect(clippy::needless_pass_by_value, reason = "names and places are both steps")]
    fn within<T>(&mut self, step: impl ToString, read: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(step.to_string());
        let result = read(self);
        self.path.pop();
        result
    }

    fn map<'v>(&mut self, value: &'v Value, what: &str) -> Option<&'v Map<String, Value>> {
        let map = value.as_object();
        if map.is_none() {
            self.refuse(format!("{what} is no map"), None);
        }
        map
    }

    fn known_fields(&mut self, fields: &Map<String, Value>, known: &[&str]) {
        for key in fields.keys().filter(|key| !known.contains(&key.as_str())) {
            let allowed = known.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
            self.within(key, |reader| {
                reader.refuse(
                    format!("unknown field `{}`", key.escape_debug()),
                    Some(&format!("allowed here: {allowed}")),
                );
            });
        }
    }

    fn metadata(&mut self, fields: &Map<String, Value>) -> Map<String, Value> {
        let Some(metadata) = fields.get("metadata") else { return Map::new() };
        self.within("metadata", |reader| {
            let Some(metadata) = reader.map(metadata, "`metadata`") else { return Map::new() };
            for (key, value) in metadata {
                if !matches!(value, Value::String(_) | Value::Number(_) | Value::Bool(_)) {
                    reader.within(key, |reader| reader.refuse("text, a number or a boolean is expected", None));
                }
            }
            metadata.clone()
        })
    }

    fn file(&mut self, file: &Value) -> FlagSet {
        let Some(fields) = self.map(file, "the file") else { return FlagSet::default() };
        self.known_fields(fields, &["$schema", "flags", "$evaluators", "metadata"]);
        let mut set = FlagSet { metadata: self.metadata(fields), ..FlagSet::default() };
        if let Some(evaluators) = fields.get("$evaluators") {
            set.evaluators = self.within("$evaluators", |reader| {
                let rules = reader.map(evaluators, "`$evaluators`");
                rules.into_iter().flatten().map(|(name, rule)| (name.clone(), rule.clone())).collect()
            });
            let names: BTreeSet<String> = set.evaluators.keys().cloned().collect();
            for (name, rule) in &set.evaluators {
                self.within("$evaluators", |reader| reader.within(name, |reader| reader.rule(rule, &names, None, 0)));
            }
            self.no_cycle(&set.evaluators);
        }
        match fields.get("flags") {
            None => self.refuse("`flags` is missing", None),
            Some(flags) => self.within("flags", |reader| {
                let Some(flags) = reader.map(flags, "`flags`") else { return };
                let names: BTreeSet<String> = set.evaluators.keys().cloned().collect();
                for (key, flag) in flags {
                    if let Some(flag) = reader.within(key, |reader| reader.flag(flag, &names)) {
                        set.flags.insert(key.clone(), flag);
                    }
                }
            }),
        }
        set
    }

    fn flag(&mut self, flag: &Value, evaluators: &BTreeSet<String>) -> Option<Flag> {
        let fields = self.map(flag, "the flag")?;
        self.known_fields(fields, &["state", "variants", "defaultVariant", "targeting", "metadata"]);
        let enabled = match fields.get("state").map(Value::as_str) {
            Some(Some("ENABLED")) => true,
            Some(Some("DISABLED")) => false,
            Some(_) => {
                self.within("state", |reader| reader.refuse("`state` is `ENABLED` or `DISABLED`", None));
                false
            }
            None => {
                self.refuse("`state` is missing", Some("it is `ENABLED` or `DISABLED`"));
                false
            }
        };
        let variants = fields.get("variants");
        if variants.is_none() {
            self.refuse("`variants` is missing", None);
        }
        let (variants, kind) = self.within("variants", |reader| reader.variants(variants?))?;
        let default_variant = match fields.get("defaultVariant") {
            None | Some(Value::Null) => None,
            Some(Value::String(name)) if variants.contains_key(name) => Some(name.clone()),
            Some(_) => {
                let names = variants.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
                let message = "`defaultVariant` names no variant";
                self.within("defaultVariant", |reader| reader.refuse(message, Some(&format!("there are {names}"))));
                None
            }
        };
        let targeting = match fields.get("targeting") {
            None => None,
            Some(Value::Object(rule)) if rule.is_empty() => None,
            Some(rule) => {
                self.within("targeting", |reader| {
                    if rule.is_object() {
                        reader.rule(rule, evaluators, Some(&variants), 0);
                    } else {
                        reader.refuse("`targeting` is no map", None);
                    }
                });
                Some(rule.clone())
            }
        };
        let metadata = self.metadata(fields);
        Some(Flag { enabled, variants, kind, default_variant, targeting, metadata })
    }

    fn variants(&mut self, variants: &Value) -> Option<(BTreeMap<String, Value>, VariantKind)> {
        let variants = self.map(variants, "`variants`")?;
        let mut kinds = variants.values().filter_map(VariantKind::of);
        let Some(kind) = kinds.next() else {
            self.refuse("`variants` holds no value", None);
            return None;
        };
        for (name, value) in variants {
            if VariantKind::of(value) != Some(kind) {
                let message = format!("the values of a flag are of one kind: {} is expected", kind.word());
                self.within(name, |reader| reader.refuse(message, None));
            }
        }
        Some((variants.clone().into_iter().collect(), kind))
    }

    fn rule(
        &mut self,
        rule: &Value,
        evaluators: &BTreeSet<String>,
        variants: Option<&BTreeMap<String, Value>>,
        depth: usize,
    ) {
        if depth > MAX_DEPTH {
            return self.refuse(format!("the rule is nested more than {MAX_DEPTH} levels deep"), None);
        }
        match rule {
            Value::Array(items) => {
                for (n, item) in items.iter().enumerate() {
                    self.within(n, |reader| reader.rule(item, evaluators, variants, depth + 1));
                }
            }
            Value::Object(fields) => {
                let Some((operator, operands)) = fields.iter().next().filter(|_| fields.len() == 1) else {
                    return self.refuse("a rule is a map with one operator", None);
                };
                self.within(operator, |reader| {
                    if !OPERATORS.contains(&operator.as_str()) {
                        let hint =
                            "JsonLogic's operators, `fractional`, `starts_with`, `ends_with` and `sem_ver` are known";
                        reader.refuse(format!("unknown operator `{}`", operator.escape_debug()), Some(hint));
                        return;
                    }
                    reader.operator(operator, operands, evaluators, variants);
                    reader.rule(operands, evaluators, variants, depth + 1);
                });
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// What an operator asks of its operands beyond being rules.
    fn operator(
        &mut self,
        operator: &str,
        operands: &Value,
        evaluators: &BTreeSet<String>,
        variants: Option<&BTreeMap<String, Value>>,
    ) {
        match operator {
            "$ref" if !operands.as_str().is_some_and(|name| evaluators.contains(name)) => {
                self.refuse("`$ref` names no rule of `$evaluators`", None);
            }
            "starts_with" | "ends_with" if operands.as_array().is_none_or(|operands| operands.len() != 2) => {
                self.refuse(format!("`{operator}` takes two operands"), None);
            }
            "sem_ver" => match operands.as_array().map(|operands| (operands.len(), operands.get(1))) {
                Some((3, Some(Value::String(comparison))))
                    if ["=", "!=", "<", "<=", ">", ">=", "^", "~"].contains(&comparison.as_str()) => {}
                _ => self.refuse("`sem_ver` takes a version, a comparison and a version", None),
            },
            "fractional" => self.fractional(operands, variants),
            _ => {}
        }
    }

    /// `[expression?, [variant, weight?] …]`
    fn fractional(&mut self, operands: &Value, variants: Option<&BTreeMap<String, Value>>) {
        let Some(operands) = operands.as_array() else {
            return self.refuse("`fractional` takes a list of `[variant, weight]`", None);
        };
        let mut buckets = 0;
        for (n, operand) in operands.iter().enumerate() {
            // The first may be what is hashed.
            let Value::Array(bucket) = operand else {
                if n > 0 {
                    self.within(n, |reader| reader.refuse("`[variant, weight]` is expected", None));
                }
                continue;
            };
            buckets += 1;
            self.within(n, |reader| {
                match bucket.first() {
                    Some(Value::String(name)) if variants.is_some_and(|known| !known.contains_key(name)) => {
                        reader.refuse(format!("`{}` is no variant of the flag", name.escape_debug()), None);
                    }
                    Some(_) => {}
                    None => reader.refuse("`[variant, weight]` is expected", None),
                }
                if bucket.len() > 2 || bucket.get(1).is_some_and(|weight| weight.is_number() && !weight.is_u64()) {
                    reader.refuse("a weight is a whole number, 0 or more", None);
                }
            });
        }
        if buckets == 0 {
            self.refuse("`fractional` has no bucket", None);
        }
    }

    fn no_cycle(&mut self, evaluators: &BTreeMap<String, Value>) {
        let uses: BTreeMap<&str, BTreeSet<&str>> =
            evaluators.iter().map(|(name, rule)| (name.as_str(), references(rule))).collect();
        for name in evaluators.keys() {
            let (mut seen, mut next) = (BTreeSet::new(), vec![name.as_str()]);
            while let Some(at) = next.pop() {
                for used in uses.get(at).into_iter().flatten().filter(|used| seen.insert(**used)) {
                    next.push(used);
                }
            }
            if seen.contains(name.as_str()) {
                self.within("$evaluators", |reader| {
                    reader.within(name, |reader| reader.refuse("the rule refers to itself", None));
                });
            }
        }
    }
}

/// The rules that a rule refers to.
fn references(rule: &Value) -> BTreeSet<&str> {
    match rule {
        Value::Array(items) => items.iter().flat_map(references).collect(),
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(operator, operands)| match operands.as_str() {
                Some(name) if operator == "$ref" => BTreeSet::from([name]),
                _ => references(operands),
            })
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => BTreeSet::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(file: &Value) -> Vec<String> {
        let problems = parse(file).expect_err("a problem");
        problems.into_iter().map(|problem| format!("/{}: {}", problem.path.join("/"), problem.message)).collect()
    }

    #[test]
    fn definitions_of_flagd_are_read() {
        let set = parse(&json!({
            "$schema": "https://flagd.dev/schema/v0/flags.json",
            "$evaluators": {"staff": {"ends_with": [{"var": "email"}, "@example.com"]}},
            "metadata": {"team": "support"},
            "flags": {
                "refunds": {
                    "state": "ENABLED",
                    "variants": {"on": true, "off": false},
                    "defaultVariant": "off",
                    "targeting": {"if": [{"$ref": "staff"}, "on", {"fractional": [["on", 10], ["off", 90]]}]},
                    "metadata": {"since": 2}
                },
                "style": {"state": "DISABLED", "variants": {"a": "x", "b": "y"}, "defaultVariant": null, "targeting": {}}
            }
        }))
        .expect("flags");
        assert!(set.flags["refunds"].enabled && !set.flags["style"].enabled);
        assert_eq!(set.flags["refunds"].kind, VariantKind::Boolean);
        assert_eq!((set.flags["style"].default_variant.as_ref(), set.flags["style"].targeting.as_ref()), (None, None));
    }

    #[test]
    fn what_flagd_would_not_read_is_named() {
        assert_eq!(refused(&json!([])), ["/: the file is no map"]);
        assert_eq!(refused(&json!({"flag": {}})), ["/flag: unknown field `flag`", "/: `flags` is missing"]);
        let flag = |flag: Value| refused(&json!({"flags": {"a": flag}, "$evaluators": {"r": {"var": "x"}}}));
        let with = |key: &str, value: Value| {
            let mut whole = json!({"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "on"});
            whole[key] = value;
            flag(whole)
        };
        assert_eq!(flag(json!(1)), ["/flags/a: the flag is no map"]);
        assert_eq!(flag(json!({})), ["/flags/a: `state` is missing", "/flags/a: `variants` is missing"]);
        assert_eq!(with("state", json!("on")), ["/flags/a/state: `state` is `ENABLED` or `DISABLED`"]);
        assert_eq!(with("variants", json!({})), ["/flags/a/variants: `variants` holds no value"]);
        assert_eq!(
            with("variants", json!({"on": true, "x": 1})),
            ["/flags/a/variants/x: the values of a flag are of one kind: a boolean is expected"]
        );
        assert_eq!(with("defaultVariant", json!("of")), ["/flags/a/defaultVariant: `defaultVariant` names no variant"]);
        assert_eq!(
            with("metadata", json!({"a": []})),
            ["/flags/a/metadata/a: text, a number or a boolean is expected"]
        );
        let rule = |rule: Value| with("targeting", rule);
        assert_eq!(rule(json!("on")), ["/flags/a/targeting: `targeting` is no map"]);
        assert_eq!(rule(json!({"a": 1, "b": 2})), ["/flags/a/targeting: a rule is a map with one operator"]);
        assert_eq!(rule(json!({"iff": []})), ["/flags/a/targeting/iff: unknown operator `iff`"]);
        assert_eq!(rule(json!({"$ref": "q"})), ["/flags/a/targeting/$ref: `$ref` names no rule of `$evaluators`"]);
        assert_eq!(rule(json!({"ends_with": [1]})), ["/flags/a/targeting/ends_with: `ends_with` takes two operands"]);
        assert_eq!(
            rule(json!({"sem_ver": [{"var": "v"}, "==", "1.0.0"]})),
            ["/flags/a/targeting/sem_ver: `sem_ver` takes a version, a comparison and a version"]
        );
        assert_eq!(
            rule(json!({"fractional": [["onn", 10], ["off", -1], 7, []]})),
            [
                "/flags/a/targeting/fractional/0: `onn` is no variant of the flag",
                "/flags/a/targeting/fractional/1: a weight is a whole number, 0 or more",
                "/flags/a/targeting/fractional/2: `[variant, weight]` is expected",
                "/flags/a/targeting/fractional/3: `[variant, weight]` is expected",
            ]
        );
        assert_eq!(
            rule(json!({"fractional": [{"var": "x"}]})),
            ["/flags/a/targeting/fractional: `fractional` has no bucket"]
        );
        assert_eq!(
            rule(json!({"fractional": "x"})),
            ["/flags/a/targeting/fractional: `fractional` takes a list of `[variant, weight]`"]
        );
        let deep = (0..40).fold(json!("on"), |rule, _| json!({"!": [rule]}));
        assert!(rule(deep)[0].ends_with("the rule is nested more than 32 levels deep"));
        assert_eq!(
            refused(&json!({"flags": {}, "$evaluators": {"a": {"$ref": "b"}, "b": {"!": [{"$ref": "a"}]}}})),
            ["/$evaluators/a: the rule refers to itself", "/$evaluators/b: the rule refers to itself"]
        );
    }
}
