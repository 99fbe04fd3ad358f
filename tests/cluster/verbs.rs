//! The verbs against a running daemon: a push, what is shown of it, and every way back.

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::lab::{Lab, eventually, lab};

/// A person at a terminal: a folder with a clone, a configuration and a daemon.
struct Desk {
    folder: tempfile::TempDir,
    daemon: Option<Child>,
    kubeconfig: String,
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Desk {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", self.folder.path())
            .env("KUBECONFIG", &self.kubeconfig)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_AUTHOR_NAME", "Alice Example")
            .env("GIT_AUTHOR_EMAIL", "alice@example.com")
            .env("GIT_COMMITTER_NAME", "Alice Example")
            .env("GIT_COMMITTER_EMAIL", "alice@example.com")
            .env("BACKSTAY_CONFIG", self.path("backstay.toml"));
        command
    }

    fn run(&self, program: &str, args: &[&str]) -> Output {
        self.command(program).args(args).stdin(Stdio::null()).output().expect("started")
    }

    fn git(&self, args: &[&str]) -> String {
        let output = self.run("git", args);
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Runs a verb; gives the exit code, what it printed, and what it said.
    fn backstay(&self, args: &[&str]) -> (i32, String, String) {
        let output = self.run(env!("CARGO_BIN_EXE_backstay"), args);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
    }

    /// The same of one that is expected to do it.
    fn done(&self, args: &[&str]) -> String {
        let (code, printed, said) = self.backstay(args);
        assert_eq!(code, 0, "{args:?}\n{printed}{said}{}", self.log());
        printed
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.done(args)).expect("JSON")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn start(&mut self) {
        let log = std::fs::File::create(self.path("log")).expect("a log");
        let mut command = self.command(env!("CARGO_BIN_EXE_backstay"));
        let command = command.arg("run").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.daemon = Some(command.spawn().expect("a daemon"));
    }

    fn stop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            // SIGTERM, as an orchestrator stops it.
            let _ = Command::new("kill").arg(daemon.id().to_string()).status();
            let _ = daemon.wait();
        }
    }

    /// Sets what the agent's prompt says, and pushes it.
    fn push(&self, prompt: &str) {
        std::fs::write(self.path("clone/agents/assistant/prompts/system.md"), format!("{prompt}\n")).expect("written");
        self.git(&["-C", "clone", "commit", "--quiet", "--all", "--message", prompt]);
        self.git(&["-C", "clone", "push", "--quiet", "origin", "main"]);
    }

    /// The release that holds the traffic.
    fn stable(&self) -> String {
        let told = self.json(&["status", "assistant", "-o", "json"]);
        let release = told.pointer("/environments/0/agents/0/record/stable/release").and_then(Value::as_str);
        let digest = release.expect("a stable release");
        format!("r-{}", &digest[..12])
    }
}

/// A repository made by `init`, with a program that this machine has, and a configuration that binds it.
fn desk(lab: &Lab) -> Desk {
    let folder = tempfile::tempdir().expect("a folder");
    let kubeconfig = std::env::var("KUBECONFIG").expect("KUBECONFIG");
    let desk = Desk { folder, daemon: None, kubeconfig };
    let toml = format!(
        "installation = \"{namespace}\"\n[source]\nurl = \"{}\"\ninterval = \"2s\"\n[[target]]\nenvironment = \
         \"production\"\nkubernetes = {{ namespace = \"{namespace}\" }}\n[[person]]\nusername = \"admin\"\ngit = \
         \"Alice Example <alice@example.com>\"\n[http]\nlisten = \"127.0.0.1:0\"\n[state]\nfolder = \"{}\"\n",
        desk.path("origin.git").display(),
        desk.path("state").display(),
        namespace = lab.namespace,
    );
    std::fs::write(desk.path("backstay.toml"), toml).expect("written");
    desk.done(&["init", "clone"]);
    let declared = desk.path("clone/agents/assistant/agent.yaml");
    let text = std::fs::read_to_string(&declared).expect("read");
    let command = format!("    command: [{}, example-agent]\n  prompts:", env!("CARGO_BIN_EXE_backstay"));
    let env = "  workload:\n    env: {LISTEN_HOST: {field: status.podIP}, PORT: \"8000\"}";
    let quick = "health:\n      live: /health/live\n      ready: {httpGet: {path: /health/ready, port: 8000}, periodSeconds: 1}";
    let text = text.replace("  prompts:", &command).replace("  workload:", env);
    let text = text.replace("health: {live: /health/live, ready: /health/ready}", quick);
    std::fs::write(&declared, text).expect("written");
    desk.git(&["init", "--quiet", "--bare", "--initial-branch=main", "origin.git"]);
    desk.git(&["-C", "clone", "init", "--quiet", "--initial-branch=main"]);
    desk.git(&["-C", "clone", "add", "--all"]);
    desk.git(&["-C", "clone", "commit", "--quiet", "--message", "Start"]);
    desk.git(&["-C", "clone", "remote", "add", "origin", desk.path("origin.git").to_str().expect("a path")]);
    desk.git(&["-C", "clone", "push", "--quiet", "origin", "main"]);
    desk
}

