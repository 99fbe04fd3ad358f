//! What is not what it says it is: a keeper, a table, an agent that leaves its tree. Nothing of it is believed.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backstay::keeper::client::Client;
use backstay::keeper::wire::{Answer, Identity, Status};
use backstay::sys;

use crate::daemon::{BACKSTAY, Repo, River, holds, until};
use crate::golden;
use crate::lab::lab;
use crate::serving::{CODE, OVERLAY, answers, kill, knock, serving};

/// Speaks the protocol in an instance's folder, and says what it likes; ends when it is dropped.
struct Liar {
    folder: PathBuf,
    over: Arc<AtomicBool>,
    _lock: sys::FolderLock,
}

impl Liar {
    /// `says` is who it claims to be, `tells` how its agent is.
    fn begin(folder: &Path, says: &Identity, tells: &Status) -> Self {
        let lock = sys::lock_folder(folder, "lock").expect("nobody holds it");
        let socket = folder.join("s");
        let _ = std::fs::remove_file(&socket);
        let over = Arc::new(AtomicBool::new(false));
        // A path of the working folder's own would be too long for an address.
        let listener = bind(&socket);
        let (hello, status) = (Answer::Hello(says.clone()), Answer::Status(Box::new(tells.clone())));
        let stopped = Answer::Stopped(Box::new(tells.clone()));
        let ended = Arc::clone(&over);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let answers = [hello.clone(), status.clone(), stopped.clone()];
                std::thread::spawn(move || lie(stream, &answers));
            }
        });
        Self { folder: folder.to_owned(), over, _lock: lock }
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let socket = self.folder.join("s");
        let _ = UnixStream::connect(&socket);
        let _ = std::fs::remove_file(socket);
    }
}

fn bind(socket: &Path) -> UnixListener {
    UnixListener::bind(socket).expect("a socket")
}

fn lie(mut stream: UnixStream, [hello, status, stopped]: &[Answer; 3]) {
    let lines = BufReader::new(stream.try_clone().expect("a stream")).lines();
    for (number, line) in lines.map_while(Result::ok).enumerate() {
        let answer = match number {
            0 => hello,
            _ if line.contains("stop") => stopped,
            // What did not change is not told again.
            _ if line.contains("next") => continue,
            _ => status,
        };
        let Ok(()) = writeln!(stream, "{}", serde_json::to_string(answer).expect("JSON")) else { return };
    }
}

/// Lets the daemon find a liar in place of the keeper of the one instance: what the status says is kept under `name`.
async fn a_liar(name: &str, change: impl Fn(&mut Identity, &mut Status), in_file_too: bool) {
    let (river, daemon) = serving(lab(name).await).await;
    let [folder] = &river.lab.instances()[..] else { panic!("one instance") };
    let mut keeper = Client::connect(folder, None).expect("a keeper");
    let (mut says, mut tells) = (keeper.identity().clone(), keeper.status().expect("a status"));
    let agent = tells.agent.expect("an agent").pid;
    daemon.kill();
    kill(says.process.pid);
    until("the folder is free", async || sys::lock_folder(folder, "lock").ok().map(drop)).await;
    says.process = sys::process(std::process::id()).expect("looked").expect("this process");
    let honest = says.clone();
    change(&mut says, &mut tells);
    let file = if in_file_too { &says } else { &honest };
    std::fs::write(folder.join("keeper.json"), serde_json::to_vec(file).expect("JSON")).expect("written");
    let liar = Liar::begin(folder, &says, &tells);
    let daemon = river.spawn("one", "");
    river.recorded("it is said", |record| holds(record, "Degraded", "cannot be started by this machine")).await;
    golden::says(name, &river, &daemon).await;
    assert!(Path::new(&format!("/proc/{agent}")).exists(), "what it says of the agent is nothing to act by");
    drop(liar);
    river.recorded("it is Ready", |record| holds(record, "Ready", "")).await;
    answers(&river).await;
}

#[tokio::test]
async fn a_keeper_of_another_launch_is_not_believed() {
    a_liar(
        "keeper-of-another-launch",
        |says, tells| {
            "another".clone_into(&mut says.nonce);
            "another".clone_into(&mut tells.nonce);
        },
        true,
    )
    .await;
}

