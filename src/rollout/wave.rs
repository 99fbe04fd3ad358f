//! Waves: how many agents of an environment roll out at a time.

use serde::{Deserialize, Serialize};

use crate::desired::Waves;
use crate::model::{AgentName, Timestamp};

/// Why an agent has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Wave {
    /// As many as may roll out already.
    Full,
    /// Too many went back while this one waited.
    Stopped,
}

/// How the rollout of an agent stands, as far as others are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It would start if it had room.
    Waits,
    /// It has started, and is not over.
    Runs,
    /// It takes no room: it is over, goes back, or cannot start for another reason.
    Over,
}

/// The room that an environment has for rollouts.
#[derive(Debug, Clone, Default)]
pub struct Room<'a> {
    waves: Waves,
    runs: usize,
    /// Sorted.
    waits: Vec<&'a AgentName>,
    aborts: Vec<Timestamp>,
}

// === impl Room ===

impl<'a> Room<'a> {
    /// The room that is left by `all`; `aborts` is when each of them went back last, where nobody asked for it.
    pub fn of(
        waves: Waves,
        all: impl IntoIterator<Item = (&'a AgentName, Standing)>,
        aborts: impl IntoIterator<Item = Timestamp>,
    ) -> Self {
        let mut room = Self { waves, aborts: aborts.into_iter().collect(), ..Self::default() };
        for (name, standing) in all {
            match standing {
                Standing::Runs => room.runs += 1,
                Standing::Waits => room.waits.push(name),
                Standing::Over => {}
            }
        }
        room.waits.sort_unstable();
        room
    }

    /// Whether an agent that has waited since then may start.
    ///
    /// Those that run keep their room; of those that wait, the first by name come next. What went back before it waited
    /// does not stop it: that was another commit's.
    pub fn wave(&self, agent: &AgentName, since: Timestamp) -> Option<Wave> {
        let most = |most: u32| usize::try_from(most).unwrap_or(usize::MAX);
        let aborted = self.aborts.iter().filter(|at| **at >= since).count();
        if self.waves.stop_after_aborts.is_some_and(|stop| aborted >= most(stop)) {
            return Some(Wave::Stopped);
        }
        let before = self.waits.partition_point(|waits| *waits < agent);
        self.waves.max_agents.is_some_and(|agents| self.runs + before >= most(agents)).then_some(Wave::Full)
    }
}

#[cfg(test)]
mod tests {
    use super::Standing::{Over, Runs, Waits};
    use super::*;

    #[test]
    fn the_first_by_name_have_room_and_aborts_stop_those_that_waited() {
        let names: Vec<AgentName> = ["a", "b", "c", "d"].iter().map(|name| name.parse().expect("a name")).collect();
        let at = |second| Timestamp::from_second(second).expect("a time");
        let ask = |agent: usize, standings: [Standing; 4], most, stop| {
            let waves = Waves { max_agents: most, stop_after_aborts: stop };
            Room::of(waves, names.iter().zip(standings), [at(10)]).wave(&names[agent], at(5))
        };
        assert_eq!(ask(0, [Waits; 4], Some(2), None), None);
        assert_eq!(ask(1, [Waits; 4], Some(2), None), None);
        assert_eq!(ask(2, [Waits; 4], Some(2), None), Some(Wave::Full));
        assert_eq!(ask(2, [Over, Runs, Waits, Waits], Some(2), None), None);
        assert_eq!(ask(3, [Over, Runs, Waits, Waits], Some(2), None), Some(Wave::Full));
        assert_eq!(ask(3, [Over, Over, Over, Waits], Some(2), Some(1)), Some(Wave::Stopped));
        assert_eq!(ask(3, [Over, Over, Over, Waits], None, Some(2)), None);
        assert_eq!(ask(3, [Runs, Runs, Runs, Waits], None, None), None);
        let stops = Waves { max_agents: None, stop_after_aborts: Some(1) };
        let room = Room::of(stops, names.iter().zip([Over; 4]), [at(10)]);
        assert_eq!((room.wave(&names[3], at(10)), room.wave(&names[3], at(11))), (Some(Wave::Stopped), None));
    }
}
