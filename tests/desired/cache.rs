//! What did not change is not read again: one agent among ten thousand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use backstay::desired::{At, Cache, DesiredState, Resolve, TargetKind, resolve};
use backstay::model::{Digest, EnvironmentName};
use backstay::source::{ContentId, Entry, EntryKind, MemoryTree, Tree, TreeError};

use crate::repository::{DIGEST, agent, at, name, now, resolved, revision, small, with_image};

/// A tree whose folders know their ids, as Git's do, and that counts how often it is asked.
#[derive(Debug)]
struct HashTree {
    root: Arc<Folder>,
    asked: AtomicU64,
}

#[derive(Debug, Clone, Default)]
struct Folder {
    entries: BTreeMap<Arc<str>, Child>,
}

#[derive(Debug, Clone)]
enum Child {
    File(ContentId, Arc<[u8]>),
    Folder(ContentId, Arc<Folder>),
}

impl Child {
    fn entry(&self, name: &Arc<str>) -> Entry {
        let (kind, id) = match self {
            Self::File(id, _) => (EntryKind::File, id),
            Self::Folder(id, _) => (EntryKind::Folder, id),
        };
        Entry { name: Arc::clone(name), kind, id: id.clone(), executable: false }
    }
}

impl Folder {
    fn id(&self) -> ContentId {
        let lines = self.entries.iter().map(|(name, child)| format!("{name}\0{}\n", child.entry(name).id.0));
        ContentId(Digest::of(lines.collect::<String>().as_bytes()).to_string().into())
    }

    fn put(&mut self, path: &str, bytes: &[u8]) {
        match path.split_once('/') {
            None => {
                let id = ContentId(Digest::of(bytes).to_string().into());
                self.entries.insert(path.into(), Child::File(id, bytes.into()));
            }
            Some((folder, rest)) => {
                let child = self.entries.entry(folder.into());
                let child = child.or_insert_with(|| Child::Folder(ContentId("".into()), Arc::default()));
                let Child::Folder(id, folder) = child else { panic!("a file") };
                Arc::make_mut(folder).put(rest, bytes);
                // Computed by `settle`.
                *id = ContentId("".into());
            }
        }
    }

    /// Computes the ids of all folders that changed.
    fn settle(&mut self) {
        for child in self.entries.values_mut() {
            if let Child::Folder(id, folder) = child
                && id.0.is_empty()
            {
                Arc::make_mut(folder).settle();
                *id = folder.id();
            }
        }
    }

    fn find(&self, path: &str) -> Option<(Arc<str>, &Child)> {
        let (first, rest) = path.split_once('/').map_or((path, None), |(first, rest)| (first, Some(rest)));
        let (name, child) = self.entries.get_key_value(first)?;
        match (rest, child) {
            (None, child) => Some((Arc::clone(name), child)),
            (Some(rest), Child::Folder(_, folder)) => folder.find(rest),
            (Some(_), Child::File(..)) => None,
        }
    }
}

impl HashTree {
    fn of<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut root = Folder::default();
        files.into_iter().for_each(|(path, bytes)| root.put(path, bytes));
        root.settle();
        Self { root: Arc::new(root), asked: AtomicU64::new(0) }
    }

    /// The tree of a commit that changes one file.
    fn commit(&self, path: &str, bytes: &str) -> Self {
        let mut root = (*self.root).clone();
        root.put(path, bytes.as_bytes());
        root.settle();
        Self { root: Arc::new(root), asked: AtomicU64::new(0) }
    }

    fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Tree for HashTree {
    fn find(&self, path: &str) -> Result<Option<Entry>, TreeError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Ok(self.root.find(path).map(|(name, child)| child.entry(&name)))
    }

    fn list(&self, path: &str) -> Result<Vec<Entry>, TreeError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Ok(match self.root.find(path) {
            Some((_, Child::Folder(_, folder))) => {
                folder.entries.iter().map(|(name, child)| child.entry(name)).collect()
            }
            _ => vec![],
        })
    }

    fn read(&self, path: &str, _: usize) -> Result<Option<Arc<[u8]>>, TreeError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Ok(match self.root.find(path) {
            Some((_, Child::File(_, bytes))) => Some(Arc::clone(bytes)),
            _ => None,
        })
    }

    fn link(&self, _: &str) -> Result<Option<Arc<str>>, backstay::source::TreeError> {
        Ok(None)
    }
}

