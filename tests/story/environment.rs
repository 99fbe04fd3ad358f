//! What an environment admits: limits on removals, dependencies, renames, moves, and what follows another environment.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use backstay::desired::rollout::{Canary, Strategy};
use backstay::desired::{
    After, Allow, Consent, DesiredAgent, DesiredState, EnvironmentSpec, Freeze, ImagePolicy, RolloutSpec, Settings,
    Waves, WriteBack,
};
use backstay::model::{AgentName, Diagnostic, Diagnostics, ObjectRef, Origin, Uid};
use backstay::reconcile::{Admission, Admitted, EnvironmentInput, Followed, PruneLimits, Ties, Wanted, admit, after};
use backstay::record::{
    AgentRecord, Cause, ConditionKind, Inventory, Operation, OperationId, OperationKind, Quarantined, Records,
    Standing, Truth,
};
use backstay::rollout::Wave;
use jiff::SignedDuration;

use super::world::{NAMESPACE, desired, revision, start};

struct Told {
    desired: DesiredState,
    records: Records,
}

fn name(text: &str) -> AgentName {
    text.parse().expect("a name")
}

fn told(agents: &[&str], records: &[&str]) -> Told {
    let asked = agents.iter().map(|agent| (name(agent), Ok(Arc::new(desired(&name(agent), "hello", |_, _| {})))));
    let spec = EnvironmentSpec {
        track: None,
        after: None,
        agents: None,
        pins: BTreeMap::new(),
        images: ImagePolicy::Digest,
        waves: Waves::default(),
        freezes: vec![],
        approvals: 0,
        write_back: WriteBack::Revert,
        origin: Origin::file("environments/production.yaml"),
    };
    Told {
        desired: DesiredState {
            environment: "production".parse().expect("a name"),
            head: revision("head"),
            tracked: revision("head"),
            spec,
            agents: asked.collect(),
            consents: vec![],
            warnings: Diagnostics::default(),
        },
        records: records.iter().map(|agent| (name(agent), Arc::new(record(agent, 5)))).collect(),
    }
}

fn record(agent: &str, objects: usize) -> AgentRecord {
    let object = |n: usize| ObjectRef {
        group: String::new(),
        kind: "ConfigMap".to_owned(),
        namespace: NAMESPACE.to_owned(),
        name: format!("{agent}-{n}"),
    };
    let owned = (0..objects).map(|n| (object(n), Uid(format!("{agent}-{n}")))).collect();
    let mut record = AgentRecord { format: 1, inventory: Inventory(owned), ..AgentRecord::default() };
    let desired = desired(&name(agent), "hello", |_, _| {});
    record.stable = Some(Standing {
        release: desired.release.id,
        revision: desired.revision.clone(),
        settings: desired.settings.digest,
        renderer: 1,
        own_set: false,
        since: start(),
    });
    record.set_condition(ConditionKind::Ready, Truth::True, "Ready", "", start());
    record
}

fn decide(told: &Told) -> Admitted {
    admit(&EnvironmentInput {
        desired: &told.desired,
        records: &told.records,
        standing: &BTreeMap::new(),
        reverts: &BTreeMap::new(),
        held: &BTreeMap::new(),
        authors: &BTreeMap::new(),
        namespace: NAMESPACE,
        limits: PruneLimits { max_objects: 20, max_percent: 50 },
        now: start(),
    })
}

fn word(admitted: &Admitted, agent: &str) -> &'static str {
    match &admitted.agents[&name(agent)].wanted {
        Wanted::Run(_) => "run",
        Wanted::Remove => "remove",
        Wanted::Keep(reason) => reason.word,
    }
}

// S3, K12
#[test]
fn a_bad_agent_never_stops_another() {
    let mut told = told(&["good", "bad"], &[]);
    let error = Diagnostic::error(Origin::file("agents/bad/agent.yaml"), "unknown field");
    told.desired.agents.insert(name("bad"), Err(error.into()));
    let admitted = decide(&told);
    assert_eq!((word(&admitted, "good"), word(&admitted, "bad")), ("run", "Invalid"));
}

// K6
#[test]
fn few_go_at_once_and_many_wait_for_a_person() {
    let one = decide(&told(&["a", "b", "c"], &["a", "b", "c", "d"]));
    assert_eq!((word(&one, "d"), &one.prune_blocked), ("remove", &None));
    let mut three = told(&["a"], &["a", "b", "c", "d"]);
    let admitted = decide(&three);
    assert_eq!(word(&admitted, "b"), "PruneLimit");
    assert!(
        admitted.prune_blocked.as_deref().is_some_and(|why| why.contains("3 of 4 agents")),
        "{:?}",
        admitted.prune_blocked
    );
    for agent in ["b", "c", "d"] {
        three.desired.consents.push(Consent {
            agent: name(agent),
            environment: three.desired.environment.clone(),
            allow: Allow::Prune(format!("Agent/{agent}")),
            expires: start() + SignedDuration::from_hours(1),
            origin: Origin::file("consent/x.yaml"),
        });
    }
    let admitted = decide(&three);
    assert_eq!((word(&admitted, "b"), word(&admitted, "d")), ("remove", "remove"));
    three.desired.consents.iter_mut().for_each(|consent| consent.expires = start());
    assert_eq!(word(&decide(&three), "b"), "PruneLimit", "an expired consent allows nothing");
}

