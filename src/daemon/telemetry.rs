//! How the daemon speaks: `tracing`, for people on a terminal and as JSON otherwise, on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use super::config::{Log, LogFormat};

/// The log cannot be set up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TelemetryError {
    /// `log.level` is neither a level nor directives.
    #[error("`log.level` cannot be `{level}`: {why}")]
    Level {
        /// What it says.
        level: String,
        /// What is wrong with it.
        why: String,
    },
    /// Somebody set it up before.
    #[error("the log is set up already")]
    Twice,
}

/// Sets up the log of this process.
///
/// # Errors
///
/// When the level cannot be read, or the log of this process is set up already.
pub fn start(log: &Log) -> Result<(), TelemetryError> {
    let filter = filter(&log.level)?;
    let terminal = std::io::stderr().is_terminal();
    let human = match log.format {
        LogFormat::Human => true,
        LogFormat::Json => false,
        LogFormat::Auto => terminal,
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(terminal);
    let started = if human { builder.try_init() } else { builder.json().flatten_event(true).try_init() };
    started.map_err(|_| TelemetryError::Twice)
}

/// A level for our own words, warnings of what we are built on; or directives as they are.
fn filter(level: &str) -> Result<EnvFilter, TelemetryError> {
    let wrong = |why: String| TelemetryError::Level { level: level.to_owned(), why };
    let level = level.trim();
    match level.to_ascii_lowercase().as_str() {
        "off" | "error" | "warn" => Ok(EnvFilter::new(level)),
        own @ ("info" | "debug" | "trace") => Ok(EnvFilter::new(format!("warn,backstay={own}"))),
        _ if level.contains(['=', ',']) => EnvFilter::try_new(level).map_err(|error| wrong(error.to_string())),
        _ => Err(wrong("`error`, `warn`, `info`, `debug`, `trace`, or directives are expected".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_for_our_own_words() {
        assert_eq!(filter("debug").expect("a filter").to_string(), "backstay=debug,warn");
        assert_eq!(filter("warn").expect("a filter").to_string(), "warn");
        assert_eq!(filter("info,kube=debug").expect("a filter").to_string(), "kube=debug,info");
    }

    #[test]
    fn a_wrong_level_is_named() {
        assert!(filter("loud").is_err_and(|error| error.to_string().contains("`loud`")));
        assert!(filter("backstay=loud").is_err());
    }

    #[test]
    fn the_log_is_set_up_once() {
        let log = Log { format: LogFormat::Json, level: "error".to_owned() };
        let first = start(&log);
        assert!(first.is_ok() || first == Err(TelemetryError::Twice));
        assert_eq!(start(&Log { format: LogFormat::Auto, ..log }), Err(TelemetryError::Twice));
    }
}