const AGENTS: usize = 10_000;

/// Ten thousand agents of ten files each.
fn large() -> HashTree {
    let mut files: Vec<(String, String)> = small()
        .files()
        .filter(|(path, _)| !path.starts_with("agents/"))
        .map(|(path, bytes)| (path.to_owned(), String::from_utf8_lossy(bytes).into_owned()))
        .collect();
    let header = format!("  code: {{image: \"a@{DIGEST}\"}}\n  models: {{m: {{use: fast}}}}\n");
    files.push(("shared/models.yaml".to_owned(), "fast: {provider: p, model: m}\n".to_owned()));
    for n in 0..20 {
        files.push((format!("shared/prompts/{n}.md"), format!("Be kind, {n}.\n")));
    }
    for n in 0..AGENTS {
        // Few of them, since reading schemas takes long where nothing is optimised.
        let tools = if n % 100 == 0 { "  tools: {t: t.json}\n" } else { "" };
        let own = format!("{header}{tools}  prompts: {{p: [/shared/prompts/{}.md, p.md]}}\n", n % 20);
        let folder = format!("agents/agent-{n}");
        files.push((format!("{folder}/agent.yaml"), agent(&format!("agent-{n}"), &own)));
        files.push((format!("{folder}/p.md"), format!("You are number {n}.\n")));
        files.push((
            format!("{folder}/t.json"),
            "{\"name\": \"t\", \"description\": \"d\", \"inputSchema\": {\"type\": \"object\"}}".to_owned(),
        ));
        files.push((
            format!("{folder}/manifests/c.yaml"),
            format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c{n}}}\n"),
        ));
        files.extend((0..6).map(|file| (format!("{folder}/notes/{file}.md"), format!("{n}"))));
    }
    assert!(files.len() > 100_000);
    HashTree::of(files.iter().map(|(path, text)| (path.as_str(), text.as_bytes())))
}

struct Looked {
    state: DesiredState,
    parsed: u64,
    asked: u64,
}

fn look(cache: &mut Cache, tree: &HashTree, commit: u32) -> Looked {
    let (before, began) = (cache.parsed(), Instant::now());
    let state = at(cache, tree, "prod", commit).expect("a state");
    let looked = Looked { state, parsed: cache.parsed() - before, asked: tree.asked() };
    println!("commit {commit}: {} agents read, {} questions, {:?}", looked.parsed, looked.asked, began.elapsed());
    looked
}

#[test]
fn one_commit_among_ten_thousand_agents_reads_what_it_changed() {
    let tree = large();
    let mut cache = Cache::default();
    let first = look(&mut cache, &tree, 1);
    assert_eq!((first.state.agents.len(), first.parsed), (AGENTS, 10_000));
    assert!(first.state.agents.values().all(Result::is_ok));

    let again = look(&mut cache, &tree.commit("README.md", "x"), 2);
    assert_eq!(again.parsed, 0, "nothing of an agent changed");
    assert!(again.asked < 100, "{} questions", again.asked);
    assert!(again.state.agents.values().all(|agent| agent.as_ref().is_ok_and(|agent| agent.revision == revision(2))));

    let one = look(&mut cache, &tree.commit("agents/agent-77/p.md", "You are someone else.\n"), 3);
    assert_eq!(one.parsed, 1);
    assert!(one.asked < 150, "{} questions", one.asked);
    let id = |looked: &Looked, n: usize| match &looked.state.agents[&name(&format!("agent-{n}"))] {
        Ok(agent) => agent.release.id,
        Err(errors) => panic!("{errors}"),
    };
    assert_ne!(id(&one, 77), id(&first, 77));
    assert_eq!(id(&one, 78), id(&first, 78));

    let back = look(&mut cache, &tree, 4);
    assert_eq!((back.parsed, id(&back, 77)), (1, id(&first, 77)), "the same content, the same id");

    let shared = look(&mut cache, &tree.commit("shared/prompts/7.md", "Be brief.\n"), 5);
    assert_eq!(shared.parsed, 500, "exactly those that join this prompt");

    let unused =
        look(&mut cache, &tree.commit("shared/prompts/99.md", "Unused.\n").commit("agents/agent-5/notes/0.md", "y"), 6);
    assert_eq!(unused.parsed, 500, "those that the last commit changed go back, and no other");

    let overlay = look(&mut cache, &tree.commit("environments/prod/agent-9.yaml", "replicas: 2\n"), 7);
    assert_eq!(overlay.parsed, 1);
    assert_eq!(cache.reused() + cache.parsed(), 7 * 10_000);
}

