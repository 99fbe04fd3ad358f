//! What the daemon would do next, in the cluster as it is.

use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::verbs::Known;
use crate::cli::{CliError, Format, Globals, Out, client};
use crate::daemon::config::At;
use crate::daemon::{Looked, look};
use crate::model::{AgentName, EnvironmentName, Severity, Timestamp};
use crate::plan::{Change, ChangeLine, Inverse, Mark, Note, PruneReason, Step, StepView, created_lines};
use crate::reconcile::Preview;

/// What the daemon would do next, as `-o json` prints it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct PlanView {
    /// One for each environment.
    environments: Vec<EnvironmentView>,
}

/// What would be done in one environment.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct EnvironmentView {
    /// Its name.
    environment: String,
    /// Where agents are read: `<reference>@sha1:<commit>`; absent: no commit can be used.
    revision: Option<String>,
    /// What is wrong with the newest commit, or why it is not followed.
    errors: Vec<String>,
    /// Every agent that Git or the ledger knows.
    agents: Vec<AgentView>,
}

/// What would be done to one agent.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct AgentView {
    /// Its name.
    agent: String,
    /// The operation that would be begun, or goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<crate::record::Operation>,
    /// Whether it is open already.
    open: bool,
    /// Why what Git asks for is not done.
    #[serde(skip_serializing_if = "Option::is_none")]
    held: Option<String>,
    /// To be done now, in this order.
    steps: Vec<StepView>,
    /// How the release would get the traffic, and what it takes to see harm, line by line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    rollout: Vec<String>,
    /// What is waited for after that.
    waiting: Vec<String>,
    /// What would follow if the wait ended well.
    then: Vec<StepView>,
    /// What a careful reader would point at.
    notes: Vec<String>,
    /// How the steps are taken back, the last first.
    inverse: Vec<String>,
}

/// The JSON Schema of what `plan -o json` prints.
pub(in crate::cli) fn schema() -> serde_json::Value {
    schemars::schema_for!(PlanView).to_value()
}

/// One environment, looked at.
pub(in crate::cli::verbs) struct Told {
    pub(in crate::cli::verbs) environment: EnvironmentName,
    pub(in crate::cli::verbs) looked: Looked,
    /// When: an operation that began then is one that would be begun.
    now: Timestamp,
}

/// Prints the plans of all environments that are meant; says whether anything would be done.
pub(super) async fn run(agent: Option<&AgentName>, globals: &Globals, out: &mut Out) -> Result<bool, CliError> {
    if out.format == Format::Markdown {
        return Err(CliError::usage("`-o markdown` is for `plan --from REVISION --to REVISION`"));
    }
    let mut told = look_at(globals, out).await?;
    if let Some(agent) = agent {
        keep(&mut told, agent)?;
    }
    let begins =
        |one: &Told, preview: &Preview| preview.operation.as_ref().is_some_and(|found| found.started == one.now);
    let does = |one: &Told| {
        one.looked.agents.values().flatten().any(|preview| begins(one, preview) || !preview.plan.steps.is_empty())
    };
    let changes = told.iter().any(does);
    if out.format == Format::Json {
        out.json(&PlanView { environments: told.iter().map(environment_view).collect() })?;
        return Ok(changes);
    }
    for (n, one) in told.iter().enumerate() {
        if n > 0 {
            out.line("")?;
        }
        text(one).into_iter().try_for_each(|line| out.line(line))?;
    }
    Ok(changes)
}

/// Only what concerns one agent.
fn keep(told: &mut [Told], agent: &AgentName) -> Result<(), CliError> {
    let names: Known = told.iter().flat_map(|one| one.looked.agents.keys()).map(AgentName::as_str).collect();
    if !names.0.contains(agent.as_str()) {
        return Err(unknown(agent, &names));
    }
    for one in told {
        one.looked.agents.retain(|name, _| name == agent);
    }
    Ok(())
}

pub(in crate::cli::verbs) fn unknown(agent: &AgentName, names: &Known) -> CliError {
    CliError::usage(format!("neither Git nor the ledger knows an agent `{agent}`")).hint(names.hint(agent.as_str()))
}

