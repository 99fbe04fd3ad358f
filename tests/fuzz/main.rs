//! R5: no panic from data. The corpus of the fuzzer, replayed; under `cargo fuzz`, the fuzzer itself (see `Cargo.toml`).
#![cfg_attr(fuzzing, no_main)]
#![allow(clippy::disallowed_methods, reason = "tests read files")]
#![allow(
    clippy::wildcard_enum_match_arm,
    clippy::match_same_arms,
    clippy::struct_excessive_bools,
    clippy::unused_self,
    clippy::unnecessary_wraps,
    clippy::needless_range_loop,
    clippy::semicolon_if_nothing_returned,
    dead_code,
    unused_imports,
    reason = "the world of the stories, which use more of it"
)]

#[path = "../story/cluster.rs"]
mod cluster;
#[path = "../story/git.rs"]
mod git;
#[path = "../story/oracle.rs"]
mod oracle;
#[path = "../story/plane.rs"]
mod plane;
mod targets;
#[path = "../story/traffic.rs"]
mod traffic;
#[path = "../story/world.rs"]
mod world;

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    static TARGET: std::sync::OnceLock<targets::Target> = std::sync::OnceLock::new();
    let target = TARGET.get_or_init(|| {
        let name = std::env::var("BACKSTAY_FUZZ").expect("BACKSTAY_FUZZ names a target");
        targets::find(&name).unwrap_or_else(|| panic!("there is no target `{name}`"))
    });
    target(data);
});

/// Whether nothing panics, on whichever thread: a server's tasks are not this one's.
#[cfg(not(fuzzing))]
fn tried(target: targets::Target, data: &[u8]) -> bool {
    use std::sync::atomic::{AtomicBool, Ordering};
    static PANICKED: AtomicBool = AtomicBool::new(false);
    static HOOK: std::sync::Once = std::sync::Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICKED.store(true, Ordering::Release);
            usual(panic);
        }));
    });
    std::panic::catch_unwind(|| target(data)).is_ok() && !PANICKED.load(Ordering::Acquire)
}

// R5
#[cfg(not(fuzzing))]
#[test]
fn the_corpus_is_replayed() {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    let mut replayed = 0;
    for (name, target) in targets::TARGETS {
        let folder = corpus.join(name);
        let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut files: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
        files.sort();
        assert!(!files.is_empty(), "{name} has no corpus");
        for file in files {
            let data = std::fs::read(&file).expect("a file");
            // A panic is the failure; its place is told by the name of the file.
            let told = tried(target, &data);
            assert!(told, "{} panics", file.display());
            replayed += 1;
        }
    }
    assert!(replayed >= targets::TARGETS.len() * 2, "{replayed}");
}

// R5: and what is near to it, so that a mistake of yesterday's kind is found without a fuzzer.
#[cfg(not(fuzzing))]
#[test]
fn what_is_near_to_the_corpus_is_tried() {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(random >> 33).unwrap_or_default() % below.max(1)
    };
    for (name, target) in targets::TARGETS {
        let mut files: Vec<_> =
            std::fs::read_dir(corpus.join(name)).expect("a corpus").map(|file| file.expect("a file").path()).collect();
        files.sort();
        for file in files.iter().take(8) {
            let whole = std::fs::read(file).expect("a file");
            if whole.len() > 20_000 {
                continue;
            }
            for _ in 0..12 {
                let mut data = whole.clone();
                for _ in 0..=next(4) {
                    let at = next(data.len());
                    match next(4) {
                        0 if !data.is_empty() => data[at] = u8::try_from(next(256)).unwrap_or_default(),
                        1 => data.truncate(at),
                        2 => data.insert(at, b"{}[]:,\"'\n\t -0\xff"[next(14)]),
                        _ => {
                            let piece = data[at..].iter().take(40).copied().collect::<Vec<_>>();
                            data.splice(at..at, piece);
                        }
                    }
                }
                let told = tried(target, &data);
                assert!(told, "{name}: {:?} panics", String::from_utf8_lossy(&data));
            }
        }
    }
}
