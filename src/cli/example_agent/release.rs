//! The release folder, as an agent's code finds it on every target.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::Error;
use crate::model::{Digest, ReleaseId};

/// What the release folder holds, checked against the release's own digests.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    /// SHA-256 of `release.json`.
    pub(super) id: ReleaseId,
    /// Text and digest of each prompt.
    pub(super) prompts: BTreeMap<String, (String, Digest)>,
    /// Names of the tools.
    pub(super) tools: BTreeSet<String>,
    /// The model of each role.
    pub(super) models: BTreeMap<String, String>,
    /// Behaviour for demonstrations.
    pub(super) demo: Demo,
}

/// Behaviour for demonstrations and tests: the key `demo` of the release's config.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Demo {
    /// Ends at start, with an error.
    pub(super) crash: bool,
    /// Never becomes ready.
    pub(super) not_ready: bool,
    /// Becomes ready that many milliseconds after its start.
    pub(super) startup_delay_ms: u64,
    /// Milliseconds between two chunks of a streamed reply.
    pub(super) chunk_delay_ms: u64,
    /// Every so-manieth question is answered with an error; 0: none.
    pub(super) fail_every: u64,
}

/// Of `release.json` and `config.json`, what an agent needs.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Declared {
    prompts: BTreeMap<String, Digest>,
    demo: Demo,
}

// === impl Folder ===

impl Folder {
    /// Reads the release in `dir`.
    ///
    /// # Errors
    ///
    /// When a file is missing or no JSON, when a prompt lacks the digest that the release gives it, or when the
    /// release is not `expected` (its short or whole id).
    pub(super) fn read(dir: &Path, expected: Option<&str>) -> Result<Self, Error> {
        let canonical = read(dir, "release.json")?.ok_or_else(|| Error::Read {
            path: dir.join("release.json"),
            source: io::Error::from(io::ErrorKind::NotFound),
        })?;
        let id = ReleaseId::of(&canonical);
        if let Some(expected) = expected.filter(|expected| !is(id, expected)) {
            return Err(Error::Other { dir: dir.to_owned(), found: id, expected: expected.to_owned() });
        }
        let declared: Declared = json(dir, "release.json", &canonical)?;
        let mut prompts = BTreeMap::new();
        for (name, digest) in declared.prompts {
            let bytes = read(dir, &format!("prompts/{name}.md"))?.unwrap_or_default();
            if Digest::of(&bytes) != digest {
                return Err(Error::Prompt(name));
            }
            prompts.insert(name, (String::from_utf8_lossy(&bytes).into_owned(), digest));
        }
        let models = optional::<BTreeMap<String, Value>>(dir, "models.json")?.unwrap_or_default();
        let model = |model: &Value| model.get("model").and_then(Value::as_str).unwrap_or("unknown").to_owned();
        Ok(Self {
            id,
            prompts,
            tools: tools(dir)?,
            models: models.iter().map(|(role, value)| (role.clone(), model(value))).collect(),
            demo: optional::<Declared>(dir, "config.json")?.unwrap_or_default().demo,
        })
    }

    /// The model that answers: `primary`, or the first.
    pub(super) fn model(&self) -> &str {
        self.models.get("primary").or_else(|| self.models.values().next()).map_or("rules", String::as_str)
    }
}

/// Whether `text` names `id`: short, whole, or with the name of the hash.
fn is(id: ReleaseId, text: &str) -> bool {
    text == id.short() || text.strip_prefix("sha256:").unwrap_or(text) == id.digest().to_string()
}

fn read(dir: &Path, name: &str) -> Result<Option<Vec<u8>>, Error> {
    let path = dir.join(name);
    match std::fs::read(&path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Read { path, source }),
    }
}

fn json<T: serde::de::DeserializeOwned>(dir: &Path, name: &str, bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|source| Error::Json { path: dir.join(name), source })
}

fn optional<T: serde::de::DeserializeOwned>(dir: &Path, name: &str) -> Result<Option<T>, Error> {
    read(dir, name)?.map(|bytes| json(dir, name, &bytes)).transpose()
}

/// The names of the files in `tools/`.
fn tools(dir: &Path) -> Result<BTreeSet<String>, Error> {
    let path = dir.join("tools");
    let failed = |source| Error::Read { path: path.clone(), source };
    let entries = match std::fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = BTreeSet::new();
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        names.extend(name.to_str().and_then(|name| name.strip_suffix(".json")).map(str::to_owned));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    fn whole() -> (String, tempfile::TempDir) {
        let release = format!(r#"{{"format":1,"prompts":{{"system":"{}"}}}}"#, Digest::of(b"Be kind.\n"));
        let dir = folder(&[
            ("release.json", &release),
            ("prompts/system.md", "Be kind.\n"),
            ("models.json", r#"{"judge":{"model":"j"},"primary":{"model":"p"}}"#),
            ("tools/search.json", "{}"),
            ("config.json", r#"{"demo":{"startupDelayMs":5},"languages":["en"]}"#),
        ]);
        (release, dir)
    }

    #[test]
    fn a_whole_folder_is_read() {
        let (release, dir) = whole();
        let id = ReleaseId::of(release.as_bytes());
        for expected in [None, Some(id.short()), Some(id.digest().to_string()), Some(format!("sha256:{}", id.digest()))]
        {
            let read = Folder::read(dir.path(), expected.as_deref()).unwrap();
            assert_eq!(read.id, id);
            assert_eq!(read.prompts["system"].0, "Be kind.\n");
            assert_eq!((read.model(), read.tools.len(), read.demo.startup_delay_ms), ("p", 1, 5));
        }
    }

    #[test]
    fn a_folder_of_another_release_is_refused() {
        let (_, dir) = whole();
        let error = Folder::read(dir.path(), Some("r-000000000000")).unwrap_err();
        assert!(matches!(error, Error::Other { .. }), "{error}");
    }

    #[test]
    fn a_prompt_with_other_content_or_none_is_refused() {
        let (_, dir) = whole();
        std::fs::write(dir.path().join("prompts/system.md"), "Be rude.\n").unwrap();
        assert_eq!(
            Folder::read(dir.path(), None).unwrap_err().to_string(),
            "the prompt `system` is not the one that `release.json` names"
        );
        std::fs::remove_file(dir.path().join("prompts/system.md")).unwrap();
        assert!(matches!(Folder::read(dir.path(), None), Err(Error::Prompt(_))));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let dir = folder(&[]);
        assert!(Folder::read(dir.path(), None).unwrap_err().to_string().contains("release.json"));
        let dir = folder(&[("release.json", "{}"), ("models.json", "{")]);
        let error = Folder::read(dir.path(), None).unwrap_err();
        assert!(matches!(error, Error::Json { .. }) && error.to_string().contains("models.json"), "{error}");
        let dir = folder(&[("release.json", "{}"), ("tools", "a file")]);
        assert!(matches!(Folder::read(dir.path(), None), Err(Error::Read { .. })));
        let dir = folder(&[("release.json/x", "a folder")]);
        assert!(matches!(Folder::read(dir.path(), None), Err(Error::Read { .. })));
    }
}
