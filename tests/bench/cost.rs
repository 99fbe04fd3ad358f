//! What a process costs.

/// Ticks of the clock that `/proc` counts in, per second: the same on every Linux that Rust runs on.
const TICKS: f64 = 100.0;

/// What a process has cost so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    /// Seconds of CPU.
    pub(crate) cpu: f64,
    /// The most resident memory at once, in bytes.
    pub(crate) peak: u64,
    /// Resident memory now, in bytes.
    pub(crate) resident: u64,
}

/// What a process has cost, by `/proc`.
pub(crate) fn cost(process: u32) -> Option<Cost> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: Vec<f64> = fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse().ok()).collect();
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let bytes = |key: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
    };
    let cpu = ticks.iter().sum::<f64>() / TICKS;
    Some(Cost { cpu, peak: bytes("VmHWM:")?, resident: bytes("VmRSS:")? })
}
