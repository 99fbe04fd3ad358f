//! Which arm a request belongs to: plain functions of the table, the request and a chance that is given.

use std::collections::BTreeMap;

use http::HeaderMap;
use http::header::COOKIE;

use super::table::{Agent, Role, Route, Sticky, StickyBy, Table, WHOLE};

/// The routes of a table by host, the longest path first.
#[derive(Debug, Default)]
pub struct Routes {
    by_host: BTreeMap<String, Vec<(String, usize)>>,
}

// === impl Routes ===

impl Routes {
    /// Sorts the routes of `table`.
    pub fn of(table: &Table) -> Self {
        let mut by_host: BTreeMap<String, Vec<(String, usize)>> = BTreeMap::new();
        for (index, route) in table.routes.iter().enumerate() {
            let path = route.path.trim_end_matches('/').to_owned();
            let any = [String::new()];
            let hosts = if route.hosts.is_empty() { &any[..] } else { &route.hosts[..] };
            for host in hosts {
                by_host.entry(host.clone()).or_default().push((path.clone(), index));
            }
        }
        for paths in by_host.values_mut() {
            paths.sort_by(|one, other| other.0.len().cmp(&one.0.len()).then_with(|| one.cmp(other)));
        }
        Self { by_host }
    }

    /// The route for `host` (with or without a port) and `path`, as an index into the table's.
    pub fn find(&self, host: &str, path: &str) -> Option<usize> {
        let name = without_port(host);
        let lower;
        let name = if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            lower = name.to_ascii_lowercase();
            &lower
        } else {
            name
        };
        let fits = |paths: &Vec<(String, usize)>| {
            paths.iter().find(|(prefix, _)| beneath(path, prefix)).map(|(_, index)| *index)
        };
        if let Some(found) = self.by_host.get(name).and_then(fits) {
            return Some(found);
        }
        if self.by_host.len() > 1 {
            let mut rest = name;
            while let Some((_, suffix)) = rest.split_once('.') {
                if let Some(found) = self.by_host.get(&format!("*.{suffix}")).and_then(fits) {
                    return Some(found);
                }
                rest = suffix;
            }
        }
        self.by_host.get("").and_then(fits)
    }
}

/// The arm for a request, as an index into the agent's; none where nothing is ready.
///
/// A route to a release decides, then the first match that fits, then the weights: by the sticky key where the request
/// has one, else by `chance` (below [`WHOLE`]).
pub fn arm_of(agent: &Agent, route: &Route, headers: &HeaderMap, chance: u32) -> Option<usize> {
    let named = route.release.or_else(|| {
        let fits = |rule: &&super::table::Match| match (&rule.cookie, &rule.value) {
            (Some(name), value) => {
                cookie(headers, name).is_some_and(|found| value.as_ref().is_none_or(|value| found == value.as_bytes()))
            }
            (None, Some(value)) => {
                headers.get_all(&rule.header).iter().any(|found| found.as_bytes() == value.as_bytes())
            }
            (None, None) => headers.contains_key(&rule.header),
        };
        agent.matches.iter().find(fits).map(|rule| rule.release)
    });
    if let Some(release) = named {
        return agent.arms.iter().position(|arm| arm.release == release);
    }
    let place = agent.sticky.as_ref().and_then(|sticky| Some(place(&sticky.salt, key(sticky, headers)?)));
    by_weight(agent, place.unwrap_or(chance))
}

/// What a request is hashed by, if it has it.
pub(super) fn key<'h>(sticky: &Sticky, headers: &'h HeaderMap) -> Option<&'h [u8]> {
    let found = match &sticky.by {
        StickyBy::Header(name) | StickyBy::User(name) => headers.get(name).map(http::HeaderValue::as_bytes),
        StickyBy::Cookie(name) => cookie(headers, name),
    };
    found.filter(|found| !found.is_empty())
}

/// The place of a key on the line from 0 to [`WHOLE`], by `MurmurHash3` (x86, 32 bit, seed 0) as flagd hashes.
pub fn place(salt: &str, key: &[u8]) -> u32 {
    let mut whole = Vec::with_capacity(salt.len() + key.len());
    whole.extend_from_slice(salt.as_bytes());
    whole.extend_from_slice(key);
    scale(murmur3(&whole))
}

/// Brings 32 even bits to the line from 0 to [`WHOLE`].
pub fn scale(bits: u32) -> u32 {
    u32::try_from((u64::from(bits) * u64::from(WHOLE)) >> 32).unwrap_or(0)
}

/// Who owns `place` on the line: candidates from its start in the order of the table, the stable release what is left.
///
/// So a candidate that gets more takes from the stable release alone, and nobody ever moves back.
fn by_weight(agent: &Agent, place: u32) -> Option<usize> {
    let mut end = 0;
    for (index, arm) in agent.arms.iter().enumerate().filter(|(_, arm)| arm.role != Role::Stable) {
        end += arm.weight;
        if place < end {
            return Some(index);
        }
    }
    agent.arms.iter().position(|arm| arm.role == Role::Stable && arm.weight > 0)
}

fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    let pairs = headers.get_all(COOKIE).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    let mut values = pairs.filter_map(|pair| {
        let pair = pair.trim_ascii();
        let at = pair.iter().position(|byte| *byte == b'=')?;
        (&pair[..at] == name.as_bytes()).then(|| &pair[at + 1..])
    });
    values.next()
}

fn without_port(host: &str) -> &str {
    if host.starts_with('[') {
        return host.find(']').map_or(host, |end| &host[..=end]);
    }
    let name = host.split_once(':').map_or(host, |(name, _)| name);
    name.strip_suffix('.').unwrap_or(name)
}

fn beneath(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || prefix.is_empty())
}

/// `MurmurHash3`, x86, 32 bit, seed 0.
fn murmur3(bytes: &[u8]) -> u32 {
    let mix = |word: u32| word.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    let mut hash = 0_u32;
    let mut chunks = bytes.chunks_exact(4);
    for chunk in &mut chunks {
        let word = chunk.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
        hash = (hash ^ mix(word)).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        hash ^= mix(rest.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte)));
    }
    // The length enters by its low 32 bits.
    hash ^= u32::try_from(bytes.len() & 0xffff_ffff).unwrap_or(u32::MAX);
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur3_gives_the_reference_values() {
        assert_eq!(murmur3(b""), 0);
        assert_eq!(murmur3(b"test"), 0xba6b_d213);
        assert_eq!(murmur3(b"Hello, world!"), 0xc036_3e43);
        assert_eq!(murmur3(b"The quick brown fox jumps over the lazy dog"), 0x2e4f_f723);
    }

    #[test]
    fn paths_fit_by_segments() {
        assert!(beneath("/api/x", "/api") && beneath("/api", "/api") && beneath("/anything", ""));
        assert!(!beneath("/apix", "/api"));
    }

    #[test]
    fn a_host_is_read_without_its_port() {
        assert_eq!(without_port("a.example:8080"), "a.example");
        assert_eq!(without_port("[::1]:80"), "[::1]");
        assert_eq!(without_port("a.example."), "a.example");
    }
}
