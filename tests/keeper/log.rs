//! What becomes of what an agent writes.

use std::fs;
use std::process::Command;

use backstay::keeper::logs::{self, Reader};
use backstay::keeper::wire::{Identity, Phase};
use backstay::sys::{self, Word};

use super::support::{Instance, lives, program, until};

fn on_disk(instance: &Instance) -> u64 {
    let files = logs::files(&instance.spec.log.folder).unwrap_or_default();
    files.iter().filter_map(|file| Some(fs::metadata(&file.path).ok()?.len())).sum()
}

#[test]
fn no_byte_is_lost_or_doubled_when_keepers_are_killed() {
    const LINES: usize = 200_000;
    let script = format!(
        "import time\nfor n in range({LINES}):\n    print('line', n, 'x' * 90)\nprint('END', flush=True)\ntime.sleep(1000)"
    );
    // Small files, so that keepers die while they begin new ones, too.
    let instance = Instance::new("/usr/bin/python3", &["-c", &script]);
    let instance = instance.with(|spec| (spec.log.max_bytes, spec.log.files) = (1 << 20, 1000));
    instance.start();
    let mut killed = 0;
    until("the agent is done", || {
        instance.kill_keeper();
        killed += 1;
        instance.start();
        instance.client().status().unwrap();
        let mut last = [0; 4];
        let mut reader = Reader::tail(&instance.spec.log.folder, 1).unwrap();
        (reader.read(&mut last).is_ok_and(|count| last[..count] == *b"END\n")).then_some(())
    });
    let log = instance.log();
    let wrong = log.lines().take(LINES).enumerate().find(|(at, line)| *line != format!("line {at} {}", "x".repeat(90)));
    assert_eq!(wrong, None, "a byte was lost or doubled");
    assert!(log.lines().count() == LINES + 1 && killed > 5, "{killed}");
}

#[test]
fn files_are_begun_by_size_and_only_so_many_are_kept() {
    let instance =
        Instance::sh("i=0; while [ $i -lt 3000 ]; do echo \"line $i\"; i=$((i+1)); done; echo END; exec sleep 1000");
    let instance = instance.with(|spec| (spec.log.max_bytes, spec.log.files) = (4096, 3));
    instance.start();
    instance.logged("END");
    let files = logs::files(&instance.spec.log.folder).unwrap();
    assert!((2..=3).contains(&files.len()), "{files:?}");
    assert!(files[0].number > 1);
    assert!(files.iter().all(|file| fs::metadata(&file.path).unwrap().len() <= 4096));
    // What is left is the end, whole.
    let log = instance.log();
    let tail = log.lines().skip(1).collect::<Vec<_>>();
    assert!(tail.len() > 100 && tail.ends_with(&["line 2998", "line 2999", "END"]), "{tail:?}");
}

#[test]
fn a_file_is_begun_when_the_last_is_old() {
    let instance = Instance::sh("i=0; while :; do echo \"line $i\"; i=$((i+1)); sleep 0.05; done");
    let instance = instance.with(|spec| spec.log.max_age_s = 1);
    instance.start();
    until("three files", || (logs::files(&instance.spec.log.folder).unwrap_or_default().len() >= 3).then_some(()));
    let log = instance.log();
    assert!(log.lines().enumerate().all(|(at, line)| line == format!("line {at}")), "{log}");
}

#[test]
fn a_reader_follows_across_files_and_gaps() {
    let instance =
        Instance::sh("i=0; while [ $i -lt 100000 ]; do echo \"line $i\"; i=$((i+1)); done; echo END; exec sleep 1000");
    let instance = instance.with(|spec| (spec.log.max_bytes, spec.log.files) = (16 << 10, 1000));
    let mut reader = Reader::oldest(&instance.spec.log.folder);
    instance.start();
    let (mut all, mut bytes) = (String::new(), vec![0; 777]);
    until("the end was read", || {
        while let count @ 1.. = reader.read(&mut bytes).unwrap() {
            all.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
        }
        all.ends_with("END\n").then_some(())
    });
    assert!(all.lines().take(100_000).enumerate().all(|(at, line)| line == format!("line {at}")));
    // The last lines, also over the edge of a file; a reader that is far behind goes on with what is left.
    let mut text = |mut reader: Reader| {
        let mut text = String::new();
        while let count @ 1.. = reader.read(&mut bytes).unwrap() {
            text.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
        }
        text
    };
    let folder = &instance.spec.log.folder;
    assert_eq!(text(Reader::tail(folder, 3).unwrap()), "line 99998\nline 99999\nEND\n");
    assert_eq!(text(Reader::tail(folder, 0).unwrap()), "");
    let many = text(Reader::tail(folder, 5000).unwrap());
    assert!(
        many.ends_with("line 99999\nEND\n") && (4990..=5000).contains(&many.lines().count()),
        "{}",
        many.lines().count()
    );
    let behind = Reader::oldest(folder);
    let files = logs::files(folder).unwrap();
    fs::remove_file(&files[0].path).unwrap();
    assert!(text(behind).ends_with("line 99999\nEND\n"));
}

