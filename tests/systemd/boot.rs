//! The daemon comes and goes; what serves stays.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::load::Load;
use crate::machine::{Machine, run, until};

const AGENT: &str = "agents/support/prompts/system.md";

/// A secret as a variable, and in the text of another one.
const VARIABLES: &str = "LOG_LEVEL: DEBUG, KEY: {secret: agent-secrets, key: openai-api-key}, \
                         ACCESS: 'Bearer $(KEY), twice $(KEY)'";
/// That secret.
const KEY: &str = "sk-5eedcafe";

/// A repository with the example, in the machine, and a configuration that follows it.
fn prepare(root: &Path) {
    let (bare, work) = (root.join("srv/agents.git"), root.join("srv/work"));
    run(Command::new("git").args(["init", "-q", "--bare", "-b", "main"]).arg(&bare));
    run(Command::new("cp").arg("-r").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/example-repo")).arg(&work));
    let overlay = work.join("environments/development/support.yaml");
    let text = fs::read_to_string(&overlay).unwrap();
    fs::write(&overlay, text.replace("LOG_LEVEL: DEBUG", VARIABLES)).unwrap();
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
    // The repository is the daemon's: a setting of the command line does not reach the other end of a push.
    let settings = work.with_file_name("gitconfig");
    fs::write(&settings, "[user]\nname = a\nemail = a@localhost\n[safe]\ndirectory = *\n").unwrap();
    run(Command::new("git").arg("-C").arg(work).args(args).env("GIT_CONFIG_GLOBAL", settings));
}

fn push(work: &Path, message: &str) {
    git(work, &["add", "-A"]);
    git(work, &["commit", "-q", "-m", message]);
    git(work, &["push", "-q", "origin", "main"]);
}

/// Processes of agents with their start times, as the machine numbers them.
fn agents(machine: &Machine) -> BTreeSet<String> {
    // What a process was called by is left out: a keeper that becomes another program calls itself in short.
    let script = "for p in $(cat /sys/fs/cgroup/system.slice/system-backstay*agent*/*/cgroup.procs 2>/dev/null); do \
                  [ $p = 0 ] || echo \"$p:$(cut -d' ' -f22 /proc/$p/stat):$(tr '\\0' ' ' </proc/$p/cmdline | cut -d' ' -f2-)\"; \
                  done";
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
fn no_agent_notices_what_happens_to_backstay() {
    let mut machine = Machine::boot(prepare);
    let root = machine.root().to_owned();
    machine.done("chown -R backstay /srv/agents.git");
    machine.done(
        "systemd-analyze verify /usr/lib/systemd/system/backstay.service /usr/lib/systemd/system/backstay-proxy.*",
    );
    machine.done(
        "systemctl enable -q backstay backstay-proxy.socket backstay-proxy; systemctl restart backstay backstay-proxy",
    );

    // Until root says so, nothing of an agent runs.
    until("the way out is shown", || {
        let said = machine.told("backstay status support")?;
        if said.contains("backstay host enrol support") { Ok(()) } else { Err(said) }
    });
    let said = machine.done("backstay host enrol support");
    assert!(said.contains("backstay-agent-support@.service created"), "{said}");
    assert!(machine.done("backstay host enrol support").contains("unchanged"), "once more changes nothing");
    machine.done("systemd-analyze verify /etc/systemd/system/backstay-agent-support@x.service");
    machine.done(&format!(
        "cd /etc/backstay/credentials/support; mkdir agent-secrets; cd agent-secrets; \
         echo {KEY} >openai-api-key; echo postgres://nobody@localhost/nowhere >database-url",
    ));
    until("the agent answers", || asks(&machine, "/health/ready"));
    let status = machine.done("backstay status");
    assert!(status.contains("isolation: unit"), "{status}");
    assert!(machine.done("backstay logs support").contains("listen"), "root reads what it wrote");

    let one_account = accounts(&machine);
    assert!(agents(&machine).iter().any(|process| process.contains("example-agent")), "it has a process");

    the_agent_alone_has_its_secrets(&machine, &one_account);

    // From here on clients ask all the time.
    let load = Load::begin(&machine, "/health/ready");
    let before = agents(&machine);
    restarts(&machine);
    watchdog(&machine);
    upgrades(&machine);
    assert_eq!(agents(&machine), before, "each process is the one that it was");

    // It has not only survived: it deploys.
    deploy(&machine, &root, &before);
    let told = load.end();
    assert_eq!(told.failed, Vec::<String>::new(), "of {}", told.answered);
    eprintln!("{} requests, none failed", told.answered);

    // Without network, and with nobody to push.
    fs::rename(root.join("srv/agents.git"), root.join("srv/away.git")).unwrap();
    machine.reboot();
    until("it answers after the reboot", || asks(&machine, "/health/ready"));
    assert_eq!(accounts(&machine), one_account, "the account comes back with the agent");
    until("it says that Git is away", || {
        let said = machine.told("backstay status")?;
        if said.contains("agents.git") { Ok(()) } else { Err(said) }
    });
    let status = machine.done("backstay status support");
    assert!(status.contains("Ready=True") && !status.contains("quarantine"), "{status}");
    fs::rename(root.join("srv/away.git"), root.join("srv/agents.git")).unwrap();

    machine.done("backstay host enrol support --remove");
    assert_eq!(agents(&machine), BTreeSet::new(), "taken back, nothing of it runs");
}

/// The accounts of all agents, which are nobody else's.
fn accounts(machine: &Machine) -> BTreeSet<String> {
    let ids = "stat -c %u /run/backstay-agents/*";
    let accounts: BTreeSet<String> = machine.done(ids).lines().map(str::to_owned).collect();
    assert_eq!(accounts.len(), 1, "main process and worker are one agent: {accounts:?}");
    let others = machine.done("for name in root backstay backstay-proxy; do id -u $name; done");
    assert!(others.lines().all(|other| !accounts.contains(other)), "{accounts:?}, {others}");
    accounts
}

/// The agent has what it was declared with; nobody else has it, and it stands nowhere where others read it.
fn the_agent_alone_has_its_secrets(machine: &Machine, accounts: &BTreeSet<String>) {
    let environments = "for p in /proc/[0-9]*; do tr '\\0' '\\n' <$p/environ 2>/dev/null | grep -E '^(KEY|ACCESS)=' | \
                        sed \"s|^|$(stat -c %u $p) |\"; done | sort -u";
    let found = machine.done(environments);
    let account = accounts.iter().next().expect("one");
    let expected = [format!("{account} ACCESS=Bearer {KEY}, twice {KEY}"), format!("{account} KEY={KEY}")];
    assert_eq!(found.lines().collect::<Vec<_>>(), expected);
    // By a file, so that who looks for it is not found.
    let place = "/etc/backstay/credentials/support/agent-secrets/openai-api-key";
    let own = "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline 2>/dev/null; echo; done";
    let others = "for p in /proc/[0-9]*; do [ $(stat -c %u $p) = ACCOUNT ] || cat $p/environ 2>/dev/null; done";
    for listed in [own.to_owned(), others.replace("ACCOUNT", account), "systemctl show 'backstay*' '*@*'".to_owned()] {
        assert_eq!(machine.done(&format!("({listed}) | grep -c -a -F -f {place} || true")).trim(), "0", "{listed}");
    }
    let folders =
        "/etc/systemd /run/systemd /etc/polkit-1 /var/lib/backstay /run/backstay /run/backstay-agents /var/log /tmp";
    assert_eq!(machine.done(&format!("grep -r -l -a -F -f {place} {folders} 2>/dev/null || true")), "");
    let read = "for file in $(find /run/credentials /etc/backstay/credentials -name '*openai*'); do \
                setpriv --reuid backstay --regid backstay --clear-groups cat $file && echo READ; done 2>&1 || true";
    assert!(!machine.done(read).contains("READ"), "the daemon's account reads it");
}

/// Waits until the main process of a unit is another one.
fn another(machine: &Machine, unit: &str, pid: &str) -> String {
    until(&format!("another {unit}"), || {
        machine.main_of(unit).and_then(|now| if now == pid { Err(now) } else { Ok(now) })
    })
}

/// The daemon is restarted, killed ten times, stopped and started.
fn restarts(machine: &Machine) {
    machine.done("systemctl restart backstay");
    let mut pid = until("the daemon is back", || machine.main_of("backstay"));
    for _ in 0..10 {
        machine.done(&format!("kill -9 {pid}"));
        pid = another(machine, "backstay", &pid);
    }
    machine.done("systemctl stop backstay");
    asks(machine, "/health/ready").unwrap();
    machine.done("systemctl start backstay");
}

/// The daemon hangs; systemd ends it and starts it again.
fn watchdog(machine: &Machine) {
    machine.done(
        "mkdir -p /run/systemd/system/backstay.service.d; \
         printf '[Service]\\nWatchdogSec=2\\n' >/run/systemd/system/backstay.service.d/soon.conf; \
         systemctl daemon-reload; systemctl restart backstay",
    );
    let pid = until("the daemon runs", || machine.main_of("backstay"));
    machine.done(&format!("kill -STOP {pid}"));
    another(machine, "backstay", &pid);
    let result = machine.done("journalctl -u backstay --no-pager | grep -c 'Watchdog timeout'");
    assert_eq!(result.trim(), "1", "it was the watchdog");
    machine.done("rm -r /run/systemd/system/backstay.service.d; systemctl daemon-reload; systemctl restart backstay");
}

/// Each program is replaced by another file, and taken over as `systemd/` says.
fn upgrades(machine: &Machine) {
    machine.done(
        "cd /usr/bin; for name in backstay backstay-keeper; do \
         cp $name $name.new; echo >>$name.new; mv $name.new $name; done",
    );
    let of_before = "for p in $(cat /sys/fs/cgroup/system.slice/system-backstay*agent*/*/cgroup.procs); do \
                     readlink /proc/$p/exe; done | grep -c 'backstay-keeper.*deleted' || true";
    assert_ne!(machine.done(of_before).trim(), "0", "keepers run the program of before");
    machine.done("systemctl restart backstay");
    until("all keepers run the new program", || {
        let count = machine.done(of_before);
        if count.trim() == "0" { Ok(()) } else { Err(count) }
    });
    let pid = machine.main_of("backstay-proxy").unwrap();
    machine.done("systemctl reload backstay-proxy");
    let pid = another(machine, "backstay-proxy", &pid);
    assert!(!machine.done(&format!("readlink /proc/{pid}/exe")).contains("deleted"), "the proxy is the new program");
}

/// A push ends the processes of before, and no others.
fn deploy(machine: &Machine, root: &Path, before: &BTreeSet<String>) {
    let work = root.join("srv/work");
    let prompt = fs::read_to_string(work.join(AGENT)).unwrap();
    fs::write(work.join(AGENT), format!("{prompt}\nBe brief.\n")).unwrap();
    push(&work, "brief");
    machine.done("chown -R backstay /srv/agents.git");
    until("another release serves", || {
        let now = agents(machine);
        let fresh = now.iter().any(|process| process.contains("example-agent") && !before.contains(process));
        if fresh { asks(machine, "/health/ready") } else { Err(format!("{now:?}")) }
    });
    until("the push is deployed", || {
        let status = machine.told("backstay status support")?;
        if status.contains("Ready=True") { Ok(()) } else { Err(status) }
    });
}
