//! What is tried: one fault at one call, for all calls that a scenario makes.
#![allow(dead_code, reason = "each test binary uses a part of it")]

#[path = "turn.rs"]
mod turn;

use std::collections::BTreeSet;

use crate::proxy::{Call, Fault, Seen};

/// One fault at one call.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) promise: &'static str,
    pub(crate) call: Call,
    pub(crate) fault: Fault,
}

/// Of all cases those that are tried now: one of `share`, all with `BACKSTAY_FAULTS=all`, those that are asked for by
/// `BACKSTAY_FAULT`.
pub(crate) fn chosen<T>(mut cases: Vec<T>, share: usize, named: impl Fn(&T) -> String) -> Vec<T> {
    if let Some(only) = std::env::var_os("BACKSTAY_FAULT").and_then(|only| only.into_string().ok()) {
        cases.retain(|case| named(case).contains(&only));
    } else if !crate::everything() {
        let turn = turn::of_commit() % share;
        let mut number = 0..;
        cases.retain(|_| number.next().is_some_and(|number: usize| number % share == turn));
    }
    cases
}

/// Which promise a class of faults tries.
fn promise(call: &Call, fault: Fault) -> &'static str {
    match fault {
        Fault::Lost | Fault::Code(410) | Fault::Silence | Fault::Reset | Fault::Truncated if call.verb == "watch" => {
            "K11"
        }
        Fault::CrashBefore | Fault::CrashAfter | Fault::Lost | Fault::Twice | Fault::Slow => "K1",
        Fault::Stale => "K2",
        Fault::Dropped | Fault::Swapped => "K3",
        Fault::Code(429 | 503) => "K10",
        Fault::Code(403) if !call.writes() => "K4",
        Fault::Code(_) | Fault::Reset | Fault::Truncated | Fault::Silence => "K1, K14",
        Fault::Push => "S10",
        Fault::Held => "F1",
        Fault::Clock(_) => "F2",
    }
}

/// What is met late: the daemon tries again what was refused in two minutes, and waits for an answer that does not come.
pub(crate) fn is_slow(case: &Case) -> bool {
    case.fault == Fault::Silence || matches!(case.fault, Fault::Code(403 | 410)) && case.call.writes()
}

/// All cases of stages of which `first` is the first: crash and lost reply at every call, at a watch once for each kind; all
/// else once for each verb and kind.
pub(crate) fn of(calls: &[Seen], first: &str) -> Vec<Case> {
    // Of a kind that nobody writes, no watch tells anything.
    let written: BTreeSet<_> = calls.iter().filter(|seen| seen.call.writes()).map(|seen| &seen.call.resource).collect();
    let told = |resource: &str| {
        resource == "apps/replicasets" || written.iter().any(|known| known.trim_end_matches("/status") == resource)
    };
    let mut cases = vec![];
    let mut sorts = BTreeSet::new();
    let mut seen_calls = BTreeSet::new();
    for seen in calls {
        let call = &seen.call;
        let opens = call.verb == "watch";
        // Once the lease is held, it is renewed at times of its own.
        let renewal = call.is_lease() && call.stage != first;
        let is_new = seen_calls.insert(call.clone());
        if call.stage.is_empty() || renewal || !is_new {
            continue;
        }
        let mut add = |fault: Fault| cases.push(Case { promise: promise(call, fault), call: call.clone(), fault });
        // Of a kind one watch is like the next.
        let is_first = sorts.insert(call.sort());
        if !opens || is_first {
            add(Fault::CrashBefore);
            add(Fault::CrashAfter);
            add(Fault::Lost);
        }
        if !is_first {
            continue;
        }
        for code in [500, 503, 429, 409, 410, 403] {
            // What no server answers to such a call.
            let odd = matches!((code, call.verb.as_str()), (409, "get" | "list" | "watch"));
            if !odd {
                add(Fault::Code(code));
            }
        }
        if opens && told(&call.resource) {
            add(Fault::Dropped);
            add(Fault::Swapped);
        }
        add(Fault::Reset);
        add(Fault::Truncated);
        add(Fault::Silence);
        if call.writes() {
            add(Fault::Twice);
        }
    }
    // A restart on old answers, at each write that follows the install; a push at each write of a change.
    for seen in calls {
        let call = &seen.call;
        if !call.writes() || call.is_lease() || call.resource.ends_with("/events") || seen.dry_run {
            continue;
        }
        if call.stage != first && !call.stage.is_empty() {
            cases.push(Case { promise: "K2", call: call.clone(), fault: Fault::Stale });
        }
        if call.stage == "change" {
            cases.push(Case { promise: "S10", call: call.clone(), fault: Fault::Push });
        }
    }
    cases
}
