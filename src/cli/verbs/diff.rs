//! `backstay diff AGENT [--releases A B]`

use std::sync::Arc;

use serde_json::{Value, json};

use super::plan::{look_at, object_lines, unknown};
use super::rollback::release;
use crate::cli::client::{Place, place};
use crate::cli::{CliError, Exit, Format, Globals, Out};
use crate::desired::{Release, ReleaseRef};
use crate::model::{AgentName, LiveObject, ObjectRef, ReleaseId};
use crate::observe::{Call, segment};
use crate::plan::{Mark, StepView, changes};
use crate::reconcile::{FailureKind, read_release};
use crate::record::AgentRecord;
use crate::render::config_map_name;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The agent
    agent: AgentName,

    /// Two releases in place of the cluster and Git
    #[arg(long, num_args = 2, value_names = ["FROM", "TO"])]
    releases: Vec<String>,

    /// End with 1 if anything differs
    #[arg(long)]
    exit_code: bool,
}

pub(in crate::cli) async fn run(args: &Args, globals: &Globals, out: &mut Out) -> Result<Exit, CliError> {
    let differs = match args.releases.as_slice() {
        [from, to] => releases(args, from, to, globals, out).await?,
        _ => live(args, globals, out).await?,
    };
    Ok(if differs && args.exit_code { Exit::No } else { Exit::Done })
}

/// The cluster against Git.
async fn live(args: &Args, globals: &Globals, out: &mut Out) -> Result<bool, CliError> {
    // One environment at a time: an agent may be in several.
    place(globals).await?;
    let told = look_at(globals, out).await?;
    let found = told.iter().find_map(|one| Some((one, one.looked.agents.get(&args.agent)?)));
    let Some((one, preview)) = found else {
        let names = told.iter().flat_map(|one| one.looked.agents.keys()).map(AgentName::as_str).collect();
        return Err(unknown(&args.agent, &names));
    };
    let preview = preview.as_ref().map_err(|why| CliError::new(Exit::Refused, why.clone()))?;
    let steps: Vec<_> = preview.plan.steps.iter().chain(&preview.plan.then).collect();
    match out.format {
        Format::Json => out.json(&json!({
            "agent": args.agent,
            "environment": one.environment,
            "differs": !steps.is_empty(),
            "objects": steps.iter().map(|step| StepView::from(*step)).collect::<Vec<_>>(),
        }))?,
        Format::Text | Format::Markdown => {
            for step in &steps {
                object_lines(step).into_iter().try_for_each(|line| out.line(line))?;
            }
            if steps.is_empty() {
                out.say(format!("`{}` in `{}` is as Git asks for", args.agent, one.environment));
            }
        }
    }
    for what in &preview.plan.waiting {
        out.say(format!("waiting for {what}"));
    }
    Ok(!steps.is_empty())
}

/// Two releases that stood here, part by part.
async fn releases(args: &Args, from: &str, to: &str, globals: &Globals, out: &mut Out) -> Result<bool, CliError> {
    release(from)?;
    release(to)?;
    let place = place(globals).await?;
    let record = place.agent(&args.agent).await?.record;
    let (from, to) = (known(&args.agent, &record, from)?, known(&args.agent, &record, to)?);
    let (old, new) = (read(&place, &args.agent, from).await?, read(&place, &args.agent, to).await?);
    let (old, new) = (parts(&old), parts(&new));
    let mut lines = Vec::new();
    for (part, before) in &old {
        let after = new.iter().find(|(name, _)| name == part).map_or(&Value::Null, |(_, value)| value);
        let found = changes(before, after);
        if !found.is_empty() {
            let object = ObjectRef {
                group: String::new(),
                kind: (*part).to_owned(),
                namespace: String::new(),
                name: args.agent.to_string(),
            };
            lines.extend(crate::plan::object_lines(Mark::Change, &object, &found));
        }
    }
    match out.format {
        Format::Json => out.json(&json!({
            "agent": args.agent,
            "environment": place.environment,
            "from": from.short(),
            "to": to.short(),
            "differs": !lines.is_empty(),
            "lines": lines,
        }))?,
        Format::Text | Format::Markdown => lines.iter().try_for_each(|line| out.line(line))?,
    }
    Ok(!lines.is_empty())
}

/// The release that `text` names, among those that the ledger knows.
fn known(agent: &AgentName, record: &AgentRecord, text: &str) -> Result<ReleaseId, CliError> {
    let named = ReleaseRef(text.to_owned());
    let standing = record.stable.iter().chain(&record.candidate).chain(&record.history);
    let all: Vec<ReleaseId> =
        standing.map(|standing| standing.release).chain(record.quarantine.iter().map(|entry| entry.release)).collect();
    all.iter().copied().find(|release| named.names(release)).ok_or_else(|| {
        let list = all.iter().map(|release| format!("`{release}`")).collect::<Vec<_>>().join(", ");
        let error = CliError::usage(format!("the ledger knows no release `{text}` of `{agent}`"));
        if list.is_empty() { error } else { error.hint(format!("there is {list}")) }
    })
}

/// A release as its ConfigMap holds it.
async fn read(place: &Place, agent: &AgentName, id: ReleaseId) -> Result<Release, CliError> {
    let name = config_map_name(agent, &id);
    let gone = || {
        CliError::new(Exit::Refused, format!("the content of {id} is not in the cluster any more"))
            .hint("`spec.history` of the agent says how many old releases are kept")
    };
    let deed = format!("read ConfigMap/{}/{name}", place.namespace);
    let path = match (segment(&place.namespace), segment(&name)) {
        (Ok(namespace), Ok(name)) => format!("/api/v1/namespaces/{namespace}/configmaps/{name}"),
        (_, _) => return Err(gone()),
    };
    let body = match place.api.call(Call::get(path)).await {
        Ok(body) => body,
        Err(refusal) if refusal.kind() == FailureKind::Gone => return Err(gone()),
        Err(refusal) => return Err(refusal.failure(&deed).into()),
    };
    let found = LiveObject::of(body).and_then(|live| read_release(&live)).filter(|release| release.id == id);
    found.ok_or_else(|| {
        CliError::new(Exit::Refused, format!("ConfigMap/{}/{name} does not hold {id}", place.namespace))
            .hint("its content does not hash to its name, so that nothing is told from it")
    })
}

/// The parts of a release, prompts by their text.
fn parts(release: &Release) -> Vec<(&'static str, Value)> {
    let spec = &release.spec;
    let text = |bytes: &Arc<[u8]>| String::from_utf8_lossy(bytes).into_owned();
    let prompts: serde_json::Map<String, Value> =
        release.prompts.iter().map(|(name, bytes)| (name.clone(), text(bytes).into())).collect();
    vec![
        ("code", json!(spec.code)),
        ("prompts", Value::Object(prompts)),
        ("models", json!(spec.models)),
        ("tools", json!(spec.tools)),
        ("memory", json!({"memory": spec.memory})),
        ("config", json!({"config": spec.config})),
        ("workload", json!(spec.workload)),
        ("workers", json!(spec.workers)),
    ]
}
