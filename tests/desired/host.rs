//! What a host is asked for: artifacts by content, routes, drains, commands; and what Kubernetes refuses of it.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;

use backstay::desired::{
    ArtifactOrigin, ArtifactSource, At, Cache, DesiredAgent, DesiredState, Drain, DrainMode, Resolve, Settings,
    TargetKind, resolve, validate,
};
use backstay::model::{Digest, EnvironmentName};
use backstay::source::{FolderTree, MemoryTree, Store, Tree};

use crate::repository::{agent, name, now, revision, small, told, wrong};

fn at(cache: &mut Cache, tree: &dyn Tree) -> DesiredState {
    let environment: EnvironmentName = name("prod");
    let revision = revision(1);
    let at = At::unverified_for_display(&revision, tree);
    let (pinned, target) = (BTreeMap::new(), Some(TargetKind::Host));
    let request = Resolve { environment: &environment, head: at, tracked: at, pinned: &pinned, now: now(), target };
    resolve(cache, &request).unwrap_or_else(|errors| panic!("{}", told(&errors)))
}

fn good(tree: &dyn Tree) -> DesiredAgent {
    match &at(&mut Cache::default(), tree).agents[&name("a")] {
        Ok(agent) => (**agent).clone(),
        Err(errors) => panic!("{}", told(errors)),
    }
}

/// What is wrong with the agent `a` on a host.
fn bad(tree: &dyn Tree) -> String {
    match &at(&mut Cache::default(), tree).agents[&name("a")] {
        Ok(_) => panic!("the agent is good"),
        Err(errors) => told(errors),
    }
}

fn with(spec: &str) -> MemoryTree {
    small().with("agents/a/agent.yaml", agent("a", spec))
}

fn artifact(agent: &DesiredAgent) -> ArtifactOrigin {
    let origin = agent.settings.host.artifact.clone().expect("an artifact");
    assert_eq!(agent.release.spec.code.artifact.as_ref().map(|artifact| artifact.sha256), Some(origin.sha256));
    origin
}