#[test]
fn what_is_absent_is_looked_at_too() {
    let mut cache = Cache::default();
    let lines = "  prompts: {p: p.md}\n";
    let without = small()
        .with("agents/a/agent.yaml", with_image(lines))
        .with("agents/b/agent.yaml", agent("b", &format!("  code: {{image: \"b@{DIGEST}\"}}\n")));
    let good = |state: &DesiredState| state.agents[&name("a")].is_ok();
    assert!(!good(&at(&mut cache, &without, "prod", 1).expect("a state")));
    assert_eq!(cache.parsed(), 2);
    assert!(!good(&at(&mut cache, &without, "prod", 2).expect("a state")));
    assert_eq!(cache.parsed(), 2, "what is wrong is remembered");
    let with = without.clone().with("agents/a/p.md", "x");
    assert!(good(&at(&mut cache, &with, "prod", 3).expect("a state")));
    assert_eq!(cache.parsed(), 3);
    for (path, text) in [
        ("agents/a/flags.json", "{\"flags\": {}}"),
        ("agents/a/manifests/x.yaml", ""),
        ("environments/prod/a.yaml", "replicas: 2\n"),
    ] {
        let before = cache.parsed();
        at(&mut cache, &with.clone().with(path, text), "prod", 4).expect("a state");
        assert_eq!(cache.parsed() - before, 1, "{path}");
        at(&mut cache, &with, "prod", 5).expect("a state");
        assert_eq!(cache.parsed() - before, 2, "{path} taken away");
    }
    let before = cache.parsed();
    at(&mut cache, &with.clone().with("environments/prod/variables.yaml", "A: x\n"), "prod", 6).expect("a state");
    assert_eq!(cache.parsed() - before, 2, "variables lie beneath every agent");
}

#[test]
fn a_remembered_agent_is_the_one_that_would_be_read() {
    let mut cache = Cache::default();
    let tree = |model: &str, prompt: &str, replicas: u32| {
        small()
            .with("shared/models.yaml", format!("fast: {{provider: p, model: {model}}}\n"))
            .with("agents/a/p.md", prompt)
            .with(
                "agents/a/agent.yaml",
                with_image(&format!(
                    "  models: {{m: {{use: fast}}}}\n  prompts: {{p: p.md}}\n  replicas: {replicas}\n"
                )),
            )
    };
    for (n, (model, prompt, replicas)) in
        [("a", "x", 1), ("b", "x", 1), ("b", "y", 1), ("b", "y", 2), ("a", "x", 1), ("a", "y", 2), ("a", "x", 1)]
            .into_iter()
            .enumerate()
    {
        let tree = tree(model, prompt, replicas);
        let remembered = at(&mut cache, &tree, "prod", u32::try_from(n).expect("small")).expect("a state");
        let read = resolved(&tree, "prod");
        let (remembered, read) = (&remembered.agents[&name("a")], &read.agents[&name("a")]);
        let (remembered, read) = (remembered.as_ref().expect("good"), read.as_ref().expect("good"));
        assert_eq!((&remembered.release, &remembered.settings), (&read.release, &read.settings), "{n}");
    }
}

#[test]
fn the_rules_of_the_environment_are_part_of_the_question() {
    let environment = |images: &str| {
        format!(
            "apiVersion: backstay.dev/v1alpha1\nkind: Environment\nmetadata: {{name: prod}}\nspec: {{images: {images}}}\n"
        )
    };
    let tree = |images: &str| {
        small()
            .with("environments/prod.yaml", environment(images))
            .with("agents/a/agent.yaml", agent("a", "  code: {image: \"a:1\"}\n"))
    };
    let mut cache = Cache::default();
    let good = |cache: &mut Cache, images: &str| {
        at(cache, &tree(images), "prod", 1).expect("a state").agents[&name("a")].is_ok()
    };
    assert!(good(&mut cache, "tags"));
    assert!(!good(&mut cache, "digest"));
    assert!(good(&mut cache, "tags"));
}

