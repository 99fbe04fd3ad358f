//! `example-repo` as a whole.

use crate::repository::{example, resolved, told};

#[test]
fn every_agent_of_the_example_is_good_in_every_environment() {
    let Some(tree) = example() else { return };
    for environment in ["development", "staging", "production"] {
        let state = resolved(&tree, environment);
        assert_eq!(told(&state.warnings), "", "{environment}");
        assert_eq!(state.agents.len(), 2, "{environment}");
        for (name, agent) in &state.agents {
            match agent {
                Ok(agent) => assert!(!agent.warnings.has_errors()),
                Err(errors) => panic!("{name} in {environment}:\n{}", told(errors)),
            }
        }
    }
}