#[test]
fn a_file_has_the_digest_of_its_bytes_and_the_release_says_nothing_else_of_it() {
    let tree = with("  code: {artifact: {path: /dist/agent}}\n").with("dist/agent", "#!/bin/sh\n");
    let agent = good(&tree);
    let origin = artifact(&agent);
    assert_eq!(origin.sha256, Digest::of(b"#!/bin/sh\n"));
    assert!(matches!(origin.from, ArtifactSource::Git(_)));
    let canonical = String::from_utf8(agent.release.canonical.to_vec()).expect("text");
    assert!(canonical.contains(&format!(r#""code":{{"artifact":{{"sha256":"{}"}}}}"#, origin.sha256)), "{canonical}");

    let moved = with("  code: {artifact: {path: bin/x}}\n").with("agents/a/bin/x", "#!/bin/sh\n");
    assert_eq!(good(&moved).release.id, agent.release.id, "where it lies is no part of the release");
    let other = with("  code: {artifact: {path: /dist/agent}}\n").with("dist/agent", "#!/bin/bash\n");
    assert_ne!(good(&other).release.id, agent.release.id);
}

#[test]
fn a_folder_has_the_digest_of_its_listing() {
    let spec = "  code: {artifact: {path: /dist}, command: [bin/run, --serve]}\n";
    let tree = with(spec).with("dist/bin/run", "run").with("dist/lib.py", "lib");
    let listing =
        format!("backstay-artifact 1\n644 {} bin/run\n644 {} lib.py\n", Digest::of(b"run"), Digest::of(b"lib"));
    assert_eq!(artifact(&good(&tree)).sha256, Digest::of(listing.as_bytes()));
}

#[test]
fn a_changed_prompt_hashes_no_artifact_again_and_a_changed_artifact_is_seen() {
    let spec = "  code: {artifact: {path: /dist}, command: [run]}\n  prompts: {system: s.md}\n";
    let mut cache = Cache::default();
    let mut tree = with(spec).with("dist/run", "1").with("agents/a/s.md", "a\n");
    let id = |state: &DesiredState| {
        let agent = state.agents[&name("a")].as_ref().expect("good");
        (agent.release.id, artifact(agent).sha256)
    };
    let first = id(&at(&mut cache, &tree));
    tree.insert("agents/a/s.md", "b\n");
    let second = id(&at(&mut cache, &tree));
    assert!(first.0 != second.0 && first.1 == second.1);
    tree.insert("dist/run", "2");
    let third = id(&at(&mut cache, &tree));
    assert!(second.0 != third.0 && second.1 != third.1);
}

#[test]
fn what_lies_elsewhere_carries_its_digest() {
    let digest = Digest::of(b"elsewhere");
    let agent = good(&with(&format!("  code: {{artifact: {{path: /builds/a.tar.gz, sha256: \"{digest}\"}}}}\n")));
    let origin = ArtifactOrigin { sha256: digest, from: ArtifactSource::Folder("builds/a.tar.gz".to_owned()) };
    assert_eq!(artifact(&agent), origin);
    let url = "https://example.com/a.tar.gz";
    let fetched = good(&with(&format!("  code: {{artifact: {{url: \"{url}\", sha256: \"{digest}\"}}}}\n")));
    assert_eq!(artifact(&fetched).from, ArtifactSource::Url(url.to_owned()));
    assert_eq!(fetched.release.id, agent.release.id, "where it comes from is no part of the release");
    assert_ne!(fetched.settings.digest, agent.settings.digest);
    for here in ["http://localhost:8000/a", "http://127.0.0.1/a", "http://[::1]:80/a"] {
        good(&with(&format!("  code: {{artifact: {{url: \"{here}\", sha256: \"{digest}\"}}}}\n")));
    }
    // What the record holds is enough to render again.
    let text = fetched.settings.canonical().expect("canonical");
    assert_eq!(Settings::from_canonical(&text, fetched.settings.digest).as_ref(), Some(&*fetched.settings));
}

#[test]
fn what_cannot_be_an_artifact_is_told_with_its_place() {
    let digest = Digest::of(b"elsewhere");
    let one = |artifact: &str| bad(&with(&format!("  code: {{artifact: {artifact}}}\n")));
    let missing = bad(&with("  code: {artifact: {path: /dist/agnet}}\n").with("dist/agent", "x"));
    assert!(missing.contains("agents/a/agent.yaml:5:") && missing.contains("did you mean `/dist/agent`?"), "{missing}");
    let relative = one(&format!("{{path: a.tar.gz, sha256: \"{digest}\"}}"));
    assert!(relative.contains("is outside the repository, and begins with `/`"), "{relative}");
    for url in ["http://example.com/a", "http://127.0.0.1.example.com/a", "http://localhost.example.com/a"] {
        let plain = one(&format!("{{url: \"{url}\", sha256: \"{digest}\"}}"));
        assert!(plain.contains("an artifact is fetched over HTTPS"), "{plain}");
    }
    let secret = one(&format!("{{url: \"https://a:hunter2@example.com/a\", sha256: \"{digest}\"}}"));
    assert!(!secret.contains("good"), "{secret}");
    let short = one("{url: \"https://example.com/a\", sha256: \"00\"}");
    assert!(short.contains("agents/a/agent.yaml:5:"), "{short}");
    let poser = bad(&with("  code: {artifact: {path: /dist/a}}\n").with("dist/a", "backstay-artifact 1\n"));
    assert!(poser.contains("begins as the listing of a folder does"), "{poser}");
}

#[test]
fn what_is_too_much_names_the_largest() {
    let mut many = with("  code: {artifact: {path: /dist}, command: [x]}\n").with("dist/x", "x");
    for n in 0..10_001 {
        many.insert(&format!("dist/a/{n}"), "");
        many.insert(&format!("dist/few/{}/{n}", n % 100), "");
    }
    let many = bad(&many);
    assert!(many.contains("more than 20000 entries") && many.contains("are in `dist/a`"), "{many}");
    let mut large = with("  code: {artifact: {path: /dist}, command: [x]}\n").with("dist/x", "x");
    let mebibyte = vec![7; 1 << 20];
    for n in 0..250 {
        large.insert(&format!("dist/{n}"), &mebibyte);
    }
    large.insert("dist/big", mebibyte.repeat(9));
    let large = bad(&large);
    assert!(large.contains("more than 256 MiB; the largest is `dist/big` with 9437184 bytes"), "{large}");
}

#[test]
fn links_of_a_folder_stay_within_and_submodules_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let git = |arguments: &[&str]| {
        let output = std::process::Command::new("git")
            .arg("-C")
            .arg(folder.path())
            .args(["-c", "user.name=a", "-c", "user.email=a@b"])
            .args(arguments)
            .output()
            .expect("git");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    };
    for (path, bytes) in with("  code: {artifact: {path: /dist}, command: [bin/run]}\n").files() {
        let at = folder.path().join(path);
        std::fs::create_dir_all(at.parent().expect("a folder")).expect("made");
        std::fs::write(at, bytes).expect("written");
    }
    let dist = folder.path().join("dist");
    std::fs::create_dir_all(dist.join("bin")).expect("made");
    std::fs::write(dist.join("bin/real"), "run").expect("written");
    std::os::unix::fs::symlink("real", dist.join("bin/run")).expect("a link");
    git(&["init", "-q", "-b", "main"]);
    git(&["add", "-A"]);
    git(&["update-index", "--chmod=+x", "dist/bin/real"]);
    git(&["commit", "-qm", "one"]);
    let tree = |commit: &str| {
        let store = Store::open(folder.path()).expect("a repository");
        let revision = format!("main@sha1:{commit}").parse().expect("a revision");
        store.checkout(&revision).expect("a commit").tree
    };
    let agent = good(&*tree(&git(&["rev-parse", "HEAD"])));
    let listing =
        format!("backstay-artifact 1\n755 {} bin/real\nlink {} bin/run\n", Digest::of(b"run"), Digest::of(b"real"));
    let origin = artifact(&agent);
    assert_eq!(origin.sha256, Digest::of(listing.as_bytes()));
    assert_eq!(origin.from, ArtifactSource::Git(git(&["rev-parse", "HEAD:dist"])));
    // A folder before it is committed is the same one.
    std::fs::set_permissions(dist.join("bin/real"), std::fs::Permissions::from_mode(0o755)).expect("set");
    let plain = FolderTree::new(folder.path()).expect("a folder");
    assert_eq!(good(&plain).release.id, agent.release.id);

    let lfs = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n";
    std::fs::write(dist.join("large"), lfs).expect("written");
    let lfs = bad(&FolderTree::new(folder.path()).expect("a folder"));
    assert!(lfs.contains("`dist/large` is a Git LFS pointer"), "{lfs}");
    std::fs::remove_file(dist.join("large")).expect("removed");

    std::os::unix::fs::symlink("../../agents", dist.join("bin/out")).expect("a link");
    git(&["add", "-A"]);
    git(&["commit", "-qm", "two"]);
    let out = bad(&*tree(&git(&["rev-parse", "HEAD"])));
    assert!(out.contains("`dist/bin/out` leads to `../../agents`, out of the artifact"), "{out}");
    git(&["rm", "-q", "dist/bin/out"]);
    let head = git(&["rev-parse", "HEAD"]);
    git(&["update-index", "--add", "--cacheinfo", &format!("160000,{head},dist/sub")]);
    git(&["commit", "-qm", "three"]);
    let sub = bad(&*tree(&git(&["rev-parse", "HEAD"])));
    assert!(sub.contains("`dist/sub` is a submodule"), "{sub}");
}

#[test]
fn a_host_needs_an_artifact_or_a_command_and_no_image() {
    good(&with("  code: {command: [python3, -m, support]}\n"));
    let nothing = bad(&with("  replicas: 1\n"));
    assert!(nothing.contains("a host needs an artifact or a command"), "{nothing}");
    let both = good(&small().with(
        "agents/a/agent.yaml",
        crate::repository::with_image("  workload: {port: 80}\n").replace("{image", "{command: [sh], image"),
    ));
    assert!(both.release.spec.code.image.is_some(), "an image is no error");
    let folder = |code: &str| bad(&with(&format!("  code: {{{code}}}\n")).with("dist/bin/run", "x").with("one", "x"));
    for (code, says) in [
        ("artifact: {path: /dist}", "nothing says which file of it runs"),
        ("artifact: {path: /dist}, command: [bin/rum]", "did you mean `bin/run`?"),
        ("artifact: {path: /dist}, command: [/bin/sh]", "leaves the artifact"),
        ("artifact: {path: /dist}, command: [../bin/sh]", "leaves the artifact"),
        ("artifact: {path: /one}, command: [./one]", "the artifact is one file, and is called `agent`"),
        ("command: [bin/run]", "is a path in the artifact, and there is none"),
    ] {
        let found = folder(code);
        assert!(found.contains(says), "{code}: {found}");
    }
}

#[test]
fn routes_and_drains_are_settings_and_no_two_agents_take_the_same() {
    let code = "  code: {command: [sh]}\n  workload: {port: 8000}\n";
    let plain = good(&with(code));
    let spec = format!("{code}  route: {{hosts: [a.example.com]}}\n  drain: {{mode: cut, max: 1500ms}}\n");
    let agent = good(&with(&spec));
    assert_eq!(agent.release.id, plain.release.id);
    assert_ne!(agent.settings.digest, plain.settings.digest);
    let route = agent.settings.route.clone().expect("a route");
    assert_eq!((route.hosts, route.path.as_str()), (vec!["a.example.com".to_owned()], "/"));
    assert_eq!(agent.settings.host.drain, Some(Drain { mode: DrainMode::Cut, max: 2 }));

    let both = with(&spec).with(
        "agents/b/agent.yaml",
        crate::repository::agent("b", &format!("{code}  route: {{hosts: [a.localhost]}}\n")),
    );
    assert!(at(&mut Cache::default(), &both).agents.values().all(Result::is_ok));
    let both = with(code).with(
        "agents/b/agent.yaml",
        crate::repository::agent("b", &format!("{code}  route: {{hosts: [a.localhost]}}\n")),
    );
    let twice = bad(&both);
    assert!(twice.contains("a.localhost/") && twice.contains("is declared by the agent `b` too"), "{twice}");
    for (route, says) in [
        ("{hosts: [A.example.com]}", "is no name of a host"),
        ("{hosts: [\"a:80\"]}", "is no name of a host"),
        ("{hosts: [a], path: x}", "is no path"),
    ] {
        let found = bad(&with(&format!("{code}  route: {route}\n")));
        assert!(found.contains(says), "{route}: {found}");
    }
    let portless = bad(&with("  code: {command: [sh]}\n  route: {hosts: [a]}\n"));
    assert!(portless.contains("the agent has none"), "{portless}");
}

#[test]
fn what_has_no_effect_on_a_host_is_a_warning() {
    let tree = with("  code: {command: [sh]}\n  autoscaling: {maxReplicas: 3}\n  disruptionBudget: {minAvailable: 1}\n")
        .with(
            "agents/a/manifests/more.yaml",
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: one}\n---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: two}\nspec: {podSelector: {}}\n",
        );
    let warnings: Vec<String> = good(&tree).warnings.0.iter().map(|warning| warning.message.clone()).collect();
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    assert!(warnings.iter().all(|warning| warning.contains("has no effect on a host")), "{warnings:?}");
}