// K6
#[test]
fn an_empty_list_is_not_delete_all() {
    let admitted = decide(&told(&[], &["a", "b"]));
    assert_eq!(word(&admitted, "a"), "PruneLimit");
}

// K6
#[test]
fn one_agent_of_many_objects_waits_too() {
    let mut told = told(&["a"], &["a"]);
    told.records.insert(name("big"), Arc::new(record("big", 21)));
    assert_eq!(word(&decide(&told), "big"), "PruneLimit");
}

#[test]
fn a_dependency_must_be_ready_first_but_not_for_going_back() {
    let needs =
        |prompt: &str| Arc::new(desired(&name("web"), prompt, |_, settings| settings.depends_on = vec![name("db")]));
    let mut told = told(&["web", "db"], &["web"]);
    told.desired.agents.insert(name("web"), Ok(needs("new")));
    assert_eq!(word(&decide(&told), "web"), "DependencyNotReady");
    told.desired.agents.insert(name("web"), Ok(needs("hello")));
    assert_eq!(word(&decide(&told), "web"), "run", "what stands needs nothing");
    told.desired.agents.insert(name("web"), Ok(needs("new")));
    told.records.insert(name("db"), Arc::new(record("db", 1)));
    assert_eq!(word(&decide(&told), "web"), "run");
}

#[test]
fn a_rename_removes_the_old_one_only_when_the_new_one_is_ready() {
    let mut told = told(&[], &["helpdesk", "other", "more"]);
    let renamed =
        DesiredAgent { renamed_from: Some(name("helpdesk")), ..desired(&name("support"), "hello", |_, _| {}) };
    told.desired.agents.insert(name("support"), Ok(Arc::new(renamed)));
    for kept in ["other", "more"] {
        told.desired.agents.insert(name(kept), Ok(Arc::new(desired(&name(kept), "hello", |_, _| {}))));
    }
    assert_eq!(word(&decide(&told), "helpdesk"), "Renamed");
    told.records.insert(name("support"), Arc::new(record("support", 3)));
    assert_eq!(word(&decide(&told), "helpdesk"), "remove");
}

// K7
#[test]
fn an_object_that_moves_between_agents_is_moved() {
    let mut told = told(&["a", "b"], &["a", "b"]);
    let object = told.records[&name("a")].inventory.0.keys().next().expect("an object").clone();
    let body = serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": object.name}});
    let manifest = backstay::model::Manifest { object: object.clone(), body: body.into(), origin: Origin::file("x") };
    let takes = desired(&name("b"), "hello", |_, settings| settings.manifests = vec![manifest]);
    told.desired.agents.insert(name("b"), Ok(Arc::new(takes)));
    let admitted = decide(&told);
    assert_eq!(admitted.agents[&name("b")].takes.get(&object), Some(&Uid("a-0".to_owned())));
    assert_eq!(admitted.agents[&name("a")].leaves.get(&object), Some(&false), "not deleted, and not yet let go");
    Arc::make_mut(told.records.get_mut(&name("b")).expect("b"))
        .inventory
        .0
        .insert(object.clone(), Uid("a-0".to_owned()));
    assert_eq!(decide(&told).agents[&name("a")].leaves.get(&object), Some(&true), "now it is the other's");
}

type Change = fn(&mut AgentRecord);

/// Git's words in which agents have to do with one another in every way there is, and a bystander.
fn tied() -> Told {
    let mut told =
        told(&["web", "db", "a", "b", "bystander"], &["web", "db", "a", "b", "bystander", "helpdesk", "gone"]);
    let needs = desired(&name("web"), "new", |_, settings| settings.depends_on = vec![name("db")]);
    told.desired.agents.insert(name("web"), Ok(Arc::new(needs)));
    let renamed =
        DesiredAgent { renamed_from: Some(name("helpdesk")), ..desired(&name("support"), "hello", |_, _| {}) };
    told.desired.agents.insert(name("support"), Ok(Arc::new(renamed)));
    let object = told.records[&name("a")].inventory.0.keys().next().expect("an object").clone();
    let body = serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": object.name}});
    let manifest = backstay::model::Manifest { object, body: body.into(), origin: Origin::file("x") };
    let takes = desired(&name("b"), "hello", |_, settings| settings.manifests = vec![manifest]);
    told.desired.agents.insert(name("b"), Ok(Arc::new(takes)));
    told
}

