//! Evil trees of what moves traffic, freezes, decides by flags, and runs on hosts.

use std::fmt::Write as _;

use crate::evil::{Build, agent, case};
use crate::forbidden::IMAGE;
use crate::forge::{FILE, FOLDER, LINK, MODULE};

/// An agent with a port and this `rollout`.
fn rollout(name: &'static str, rollout: impl Into<String>) -> (&'static str, Build) {
    let spec = format!("  workload: {{port: 8000}}\n  rollout: {}\n", rollout.into());
    case(name, move |forge| forge.file("agents/a/agent.yaml", agent(&spec)))
}

fn canary(name: &'static str, steps: impl AsRef<str>) -> (&'static str, Build) {
    rollout(name, format!("{{strategy: {{canary: {{steps: [{}]}}}}}}", steps.as_ref()))
}

fn metric(name: &'static str, metric: impl AsRef<str>) -> (&'static str, Build) {
    rollout(name, format!("{{strategy: {{canary: {{}}}}, analysis: {{m: {}}}}}", metric.as_ref()))
}

/// The environment with this `spec`.
fn environment(name: &'static str, spec: impl Into<String>) -> (&'static str, Build) {
    let head = "apiVersion: backstay.dev/v1alpha1\nkind: Environment\nmetadata: {name: prod}\nspec:\n";
    let text = format!("{head}  {}\n", spec.into());
    case(name, move |forge| forge.file("environments/prod.yaml", &text))
}

fn freeze(name: &'static str, cron: impl AsRef<str>, more: &str) -> (&'static str, Build) {
    environment(name, format!("freezes: [{{cron: \"{}\", {more}}}]", cron.as_ref()))
}

/// `flags.json`.
fn flags(name: &'static str, text: impl Into<String>) -> (&'static str, Build) {
    let text = text.into();
    case(name, move |forge| forge.file("agents/a/flags.json", &text))
}

