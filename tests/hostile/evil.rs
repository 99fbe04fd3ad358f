//! S7, S8, S9: each evil tree has one defined result, soon and in little memory.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use backstay::desired::{At, Cache, Resolve, TargetKind, frozen, next_freeze, resolve};
use backstay::model::{CommitId, Diagnostics, EnvironmentName, Revision};
use backstay::source::Store;

use crate::forge::{self, FILE, FOLDER, Forge, LINK, MODULE};
use crate::git::TestRepo;
use crate::newer;

/// Set where this process is the one that reads an evil tree: the repository and the commit.
const READER: &str = "BACKSTAY_TEST_EVIL";
/// What the core may take of a processor's time: a second, and where it is built without optimisation, as it is for most
/// tests, twenty times that, for so much slower it is. What is not bounded, a bomb, takes minutes or never ends.
const TIME: Duration = if cfg!(debug_assertions) { Duration::from_secs(20) } else { Duration::from_secs(1) };
/// Bytes of one message: it goes into records and onto screens.
const LONGEST: usize = 4096;
/// Set where it is read for a host.
const HOST: &str = "BACKSTAY_TEST_EVIL_HOST";
/// What the core may take of memory, in kB.
const MEMORY: u64 = 256 * 1024;

pub(crate) type Build = Box<dyn Fn(Forge<'_>) -> git2::Oid>;

/// An agent with these lines in its `spec` that runs on both kinds of target.
pub(crate) fn agent(spec: &str) -> String {
    forge::agent(spec).replacen("{image:", "{command: [sh], image:", 1)
}

/// A tree, by its name.
pub(crate) fn case(name: &'static str, build: impl Fn(Forge<'_>) -> Forge<'_> + 'static) -> (&'static str, Build) {
    (name, Box::new(move |forge| build(forge).root()))
}

