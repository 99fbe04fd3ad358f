//! The daemon comes and goes; what serves stays.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::machine::{Machine, run, until};

const AGENT: &str = "agents/support/prompts/system.md";

/// A repository with the example, in the machine, and a configuration that follows it.
fn prepare(root: &Path) {
    let (bare, work) = (root.join("srv/agents.git"), root.join("srv/work"));
    run(Command::new("git").args(["init", "-q", "--bare", "-b", "main"]).arg(&bare));
    run(Command::new("cp").arg("-r").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/example-repo")).arg(&work));
    git(&work, &["init", "-q", "-b", "main"]);
    git(&work, &["remote", "add", "origin", "../agents.git"]);
    push(&work, "Begin");
    let config = root.join("etc/backstay/backstay.toml");
    let text = fs::read_to_string(&config).unwrap();
    let text = text
        .replace("\"production\"", "\"development\"")
        .replace("python3 = \"/usr/bin/python3\"", "backstay = \"/usr/bin/backstay\"");
    fs::write(&config, text.replace("branch = \"main\"", "branch = \"main\"\ninterval = \"1s\"")).unwrap();
}

fn git(work: &Path, args: &[&str]) {
    let person = ["-c", "user.name=a", "-c", "user.email=a@localhost", "-c", "safe.directory=*"];
    run(Command::new("git").arg("-C").arg(work).args(person).args(args));
}

fn push(work: &Path, message: &str) {
    git(work, &["add", "-A"]);
    git(work, &["commit", "-q", "-m", message]);
    git(work, &["push", "-q", "origin", "main"]);
}

/// Processes of agents with their start times, as the machine numbers them.
fn agents(machine: &Machine) -> BTreeSet<String> {
    let script = "for p in $(cat /sys/fs/cgroup/system.slice/system-backstay*agent*/*/cgroup.procs 2>/dev/null); do \
                  echo \"$p:$(cut -d' ' -f22 /proc/$p/stat):$(tr '\\0' ' ' </proc/$p/cmdline)\"; done";
    machine.done(script).lines().map(str::to_owned).collect()
}

/// What a client is answered.
fn asks(machine: &Machine, path: &str) -> Result<String, String> {
    let request = format!("GET {path} HTTP/1.1\\r\\nHost: support.localhost\\r\\nConnection: close\\r\\n\\r\\n");
    let said = machine.script(&format!("exec 3<>/dev/tcp/127.0.0.1/80; printf '{request}' >&3; cat <&3"))?;
    if said.starts_with("HTTP/1.1 200") { Ok(said) } else { Err(said) }
}

#[test]
#[ignore = "boots a machine: as root, `cargo test --test systemd -- --ignored`"]
fn no_agent_notices_what_happens_to_the_daemon() {
    let machine = Machine::boot(prepare);
    let root = machine.root().to_owned();
    machine.done("chown -R backstay /srv/agents.git");
    machine.done(
        "systemd-analyze verify /usr/lib/systemd/system/backstay.service /usr/lib/systemd/system/backstay-proxy.*",
    );
    machine.done("systemctl restart backstay backstay-proxy");

    // Until root says so, nothing of an agent runs.
    until("the way out is shown", || {
        let said = machine.told("backstay status support")?;
        if said.contains("backstay host enrol support") { Ok(()) } else { Err(said) }
    });
    let said = machine.done("backstay host enrol support");
    assert!(said.contains("backstay-agent-support@.service created"), "{said}");
    assert!(machine.done("backstay host enrol support").contains("unchanged"), "once more changes nothing");
    machine.done("systemd-analyze verify /etc/systemd/system/backstay-agent-support@x.service");
    machine.done(
        "cd /etc/backstay/credentials/support; mkdir agent-secrets; cd agent-secrets; \
         echo sk-1 >openai-api-key; echo postgres://nobody@localhost/nowhere >database-url",
    );
    until("the agent answers", || asks(&machine, "/health/ready"));
    let status = machine.done("backstay status");
    assert!(status.contains("isolation: unit"), "{status}");
    assert!(machine.done("backstay logs support").contains("listen"), "root reads what it wrote");

    let before = agents(&machine);
    let accounts: BTreeSet<String> =
        machine.done("stat -c %u /run/backstay-agents/*").lines().map(str::to_owned).collect();
    assert_eq!(accounts.len(), 1, "main process and worker are one agent: {accounts:?}");
    let others = machine.done("for name in root backstay backstay-proxy; do id -u $name; done");
    assert!(others.lines().all(|other| !accounts.contains(other)), "{accounts:?}, {others}");
    assert!(before.iter().any(|process| process.contains("example-agent")), "{before:?}");
    let daemon = || machine.main_of("backstay");

    machine.done("systemctl restart backstay");
    let mut pid = until("the daemon is back", daemon);
    for kill in 0..10 {
        machine.done(&format!("kill -9 {pid}"));
        pid = until("the daemon is back", || daemon().and_then(|now| if now == pid { Err(now) } else { Ok(now) }));
        asks(&machine, "/health/ready").unwrap_or_else(|why| panic!("after kill {kill}: {why}"));
    }
    machine.done("systemctl stop backstay");
    assert_eq!(agents(&machine), before, "each process is the one that it was");
    asks(&machine, "/health/ready").unwrap();
    machine.done("systemctl start backstay");

    // It has not only survived: it deploys.
    let work = root.join("srv/work");
    let prompt = fs::read_to_string(work.join(AGENT)).unwrap();
    fs::write(work.join(AGENT), format!("{prompt}\nBe brief.\n")).unwrap();
    push(&work, "brief");
    machine.done("chown -R backstay /srv/agents.git");
    until("another release serves", || {
        let now = agents(&machine);
        let fresh = now.iter().any(|process| process.contains("example-agent") && !before.contains(process));
        if fresh { asks(&machine, "/health/ready") } else { Err(format!("{now:?}")) }
    });

    machine.done("backstay host enrol support --remove");
    assert_eq!(agents(&machine), BTreeSet::new(), "taken back, nothing of it runs");
}
