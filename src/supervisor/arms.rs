//! The releases that share the requests of an agent, and what each gets: pure arithmetic on what is ready.

use kube::ResourceExt as _;

use super::table::{Serving, launch, serving_set};
use super::view::{Process, Set};
use crate::model::ReleaseId;
use crate::proxy::{Address, Arm, Instance, Protocol, Role, WHOLE};

/// One backend, with what is ready of it.
pub(super) struct Side<'p> {
    /// As it is named where it is asked for.
    pub(super) name: String,
    /// Proportional.
    pub(super) weight: u64,
    /// The Deployment behind it.
    pub(super) process: Option<&'p Process<'p>>,
    set: Option<&'p Set<'p>>,
    /// What serves there, or would.
    pub(super) release: Option<ReleaseId>,
    pub(super) instances: Vec<Instance>,
}

// === impl Side ===

impl<'p> Side<'p> {
    pub(super) fn of(
        name: String,
        weight: u64,
        process: Option<&'p Process<'p>>,
        serving: &Serving,
        address: &impl Fn(&str) -> Option<Address>,
    ) -> Self {
        let serves = process.and_then(|process| serving.get(&process.deployment.name_any())).map(String::as_str);
        let chosen = process.and_then(|process| serving_set(process, serves));
        let instance = |pod: &k8s_openapi::api::core::v1::Pod| {
            let id = pod.name_any();
            let address = address(&id)?;
            Some(Instance { generation: launch(pod.annotations()), id, address, protocol: Protocol::default() })
        };
        let ready = chosen.into_iter().flat_map(|(set, wanted)| set.ready(wanted));
        let release = chosen.and_then(|(set, _)| set.release());
        Self {
            name,
            weight,
            process,
            set: chosen.map(|(set, _)| set),
            release: release.or_else(|| process?.release),
            // What runs no release that is known cannot be told apart from others.
            instances: ready.filter(|_| release.is_some()).filter_map(|member| instance(member.object)).collect(),
        }
    }

    /// The Deployment, with the set of it that requests go to.
    pub(super) fn serving(&self) -> Option<(String, String)> {
        Some((self.process?.deployment.name_any(), self.set?.object.name_any()))
    }
}

/// The arms of an agent: of stable, then of the candidate; none where nothing is ready.
///
/// The weights sum to [`WHOLE`]: what has nothing ready leaves its own to the other.
pub(super) fn arms(sides: &[Side<'_>]) -> Vec<Arm> {
    let all: u64 = sides.iter().map(|side| side.weight).sum();
    let mut left = WHOLE;
    let mut arms: Vec<Arm> = vec![];
    // The last one first, so that what rounding leaves is stable's.
    for (index, side) in sides.iter().enumerate().rev() {
        let Some(release) = side.release.filter(|_| !side.instances.is_empty()) else { continue };
        let whole = u64::from(WHOLE);
        let part = (side.weight * whole + all / 2).checked_div(all).and_then(|part| u32::try_from(part).ok());
        let weight = part.unwrap_or(0).min(left);
        left -= weight;
        let role = if index == 0 { Role::Stable } else { Role::Candidate };
        // One release on both sides is one arm.
        if let Some(same) = arms.iter_mut().find(|arm| arm.release == release) {
            same.role = role;
            same.weight += weight;
            let known: Vec<_> = same.instances.iter().map(|instance| instance.id.clone()).collect();
            let further = side.instances.iter().filter(|instance| !known.contains(&instance.id));
            same.instances.extend(further.cloned());
        } else {
            arms.push(Arm { release, role, weight, instances: side.instances.clone() });
        }
    }
    arms.reverse();
    // What rounding left, and who is not there.
    if let Some(first) = arms.first_mut() {
        first.weight += left;
    }
    arms
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(name: &str, weight: u64, ready: usize) -> Side<'static> {
        let instance = |n| Instance {
            id: format!("{name}-{n}"),
            generation: 1,
            address: super::super::probe::local(1),
            protocol: Protocol::default(),
        };
        Side {
            name: name.to_owned(),
            weight,
            process: None,
            set: None,
            release: Some(ReleaseId::of(name.as_bytes())),
            instances: (0..ready).map(instance).collect(),
        }
    }

    fn weights(sides: &[Side<'_>]) -> Vec<(Role, u32)> {
        arms(sides).iter().map(|arm| (arm.role, arm.weight)).collect()
    }

    #[test]
    fn weights_are_hundredths_of_a_percent() {
        use Role::{Candidate, Stable};
        for (stable, candidate, parts) in [
            (95, 5, (9_500, 500)),
            (0, 100, (0, 10_000)),
            (100, 0, (10_000, 0)),
            (2, 1, (6_667, 3_333)),
            (1, 1, (5_000, 5_000)),
        ] {
            let found = weights(&[side("s", stable, 1), side("c", candidate, 2)]);
            assert_eq!(found, [(Stable, parts.0), (Candidate, parts.1)], "{stable}:{candidate}");
        }
        assert_eq!(weights(&[side("s", 100, 1)]), [(Stable, 10_000)]);
    }

    #[test]
    fn who_has_nothing_ready_leaves_its_part_to_the_other() {
        use Role::{Candidate, Stable};
        for (stable, candidate) in [(95, 5), (100, 0), (0, 100), (0, 0)] {
            assert_eq!(weights(&[side("s", stable, 0), side("c", candidate, 1)]), [(Candidate, 10_000)]);
            assert_eq!(weights(&[side("s", stable, 1), side("c", candidate, 0)]), [(Stable, 10_000)]);
            assert_eq!(weights(&[side("s", stable, 0), side("c", candidate, 0)]), []);
        }
        assert_eq!(weights(&[side("s", 0, 1), side("c", 0, 1)]), [(Stable, 10_000), (Candidate, 0)]);
    }

    #[test]
    fn one_release_on_both_sides_is_one_arm() {
        let twice = Side { release: Some(ReleaseId::of(b"s")), ..side("c", 40, 2) };
        let same = Side { release: Some(ReleaseId::of(b"s")), ..side("s", 60, 1) };
        let arms = arms(&[same, twice]);
        assert_eq!((arms.len(), arms[0].role, arms[0].weight, arms[0].instances.len()), (1, Role::Stable, 10_000, 3));
    }
}