#[test]
fn whatever_changes_an_admission_is_a_concern_and_a_bystander_is_none() {
    let changes: [(&str, Change); 6] = [
        ("it is not Ready", |record| record.set_condition(ConditionKind::Ready, Truth::False, "No", "", start())),
        ("it is gone", |record| record.phase = backstay::record::Phase::Removed),
        ("it owns nothing", |record| record.inventory.0.clear()),
        ("it stands elsewhere", |record| record.stable = None),
        ("it takes the object of a", |record| record.inventory.0.extend(self::record("a", 1).inventory.0)),
        ("it is the same", |_| {}),
    ];
    let (mut concerned, mut bystanders) = (0, 0);
    let first = tied();
    for agent in first.records.keys() {
        for (what, change) in changes {
            let mut told = tied();
            let before = decide(&told);
            let ties = Ties::of(&told.desired, NAMESPACE);
            let old = Arc::clone(&told.records[agent]);
            change(Arc::make_mut(told.records.get_mut(agent).expect("a record")));
            let after = decide(&told);
            let same = before.prune_blocked == after.prune_blocked
                && before.agents.len() == after.agents.len()
                && before.agents.iter().all(|(name, one)| one.asks_the_same(&after.agents[name]));
            let moves = |admission: &Admission| !admission.takes.is_empty() || !admission.leaves.is_empty();
            let concern = ties.concern(&told.desired, agent, Some(&old), told.records.get(agent).map(AsRef::as_ref))
                || before.agents.get(agent).is_some_and(|admission| moves(admission));
            assert!(same || concern, "{agent}: {what}");
            concerned += usize::from(concern);
            bystanders += usize::from(!concern);
        }
    }
    assert!(concerned > 10 && bystanders > 4, "{concerned} {bystanders}");
}

#[test]
fn an_environment_follows_what_was_stable_elsewhere_long_enough() {
    let rule = After { environment: "staging".parse().expect("a name"), stable_for: Duration::from_hours(1) };
    let held = |followed: Followed| match followed {
        Followed::Held(reason, at) => (reason.word, at),
        Followed::At(commit) => panic!("{commit} is followed"),
    };
    assert_eq!(held(after(&rule, None, start())), ("AfterUnknown", None));
    let mut elsewhere = record("a", 1);
    let due = start() + SignedDuration::from_hours(1);
    assert_eq!(held(after(&rule, Some(&elsewhere), start())), ("AfterWaiting", Some(due)));
    let first = elsewhere.stable.clone().expect("stable");
    assert_eq!(after(&rule, Some(&elsewhere), due), Followed::At(first.revision.commit.clone()));
    // A newer one that is too young: the one before it, which stood long enough.
    elsewhere.history = vec![first.clone()];
    elsewhere.stable = Some(Standing { revision: revision("newer"), since: due, ..first.clone() });
    assert_eq!(after(&rule, Some(&elsewhere), due + SignedDuration::from_mins(5)), Followed::At(first.revision.commit));
}

/// Agents that run, and for which Git asks for something new.
fn all_new(agents: &[&str], edit: impl Fn(&mut Settings)) -> Told {
    let mut told = told(agents, agents);
    for agent in agents {
        let asked = desired(&name(agent), "new", |_, settings| edit(settings));
        told.desired.agents.insert(name(agent), Ok(Arc::new(asked)));
    }
    told
}

fn by_steps(settings: &mut Settings) {
    let strategy = Strategy::Canary(Canary { steps: vec![], mirror: None, reach: None });
    settings.rollout = Some(RolloutSpec { strategy, ..RolloutSpec::default() });
}

impl Told {
    fn change(&mut self, agent: &str, edit: impl FnOnce(&mut AgentRecord)) {
        edit(Arc::make_mut(self.records.get_mut(&name(agent)).expect("a record")));
    }

    /// An agent is on its way to what Git asks for, since so many seconds after the start.
    fn begins(&mut self, agent: &str, after: i64) {
        let asked = self.desired.agents[&name(agent)].clone().expect("asked for");
        let at = start() + SignedDuration::from_secs(after);
        self.change(agent, |record| {
            let standing = record.stable.clone().expect("stable");
            record.operation = Some(Operation {
                id: OperationId(2),
                kind: OperationKind::Release,
                cause: Cause::Commit {},
                from: None,
                to: None,
                revision: Some(asked.revision.clone()),
                started: at,
                finished: None,
                outcome: None,
                evidence: vec![],
            });
            record.candidate = Some(Standing { release: asked.release.id, since: at, ..standing });
        });
    }