#[test]
fn what_would_be_waited_for_in_vain_is_refused_with_its_place() {
    for (kind, hint) in [
        ("apiVersion: batch/v1\nkind: Job", "workers"),
        ("apiVersion: batch/v1\nkind: CronJob", "timers"),
        ("apiVersion: apps/v1\nkind: StatefulSet", "workers"),
        ("apiVersion: apps/v1\nkind: Deployment", "workers"),
        ("apiVersion: v1\nkind: PersistentVolumeClaim", "database"),
        ("apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute", "route:"),
    ] {
        let object = format!("{kind}\nmetadata: {{name: nightly}}\nspec: {{}}\n");
        let tree = with("  code: {command: [sh]}\n").with("agents/a/manifests/more.yaml", object);
        let said = bad(&tree);
        assert!(said.contains("a host cannot run `") && said.contains(hint), "{kind}: {said}");
        assert!(said.contains("agents/a/manifests/more.yaml:1"), "{kind}: {said}");
    }
}

#[test]
fn kubernetes_refuses_what_is_for_a_host_and_validation_says_so() {
    let artifact = with("  code: {artifact: {path: /dist/agent}}\n").with("dist/agent", "x");
    let refused = wrong(&artifact);
    assert!(refused.contains("`code.artifact` is for a host") && refused.contains("artifact: null"), "{refused}");
    assert!(validate(&artifact, now()).0.is_empty(), "nobody says which target it is");
    let drain = with("  code: {command: [sh]}\n  workload: {port: 80}\n  drain: {mode: cut}\n");
    let said = validate(&drain, now());
    assert!(!said.has_errors() && told(&said).contains("is delivered on a host alone"), "{}", told(&said));
}
