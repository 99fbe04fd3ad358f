//! `backstay logs AGENT [-f]`

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::cli::{CliError, Exit, Globals, Out};
use crate::daemon::config::{Config, nearest};
use crate::keeper::logs::{Reader, files};
use crate::model::AgentName;

/// Time between two looks at what grows.
const PACE: Duration = Duration::from_millis(200);
/// Bytes of a line; a longer one is shown in parts.
const LINE: usize = 64 << 10;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The agent
    agent: AgentName,

    /// One of its workers, in place of its main process
    #[arg(long, value_name = "NAME")]
    worker: Option<String>,

    /// Go on while more is written
    #[arg(short, long)]
    follow: bool,

    /// One instance, whether it runs or not [default: all that run, or the last one that did]
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,

    /// How many of the last lines of each instance
    #[arg(long, value_name = "N", default_value_t = 100)]
    tail: usize,
}

/// One instance that is read.
struct Read {
    name: String,
    reader: Reader,
    /// What has come of a line that has not ended.
    begun: Vec<u8>,
}

pub(in crate::cli) fn run(args: &Args, globals: &Globals, out: &mut Out) -> Result<Exit, CliError> {
    let config = globals.config()?;
    let host = config.as_ref().filter(|config| has_host(config, globals)).ok_or_else(|| of_a_cluster(args))?;
    let folder = host.host_folder();
    let process = process(args)?;
    let logs = folder.join("logs").join(&process);
    let known = instances(&logs)?;
    if known.is_empty() {
        return Err(nothing(&process, &folder.join("logs")));
    }
    let running = |name: &str| folder.join("instances").join(name).is_dir();
    let names = chosen(&known, args.instance.as_deref(), running).map_err(|name| unknown(&name, &process, &known))?;
    let mut reads = names.iter().map(|name| Read::tail(&logs, name, args.tail)).collect::<Result<Vec<_>, _>>()?;
    let mut seen: BTreeSet<String> = known.into_keys().collect();
    let named = args.follow && args.instance.is_none() || reads.len() > 1;
    loop {
        let mut silent = true;
        for read in &mut reads {
            silent &= !read.on(named, out)?;
        }
        if silent && !args.follow {
            break;
        }
        if silent {
            out.flush()?;
            std::thread::sleep(PACE);
            if args.instance.is_none() {
                add_new(&mut reads, &mut seen, &logs)?;
            }
        }
    }
    reads.iter_mut().try_for_each(|read| read.rest(named, out))?;
    Ok(Exit::Done)
}

/// Whether an environment that is meant is on this machine.
fn has_host(config: &Config, globals: &Globals) -> bool {
    let meant = |environment: &_| {
        globals.environment.as_ref().is_none_or(|wanted: &crate::model::EnvironmentName| wanted == environment)
    };
    config.target.iter().any(|target| target.is_host() && meant(&target.environment))
}

fn of_a_cluster(args: &Args) -> CliError {
    let selector = match &args.worker {
        Some(worker) => format!("backstay.dev/agent={},backstay.dev/process={worker}", args.agent),
        None => format!("backstay.dev/agent={}", args.agent),
    };
    let more = if args.follow { " --follow" } else { "" };
    CliError::usage("the logs of agents in a cluster are the cluster's").hint(format!(
        "`kubectl logs --namespace NAMESPACE --selector {selector}{more}`; for this machine, name the daemon's \
         configuration with `--config`"
    ))
}

/// The folder of a process beneath that of all logs.
fn process(args: &Args) -> Result<String, CliError> {
    let plain = |name: &&String| {
        !name.is_empty() && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
    };
    match &args.worker {
        None => Ok(args.agent.to_string()),
        Some(worker) if plain(&worker) => Ok(format!("{}--{worker}", args.agent)),
        Some(worker) => Err(CliError::usage(format!("`{worker}` cannot be the name of a worker"))),
    }
}

/// The instances that have a log, with the time of the last change of each.
fn instances(logs: &Path) -> Result<BTreeMap<String, SystemTime>, CliError> {
    let entries = match std::fs::read_dir(logs) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(unreadable(logs, error)),
    };
    let mut found = BTreeMap::new();
    for entry in entries.filter_map(Result::ok) {
        let folder = entry.path();
        let newest = files(&folder).map_err(|error| unreadable(&folder, error))?.pop();
        let changed = newest.and_then(|file| file.path.metadata().ok()?.modified().ok());
        if let (Ok(name), Some(changed)) = (entry.file_name().into_string(), changed) {
            found.insert(name, changed);
        }
    }
    Ok(found)
}

