//! The host's database is locked, newer or damaged, or another daemon has the folder: what runs goes on.

use rusqlite::Connection;

use crate::daemon::{River, holds, until};
use crate::golden;
use crate::lab::lab;
use crate::serving::{knock, serving};

fn database(river: &River) -> Connection {
    Connection::open(river.lab.at("state/host/host.db")).expect("the database")
}

#[tokio::test]
async fn a_newer_database_is_read_and_not_written() {
    let (river, daemon) = serving(lab("newer").await).await;
    daemon.kill();
    let format = |number: u32| database(&river).pragma_update(None, "user_version", number).expect("written");
    format(99);
    let daemon = river.spawn("one", "");
    until("the status says so", async || daemon.run(&["status", "support"]).out.contains("newer format").then_some(()))
        .await;
    golden::says("database-newer", &river, &daemon).await;
    assert_eq!(daemon.run(&["status", "--exit-code"]).code, 1);
    assert_eq!(knock(&river).await, Some(200), "what serves goes on");
    daemon.kill();
    format(1);
    let _daemon = river.start().await;
    let pushed = river.repo.commit_greeting("Ahoy!");
    river.settled(&pushed).await;
}

#[tokio::test]
async fn a_damaged_database_is_read_as_far_as_it_goes() {
    let (river, daemon) = serving(lab("torn").await).await;
    daemon.kill();
    database(&river).pragma_update(None, "journal_mode", "delete").expect("the log is written back");
    tear(&river);
    let daemon = river.spawn("one", "");
    until("the status says so", async || daemon.run(&["status", "support"]).out.contains("damaged").then_some(()))
        .await;
    golden::says("database-damaged", &river, &daemon).await;
    assert_eq!(knock(&river).await, Some(200), "what serves goes on");
    daemon.kill();

    // As the status says: put aside, it is made anew from Git.
    std::fs::rename(river.lab.at("state/host/host.db"), river.lab.at("aside.db")).expect("moved");
    let _daemon = river.start().await;
    river.settled(&river.repo.head()).await;
    until("it answers", async || (knock(&river).await == Some(200)).then_some(())).await;
}

/// Damages a page of the database that holds no record, so that it is known what can be read yet.
fn tear(river: &River) {
    let db = database(river);
    db.execute_batch("CREATE TABLE ballast (x); INSERT INTO ballast VALUES (1);").expect("written");
    let root =
        db.query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'ballast'", [], |row| row.get::<_, u32>(0));
    let page = usize::try_from(root.expect("a page") - 1).expect("small");
    drop(db);
    let path = river.lab.at("state/host/host.db");
    let mut bytes = std::fs::read(&path).expect("the database");
    let size = usize::from(u16::from_be_bytes([bytes[16], bytes[17]]));
    bytes[page * size..page * size + 64].fill(0x5a);
    std::fs::write(&path, bytes).expect("written");
}

#[tokio::test]
async fn a_log_of_the_database_that_is_torn_is_taken_as_far_as_it_is_whole() {
    let (river, daemon) = serving(lab("wal").await).await;
    let wal = river.lab.at("state/host/host.db-wal");
    let pushed = river.repo.commit_greeting("Ahoy!");
    river.settled(&pushed).await;
    daemon.kill();
    let mut bytes = std::fs::read(&wal).expect("a log");
    // What came last is torn in the middle of a page, as a machine leaves it that loses power.
    tear_log(&mut bytes);
    std::fs::write(&wal, &bytes).expect("written");
    let daemon = river.start().await;
    river.settled(&pushed).await;
    river.greets("Ahoy!").await;
    until("it answers", async || (knock(&river).await == Some(200)).then_some(())).await;
    assert!(daemon.done(&["status", "support"]).contains("Ready=True"));
    golden::says("database-log-torn", &river, &daemon).await;
}

/// Damages the last frame that counts: those have the salt of the log's head, and what is behind them is of before.
fn tear_log(log: &mut [u8]) {
    let page = usize::try_from(u32::from_be_bytes([log[8], log[9], log[10], log[11]])).expect("small");
    let (head, frame) = (32, 24 + page);
    let salt = log[16..24].to_vec();
    let frames = (head..log.len()).step_by(frame).take_while(|at| log.get(at + 8..at + 16) == Some(&*salt));
    let last = frames.last().expect("a frame");
    log[last + frame / 2..last + frame].fill(0x5a);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_said_and_left_alone() {
    let (river, daemon) = serving(lab("nodb").await).await;
    daemon.kill();
    let path = river.lab.at("state/host/host.db");
    for beside in ["host.db-wal", "host.db-shm"] {
        let _ = std::fs::remove_file(river.lab.at("state/host").join(beside));
    }
    std::fs::write(&path, "not a database, but longer than a header of one is, by far; and by some more of it")
        .expect("written");
    let daemon = river.spawn("one", "");
    until("it says so", async || daemon.log().contains("file is not a database").then_some(())).await;
    assert_eq!(knock(&river).await, Some(200), "what serves goes on");
    assert!(std::fs::read_to_string(&path).is_ok_and(|text| text.starts_with("not a database")), "it is left alone");
}

#[tokio::test]
async fn a_database_that_somebody_locks_is_waited_for() {
    let (river, daemon) = serving(lab("locked").await).await;
    let mut db = database(&river);
    let lock = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).expect("the lock");
    let pushed = river.repo.commit_greeting("Ahoy!");
    until("it is in its log", async || daemon.log().contains("database is locked").then_some(())).await;
    assert!(daemon.done(&["status", "support"]).contains("stable"), "reading goes on");
    assert_eq!(knock(&river).await, Some(200), "what serves goes on");
    lock.rollback().expect("let go");
    river.settled(&pushed).await;
    river.recorded("it is Ready", |record| holds(record, "Ready", "")).await;
    golden::says("database-was-locked", &river, &daemon).await;
}

#[tokio::test]
async fn a_second_daemon_says_that_there_is_one_and_changes_nothing() {
    let (river, daemon) = serving(lab("two").await).await;
    let second = river.spawn("two", "");
    let folder = river.lab.at("state/host");
    let says = format!("another daemon serves this host from `{}`, as process {}", folder.display(), daemon.id());
    until("it says so", async || second.log().contains(&says).then_some(())).await;
    assert!(second.log().contains("hint: one daemon serves a host: stop the other one"), "{}", second.log());
    let pushed = river.repo.commit_greeting("Ahoy!");
    river.settled(&pushed).await;
    golden::says("two-daemons", &river, &daemon).await;
    assert!(second.get("/readyz").await.is_none_or(|(code, _)| code != 200), "it is not ready");
}