/// What would be done, in every environment that is meant.
pub(in crate::cli::verbs) async fn look_at(globals: &Globals, out: &mut Out) -> Result<Vec<Told>, CliError> {
    let config = globals.config()?.ok_or_else(|| {
        CliError::usage("the daemon's configuration is needed: it says which repository goes where")
            .hint("name it with `--config FILE`; `plan --from REVISION --to REVISION` needs none")
    })?;
    let mut config = config;
    for target in &mut config.target {
        if let At::Kubernetes(at) = &mut target.at {
            at.kubeconfig = globals.kubeconfig.clone().or(at.kubeconfig.take());
            at.context = globals.context.clone().or(at.context.take());
        }
    }
    let config = config;
    let mut progress = out.progress("reading Git and the cluster");
    let mut told = Vec::new();
    for target in client::targets(&config, globals.environment.as_ref())? {
        if target.is_host() {
            client::of_host(&config.host_socket()).await?;
        }
        let folder = client::mirror_folder(&config.source.remote());
        let now = Timestamp::now();
        let what = format!("reading Git and the environment `{}`", target.environment);
        let mut looking = std::pin::pin!(look(&config, target, &folder, now));
        let looked = loop {
            tokio::select! {
                looked = &mut looking => break looked?,
                () = tokio::time::sleep(std::time::Duration::from_millis(250)) => progress.tick(&what),
            }
        };
        told.push(Told { environment: target.environment.clone(), looked, now });
    }
    Ok(told)
}

fn environment_view(one: &Told) -> EnvironmentView {
    EnvironmentView {
        environment: one.environment.to_string(),
        revision: one.looked.revision.clone(),
        errors: problems(&one.looked),
        agents: one.looked.agents.iter().map(|(name, preview)| agent_view(name, preview, one)).collect(),
    }
}

fn problems(looked: &Looked) -> Vec<String> {
    let errors = looked.errors.0.iter().filter(|found| found.severity == Severity::Error).map(ToString::to_string);
    looked.refused.iter().cloned().chain(errors).chain(looked.prune_blocked.iter().cloned()).collect()
}

fn agent_view(name: &AgentName, preview: &Result<Preview, String>, one: &Told) -> AgentView {
    let mut view = AgentView {
        agent: name.to_string(),
        operation: None,
        open: false,
        held: None,
        steps: vec![],
        rollout: vec![],
        waiting: vec![],
        then: vec![],
        notes: vec![],
        inverse: vec![],
    };
    match preview {
        Err(why) => view.held = Some(why.clone()),
        Ok(preview) => {
            view.operation.clone_from(&preview.operation);
            view.open = preview.operation.as_ref().is_some_and(|open| open.started != one.now);
            view.held.clone_from(&preview.refused);
            view.steps = preview.plan.steps.iter().map(StepView::from).collect();
            view.rollout = rollout(name, preview, one);
            view.waiting = preview.plan.waiting.iter().map(|what| format!("waiting for {what}")).collect();
            view.then = preview.plan.then.iter().map(StepView::from).collect();
            view.notes = preview.plan.notes.iter().map(note).chain(preview.warnings.iter().cloned()).collect();
            view.inverse = way_back(name, preview, one);
        }
    }
    view
}

/// How the release would get the traffic.
fn rollout(name: &AgentName, preview: &Preview, one: &Told) -> Vec<String> {
    super::rollout::lines(preview.operation.as_ref(), one.looked.rollouts.get(name))
}

/// How the steps are taken back, the last first.
fn way_back(name: &AgentName, preview: &Preview, one: &Told) -> Vec<String> {
    let live = one.looked.live.get(name).cloned().unwrap_or_default();
    preview.plan.inverse(&live).iter().filter_map(inverse).collect()
}

fn note(note: &Note) -> String {
    let severity = match note.severity {
        Severity::Error => "error",
        Severity::Warning => "note",
    };
    format!("{severity}: {}", note.kind)
}

