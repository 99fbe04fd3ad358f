//! Waves: how many agents of one commit roll out at a time.

use serde::{Deserialize, Serialize};

use crate::desired::Waves;
use crate::model::AgentName;

/// Why an agent has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Wave {
    /// As many as may roll out already.
    Full,
    /// Too many of the same commit went back.
    Stopped,
}

/// How the rollout of another agent of the same commit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It has not started.
    Waits,
    /// It has started, and is not over.
    Runs,
    /// It went back, and nobody asked for it.
    Aborted,
    /// It is over otherwise.
    Over,
}

/// Whether an agent that waits may start, by the agents of the same commit, itself included.
///
/// Those that run keep their room; of those that wait, the first by name come next. Agents that roll out because of
/// another commit do not count.
pub fn wave<'a>(
    waves: Waves,
    agent: &AgentName,
    all: impl IntoIterator<Item = (&'a AgentName, Standing)>,
) -> Option<Wave> {
    let (mut runs, mut aborted, mut before) = (0_u32, 0_u32, 0_u32);
    for (other, standing) in all {
        match standing {
            Standing::Runs => runs += 1,
            Standing::Aborted => aborted += 1,
            Standing::Waits => before += u32::from(other < agent),
            Standing::Over => {}
        }
    }
    if waves.stop_after_aborts.is_some_and(|most| aborted >= most) {
        return Some(Wave::Stopped);
    }
    waves.max_agents.is_some_and(|most| runs + before >= most).then_some(Wave::Full)
}

#[cfg(test)]
mod tests {
    use super::Standing::{Aborted, Over, Runs, Waits};
    use super::*;

    #[test]
    fn the_first_by_name_have_room_and_aborts_stop_the_rest() {
        let names: Vec<AgentName> = ["a", "b", "c", "d"].iter().map(|name| name.parse().expect("a name")).collect();
        let ask = |agent: usize, standings: [Standing; 4], most, stop| {
            let waves = Waves { max_agents: most, stop_after_aborts: stop };
            wave(waves, &names[agent], names.iter().zip(standings))
        };
        assert_eq!(ask(0, [Waits; 4], Some(2), None), None);
        assert_eq!(ask(1, [Waits; 4], Some(2), None), None);
        assert_eq!(ask(2, [Waits; 4], Some(2), None), Some(Wave::Full));
        assert_eq!(ask(2, [Over, Runs, Waits, Waits], Some(2), None), None);
        assert_eq!(ask(3, [Over, Runs, Waits, Waits], Some(2), None), Some(Wave::Full));
        assert_eq!(ask(3, [Aborted, Over, Over, Waits], Some(2), Some(1)), Some(Wave::Stopped));
        assert_eq!(ask(3, [Aborted, Over, Over, Waits], None, Some(2)), None);
        assert_eq!(ask(3, [Runs, Runs, Runs, Waits], None, None), None);
    }
}