#[test]
fn a_model_retires_while_nothing_changes() {
    let tree = small()
        .with("agents/a/agent.yaml", with_image("  models: {m: {provider: p, model: x, retires: 2026-12-31}}\n"));
    let mut cache = Cache::default();
    let mut at = |time: &str| {
        let (environment, revision, pinned): (EnvironmentName, _, _) = (name("prod"), revision(1), BTreeMap::new());
        let at = At::unverified_for_display(&revision, &tree);
        let target = Some(TargetKind::Kubernetes);
        let now = time.parse().expect("a time");
        let state = resolve(
            &mut cache,
            &Resolve { environment: &environment, head: at, tracked: at, pinned: &pinned, now, target },
        );
        let state = state.expect("a state");
        (
            state.agents[&name("a")].as_ref().map(|agent| agent.warnings.0.len()).map_err(|errors| errors.0.len()),
            cache.parsed(),
        )
    };
    assert_eq!(at("2026-11-24T00:00:00Z"), (Ok(0), 1));
    assert_eq!(at("2026-12-24T00:00:00Z"), (Ok(1), 1), "soon");
    assert_eq!(at("2026-12-31T00:00:00Z"), (Err(1), 1), "gone");
}

// S10
#[test]
fn a_pinned_agent_is_read_from_its_commit() {
    let pinned = format!(
        "apiVersion: backstay.dev/v1alpha1\nkind: Environment\nmetadata: {{name: prod}}\nspec:\n  pins: {{a: \"{:040x}\"}}\n",
        7
    );
    let old = small()
        .with("agents/a/agent.yaml", with_image("  prompts: {p: /shared/p.md}\n"))
        .with("shared/p.md", "old")
        .with("environments/prod/variables.yaml", "V: old\n");
    let new = small()
        .with("agents/a/agent.yaml", with_image("  prompts: {p: /shared/p.md}\n  replicas: 7\n"))
        .with(
            "agents/b/agent.yaml",
            agent("b", &format!("  code: {{image: \"b@{DIGEST}\"}}\n  prompts: {{p: /shared/p.md}}\n")),
        )
        .with("shared/p.md", "new")
        .with("environments/prod/variables.yaml", "V: new\n")
        .with("environments/prod.yaml", &pinned);
    let (environment, head, pin): (EnvironmentName, _, _) = (name("prod"), revision(9), revision(7));
    let look = |tree: &MemoryTree, pins: &BTreeMap<_, At<'_>>| {
        let at = At::unverified_for_display(&head, tree);
        let target = Some(TargetKind::Kubernetes);
        resolve(
            &mut Cache::default(),
            &Resolve { environment: &environment, head: at, tracked: at, pinned: pins, now: now(), target },
        )
        .expect("a state")
    };
    let pins = BTreeMap::from([(name("a"), At::unverified_for_display(&pin, &old))]);
    let state = look(&new, &pins);
    let prompt = |state: &DesiredState, agent: &str| {
        state.agents[&name(agent)].as_ref().expect("good").release.prompts["p"].to_vec()
    };
    assert_eq!((prompt(&state, "a"), prompt(&state, "b")), (b"old".to_vec(), b"new".to_vec()));
    let a = state.agents[&name("a")].as_ref().expect("good");
    assert_eq!((&a.revision, a.settings.replicas), (&pin, None));
    assert_eq!(serde_json::json!(a.release.spec.workload.env["V"]), "old");
    // An agent that was removed since stays where it is pinned.
    let mut removed = new.clone();
    removed.remove("agents/a/agent.yaml");
    assert_eq!(prompt(&look(&removed, &pins), "a"), b"old");
    // Another commit than the pin names is never taken for it.
    let other = BTreeMap::from([(name("a"), At::unverified_for_display(&head, &old))]);
    assert!(look(&new, &other).agents[&name("a")].is_err());
    // The pinned commit does not have it.
    let without = small().with("environments/prod.yaml", &pinned);
    let mut bare = without.clone();
    bare.remove("agents/a/agent.yaml");
    let pins = BTreeMap::from([(name("a"), At::unverified_for_display(&pin, &bare))]);
    assert!(look(&without, &pins).agents[&name("a")].is_err());
}