/// One flag with this rule, and these rules beside it.
fn rule(name: &'static str, rule: &str, shared: &str) -> (&'static str, Build) {
    let flag = r#""state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "off""#;
    flags(name, format!(r#"{{"flags": {{"f": {{{flag}, "targeting": {rule}}}}}, "$evaluators": {{{shared}}}}}"#))
}

/// So many of the same, in a list.
fn times(count: usize, text: &str) -> String {
    vec![text; count].join(", ")
}

/// So many of what each number gives, in a list.
fn each(count: usize, text: impl Fn(usize) -> String) -> String {
    (0..count).map(text).collect::<Vec<_>>().join(", ")
}

pub(crate) fn rollouts() -> Vec<(&'static str, Build)> {
    vec![
        canary("rollout: 100,000 steps", times(100_000, "{weight: 1}")),
        rollout(
            "rollout: 100,000 steps that are one",
            format!("{{strategy: {{canary: {{steps: [&s {{weight: 1}}, {}]}}}}}}", times(100_000, "*s")),
        ),
        canary("rollout: 15,000 steps", times(15_000, "{weight: 1}")),
        rollout(
            "rollout: 15,000 metrics",
            format!("{{strategy: {{canary: {{}}}}, analysis: {{{}}}}}", each(15_000, |n| format!("m{n}: {{max: 1}}"))),
        ),
        rollout(
            "rollout: 33 metrics",
            format!(
                "{{strategy: {{canary: {{}}}}, analysis: {{{}}}}}",
                each(33, |n| format!("m{n}: {{preset: error_rate, max: 0.1}}"))
            ),
        ),
        canary(
            "rollout: 15,000 limits of nothing",
            times(50, &format!("{{weight: 1, for: 5m, limits: {{{}}}}}", each(300, |n| format!("m{n}: {{max: 1}}")))),
        ),
        canary("rollout: a weight of 1e308", "{weight: 1e308, for: 5m}"),
        canary("rollout: a weight that is no number", "{weight: .nan, for: 5m}"),
        canary("rollout: a weight below nothing", "{weight: -1, for: 5m}"),
        canary("rollout: a weight that is endless", "{weight: .inf, for: 5m}"),
        canary("rollout: a weight that is nearly whole", "{weight: 99.99999999999999999, for: 5m}"),
        canary("rollout: weights that fall", "{weight: 50, for: 5m}, {weight: 5, for: 5m}"),
        canary("rollout: a step for ages", "{weight: 1, for: 999999999999999999999999h}"),
        canary("rollout: a step for 10,000 years", "{weight: 1, for: 87600000h}"),
        canary("rollout: a step for no time", "{weight: 1, for: 0s}"),
        canary("rollout: a pause for ages", "{pause: {for: 5124095576030431h}}"),
        canary("rollout: 1e30 samples", "{weight: 1, samples: 1e30, atMost: 1h}"),
        canary("rollout: 2^64 samples", "{weight: 1, samples: 18446744073709551616, atMost: 1h}"),
        canary("rollout: 2^64 - 1 samples", "{weight: 1, samples: 18446744073709551615, atMost: 1h}"),
        canary("rollout: 2^32 instances", "{replicas: 4294967296}"),
        rollout("rollout: an experiment of ages", "{strategy: {abTest: {by: {cookie: u}, for: 99999999999h}}}"),
        rollout("rollout: a warm-up of ages", "{warmUp: 18446744073709551615s, strategy: {canary: {}}}"),
        rollout(
            "rollout: a rollback each nanosecond",
            "{strategy: {canary: {}}, rollback: {cooldown: 0s, maxPerHour: 4294967295, bake: 9999999999h}}",
        ),
        rollout("rollout: a header of 500 kB", format!("{{sticky: {{header: {}}}}}", "x".repeat(500_000))),
        rollout("rollout: a header that ends the head", r#"{sticky: {header: "x\r\ny: z"}}"#),
        rollout(
            "rollout: a value that ends the head",
            r#"{strategy: {canary: {reach: {header: x, value: "a\r\nb: c"}}}}"#,
        ),
        rollout("rollout: a smoke test elsewhere", "{strategy: {blueGreen: {smoke: \"//169.254.169.254/latest\"}}}"),
        rollout("rollout: a preview of 500 kB", {
            format!("{{strategy: {{blueGreen: {{preview: {{host: {}}}}}}}}}", "a.".repeat(250_000))
        }),
        metric("metric: a query of 900 kB", format!("{{query: \"{}\", provider: p, max: 1}}", "(".repeat(900_000))),
        metric("metric: a query of 4,096 brackets", {
            format!("{{query: \"{}\", provider: p, max: 1}}", "[".repeat(4096))
        }),
        metric("metric: a path that finds everything 1,000 times", {
            format!("{{query: \"${}\", provider: p, max: 1}}", "..*".repeat(1000))
        }),
        metric("metric: a limit of 1e309", "{preset: error_rate, max: 1e309}"),
        metric("metric: a limit that is no number", "{preset: error_rate, max: .nan}"),
        metric("metric: a limit that is endless", "{preset: error_rate, max: .inf}"),
        metric("metric: a limit below nothing", "{preset: error_rate, max: -1e308}"),
        metric("metric: limits that cross", "{preset: error_rate, max: 0.1, min: 0.9}"),
        metric("metric: a margin of 1e308", "{preset: error_rate, compare: stable, margin: 1e308}"),
        metric("metric: a margin that is no number", "{preset: error_rate, compare: stable, margin: .nan}"),
        metric("metric: asked for each nanosecond", "{preset: error_rate, max: 0.1, interval: 0s}"),
        metric("metric: asked for once in ages", "{preset: error_rate, max: 0.1, interval: 99999999999999h}"),
        metric("metric: a limit of ages", "{preset: latency_p99, max: 99999999999999999999s}"),
        rollout(
            "metric: a name of 500 kB",
            format!(
                "{{strategy: {{canary: {{}}}}, analysis: {{{}: {{preset: error_rate, max: 1}}}}}}",
                "n".repeat(500_000)
            ),
        ),
    ]
}

pub(crate) fn freezes() -> Vec<(&'static str, Build)> {
    let minute = "{cron: \"* * * * *\", for: 90s, timezone: Europe/Berlin}";
    vec![
        environment("freezes: 12,000", format!("freezes: [{}]", times(12_000, minute))),
        environment("freezes: 20,000 that are one", format!("freezes: [&f {minute}, {}]", times(20_000, "*f"))),
        environment("freezes: 50 of each minute", format!("freezes: [{}]", times(50, minute))),
        environment(
            "freezes: 50 that come every four years",
            format!("freezes: [{}]", times(50, "{cron: \"0 0 29 2 *\", for: 8760h}")),
        ),
        environment(
            "freezes: 50 that never come",
            format!("freezes: [{}]", times(50, "{cron: \"0 0 31 2,4,6,9,11 *\", for: 1h}")),
        ),
        environment(
            "freezes: 50 that come when a century ends on a Friday",
            format!("freezes: [{}]", times(50, "{cron: \"0 0 29 2 FRI#5\", for: 1h}")),
        ),
        freeze("freeze: a list of 100,000 minutes", vec!["1"; 100_000].join(","), "for: 1h"),
        freeze("freeze: a list of 50,000 ranges", vec!["*/1"; 50_000].join(","), "for: 1h"),
        freeze("freeze: a minute of 100,000 digits", format!("{} 0 1 1 *", "9".repeat(100_000)), "for: 1h"),
        freeze("freeze: a step of nothing", "*/0 * * * *", "for: 1h"),
        freeze("freeze: a step of 2^64", "*/18446744073709551616 * * * *", "for: 1h"),
        freeze("freeze: a range backwards", "59-0 * * * *", "for: 1h"),
        freeze("freeze: 50,000 fields", "* ".repeat(50_000), "for: 1h"),
        freeze("freeze: for ages", "0 0 * * *", "for: 99999999999999999999999h"),
        freeze("freeze: for 10,000 years", "0 0 * * *", "for: 87600000h"),
        freeze("freeze: for no time", "0 0 * * *", "for: 0s"),
        freeze("freeze: a zone that is a file", "0 0 * * *", "for: 1h, timezone: \"../../../etc/passwd\""),
        freeze("freeze: a zone of 500 kB", "0 0 * * *", &format!("for: 1h, timezone: {}", "Z".repeat(500_000))),
        freeze("freeze: a message of 500 kB", "0 0 * * *", &format!("for: 1h, message: {}", "x".repeat(500_000))),
        freeze("freeze: a message for a terminal", "0 0 * * *", r#"for: 1h, message: "\e[2J\u202e""#),
        environment("waves: of 2^32 agents", "waves: {maxAgents: 4294967296}"),
        environment("after: an environment, for ages", "after: {environment: prod, for: 999999999999999h}"),
        environment("agents: 40,000 that are not there", {
            format!("agents: [{}]", each(40_000, |n| format!("b{n}")))
        }),
        environment("tags: 40,000 that are passed over", {
            format!("track: {{tags: \"v*\", exclude: [{}]}}", each(40_000, |n| format!("v{n}")))
        }),
        environment("tags: a pattern of 400,000 stars", format!("track: {{tags: \"{}\"}}", "*a".repeat(200_000))),
    ]
}

pub(crate) fn rules() -> Vec<(&'static str, Build)> {
    let nested = |levels: usize| format!("{}true{}", r#"{"!": ["#.repeat(levels), "]}".repeat(levels));
    let doubled = (0..40).fold(String::new(), |mut text, n| {
        let _ = write!(text, r#""e{n}": {{"and": [{{"$ref": "e{m}"}}, {{"$ref": "e{m}"}}]}}, "#, m = n + 1);
        text
    }) + r#""e40": {"==": [1, 1]}"#;
    let flag = r#"{"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "off"}"#;
    vec![
        rule("flags: a rule of 30 levels", &nested(30), ""),
        rule("flags: a rule of 33 levels", &nested(33), ""),
        rule("flags: a rule of 100 levels", &nested(100), ""),
        rule("flags: a rule of 100,000 levels", &nested(100_000), ""),
        rule("flags: rules that double 40 times", r#"{"$ref": "e0"}"#, &doubled),
        rule("flags: a rule that is itself", r#"{"$ref": "e"}"#, r#""e": {"$ref": "e"}"#),
        rule("flags: a rule of the network", r#"{"$ref": "http://127.0.0.1:1/e"}"#, ""),
        rule("flags: 40,000 branches", &format!(r#"{{"if": [{}]}}"#, times(40_000, "true")), ""),
        rule("flags: a rule of 20,000 operators", &format!(r#"{{"or": [{}]}}"#, times(10_000, r#"{"!": [1]}"#)), ""),
        rule(
            "flags: 20,000 operators that nobody knows",
            &format!(r#"{{"or": [{}]}}"#, times(20_000, r#"{"evil": 1}"#)),
            "",
        ),
        rule("flags: shares of 1e308", r#"{"fractional": [["on", 1e308], ["off", 1e308]]}"#, ""),
        rule("flags: shares below nothing", r#"{"fractional": [["on", -1], ["off", -99]]}"#, ""),
        rule("flags: shares of 2^64", r#"{"fractional": [["on", 18446744073709551616], ["off", 1]]}"#, ""),
        rule(
            "flags: a version of 500 kB",
            &format!(r#"{{"sem_ver": ["{}", "=", "1.0.0"]}}"#, "1.".repeat(250_000)),
            "",
        ),
        rule("flags: a text that runs something", r#"{"log": [{"method": ["constructor"]}]}"#, ""),
        flags("flags: 8,000", format!(r#"{{"flags": {{{}}}}}"#, each(8_000, |n| format!(r#""f{n}": {flag}"#)))),
        flags("flags: a key twice", format!(r#"{{"flags": {{"f": {flag}, "f": {flag}}}}}"#)),
        flags("flags: a key of 500 kB", format!(r#"{{"flags": {{"{}": {flag}}}}}"#, "f".repeat(500_000))),
        flags("flags: 40,000 variants", {
            let variants = each(40_000, |n| format!(r#""v{n}": {n}"#));
            format!(
                r#"{{"flags": {{"f": {{"state": "ENABLED", "variants": {{{variants}}}, "defaultVariant": "v0"}}}}}}"#
            )
        }),
        flags("flags: a number of 100,000 digits", {
            let number = "9".repeat(100_000);
            format!(
                r#"{{"flags": {{"f": {{"state": "ENABLED", "variants": {{"a": {number}}}, "defaultVariant": "a"}}}}}}"#
            )
        }),
        flags("flags: a million brackets", "[".repeat(1_000_000)),
        flags("flags: 5 MB", format!(r#"{{"flags": {{}}, "metadata": {{"a": "{}"}}}}"#, "x".repeat(5 << 20))),
    ]
}

/// An agent that is an artifact, and what it is asked for on a host.
fn on_host(name: &'static str, code: impl Into<String>, spec: impl AsRef<str>) -> (&'static str, Build) {
    let (code, spec) = (code.into(), spec.as_ref().to_owned());
    case(name, move |forge| {
        let head = "apiVersion: backstay.dev/v1alpha1\nkind: Agent\nmetadata: {name: a}\nspec:\n";
        forge.file("agents/a/agent.yaml", format!("{head}  code: {code}\n{spec}"))
    })
}

/// An artifact that is fetched.
fn fetched(name: &'static str, url: impl AsRef<str>) -> (&'static str, Build) {
    on_host(name, format!("{{artifact: {{url: \"{}\", sha256: \"{}\"}}}}", url.as_ref(), "12".repeat(32)), "")
}

/// An artifact `dist` of this mode and object.
fn artifact(
    name: &'static str,
    mode: &'static str,
    object: impl Fn(&crate::forge::Forge<'_>) -> git2::Oid + 'static,
) -> (&'static str, Build) {
    case(name, move |forge| {
        let object = object(&forge);
        let head = "apiVersion: backstay.dev/v1alpha1\nkind: Agent\nmetadata: {name: a}\nspec:\n";
        let text = format!("{head}  code: {{artifact: {{path: /dist}}, command: [run]}}\n");
        forge.file("agents/a/agent.yaml", text).odd("", mode, "dist", object)
    })
}

pub(crate) fn hosts() -> Vec<(&'static str, Build)> {
    let named = |name: &'static str| {
        move |forge: &crate::forge::Forge<'_>| {
            let blob = forge.repo.blob(b"run");
            forge.repo.tree(&[(FILE, b"run", blob), (FILE, name.as_bytes(), blob)])
        }
    };
    let led = |to: &'static str| {
        move |forge: &crate::forge::Forge<'_>| {
            let (blob, link) = (forge.repo.blob(b"run"), forge.repo.blob(to.as_bytes()));
            forge.repo.tree(&[(LINK, b"link", link), (FILE, b"run", blob)])
        }
    };
    let both = format!("{{command: [sh], image: \"{IMAGE}\"}}");
    let limits =
        |name, limits: &str| on_host(name, &*both, format!("  workload: {{resources: {{limits: {{{limits}}}}}}}\n"));
    let route =
        |name, route: String| on_host(name, &*both, format!("  workload: {{port: 8000}}\n  route: {{{route}}}\n"));
    vec![
        fetched("artifact: without TLS", "http://example.com/a"),
        fetched("artifact: of the metadata server", "http://169.254.169.254/latest/meta-data"),
        fetched("artifact: a file of the machine", "file:///etc/passwd"),
        fetched("artifact: of a name that begins as this machine", "http://localhost.example.com/a"),
        fetched("artifact: with a password", "https://u:p@example.com/a"),
        fetched("artifact: of 900 kB of address", format!("https://example.com/{}", "a".repeat(900_000))),
        fetched("artifact: an address that ends the head", "https://example.com/a\\r\\nX: y"),
        on_host("artifact: out of the repository", "{artifact: {path: ../../../../etc/passwd}}", ""),
        on_host("artifact: of the machine", "{artifact: {path: /../etc/passwd}}", ""),
        on_host("artifact: the whole repository", "{artifact: {path: /}, command: [backstay.yaml]}", ""),
        on_host("artifact: a command that leaves it", "{artifact: {path: /agents}, command: [../../bin/sh]}", ""),
        on_host("artifact: a command of 40,000 words", format!("{{command: [{}]}}", times(40_000, "sh")), ""),
        on_host("artifact: a command with U+0000", r#"{command: [sh, "a\0b"]}"#, ""),
        artifact("artifact: 10^10 paths", FOLDER, |forge| forge.bomb(10, b"x")),
        artifact("artifact: 25,000 files", FOLDER, |forge| {
            forge.many(FILE, forge.repo.blob(b"x"), (0..25_000).map(|n| format!("f{n}")))
        }),
        artifact("artifact: 300 MB", FOLDER, |forge| {
            forge.many(FILE, forge.repo.blob(&vec![b'x'; 1 << 20]), (0..300).map(|n| format!("f{n}")))
        }),
        artifact("artifact: 5,000 folders in one another", FOLDER, |forge| {
            let mut deep = forge.repo.tree(&[(FILE, b"run", forge.repo.blob(b"x"))]);
            for _ in 0..5000 {
                deep = forge.repo.tree(&[(FOLDER, b"d", deep)]);
            }
            deep
        }),
        artifact("artifact: a link", LINK, |forge| forge.repo.blob(b"/etc")),
        artifact("artifact: a submodule", MODULE, |forge| forge.repo.blob(b"x")),
        artifact("artifact: an LFS pointer", FILE, |forge| {
            forge.repo.blob(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
        }),
        artifact("artifact: a link in it that leads out", FOLDER, led("../../etc/passwd")),
        artifact("artifact: a link in it to the machine", FOLDER, led("/etc/passwd")),
        artifact("artifact: a link in it to itself", FOLDER, led("link")),
        artifact("artifact: a file in it called ..", FOLDER, named("..")),
        artifact("artifact: a file in it called .git", FOLDER, named(".git")),
        artifact("artifact: a file in it with a line break", FOLDER, named("a\nb")),
        artifact("artifact: two in it that differ by case", FOLDER, named("RUN")),
        limits("limits: 1e308 of memory", "memory: 1e308"),
        limits("limits: more memory than there are bytes", "memory: 9999999999999999999Ei"),
        limits("limits: no memory", "memory: 0"),
        limits("limits: memory that is no number", "memory: .nan"),
        limits("limits: a processor below nothing", "cpu: -1"),
        limits("limits: a processor that is endless", "cpu: .inf"),
        limits("limits: of 100,000 digits", &format!("memory: \"{}\"", "9".repeat(100_000))),
        limits("limits: 10,000 of what nobody knows", &each(10_000, |n| format!("example.com/x{n}: 1"))),
        route("route: 10,000 hosts", format!("hosts: [{}]", each(10_000, |n| format!("a{n}.example.com")))),
        route("route: a host of 500 kB", format!("hosts: [{}]", "a.".repeat(250_000))),
        route("route: a host that ends the head", r#"hosts: ["a\r\nb"]"#.to_owned()),
        route("route: every host", r#"hosts: ["*"]"#.to_owned()),
        route("route: a path that climbs", r#"hosts: [a.example.com], path: "/a/../../b""#.to_owned()),
        route("route: a path of 500 kB", format!("hosts: [a.example.com], path: /{}", "a/".repeat(250_000))),
        on_host("drain: of ages", "{command: [sh]}", "  workload: {port: 8000}\n  drain: {max: 8760000h}\n"),
        on_host("worker: 10,000 of them", "{command: [sh]}", {
            format!("  workers: {{{}}}\n", each(10_000, |n| format!("w{n}: {{command: [sh]}}")))
        }),
        on_host("instances: 2^32", "{command: [sh]}", "  replicas: 4294967296\n"),
    ]
}