    /// It went back by itself, and Git knows.
    fn went_back(&mut self, agent: &str, after: i64) {
        let id = self.desired.agents[&name(agent)].clone().expect("asked for").release.id;
        let at = start() + SignedDuration::from_secs(after);
        self.change(agent, |record| {
            (record.operation, record.candidate) = (None, None);
            record.quarantine.push(Quarantined::new(id, at, "it failed".to_owned()));
        });
        self.desired.agents.insert(name(agent), Ok(Arc::new(desired(&name(agent), "hello", |_, _| {}))));
    }
}

fn waves(told: &Told) -> Vec<Option<Wave>> {
    decide(told).agents.values().map(|admission| admission.outside.wave).collect()
}

#[test]
fn as_many_roll_out_as_the_environment_has_room_for() {
    const AGENTS: [&str; 4] = ["a", "b", "c", "d"];
    let two = Waves { max_agents: Some(2), stop_after_aborts: None };
    // Those without steps cannot wait on their way, and do not begin.
    let mut told = all_new(&AGENTS, |_| {});
    told.desired.spec.waves = two;
    let words = |told: &Told| AGENTS.map(|agent| word(&decide(told), agent));
    assert_eq!(words(&told), ["run", "run", "Wave", "Wave"]);
    told.begins("c", 0);
    assert_eq!(words(&told), ["run", "Wave", "run", "Wave"], "what has begun goes on");
    // Who cannot begin for another reason keeps nobody out.
    told.desired.agents.insert(name("a"), {
        let asked = desired(&name("a"), "new", |_, settings| settings.depends_on = vec![name("d")]);
        Ok(Arc::new(asked))
    });
    assert_eq!(words(&told), ["DependencyNotReady", "run", "run", "Wave"]);
    told.change("c", |record| record.stable = record.candidate.take());
    told.change("c", |record| record.operation = None);
    assert_eq!(words(&told), ["DependencyNotReady", "run", "run", "run"]);
    // Those with steps begin, and wait there.
    let mut told = all_new(&AGENTS, by_steps);
    told.desired.spec.waves = two;
    assert_eq!(words(&told), ["run"; 4]);
    assert_eq!(waves(&told), [None, None, Some(Wave::Full), Some(Wave::Full)]);
}

#[test]
fn what_went_back_stops_those_that_waited_also_when_git_says_so_too() {
    let mut told = all_new(&["a", "b", "c"], by_steps);
    told.desired.spec.waves = Waves { max_agents: None, stop_after_aborts: Some(1) };
    told.begins("a", 0);
    told.begins("b", 0);
    told.went_back("a", 60);
    assert_eq!(waves(&told)[1], Some(Wave::Stopped));
    // A later commit is another matter.
    told.begins("c", 90);
    assert_eq!(waves(&told)[1..], [Some(Wave::Stopped), None]);
}

#[test]
fn in_a_freeze_nothing_starts_but_what_goes_back() {
    let mut told = all_new(&["rolling", "stays", "back"], |_| {});
    told.desired.agents.insert(name("first"), Ok(Arc::new(desired(&name("first"), "hello", |_, _| {}))));
    told.desired.agents.insert(name("stays"), Ok(Arc::new(desired(&name("stays"), "hello", |_, _| {}))));
    let asked = told.desired.agents[&name("back")].clone().expect("asked for");
    told.change("back", |record| {
        let standing = record.stable.clone().expect("stable");
        record.history = vec![Standing { release: asked.release.id, ..standing }];
    });
    told.desired.agents.insert(name("steps"), Ok(Arc::new(desired(&name("steps"), "new", |_, s| by_steps(s)))));
    told.records.insert(name("steps"), Arc::new(record("steps", 1)));
    let words = |told: &Told| ["rolling", "first", "stays", "back", "steps"].map(|agent| word(&decide(told), agent));
    assert_eq!(words(&told), ["run"; 5]);
    let always = Freeze {
        cron: "0 0 * * *".to_owned(),
        lasts: SignedDuration::from_hours(24),
        zone: "UTC".to_owned(),
        message: "no changes".to_owned(),
    };
    told.desired.spec.freezes = vec![always];
    assert_eq!(words(&told), ["Frozen", "Frozen", "run", "run", "run"]);
    let admitted = decide(&told);
    assert!(admitted.agents[&name("steps")].outside.freeze.is_some(), "it waits on its way");
    let Wanted::Keep(reason) = &admitted.agents[&name("rolling")].wanted else { panic!("it is kept") };
    assert!(reason.message.contains("no changes"), "{}", reason.message);
    assert!(admitted.again.is_some());
}
