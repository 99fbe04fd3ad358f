//! What keepers cost.

use std::fs;

use super::support::Instance;

/// How much of the memory of this machine a process takes: what it shares counts in part. In KiB.
fn share(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find(|line| line.starts_with("Pss:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn fifty_keepers_take_little_memory() {
    let instances = (0..50).map(|_| Instance::sh("echo ready; exec sleep 1000")).collect::<Vec<_>>();
    let keepers = instances.iter().map(|instance| instance.start().process.pid).collect::<Vec<_>>();
    for instance in &instances {
        instance.logged("ready");
        instance.status();
    }
    let shares = keepers.iter().map(|pid| share(*pid)).collect::<Vec<_>>();
    let (sum, most) = (shares.iter().sum::<u64>(), *shares.iter().max().unwrap());
    println!("50 keepers: {} KiB each, {most} KiB at most", sum / 50);
    // Twice and more below what a keeper may take, so that a program that grows is seen early.
    assert!(sum / 50 <= 1024, "{shares:?}");
}
