//! The example repository, as it lies in this program.

macro_rules! example {
    ($($path:literal),* $(,)?) => {
        [$(($path, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/example-repo/", $path)))),*]
    };
}

/// Every file of `example-repo/`, by its path there.
pub(super) const EXAMPLE: &[(&str, &str)] = &example![
    "README.md",
    "agents/research/agent.yaml",
    "agents/research/manifests/settings.yaml",
    "agents/research/prompts/system.md",
    "agents/support/agent.yaml",
    "agents/support/flags.json",
    "agents/support/manifests/network-policy.yaml",
    "agents/support/memory/migrations/0001_episodes.down.sql",
    "agents/support/memory/migrations/0001_episodes.up.sql",
    "agents/support/memory/migrations/0001_episodes.verify.sql",
    "agents/support/memory/migrations/0002_sentiment.down.sql",
    "agents/support/memory/migrations/0002_sentiment.up.sql",
    "agents/support/prompts/system.md",
    "agents/support/prompts/triage.md",
    "agents/support/tools/search_orders.json",
    "backstay.yaml",
    "consent/2026-11-research.yaml",
    "environments/development.yaml",
    "environments/development/models.yaml",
    "environments/development/research.yaml",
    "environments/development/support.yaml",
    "environments/development/variables.yaml",
    "environments/production.yaml",
    "environments/production/models.yaml",
    "environments/production/research.yaml",
    "environments/production/support.yaml",
    "environments/production/variables.yaml",
    "environments/staging.yaml",
    "environments/staging/support.yaml",
    "environments/staging/variables.yaml",
    "shared/models.yaml",
    "shared/prompts/safety.md",
    "shared/tools/search_documents.json",
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn beneath(folder: &Path, root: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                beneath(&path, root, found);
            } else {
                found.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }

    #[test]
    fn the_whole_example_is_here() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("example-repo");
        let mut there = vec![];
        beneath(&root, &root, &mut there);
        there.sort();
        let here: Vec<_> = EXAMPLE.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(here, there, "name each file of example-repo/ in this one");
    }
}