fn inverse(inverse: &Inverse) -> Option<String> {
    match inverse {
        Inverse::Delete(object) => Some(format!("- {object}")),
        Inverse::Restore { object, changes } => Some(format!("~ {object} ({} fields as before)", changes.len())),
        Inverse::Remake(live) => Some(format!("+ {}", live.object)),
        Inverse::Nothing(_) => None,
    }
}

fn text(one: &Told) -> Vec<String> {
    let at = one.looked.revision.as_deref().unwrap_or("no commit can be used");
    let mut lines = vec![format!("{}  {at}", one.environment)];
    lines.extend(problems(&one.looked).into_iter().map(|problem| format!("  ! {problem}")));
    for (name, preview) in &one.looked.agents {
        lines.push(String::new());
        match preview {
            Err(why) => lines.push(format!("{name}: {why}")),
            Ok(preview) => lines.extend(told_of(name, preview, one)),
        }
    }
    lines
}

/// What would be done to one agent, as people read it.
fn told_of(name: &AgentName, preview: &Preview, one: &Told) -> Vec<String> {
    let head = match &preview.operation {
        Some(operation) => {
            let from = operation.from.as_ref().map_or_else(|| "nothing".to_owned(), ToString::to_string);
            let to = operation.to.as_ref().map_or_else(|| "nothing".to_owned(), ToString::to_string);
            let way = if from == to { to } else { format!("{from} -> {to}") };
            let open = if operation.started == one.now { "" } else { ", open" };
            format!("{name}: {way} ({}{open})", operation.cause)
        }
        None if preview.plan.is_empty() => format!("{name}: nothing to do"),
        None => format!("{name}: as it shall be, but for what somebody changed"),
    };
    let mut lines = vec![head];
    lines.extend(preview.refused.iter().map(|why| format!("  held: {why}")));
    for step in &preview.plan.steps {
        lines.extend(object_lines(step).iter().map(|line| format!("  {line}")));
    }
    lines.extend(rollout(name, preview, one).into_iter().map(|line| format!("  {line}")));
    lines.extend(preview.plan.waiting.iter().map(|what| format!("  waiting for {what}")));
    if !preview.plan.then.is_empty() {
        lines.push("  then:".to_owned());
        lines.extend(preview.plan.then.iter().map(|step| format!("    {step}")));
    }
    lines.extend(preview.plan.notes.iter().map(|found| format!("  {}", note(found))));
    lines.extend(preview.warnings.iter().map(|warning| format!("  note: {warning}")));
    let back = way_back(name, preview, one);
    if !back.is_empty() {
        lines.push("  way back:".to_owned());
        lines.extend(back.into_iter().map(|line| format!("    {line}")));
    }
    lines
}

/// One step, field by field, with secrets masked.
pub(in crate::cli::verbs) fn object_lines(step: &Step) -> Vec<ChangeLine> {
    match step {
        Step::Create { manifest } => created_lines(&manifest.object, &manifest.body),
        Step::Update { manifest, changes, drops_fields, .. } => {
            let fields: Vec<Change> = changes.iter().cloned().map(Change::from).collect();
            let mut lines = crate::plan::object_lines(Mark::Change, &manifest.object, &fields);
            if *drops_fields {
                let text = "fields that were rendered before and are no longer".to_owned();
                lines.push(ChangeLine { mark: Some(Mark::Remove), depth: 1, text });
            }
            lines
        }
        Step::Adopt { manifest, changes, .. } => {
            let fields: Vec<Change> = changes.iter().cloned().map(Change::from).collect();
            crate::plan::object_lines(Mark::Change, &manifest.object, &fields)
        }
        Step::Handover { manifest, .. } => crate::plan::object_lines(Mark::Change, &manifest.object, &[]),
        Step::Prune { object, why: PruneReason::Replace, .. } => crate::plan::object_lines(Mark::Replace, object, &[]),
        Step::Prune { object, .. } => crate::plan::object_lines(Mark::Remove, object, &[]),
    }
}
