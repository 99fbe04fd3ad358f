//! What is deployed: many agents of one kind, as a repository, as rendered objects and as plain manifests.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use backstay::desired::{At, Cache, Resolve, TargetKind, resolve};
use backstay::model::{AgentName, EnvironmentName, Manifest, Revision, Timestamp};
use backstay::render::{Identity, RenderOptions, RendererVersion, Set, render};
use backstay::source::MemoryTree;

/// The environment that is served.
pub(crate) const ENVIRONMENT: &str = "production";
/// The installation's id.
pub(crate) const INSTALLATION: &str = "bench";
/// Files of an agent in the large repository, those that nothing reads included.
const FILES: usize = 10;

/// The name of the agent with a number.
pub(crate) fn name(number: usize) -> String {
    format!("agent-{number:05}")
}

/// The files that all agents share.
fn shared() -> Vec<(String, String)> {
    let repository = "apiVersion: backstay.dev/v1alpha1\nkind: Repository\nspec: {}\n";
    let models = "fast: {provider: openai, model: gpt-4o-mini-2024-07-18, endpoint: 'https://api.openai.com/v1'}\n";
    let environment = format!(
        "apiVersion: backstay.dev/v1alpha1\nkind: Environment\nmetadata: {{name: {ENVIRONMENT}}}\nspec: {{images: digest}}\n"
    );
    vec![
        ("backstay.yaml".to_owned(), repository.to_owned()),
        ("shared/models.yaml".to_owned(), models.to_owned()),
        (format!("environments/{ENVIRONMENT}.yaml"), environment),
        ("agents/README.md".to_owned(), "One folder for each agent.\n".to_owned()),
    ]
}

/// The path of the prompt that changes.
pub(crate) fn prompt_path(number: usize) -> String {
    format!("agents/{}/prompts/system.md", name(number))
}

/// About two kilobytes of prompt; `line` is the one that changes.
pub(crate) fn prompt(number: usize, line: &str) -> String {
    let rule = "Answer in the customer's language, cite the order by its number, and never promise a date.\n";
    format!("You are {}.\n{line}\n{}", name(number), rule.repeat(20))
}