#[tokio::test]
async fn a_keeper_that_claims_another_instance_is_not_believed() {
    a_liar(
        "keeper-of-another-instance",
        |says, tells| {
            "billing-0123456789-0".clone_into(&mut says.instance);
            "billing-0123456789-0".clone_into(&mut tells.instance);
            tells.agent = None;
        },
        false,
    )
    .await;
}

#[tokio::test]
async fn a_table_of_another_boot_is_not_used() {
    let (mut river, daemon) = serving(lab("boot").await).await;
    let table = river.lab.at("table.json");
    daemon.kill();
    river.lab.kill_proxy();
    let mut before = backstay::proxy::load_table(&table).expect("a table").table;
    before.generation += 1;
    "another boot".clone_into(&mut before.boot_id);
    backstay::proxy::write_table(&table, &before).expect("written");
    river.lab.start_proxy();
    let said = until("the proxy listens", async || knock(&river).await).await;
    assert_eq!(said, 503, "nobody knows who has those addresses now");
    let daemon = river.start().await;
    answers(&river).await;
    golden::says("table-of-another-boot", &river, &daemon).await;
}

#[tokio::test]
async fn what_forks_away_ends_with_its_agent() {
    let mut lab = lab("forks").await;
    lab.more = "keep_old = \"1s\"\n".to_owned();
    let river = River::new(lab, Repo::small()).await;
    let daemon = river.start().await;
    river.settled(&river.repo.head()).await;
    let pid = river.lab.at("pid");
    let script = format!(
        "setsid sh -c 'echo $$$$ > {}; trap \"\" TERM HUP; while :; do sleep 1; done' & exec {BACKSTAY} example-agent",
        pid.display()
    );
    let code = format!("code: {{command: [sh, -c, {}]}}\n", serde_json::to_string(&script).expect("JSON"));
    river.repo.edit(OVERLAY, CODE, &code);
    let pushed = river.repo.commit("Fork away");
    river.settled(&pushed).await;
    let away = until("it has forked", async || std::fs::read_to_string(&pid).ok()?.trim().parse::<u32>().ok()).await;
    golden::says("forks-away", &river, &daemon).await;
    let away = sys::process(away).expect("looked").expect("it runs");
    river.repo.revert(&["HEAD"]);
    until("it has ended as well", async || (sys::process(away.pid).expect("looked") != Some(away)).then_some(())).await;
    river.recorded("it is Ready", |record| holds(record, "Ready", "") && record["candidate"].is_null()).await;
    until("one instance is left", async || (river.lab.instances().len() == 1).then_some(())).await;
    answers(&river).await;
}

#[tokio::test]
async fn agents_of_one_account_are_not_kept_apart_and_the_status_says_so() {
    let river = River::new(lab("apart").await, Repo::small()).await;
    let daemon = river.start().await;
    river.settled(&river.repo.head()).await;
    let [folder] = &river.lab.instances()[..] else { panic!("one instance") };
    let found = river.lab.at("found");
    // Another agent's folder, the proxy's socket and the daemon's own: all of it is the account's.
    let script = format!(
        "cat {}/keeper.json > {} && test -w {} && test -w {} && echo reached >> {}; exec {BACKSTAY} example-agent",
        folder.display(),
        found.display(),
        river.lab.at("proxy.sock").display(),
        river.lab.at("state/host/api.sock").display(),
        found.display(),
    );
    let code = format!("code: {{command: [sh, -c, {}]}}\n", serde_json::to_string(&script).expect("JSON"));
    river.repo.edit(OVERLAY, CODE, &code);
    let pushed = river.repo.commit("Look around");
    river.settled(&pushed).await;
    assert!(std::fs::read_to_string(&found).is_ok_and(|text| text.ends_with("reached\n")), "nothing keeps it out");
    let status = daemon.done(&["status"]);
    assert!(status.contains("isolation: none (every agent has the daemon's account)"), "{status}");
    tokio::time::timeout(Duration::from_secs(20), answers(&river)).await.expect("it serves");
}