/// The instances that are meant: the one that was named, all that run, or the last that did.
fn chosen(
    known: &BTreeMap<String, SystemTime>,
    named: Option<&str>,
    running: impl Fn(&str) -> bool,
) -> Result<Vec<String>, String> {
    if let Some(name) = named {
        return if known.contains_key(name) { Ok(vec![name.to_owned()]) } else { Err(name.to_owned()) };
    }
    let run: Vec<String> = known.keys().filter(|name| running(name)).cloned().collect();
    let last = known.iter().max_by_key(|(_, changed)| **changed).map(|(name, _)| name.clone());
    Ok(if run.is_empty() { last.into_iter().collect() } else { run })
}

fn unknown(name: &str, process: &str, known: &BTreeMap<String, SystemTime>) -> CliError {
    let names = known.keys().map(String::as_str);
    let hint = match nearest(name, names.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there is {}", names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")),
    };
    CliError::usage(format!("`{process}` has no log of an instance `{name}`")).hint(hint)
}

fn nothing(process: &str, logs: &Path) -> CliError {
    let entries =
        std::fs::read_dir(logs).into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let known: Vec<String> = entries.map(|name| format!("`{}`", name.replace("--", " --worker "))).collect();
    let hint = if known.is_empty() {
        "nothing has run on this machine yet; `backstay status` shows why".to_owned()
    } else {
        format!("there are logs of {}", known.join(", "))
    };
    CliError::usage(format!("`{process}` has written nothing on this machine")).hint(hint)
}

fn unreadable(path: &Path, error: io::Error) -> CliError {
    let exit = if error.kind() == io::ErrorKind::PermissionDenied { Exit::Refused } else { Exit::Broken };
    let cannot = CliError::new(exit, format!("cannot read the logs in `{}`", path.display())).because(error);
    if exit == Exit::Refused { cannot.hint("logs are read by the daemon's account and by root") } else { cannot }
}

/// Instances that have begun since.
fn add_new(reads: &mut Vec<Read>, seen: &mut BTreeSet<String>, logs: &Path) -> Result<(), CliError> {
    for name in instances(logs)?.into_keys() {
        if seen.insert(name.clone()) {
            let reader = Reader::oldest(&logs.join(&name));
            reads.push(Read { name, reader, begun: Vec::new() });
        }
    }
    Ok(())
}

// === impl Read ===

impl Read {
    fn tail(logs: &Path, name: &str, lines: usize) -> Result<Self, CliError> {
        let folder = logs.join(name);
        let reader = Reader::tail(&folder, lines).map_err(|error| unreadable(&folder, error))?;
        Ok(Self { name: name.to_owned(), reader, begun: Vec::new() })
    }

    /// Writes what has come since; false if that is nothing.
    fn on(&mut self, named: bool, out: &mut Out) -> Result<bool, CliError> {
        let mut bytes = vec![0; LINE];
        let count = self.reader.read(&mut bytes);
        let count = count.map_err(|error| {
            CliError::new(Exit::Broken, format!("cannot read the log of `{}`", self.name)).because(error)
        })?;
        self.begun.extend_from_slice(bytes.get(..count).unwrap_or_default());
        while let Some(end) = self.begun.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.begun.drain(..=end).collect();
            self.line(&line, named, out)?;
        }
        if self.begun.len() > LINE {
            self.rest(named, out)?;
        }
        Ok(count > 0)
    }

    /// Writes a line that has not ended.
    fn rest(&mut self, named: bool, out: &mut Out) -> Result<(), CliError> {
        let line = std::mem::take(&mut self.begun);
        if line.is_empty() { Ok(()) } else { self.line(&line, named, out) }
    }

    fn line(&self, line: &[u8], named: bool, out: &mut Out) -> Result<(), CliError> {
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end_matches(['\r', '\n']);
        if named { out.line(format!("{} | {text}", self.name)) } else { out.line(text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(names: &[&str]) -> BTreeMap<String, SystemTime> {
        let at = |n: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(n);
        names.iter().zip(0..).map(|(name, n)| ((*name).to_owned(), at(n))).collect()
    }

    #[test]
    fn what_runs_is_shown_or_what_ran_last() {
        let known = known(&["c", "a", "b"]);
        assert_eq!(chosen(&known, None, |name| name != "b"), Ok(vec!["a".to_owned(), "c".to_owned()]));
        assert_eq!(chosen(&known, None, |_| false), Ok(vec!["b".to_owned()]), "the last that wrote");
        assert_eq!(chosen(&known, Some("c"), |_| false), Ok(vec!["c".to_owned()]));
        assert_eq!(chosen(&known, Some("d"), |_| true), Err("d".to_owned()));
    }

    #[test]
    fn a_slip_finds_the_instance() {
        let known = known(&["support-5c9-x1"]);
        assert_eq!(unknown("support-5c9-x2", "support", &known).way_out(), Some("did you mean `support-5c9-x1`?"));
        assert_eq!(unknown("zzz", "support", &known).way_out(), Some("there is `support-5c9-x1`"));
    }
}
