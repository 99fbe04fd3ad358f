//! Files that are meant to hurt: each is one defined error, soon and in little memory (S7).

use std::process::Command;
use std::time::{Duration, Instant};

use crate::repository::{small, told, with_image, wrong};

/// Set where this process is the one that eats the bombs.
const EATER: &str = "BACKSTAY_TEST_BOMB";

fn bombs() -> Vec<(&'static str, String, &'static str)> {
    let aliases = (1..40).fold("x0: &x0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n".to_owned(), |text, n| {
        let alias = format!("*x{}", n - 1);
        format!("{text}x{n}: &x{n} [{}]\n", vec![alias; 9].join(", "))
    });
    let flat =
        (0..200).fold("a: &a [".to_owned() + &"1, ".repeat(20_000) + "1]\n", |text, n| format!("{text}b{n}: *a\n"));
    vec![
        ("aliases of aliases", aliases, "the file holds more than 50000 values"),
        ("aliases of a large list", flat, "the file holds more than 50000 values"),
        ("brackets", "[".repeat(1_000_000), "recursion limit exceeded"),
        ("braces", "{a: ".repeat(250_000), "recursion limit exceeded"),
        ("dashes", "- ".repeat(500_000), "recursion limit exceeded"),
        ("question marks", "? ".repeat(500_000), "a list or a map stands where a key is expected"),
        ("indentation", (0..1400).map(|n| format!("{}a:\n", " ".repeat(n))).collect(), "recursion limit exceeded"),
        ("3 MB of maps", "{a: 1}\n".repeat(450_000), "more than 1048576 bytes"),
        ("1 MB of maps", format!("[{}]", "{a: 1},".repeat(140_000)), "the file holds more than 50000 values"),
        ("1 MB of keys", (0..90_000).map(|n| format!("k{n}: 1\n")).collect(), "the file holds more than 50000 values"),
        ("a huge key", format!("{}: 1\n", "k".repeat(900_000)), "this is not YAML"),
        ("a huge explicit key", format!("? {}\n: 1\n", "k".repeat(900_000)), "a key is longer than 1024 bytes"),
        ("a huge anchor", format!("&{} a: 1\n", "k".repeat(900_000)), "this is not YAML"),
        ("a huge tag", format!("!{} a\n", "k".repeat(900_000)), "a tag"),
        ("the same key", "a: 1\n".repeat(200_000), "the key `a` stands here twice"),
        ("documents", "--- 1\n".repeat(150_000), "the file has more than 64 documents"),
        ("errors", "a: yes\n".repeat(140_000), "some read `yes` as a boolean"),
        ("a quoted text without end", format!("\"{}", "x\\n".repeat(300_000)), "this is not YAML"),
        ("comments", "# x\n".repeat(250_000), "`kind` is missing"),
        ("line ends", "\r\n".repeat(500_000), "`kind` is missing"),
        ("a text of colons", ": ".repeat(500_000), "error"),
    ]
}

fn eat() {
    for (what, text, expected) in bombs() {
        let began = Instant::now();
        let told = wrong(&small().with("agents/a/agent.yaml", &text));
        let took = began.elapsed();
        println!("{took:?} {what}");
        let first = told.lines().next().unwrap_or_default();
        assert!(told.contains(expected), "{what}: {first}");
        assert!(told.len() < 200_000, "{what}: {} bytes of errors", told.len());
        // Ten times what it may take in a build for use: this one is not optimised, and not alone.
        assert!(took < Duration::from_secs(10), "{what}: {took:?}");
    }
    let began = Instant::now();
    let json = [
        ("[".repeat(1_000_000), "nested more than 64 levels deep"),
        (format!("{{\"a\": [{}1]}}", "{\"a\": 1},".repeat(100_000)), "more than 50000 values"),
        (format!("{{\"{}\": 1}}", "k".repeat(900_000)), "longer than 1024 bytes"),
    ];
    for (text, expected) in json {
        let tree =
            small().with("agents/a/agent.yaml", with_image("  tools: {t: t.json}\n")).with("agents/a/t.json", &text);
        let told = wrong(&tree);
        assert!(told.contains(expected), "{told:.200}");
    }
    println!("{:?} JSON", began.elapsed());
}

// S7
#[test]
fn bombs_are_defined_errors_in_little_memory() {
    if std::env::var_os(EATER).is_some() {
        eat();
        // The most that this process ever held.
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
        println!("peak:{}", peak.trim());
        return;
    }
    let this = std::env::current_exe().expect("this test");
    let child = Command::new(this)
        .args(["--exact", "bombs::bombs_are_defined_errors_in_little_memory", "--nocapture"])
        .env(EATER, "1")
        .output()
        .expect("the eater");
    let output = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{output}\n{}", String::from_utf8_lossy(&child.stderr));
    println!("{output}");
    let peak = output.lines().find_map(|line| line.strip_prefix("peak:")).expect("a peak");
    let kilobytes: u64 = peak.trim_end_matches(" kB").trim().parse().expect("a number");
    assert!(kilobytes < 256 * 1024, "{kilobytes} kB");
}

#[test]
fn an_error_is_told_without_the_bomb() {
    let told = told(&match crate::repository::at(
        &mut backstay::desired::Cache::default(),
        &small().with("backstay.yaml", "[".repeat(100_000)),
        "prod",
        1,
    ) {
        Err(errors) => errors,
        Ok(_) => panic!("taken"),
    });
    assert!(told.len() < 1000, "{told}");
}