#[tokio::test(flavor = "multi_thread")]
async fn every_verb_with_a_daemon() {
    let Some(lab) = lab("verbs").await else { return };
    let mut desk = desk(&lab);

    // Before anything ran: what would be done, and the way back.
    let plan = desk.done(&["plan"]);
    assert!(plan.contains("assistant: nothing -> r-"), "{plan}");
    assert!(plan.contains("+ Deployment/") && plan.contains("way back:"), "{plan}");
    let planned = desk.json(&["plan", "-o", "json"]);
    let schema = desk.json(&["schema", "plan"]);
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    assert!(validator.is_valid(&planned), "{:?}", validator.iter_errors(&planned).next().map(|e| e.to_string()));
    let steps = planned.pointer("/environments/0/agents/0/steps").and_then(Value::as_array).expect("steps");
    let deployment =
        steps.iter().find(|step| step["object"].as_str().is_some_and(|object| object.starts_with("Deployment/")));
    let fields = deployment.and_then(|step| step["fields"].as_array()).expect("fields");
    let image =
        fields.iter().find(|field| field["path"].as_str().is_some_and(|path| path.rsplit('.').next() == Some("image")));
    let image = image.expect("an image");
    assert!(image["to"].is_string() && image["from"].is_null() && image["masked"] == false, "{image}");
    assert_eq!(desk.backstay(&["plan", "--exit-code"]).0, 1);

    // Once: it converges, and ends.
    let (code, printed, said) = desk.backstay(&["run", "--once", "--timeout", "120s"]);
    assert_eq!((code, printed.lines().last()), (0, Some("production ready")), "{printed}{said}");
    let first = desk.stable();
    assert_eq!(desk.backstay(&["status", "--exit-code"]).0, 0);
    assert_eq!(desk.backstay(&["plan", "--exit-code"]).0, 0, "{}", desk.done(&["plan"]));
    let (code, _, said) = desk.backstay(&["diff", "assistant", "--exit-code"]);
    assert!(code == 0 && said.contains("is as Git asks for"), "{said}");

    // A daemon, a push, and a look.
    desk.start();
    eventually("the daemon leads", async || desk.log().contains("leading").then_some(())).await;
    desk.push("Shout at everyone.");
    let differs = desk.backstay(&["plan", "assistant"]);
    assert!(differs.1.contains("assistant: "), "{differs:?}");
    desk.done(&["sync"]);
    let second = eventually("the push is deployed", async || Some(desk.stable()).filter(|now| *now != first)).await;
    eventually("it is ready", async || (desk.backstay(&["status", "--exit-code"]).0 == 0).then_some(())).await;
    let diff = desk.done(&["diff", "assistant", "--releases", &first, &second]);
    assert!(diff.contains("+ Shout at everyone."), "{diff}");

    // Back by a commit.
    let commit = desk.json(&["revert", "assistant", "--reason", "too loud", "--timeout", "120s", "-o", "json"]);
    assert_eq!(commit.get("to").and_then(Value::as_str), Some(&*first), "{commit}");
    assert_eq!(desk.stable(), first, "it waited until it was back");
    let log = desk.git(&["--git-dir", "origin.git", "log", "-1", "--format=%an <%ae> %s%n%b", "main"]);
    assert!(log.starts_with("Alice Example <alice@example.com> Revert \"Shout at everyone.\""), "{log}");
    assert!(log.contains("too loud") && log.contains("Backstay-Agent: assistant"), "{log}");
    let history = desk.done(&["history", "assistant"]);
    assert!(history.contains("verified revert of"), "{history}");
    let (code, _, said) = desk.backstay(&["revert", "assistant", "--to", &first]);
    assert!(code == 3 && said.contains("already"), "{said}");

    // Back by hand, at once, and Git is told.
    desk.git(&["-C", "clone", "pull", "--quiet", "origin", "main"]);
    desk.push("Whisper.");
    desk.done(&["sync"]);
    let third = eventually("the push is deployed", async || Some(desk.stable()).filter(|now| *now != first)).await;
    let told = desk.done(&["rollback", "assistant", "--reason", "too quiet", "--timeout", "120s"]);
    assert!(told.contains(&format!("rolled back to {first}")), "{told}");
    assert_eq!(desk.stable(), first);
    let subject = || desk.git(&["--git-dir", "origin.git", "log", "-1", "--format=%s", "main"]);
    eventually("Git is told", async || subject().starts_with("Revert \"Whisper.\"").then_some(())).await;
    assert!(desk.done(&["history", "assistant"]).contains("rollback by"), "{third}");

    // An environment that follows this one is planned by what is stable here, though its own place is empty.
    std::fs::write(
        desk.path("clone/environments/late.yaml"),
        "apiVersion: backstay.dev/v1alpha1\nkind: Environment\nmetadata: {name: late}\nspec:\n  images: tags\n  after: \
         {environment: production, for: 1s}\n",
    )
    .expect("written");
    desk.git(&["-C", "clone", "pull", "--quiet", "origin", "main"]);
    desk.git(&["-C", "clone", "add", "--all"]);
    desk.git(&["-C", "clone", "commit", "--quiet", "--message", "One more environment"]);
    desk.git(&["-C", "clone", "push", "--quiet", "origin", "main"]);
    let toml = std::fs::read_to_string(desk.path("backstay.toml")).expect("read");
    let late =
        format!("[[target]]\nenvironment = \"late\"\nkubernetes = {{ namespace = \"{}-late\" }}\n", lab.namespace);
    std::fs::write(desk.path("both.toml"), format!("{toml}{late}")).expect("written");
    let plan = desk.done(&["plan", "-e", "late", "--config", desk.path("both.toml").to_str().expect("a path")]);
    assert!(plan.contains("assistant: nothing -> r-") && plan.contains("+ Deployment/"), "{plan}");

    // Left alone, and not.
    assert!(desk.done(&["suspend", "assistant", "--reason", "a look"]).contains("suspended"));
    assert!(desk.done(&["status"]).contains("suspended by"));
    assert!(desk.done(&["resume", "assistant"]).contains("resumed"));

    desk.stop();
    assert!(desk.log().contains("stopping"), "{}", desk.log());
}