/// A file of this name in a folder that is read whole.
fn named(name: &'static str, evil: impl AsRef<[u8]> + 'static) -> (&'static str, Build) {
    case(name, move |forge| {
        let blob = forge.repo.blob(b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n");
        forge.odd("agents/a/manifests", FILE, evil.as_ref(), blob)
    })
}

/// A tool whose input schema has these further fields.
fn tool(schema: &str) -> String {
    format!(r#"{{"name": "t", "description": "d", "inputSchema": {{"type": "object", {schema}}}}}"#)
}

fn with_tool(name: &'static str, schema: String) -> (&'static str, Build) {
    case(name, move |forge| {
        forge.file("agents/a/agent.yaml", agent("  tools: {t: t.json}\n")).file("agents/a/t.json", tool(&schema))
    })
}

const PROMPT: &str = "  prompts: {p: p.md}\n";

fn with_prompt(name: &'static str, content: impl AsRef<[u8]> + 'static) -> (&'static str, Build) {
    case(name, move |forge| forge.file("agents/a/agent.yaml", agent(PROMPT)).file("agents/a/p.md", content.as_ref()))
}

fn with_template(name: &'static str, syntax: &'static str, content: String) -> (&'static str, Build) {
    case(name, move |forge| {
        let spec = format!("  prompts: {{p: {{file: p.md, syntax: {syntax}, variables: [a]}}}}\n");
        forge.file("agents/a/agent.yaml", agent(&spec)).file("agents/a/p.md", &content)
    })
}

const MIGRATIONS: &str = "  memory: {database: {secret: s, key: k}, migrations: m}\n";

/// Names that tell their number.
fn pair(n: usize) -> [String; 2] {
    [format!("{n:06}_x.up.sql"), format!("{n:06}_x.down.sql")]
}

fn names() -> Vec<(&'static str, Build)> {
    vec![
        named("name: not UTF-8", b"not\xffutf8.yaml"),
        named("name: overlong UTF-8", b"\xc0\xae\xc0\xae.yaml"),
        named("name: a line break", "a\nb.yaml"),
        named("name: a terminal escape", "\x1b[31mred.yaml"),
        named("name: C1 control", "\u{85}.yaml"),
        named("name: turned text", "\u{202e}lmay.yaml"),
        named("name: .git", ".git"),
        named("name: .GIT", ".GIT"),
        named("name: git~1", "git~1"),
        named("name: .git with an unseen letter", ".g\u{200c}it"),
        named("name: ..", ".."),
        named("name: .", "."),
        named("name: a slash", "../../etc/passwd"),
        named("name: a backslash", "..\\x.yaml"),
        named("name: nothing", ""),
        named("name: 256 bytes", "x".repeat(256)),
        named("name: 1 MB", "x".repeat(1 << 20)),
        case("name: two that differ by case", |forge| {
            let blob = forge.repo.blob(b"a: 1\n");
            forge.odd("agents/a/manifests", FILE, "x.yaml", blob).odd("agents/a/manifests", FILE, "X.yaml", blob)
        }),
        case("name: twice the same", |forge| {
            let blob = forge.repo.blob(b"a: 1\n");
            forge.odd("agents/a/manifests", FILE, "x.yaml", blob).odd("agents/a/manifests", FILE, "x.yaml", blob)
        }),
        case("name: agents that differ by case", |forge| forge.file("agents/A/agent.yaml", agent(""))),
        case("name: an agent that is none", |forge| forge.file("agents/Ünfug/agent.yaml", agent(""))),
        case("name: evil where nothing is read", |forge| {
            let blob = forge.repo.blob(b"x");
            forge.odd("docs", FILE, b"\xff\x1b", blob)
        }),
        case("name: evil beside the folders of agents", |forge| {
            let blob = forge.repo.blob(b"x");
            forge.odd("agents", FILE, b"\xff\x1b", blob)
        }),
    ]
}

fn kinds() -> Vec<(&'static str, Build)> {
    let link = |name, folder: &'static str, entry: &'static str, gone: &'static str, mode: &'static str| {
        case(name, move |forge| {
            let blob = forge.repo.blob(b"../../../../etc/passwd");
            forge.file("agents/a/agent.yaml", agent(PROMPT)).without(gone).odd(folder, mode, entry, blob)
        })
    };
    vec![
        link("link: agent.yaml", "agents/a", "agent.yaml", "agents/a/agent.yaml", LINK),
        link("link: an agent's folder", "agents", "b", "", LINK),
        link("link: a prompt", "agents/a", "p.md", "", LINK),
        link("link: manifests", "agents/a", "manifests", "", LINK),
        link("link: backstay.yaml", "", "backstay.yaml", "backstay.yaml", LINK),
        link("submodule: a prompt", "agents/a", "p.md", "", MODULE),
        link("submodule: an agent's folder", "agents", "b", "", MODULE),
        case("folder: where a prompt is expected", |forge| {
            forge.file("agents/a/agent.yaml", agent(PROMPT)).file("agents/a/p.md/x", "x")
        }),
        case("file: where manifests are expected", |forge| forge.file("agents/a/manifests", "x")),
        case("mode: none that Git knows", |forge| {
            let blob = forge.repo.blob(b"x");
            forge.odd("agents/a/manifests", "777", "x.yaml", blob)
        }),
        case("object: missing", |forge| {
            let missing = git2::Oid::from_str(&"12".repeat(20)).expect("an id");
            forge.file("agents/a/agent.yaml", agent(PROMPT)).odd("agents/a", FILE, "p.md", missing)
        }),
        with_prompt("LFS: a prompt", "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"),
        case("LFS: agent.yaml", |forge| {
            forge.file("agents/a/agent.yaml", "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1\n")
        }),
        with_prompt("text: LF", "one\ntwo\n"),
        with_prompt("text: CRLF", "one\r\ntwo\r\n"),
        with_prompt("text: a byte order mark", "\u{feff}one\ntwo\n"),
        with_prompt("text: UTF-16", b"\xff\xfeo\0n\0e\0"),
        with_prompt("text: Latin-1", b"stra\xdfe\n"),
        with_prompt("text: U+0000", b"a\0b"),
        case("text: agent.yaml in CRLF", |forge| forge.file("agents/a/agent.yaml", agent("").replace('\n', "\r\n"))),
        case("text: agent.yaml with a byte order mark", |forge| {
            forge.file("agents/a/agent.yaml", format!("\u{feff}{}", agent("")))
        }),
        case("text: attributes that filter", |forge| {
            let attributes = "* text=auto eol=crlf ident filter=lfs working-tree-encoding=UTF-16\n";
            forge
                .file(".gitattributes", attributes)
                .file("agents/a/agent.yaml", agent(PROMPT))
                .file("agents/a/p.md", "one\ntwo\n")
        }),
    ]
}

fn bombs() -> Vec<(&'static str, Build)> {
    vec![
        case("bomb: 12 objects, 10^10 paths, as agents", |forge| {
            let bomb = forge.bomb(10, b"x");
            let forge = forge.without("agents/a/agent.yaml");
            forge.odd("", FOLDER, "agents", bomb)
        }),
        case("bomb: 10^10 paths as manifests", |forge| {
            let bomb = forge.bomb(10, b"x");
            forge.odd("agents/a", FOLDER, "manifests", bomb)
        }),
        case("bomb: 10^10 paths as migrations", |forge| {
            let bomb = forge.bomb(10, b"x");
            forge.file("agents/a/agent.yaml", agent(MIGRATIONS)).odd("agents/a", FOLDER, "m", bomb)
        }),
        case("bomb: 10^10 paths where nothing is read", |forge| {
            let bomb = forge.bomb(10, b"x");
            forge.odd("", FOLDER, "docs", bomb)
        }),
        case("depth: 5,000 folders", |forge| {
            let mut deep = forge.repo.tree(&[(FILE, b"p.md", forge.repo.blob(b"x"))]);
            for _ in 0..5000 {
                deep = forge.repo.tree(&[(FOLDER, b"d", deep)]);
            }
            let spec = format!("  prompts: {{p: \"{}/p.md\"}}\n", vec!["d"; 5000].join("/"));
            forge.file("agents/a/agent.yaml", agent(&spec)).odd("agents/a", FOLDER, "d", deep)
        }),
        case("depth: 40 folders", |forge| {
            let spec = format!("  prompts: {{p: \"{}/p.md\"}}\n", vec!["d"; 40].join("/"));
            forge.file("agents/a/agent.yaml", agent(&spec))
        }),
        case("migrations: 100,000", |forge| {
            let blob = forge.repo.blob(b"SELECT 1;");
            let many = forge.many(FILE, blob, (1..=50_000).flat_map(pair));
            forge.file("agents/a/agent.yaml", agent(MIGRATIONS)).odd("agents/a", FOLDER, "m", many)
        }),
        case("migrations: 9,999", |forge| {
            let blob = forge.repo.blob(b"SELECT 1;");
            let many = forge.many(FILE, blob, (1..=9999).flat_map(pair));
            forge.file("agents/a/agent.yaml", agent(MIGRATIONS)).odd("agents/a", FOLDER, "m", many)
        }),
        case("migrations: 20,000 of 1 MB", |forge| {
            let blob = forge.repo.blob(format!("SELECT 1;{}", " ".repeat((1 << 20) - 9)).as_bytes());
            let many = forge.many(FILE, blob, (1..=10_000).flat_map(pair));
            forge.file("agents/a/agent.yaml", agent(MIGRATIONS)).odd("agents/a", FOLDER, "m", many)
        }),
        case("manifests: 20,000 of 64 documents", |forge| {
            let text: String = (0..64).fold(String::new(), |mut text, n| {
                let _ = write!(text, "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: x{n}}}\n");
                text
            });
            let many = forge.many(FILE, forge.repo.blob(text.as_bytes()), (0..20_000).map(|n| format!("{n}.yaml")));
            forge.odd("agents/a", FOLDER, "manifests", many)
        }),
        case("manifests: 20,000 that are no YAML", |forge| {
            let text = "a: yes\n".repeat(10_000);
            let many = forge.many(FILE, forge.repo.blob(text.as_bytes()), (0..20_000).map(|n| format!("{n}.yaml")));
            forge.odd("agents/a", FOLDER, "manifests", many)
        }),
        case("consents: 20,000 that are no YAML", |forge| {
            let text = "a: yes\n".repeat(5_000);
            let many = forge.many(FILE, forge.repo.blob(text.as_bytes()), (0..20_000).map(|n| format!("{n}.yaml")));
            forge.odd("", FOLDER, "consent", many)
        }),
        case("consents: 900 that are no YAML", |forge| {
            let text = "a: yes\n".repeat(5_000);
            let many = forge.many(FILE, forge.repo.blob(text.as_bytes()), (0..900).map(|n| format!("{n}.yaml")));
            forge.odd("", FOLDER, "consent", many)
        }),
        case("overlays: 20,000 for nobody", |forge| {
            let many = forge.many(FILE, forge.repo.blob(b"replicas: 1\n"), (0..20_000).map(|n| format!("a{n}.yaml")));
            forge.odd("environments", FOLDER, "prod", many)
        }),
        case("agents: 2,000 of one folder", |forge| {
            let many = forge.many(FOLDER, forge.bomb(1, b"x"), (0..2_000).map(|n| format!("a{n}")));
            forge.without("agents/a/agent.yaml").odd("", FOLDER, "agents", many)
        }),
        case("prompts: 50 MB", |forge| {
            let spec = "  prompts: {p: p.md}\n";
            forge.file("agents/a/agent.yaml", agent(spec)).file("agents/a/p.md", vec![b'x'; 50 << 20])
        }),
        case("prompts: 40,000 times 1 MB", |forge| {
            let spec = format!("  prompts: {{p: [{}]}}\n", vec!["p.md"; 40_000].join(", "));
            forge.file("agents/a/agent.yaml", agent(&spec)).file("agents/a/p.md", vec![b'x'; 1 << 20])
        }),
        case("prompts: 40,000 that do not exist", |forge| {
            let many = (0..40_000).map(|n| format!("p{n}.md")).collect::<Vec<_>>().join(", ");
            let names = forge.many(FILE, forge.repo.blob(b"x"), (0..19_000).map(|n| format!("q{n}.md")));
            let spec = format!("  prompts: {{p: [{}]}}\n", many.replace('p', "d/p"));
            forge.file("agents/a/agent.yaml", agent(&spec)).odd("agents/a", FOLDER, "d", names)
        }),
        case("models: 10,000 uses of a large entry", |forge| {
            let entry = (0..9000).map(|n| format!("k{n}: 1")).collect::<Vec<_>>().join(", ");
            let catalogue = format!("f: {{provider: openai, model: m, parameters: {{{entry}}}}}\n");
            let uses = (0..10_000).map(|n| format!("m{n}: {{use: f}}")).collect::<Vec<_>>().join(", ");
            forge
                .file("shared/models.yaml", catalogue)
                .file("agents/a/agent.yaml", agent(&format!("  models: {{{uses}}}\n")))
        }),
        case("models: 4,000 uses of none of 4,000", |forge| {
            let catalogue = (0..4_000).map(|n| format!("f{n}: {{provider: openai, model: m}}\n")).collect::<String>();
            let uses = (0..4_000).map(|n| format!("m{n}: {{use: g{n}}}")).collect::<Vec<_>>().join(", ");
            forge
                .file("shared/models.yaml", catalogue)
                .file("agents/a/agent.yaml", agent(&format!("  models: {{{uses}}}\n")))
        }),
    ]
}

fn texts() -> Vec<(&'static str, Build)> {
    let aliases = (1..40).fold("x0: &x0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n".to_owned(), |text, n| {
        format!("{text}x{n}: &x{n} [{}]\n", vec![format!("*x{}", n - 1); 9].join(", "))
    });
    let whole = |name, text: String| case(name, move |forge| forge.file("agents/a/agent.yaml", &text));
    let mut circles = vec![];
    for n in 0..1000 {
        let on = (1..=60).map(|m| format!("c{}", (n + m * 7) % 1000)).collect::<Vec<_>>().join(", ");
        circles.push((format!("agents/c{n}/agent.yaml"), format!("  dependsOn: [{on}]\n"), n));
    }
    vec![
        whole("YAML: aliases of aliases", aliases),
        whole("YAML: 150,000 documents", "--- 1\n".repeat(150_000)),
        whole("YAML: 3 MB of {a: 1}", "{a: 1}\n".repeat(450_000)),
        whole("YAML: a million brackets", "[".repeat(1_000_000)),
        whole("YAML: a tag that runs something", "!!python/object/apply:os.system [id]\n".to_owned()),
        whole("YAML: merge keys", "a: &a {b: 1}\n<<: *a\n".to_owned()),
        with_template("template: 250,000 variables", "mustache", "{{a}}".repeat(200_000)),
        with_template(
            "template: 200,000 unknown variables",
            "jinja",
            (0..80_000).map(|n| format!("{{{{b{n}}}}}")).collect(),
        ),
        with_template("template: sections that never end", "mustache", "{{#a}}".repeat(150_000)),
        with_template("template: dollars without end", "dollar", "${".repeat(500_000)),
        with_template("template: a name of 1 MB", "format", format!("{{{}}}", "b".repeat(1_000_000))),
        with_tool("schema: a pattern that backtracks", r#""properties": {"a": {"pattern": "^(a+)+$"}}"#.to_owned()),
        with_tool("schema: a pattern that refers back", r#""properties": {"a": {"pattern": "(a)\\1"}}"#.to_owned()),
        with_tool(
            "schema: a pattern of 10^9 states",
            r#""properties": {"a": {"pattern": "((a{1000}){1000}){1000}"}}"#.to_owned(),
        ),
        with_tool(
            "schema: 5,000 large patterns",
            format!(
                "\"properties\": {{{}}}",
                (0..5000)
                    .map(|n| format!(r#""a{n}": {{"pattern": "^\\w{{{}}}$"}}"#, 100 + n % 50))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        ),
        with_tool(
            "schema: 8,000 small patterns",
            format!(
                "\"properties\": {{{}}}",
                (0..8000).map(|n| format!(r#""a{n}": {{"pattern": "^a{n}$"}}"#)).collect::<Vec<_>>().join(", ")
            ),
        ),
        with_tool(
            "schema: references that double 40 times",
            format!(
                "\"$ref\": \"#/$defs/d0\", \"$defs\": {{{}, \"d40\": {{}}}}",
                (0..40)
                    .map(|n| format!(
                        r##""d{n}": {{"allOf": [{{"$ref": "#/$defs/d{m}"}}, {{"$ref": "#/$defs/d{m}"}}]}}"##,
                        m = n + 1
                    ))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        ),
        with_tool("schema: a reference to itself", r##""$ref": "#""##.to_owned()),
        with_tool("schema: a reference to a file", r#""$ref": "file:///etc/passwd""#.to_owned()),
        with_tool("schema: another dialect", r#""$schema": "http://127.0.0.1:1/schema""#.to_owned()),
        with_tool(
            "schema: 20,000 errors",
            format!(
                "\"properties\": {{{}}}",
                (0..20_000).map(|n| format!(r#""a{n}": 1"#)).collect::<Vec<_>>().join(", ")
            ),
        ),
        case("agents: 1,000 that wait for one another", move |mut forge| {
            for (path, spec, n) in &circles {
                forge = forge.file(path, agent(spec).replace("name: a}", &format!("name: c{n}}}")));
            }
            forge
        }),
    ]
}

/// What a person is told of a tree: one line an agent, and what else there is.
fn outcome(git_dir: &str, commit: &str, target: TargetKind) -> String {
    let store = Store::open(Path::new(git_dir)).expect("a repository");
    let commit: CommitId = commit.parse().expect("a commit");
    let revision = Revision { reference: "main".to_owned(), commit };
    let checkout = store.checkout(&revision).expect("a checkout");
    let environment: EnvironmentName = "prod".parse().expect("a name");
    let at = At::unverified_for_display(&revision, &*checkout.tree);
    let pinned = BTreeMap::new();
    let now = "2026-11-24T12:00:00Z".parse().expect("a time");
    let target = Some(target);
    let request = Resolve { environment: &environment, head: at, tracked: at, pinned: &pinned, now, target };
    let first = |found: &Diagnostics| {
        let text = found.0.first().map(ToString::to_string).unwrap_or_default();
        let cut: String = text.chars().take(220).collect();
        if let Some(long) = found.0.iter().map(|one| one.to_string().len()).find(|long| *long > LONGEST) {
            return format!("a message of {long} bytes: {cut}");
        }
        if found.0.len() > 1 { format!("{cut} (+{})", found.0.len() - 1) } else { cut }
    };
    match resolve(&mut Cache::default(), &request) {
        Err(found) => format!("repository: {}", first(&found)),
        Ok(state) => {
            let mut told = String::new();
            for (name, agent) in state.agents.iter().take(2) {
                let _ = match agent {
                    Ok(agent) => writeln!(told, "{name}: good, {}", agent.release.id.short()),
                    Err(found) => writeln!(told, "{name}: {}", first(found)),
                };
            }
            if state.agents.len() > 2 {
                let bad = state.agents.values().filter(|agent| agent.is_err()).count();
                let _ = writeln!(told, "all: {} agents, {bad} bad", state.agents.len());
            }
            if !state.warnings.0.is_empty() {
                let _ = writeln!(told, "beside: {}", first(&state.warnings));
            }
            // What every look at the environment asks, also right after the clock was set back and forward.
            for at in
                [now, "2026-10-25T01:30:30Z".parse().expect("a time"), "2026-03-29T01:00:30Z".parse().expect("a time")]
            {
                if let Some(frozen) = frozen(&state.spec.freezes, at) {
                    let next = next_freeze(&state.spec.freezes, at).map_or_else(String::new, |next| next.to_string());
                    let _ = writeln!(told, "at {at} frozen until {}, then again at {next}", frozen.until);
                }
            }
            told
        }
    }
}

/// The most memory that this process ever held, in kB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse().unwrap_or_default()
}

/// What the processors did for this process so far, in hundredths of a second: whatever else the machine does.
fn ran() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("what the system says of this process");
    // After the name, which may hold anything: the state, and ten fields on the time in the program and in the system.
    let after = stat.rsplit_once(')').expect("a name").1;
    after.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("ticks")).sum()
}

/// Reads one tree in a process of its own; gives what it is told, its peak and its time.
fn read_as(git_dir: &Path, commit: &CommitId, target: TargetKind) -> Result<(String, u64, Duration), String> {
    let mut child = Command::new(std::env::current_exe().expect("this program"));
    if target == TargetKind::Host {
        child.env(HOST, "1");
    }
    let mut child = child
        .args(["--exact", "evil::each_evil_tree_has_one_defined_result_in_little_memory", "--nocapture"])
        .env(READER, format!("{}\n{commit}", git_dir.display()))
        .env("INSTA_UPDATE", "no")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a child");
    let mut out = child.stdout.take().expect("a pipe");
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = std::io::Read::read_to_string(&mut out, &mut text);
        text
    });
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break Some(status);
        }
        if began.elapsed() > Duration::from_mins(2) {
            let _ = child.kill();
            let _ = child.wait();
            break None;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    };
    let text = reader.join().expect("the output");
    let mut said = String::new();
    let _ = child.stderr.take().map(|mut err| std::io::Read::read_to_string(&mut err, &mut said));
    match status {
        None => return Err("it does not end".to_owned()),
        Some(status) if !status.success() => return Err(format!("it fails: {said:.500}")),
        Some(_) => {}
    }
    let (told, rest) =
        text.split_once("<told>").and_then(|(_, rest)| rest.split_once("</told>")).ok_or("no outcome")?;
    let mut numbers = rest.split_whitespace().filter_map(|word| word.parse::<u64>().ok());
    let (peak, ticks) = (numbers.next().ok_or("no peak")?, numbers.next().ok_or("no time")?);
    Ok((told.trim().to_owned(), peak, Duration::from_millis(10 * ticks)))
}

#[test]
fn each_evil_tree_has_one_defined_result_in_little_memory() {
    if let Ok(told) = std::env::var(READER) {
        let (git_dir, commit) = told.split_once('\n').expect("a repository and a commit");
        let target = if std::env::var_os(HOST).is_some() { TargetKind::Host } else { TargetKind::Kubernetes };
        let before = ran();
        let outcome = outcome(git_dir, commit, target);
        println!("<told>{outcome}</told> {} {}", peak(), ran() - before);
        return;
    }
    // Whoever follows a reference comes here.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            counted.fetch_add(1, Ordering::AcqRel);
            drop(stream);
        }
    });
    let base = format!(r#""$id": "http://127.0.0.1:{port}/", "$ref": "other.json""#);
    let far = vec![
        with_tool("schema: a reference to the network", format!(r#""$ref": "http://127.0.0.1:{port}/s.json""#)),
        with_tool("schema: a reference beside an id in the network", base),
        with_tool(
            "schema: a dynamic reference to the network",
            format!(r#""$dynamicRef": "http://127.0.0.1:{port}/s#x""#),
        ),
    ];
    let repo = TestRepo::new();
    let (mut golden, mut wrong) = (String::new(), vec![]);
    let old = names().into_iter().chain(kinds()).chain(bombs()).chain(texts()).chain(far);
    let new = newer::rollouts().into_iter().chain(newer::freezes()).chain(newer::rules()).chain(newer::hosts());
    let built: Vec<_> = old
        .chain(new)
        .map(|(name, build)| {
            (name, repo.commit_tree(build(Forge::small(&repo).file("agents/a/agent.yaml", agent("")))))
        })
        .collect();
    // Each in a process of its own, as many at a time as there are processors.
    let (path, next, read) = (repo.path(), AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::AcqRel);
                    let Some((_, commit)) = built.get(at) else { return };
                    let both = [TargetKind::Kubernetes, TargetKind::Host].map(|target| read_as(&path, commit, target));
                    read.lock().expect("no panic before").insert(at, both);
                }
            });
        }
    });
    for (at, both) in read.into_inner().expect("no panic before") {
        let name = built[at].0;
        let _ = writeln!(golden, "{name}");
        let mut before = None;
        for (target, read) in [TargetKind::Kubernetes, TargetKind::Host].into_iter().zip(both) {
            match read {
                Err(why) => wrong.push(format!("{name}, {target:?}: {why}")),
                Ok((told, peak, took)) => {
                    println!("{peak:>8} kB {took:>7.2?}  {target:<10?}  {name}");
                    if peak >= MEMORY {
                        wrong.push(format!("{name}, {target:?}: {peak} kB"));
                    }
                    if took > TIME {
                        wrong.push(format!("{name}, {target:?}: {took:?}"));
                    }
                    if told.contains("a message of ") {
                        wrong.push(format!("{name}, {target:?}: {told}"));
                    }
                    if told.chars().any(|c| c.is_control() && c != '\n') {
                        wrong.push(format!("{name}, {target:?}: it is shown unescaped: {told:?}"));
                    }
                    let told = told.replace('\n', "\n    ").replace(&port.to_string(), "PORT");
                    if before.as_ref() != Some(&told) {
                        let on = if target == TargetKind::Host { "on a host: " } else { "" };
                        let _ = writeln!(golden, "    {on}{told}");
                    }
                    before = Some(told);
                }
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!(calls.load(Ordering::Acquire), 0, "nobody asks the network");
    insta::assert_snapshot!("evil", golden);
}