#[test]
fn a_gigabyte_takes_no_more_room_than_is_given() {
    let instance = Instance::sh("dd if=/dev/zero bs=64k count=16384 2>/dev/null; echo END; exec sleep 1000");
    let instance = instance.with(|spec| (spec.log.max_bytes, spec.log.files) = (1 << 20, 4));
    instance.start();
    let status = until("all was written", || {
        assert!(on_disk(&instance) <= 4 << 20);
        Some(instance.status()).filter(|status| status.log.kept > 1 << 30)
    });
    assert_eq!((status.log.kept, status.log.dropped), ((1 << 30) + 4, 0));
    assert_eq!((status.phase, status.starts), (Phase::Running, 1));
}

/// Starts a keeper in a mount namespace of its own, with a small disk for its log.
fn start_on_small_disk(instance: &Instance) -> Identity {
    let logs = instance.spec.log.folder.display().to_string();
    fs::create_dir_all(&logs).unwrap();
    instance.spec.write(&instance.folder).unwrap();
    // Whoever is not root may mount in a user namespace of its own.
    let flags: &[&str] = if sys::own_uid() == 0 { &["-m"] } else { &["-U", "-r", "-m"] };
    let script = format!(
        "mount -t tmpfs -o size=512k none '{logs}' && head -c 300k /dev/zero > '{logs}/filler' && exec '{}' start '{}'",
        program().display(),
        instance.folder.display()
    );
    let output = Command::new("unshare").args(flags).args(["sh", "-c", &script]).output().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    instance.client().identity().clone()
}

#[test]
fn a_full_disk_stops_nobody_and_is_told() {
    let instance = Instance::python(
        "import os, signal, sys, time\n\
         def more(*_):\n    \
             for n in range(20): print('after', n)\n\
         signal.signal(signal.SIGUSR1, more)\n\
         for n in range(20000): print('line', n, 'x' * 90)\n\
         open(os.environ['HOME'] + '/done', 'w').close()\n\
         while True: time.sleep(0.01)",
    );
    let keeper = start_on_small_disk(&instance);
    // Two megabytes go into two hundred kilobytes: the agent does not wait for the rest.
    until("the agent is done", || fs::exists(instance.folder.join("home/done")).unwrap().then_some(()));
    let status = instance.until("something was dropped", |status| status.log.dropped > 0);
    assert!(status.log.trouble.as_ref().unwrap().contains("No space left"), "{status:?}");
    assert_eq!((status.phase, status.starts), (Phase::Running, 1));
    // When there is room again, the log goes on, and tells what is missing.
    let seen = format!("/proc/{}/root{}", keeper.process.pid, instance.spec.log.folder.display());
    fs::remove_file(format!("{seen}/filler")).unwrap();
    instance.client().signal(Word::Usr1).unwrap();
    let log = until("the log goes on", || {
        let files = logs::files(seen.as_ref()).unwrap();
        let text = files.iter().map(|file| fs::read_to_string(&file.path).unwrap()).collect::<String>();
        if text.contains("after 19\n") {
            return Some(text);
        }
        // Those that came while nothing was tried are dropped, too: some more.
        instance.client().signal(Word::Usr1).unwrap();
        None
    });
    let status = instance.status();
    assert_eq!(status.log.trouble, None);
    let missing = log.lines().find(|line| line.contains("bytes are missing here")).unwrap();
    assert!(missing.contains(&status.log.dropped.to_string()), "{missing} {status:?}");
    let before = log.split("\n[backstay]").next().unwrap();
    assert!(before.lines().enumerate().take(1000).all(|(at, line)| line.starts_with(&format!("line {at} "))));
    assert!(lives(keeper.process));
}

#[test]
fn what_an_agent_puts_among_its_logs_holds_up_nobody() {
    let instance = Instance::sh(
        "mkfifo $LOGS/90000000-1.log; ln -s /dev/zero $LOGS/90000001-1.log; rm $LOGS/../log; echo ready; echo END; exit 1",
    );
    let instance = instance.with(|spec| {
        spec.env.insert("LOGS".to_owned(), spec.log.folder.display().to_string());
        spec.log.max_bytes = 4096;
    });
    fs::create_dir_all(&instance.spec.log.folder).unwrap();
    instance.start();
    // A pipe that has lost its name carries the next run's output, too.
    until("three runs", || (instance.log().matches("END").count() >= 3).then_some(()));
    assert!(instance.status().log.trouble.is_none());
}

#[test]
fn a_log_folder_that_is_removed_is_made_again() {
    let instance = Instance::sh("i=0; while :; do echo \"line $i\"; i=$((i+1)); sleep 0.05; done")
        .with(|spec| spec.log.max_bytes = 4096);
    instance.start();
    instance.logged("line 3");
    fs::remove_dir_all(&instance.spec.log.folder).unwrap();
    until("it is there again", || {
        (!logs::files(&instance.spec.log.folder).unwrap_or_default().is_empty()).then_some(())
    });
    instance.running();
}