/// The files of one agent: a Deployment with 0 replicas, a Service, a ServiceAccount and its ConfigMap.
fn agent(number: usize, line: &str) -> Vec<(String, String)> {
    let name = name(number);
    let digest = "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";
    let declaration = format!(
        "apiVersion: backstay.dev/v1alpha1
kind: Agent
metadata: {{name: {name}}}
spec:
  code:
    image: registry.example.com/agent@sha256:{digest}
    command: [bin/agent]
  prompts: {{system: prompts/system.md}}
  models: {{primary: {{use: fast, parameters: {{temperature: 0.3, max_tokens: 8192}}}}}}
  config: {{rate_limits: {{requests_per_minute: 100}}}}
  workload:
    serviceAccount: {name}
    env: {{LOG_LEVEL: WARNING, OPENAI_API_KEY: {{secret: agent-secrets, key: openai-api-key}}}}
    resources: {{requests: {{cpu: 100m, memory: 128Mi}}, limits: {{cpu: \"1\", memory: 512Mi}}}}
  replicas: 0
"
    );
    let service = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  selector: {{backstay.dev/agent: {name}}}\n  \
         ports: [{{name: http, port: 8000, protocol: TCP, targetPort: 8000}}]\n"
    );
    vec![
        (format!("agents/{name}/agent.yaml"), declaration),
        (format!("agents/{name}/manifests/service.yaml"), service),
        (prompt_path(number), prompt(number, line)),
    ]
}

/// Notes beside an agent that nothing reads, so that it has [`FILES`] files.
fn notes(number: usize) -> impl Iterator<Item = (String, String)> {
    let name = name(number);
    (3..FILES).map(move |file| {
        (format!("agents/{name}/notes/{file}.md"), format!("# Note {file} on {name}\n\nNothing to see here.\n"))
    })
}

/// Two renderings of all agents: as they are installed, and with another prompt.
pub(crate) struct Objects {
    pub(crate) name: String,
    pub(crate) installed: Vec<Manifest>,
    pub(crate) changed: Vec<Manifest>,
}

/// What the daemon would render of so many agents, into a namespace.
pub(crate) fn objects(agents: usize, namespace: &str) -> Vec<Objects> {
    let first = rendered(agents, namespace, FIRST);
    let second = rendered(agents, namespace, SECOND);
    let both = first.into_iter().zip(second);
    both.map(|((name, installed), (_, changed))| Objects { name, installed, changed }).collect()
}

/// The line of the prompts as they are installed, and as they are changed.
pub(crate) const FIRST: &str = "Greet with \"Hello!\".";
pub(crate) const SECOND: &str = "Greet with \"Ahoy!\".";

fn rendered(agents: usize, namespace: &str, line: &str) -> BTreeMap<String, Vec<Manifest>> {
    let mut tree = MemoryTree::default();
    for (path, text) in shared().into_iter().chain((0..agents).flat_map(|number| agent(number, line))) {
        tree.insert(&path, text);
    }
    let commit = "0".repeat(40).parse().expect("a commit");
    let revision = Revision { reference: "main".to_owned(), commit };
    let environment: EnvironmentName = ENVIRONMENT.parse().expect("a name");
    let at = At::unverified_for_display(&revision, &tree);
    let request = Resolve {
        environment: &environment,
        head: at,
        tracked: at,
        pinned: &BTreeMap::new(),
        now: Timestamp::UNIX_EPOCH,
        target: Some(TargetKind::Kubernetes),
    };
    let desired = resolve(&mut Cache::default(), &request).expect("a repository without errors");
    let one = |(name, asked): (AgentName, _)| {
        let asked: std::sync::Arc<backstay::desired::DesiredAgent> = match asked {
            Ok(asked) => asked,
            Err(why) => panic!("{name}: {why:?}"),
        };
        let identity = Identity {
            agent: &name,
            environment: &environment,
            namespace,
            installation: INSTALLATION,
            target: TargetKind::Kubernetes,
        };
        let current = RendererVersion::CURRENT;
        let options = RenderOptions::default();
        let rendered = render(&identity, &asked.release, &asked.settings, current, Set::Rolling, &options);
        (name.to_string(), rendered.expect("a rendering").manifests)
    };
    desired.agents.into_iter().map(one).collect()
}

/// Writes the agents as plain manifests, one file for each: for another tool on the same API server.
pub(crate) fn write_plain(agents: usize, folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    for (name, manifests) in rendered(agents, "default", FIRST) {
        let mut file = std::fs::File::create(folder.join(format!("{name}.yaml")))?;
        for manifest in manifests {
            let mut body = (*manifest.body).clone();
            if let Some(metadata) = body["metadata"].as_object_mut() {
                metadata.remove("namespace");
            }
            // JSON is YAML.
            writeln!(file, "---\n{}", serde_json::to_string_pretty(&body)?)?;
        }
    }
    Ok(())
}

/// A bare repository with one branch, written by `git fast-import`: no work tree, whatever its size.
pub(crate) struct Repository {
    folder: tempfile::TempDir,
    commits: u64,
}

// === impl Repository ===

impl Repository {
    /// With no agent yet.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut init = Command::new("git");
        init.args(["init", "-q", "--bare", "-b", "main"]).arg(folder.path().join("repo.git"));
        assert!(init.status().expect("git runs").success());
        let mut repository = Self { folder, commits: 0 };
        repository.commit("Begin", shared());
        repository
    }

    /// The folder that a server serves.
    pub(crate) fn parent(&self) -> &Path {
        self.folder.path()
    }

    fn bare(&self) -> PathBuf {
        self.folder.path().join("repo.git")
    }

    /// Adds so many agents, with files that nothing reads where it is a large repository.
    pub(crate) fn install(&mut self, agents: usize, with_notes: bool) -> String {
        let notes = (0..agents).filter(|_| with_notes).flat_map(notes);
        self.commit("Add all agents", (0..agents).flat_map(|number| agent(number, FIRST)).chain(notes))
    }

    /// Gives the prompts of some agents another line.
    pub(crate) fn change(&mut self, message: &str, agents: impl Iterator<Item = usize>, line: &str) -> String {
        self.commit(message, agents.map(|number| (prompt_path(number), prompt(number, line))))
    }

    /// Writes a commit on top of the branch; gives its id.
    fn commit(&mut self, message: &str, files: impl IntoIterator<Item = (String, String)>) -> String {
        let mut import = Command::new("git");
        import.arg("-C").arg(self.bare()).args(["fast-import", "--quiet"]);
        let mut child = import.stdin(Stdio::piped()).spawn().expect("git runs");
        let pipe = child.stdin.take().expect("a pipe");
        let commits = self.commits;
        let time = 1_700_000_000 + commits;
        // Takes the pipe, which is closed at its end.
        let write = |mut to: std::io::BufWriter<std::process::ChildStdin>| -> std::io::Result<()> {
            write!(to, "commit refs/heads/main\ncommitter Alice Example <alice@example.com> {time} +0000\n")?;
            write!(to, "data {}\n{message}\n", message.len())?;
            if commits > 0 {
                writeln!(to, "from refs/heads/main^0")?;
            }
            for (path, text) in files {
                write!(to, "M 100644 inline {path}\ndata {}\n{text}\n", text.len())?;
            }
            to.flush()
        };
        write(std::io::BufWriter::new(pipe)).expect("written");
        assert!(child.wait().expect("git ends").success());
        self.commits += 1;
        let head =
            Command::new("git").arg("-C").arg(self.bare()).args(["rev-parse", "main"]).output().expect("git runs");
        String::from_utf8_lossy(&head.stdout).trim().to_owned()
    }
}
