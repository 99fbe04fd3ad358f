//! The objects of a host on disk: `SQLite`, one file, one process.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Transaction, params};
use serde_json::Value;

use super::kinds::{KINDS, Key, Kind};
use super::recent::{Change, Following, Recent};
use super::refused::Refused;
use crate::ledger::Clock;

/// The format that this version writes, as `SQLite`'s `user_version`.
const FORMAT: i64 = 1;
/// Marks the file as ours: `BkSt`, as `SQLite`'s `application_id`.
const APPLICATION: i64 = 0x426b_5374;
/// Events of a namespace: at one more, a quarter of them goes, the oldest first.
const EVENTS: usize = 1000;

/// The objects of a host.
///
/// # Guarantees
///
/// A change is on disk when its answer is given (write-ahead log, synced at each commit), and is whole or absent after a
/// crash. Versions only grow, over all objects and all starts. A file that is damaged, or of a newer format, is never
/// written: reading goes on as far as it can.
pub struct Store {
    db: Mutex<Connection>,
    /// Where the file is.
    folder: PathBuf,
    recent: Recent,
    clock: Arc<dyn Clock>,
    opened_at: String,
    /// Why nothing is written.
    read_only: Option<String>,
    /// Since when the disk does not take what is written, and why; none once it does.
    failing: Mutex<Option<(String, String)>>,
}

/// How a store was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// For reading and writing.
    Writable,
    /// For reading only. Why, in one sentence.
    ReadOnly(String),
}

/// The database cannot be opened at all.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the database `{}`", path.display())]
pub struct StoreError {
    path: PathBuf,
    #[source]
    source: rusqlite::Error,
}

/// Why a change was not made.
enum Failed {
    /// It is not to be made.
    Refused(Refused),
    /// The database does not take it.
    Disk(rusqlite::Error),
}

/// What becomes of an object.
pub(super) enum Become {
    /// This.
    Be(Value),
    /// Nothing.
    End,
}

// === impl Failed ===

impl From<Refused> for Failed {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<rusqlite::Error> for Failed {
    fn from(error: rusqlite::Error) -> Self {
        Self::Disk(error)
    }
}

// === impl Store ===

impl Store {
    /// Opens the database, or makes it.
    ///
    /// # Errors
    ///
    /// When there is no reading it at all: its folder is missing, or the file is no database.
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let failed = |source| StoreError { path: path.to_owned(), source };
        let (db, read_only) = match opened(path) {
            Ok(opened) => opened,
            Err(error) => {
                let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(failed)?;
                (db, Some(format!("the database cannot be written: {error}")))
            }
        };
        let recent = Recent::after(version(&db).map_err(failed)?);
        let opened_at = format!("{:.0}", clock.now());
        let folder = path.parent().unwrap_or(path).to_owned();
        Ok(Self { db: Mutex::new(db), folder, recent, clock, opened_at, read_only, failing: Mutex::new(None) })
    }

    /// Whether it is written.
    pub fn is_open(&self) -> Opened {
        self.read_only.clone().map_or(Opened::Writable, Opened::ReadOnly)
    }

    /// Why nothing is written now, and since when (RFC 3339): the file is not to be written, or the disk does not take it.
    pub(super) fn frozen(&self) -> Option<(String, String)> {
        match &self.read_only {
            Some(why) => Some((why.clone(), self.opened_at.clone())),
            None => self.failing.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Remembers whether the disk takes what is written; a lock of somebody else's is nothing that lasts.
    fn note(&self, written: &Result<Value, Failed>) {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Err(Failed::Disk(error)), None) = (written, &*failing)
            && let Some(why) = disk_trouble(error, &self.folder)
        {
            tracing::error!(%error, "nothing is written on this host; what runs goes on: {why}");
            *failing = Some((why.to_owned(), self.now()));
        }
    }

    pub(super) fn now(&self) -> String {
        format!("{:.0}", self.clock.now())
    }

    fn db(&self) -> MutexGuard<'_, Connection> {
        self.db.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, key: &Key) -> Result<Option<Value>, Refused> {
        read(&self.db(), key).map_err(|error| self.unreadable(&error))
    }

    /// All objects of a kind in a namespace, by name, and the version at which they are so.
    pub(super) fn list(&self, kind: &'static Kind, namespace: &str) -> Result<(Vec<Value>, u64), Refused> {
        let db = self.db();
        let listed = || -> rusqlite::Result<_> {
            let mut query = db.prepare_cached(
                "SELECT body FROM objects WHERE api_group = ?1 AND plural = ?2 AND namespace = ?3 ORDER BY name",
            )?;
            let rows = query.query_map(params![kind.group, kind.plural, namespace], |row| row.get::<_, String>(0))?;
            Ok((rows.map(|row| row.and_then(|text| parsed(&text))).collect::<rusqlite::Result<_>>()?, version(&db)?))
        };
        listed().map_err(|error| self.unreadable(&error))
    }

    /// What cannot be read of a database that is known to be bad is told with what is bad about it.
    fn unreadable(&self, error: &rusqlite::Error) -> Refused {
        self.read_only.clone().map_or_else(|| unavailable(error), Refused::unavailable)
    }

    /// Changes one object, or only says what it would become.
    ///
    /// `deed` gets the object as it is, and gives what becomes of it. What stays the same is not written. The server's own
    /// fields are filled in here. The end of an object takes those along that it owns.
    pub(super) fn change(
        &self,
        key: &Key,
        dry_run: bool,
        deed: impl FnOnce(Option<&Value>) -> Result<Become, Refused>,
    ) -> Result<Value, Refused> {
        if let Some(why) = &self.read_only {
            return Err(Refused::unavailable(why.clone()));
        }
        let changed = self.try_change(key, dry_run, deed);
        self.note(&changed);
        changed.map_err(|failed| match failed {
            Failed::Refused(refused) => refused,
            Failed::Disk(error) => unavailable(&error),
        })
    }

    fn try_change(
        &self,
        key: &Key,
        dry_run: bool,
        deed: impl FnOnce(Option<&Value>) -> Result<Become, Refused>,
    ) -> Result<Value, Failed> {
        let mut db = self.db();
        let transaction = db.transaction()?;
        let before = read(&transaction, key)?;
        let wanted = deed(before.as_ref())?;
        if let (Become::Be(object), Some(before)) = (&wanted, &before)
            && object == before
        {
            return Ok(before.clone());
        }
        let mut next = version(&transaction)?;
        let mut changes = vec![];
        let answer = match wanted {
            Become::Be(object) => {
                next += 1;
                let object = self.filled(object, before.as_ref(), next)?;
                if dry_run {
                    return Ok(object);
                }
                let text = object.to_string();
                write(&transaction, key, &text)?;
                changes.push(Change::new(key.clone(), next, before.as_ref(), Some(&object), text));
                if before.is_none() && key.kind.kind == "Event" {
                    trim(&transaction, key, &mut next, &mut changes)?;
                }
                object
            }
            Become::End => {
                let Some(before) = before else { return Err(Refused::not_found(key).into()) };
                if dry_run {
                    return Ok(before);
                }
                remove(&transaction, key, before.clone(), &mut next, &mut changes)?;
                before
            }
        };
        transaction.execute("UPDATE meta SET version = ?1", params![i64::try_from(next).unwrap_or(i64::MAX)])?;
        transaction.commit()?;
        if self.failing.lock().unwrap_or_else(PoisonError::into_inner).take().is_some() {
            tracing::info!("the database is written again");
        }
        // Before the next change can be made, so that they come in order.
        self.recent.add(changes);
        Ok(answer)
    }

    /// What changed after `version`, and what will.
    pub(super) fn since(&self, version: u64) -> Result<Following, Refused> {
        self.recent.follow(version)
    }

    /// The version of the newest change.
    pub(super) fn version(&self) -> Result<u64, Refused> {
        version(&self.db()).map_err(|error| unavailable(&error))
    }

    /// Puts in what the server itself writes.
    fn filled(&self, mut object: Value, before: Option<&Value>, version: u64) -> Result<Value, Refused> {
        let content = |object: &Value| {
            let mut object = object.clone();
            if let Some(fields) = object.as_object_mut() {
                fields.remove("metadata");
                fields.remove("status");
            }
            object
        };
        let generation = before.and_then(|before| before.pointer("/metadata/generation")?.as_i64()).unwrap_or(0);
        let generation = match before {
            Some(before) if content(before) == content(&object) => generation,
            Some(_) | None => generation + 1,
        };
        let kept = |field: &str| before.and_then(|before| before.pointer(&format!("/metadata/{field}")).cloned());
        let uid = match kept("uid") {
            Some(uid) => uid,
            None => uid()?.into(),
        };
        let created = kept("creationTimestamp").unwrap_or_else(|| self.now().into());
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("uid".to_owned(), uid);
            metadata.insert("creationTimestamp".to_owned(), created);
            metadata.insert("generation".to_owned(), generation.into());
            metadata.insert("resourceVersion".to_owned(), version.to_string().into());
        }
        Ok(object)
    }
}

fn opened(path: &Path) -> rusqlite::Result<(Connection, Option<String>)> {
    let db = Connection::open(path)?;
    db.busy_timeout(std::time::Duration::from_secs(5))?;
    let pragma = |name: &str| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (application, format) = (pragma("application_id")?, pragma("user_version")?);
    if (application, format) != (0, 0) && application != APPLICATION {
        return Ok((db, Some("the database belongs to another program".to_owned())));
    }
    if format > FORMAT {
        let why = format!(
            "the database has the newer format {format}, and this version writes {FORMAT}; run the newer version"
        );
        return Ok((db, Some(why)));
    }
    let sound: String = db.pragma_query_value(None, "quick_check", |row| row.get(0))?;
    if sound != "ok" {
        let first = sound.lines().next().unwrap_or_default();
        let why = format!(
            "the database is damaged ({first}); stop the daemon, put the file aside, and start it: it is made anew from Git"
        );
        return Ok((db, Some(why)));
    }
    db.pragma_update(None, "journal_mode", "wal")?;
    db.pragma_update(None, "synchronous", "full")?;
    db.execute_batch(
        "BEGIN IMMEDIATE;
         CREATE TABLE IF NOT EXISTS meta (version INTEGER NOT NULL) STRICT;
         -- A watch from 0 is one from now on: a list of nothing is of version 1, so that what comes next is told.
         INSERT INTO meta SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM meta);
         UPDATE meta SET version = 1 WHERE version = 0;
         CREATE TABLE IF NOT EXISTS objects (
           api_group TEXT NOT NULL, plural TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, body TEXT NOT NULL,
           PRIMARY KEY (api_group, plural, namespace, name)
         ) STRICT, WITHOUT ROWID;
         COMMIT;",
    )?;
    db.pragma_update(None, "application_id", APPLICATION)?;
    db.pragma_update(None, "user_version", FORMAT)?;
    Ok((db, None))
}

fn version(db: &Connection) -> rusqlite::Result<u64> {
    db.query_row("SELECT version FROM meta", [], |row| row.get::<_, i64>(0))
        .map(|version| u64::try_from(version).unwrap_or(0))
}

fn parsed(text: &str) -> rusqlite::Result<Value> {
    let wrong = |error| rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error));
    serde_json::from_str(text).map_err(wrong)
}

fn read(db: &Connection, key: &Key) -> rusqlite::Result<Option<Value>> {
    let mut query = db.prepare_cached(
        "SELECT body FROM objects WHERE api_group = ?1 AND plural = ?2 AND namespace = ?3 AND name = ?4",
    )?;
    let found = query
        .query_row(params![key.kind.group, key.kind.plural, key.namespace, key.name], |row| row.get::<_, String>(0));
    found.optional()?.map(|text| parsed(&text)).transpose()
}

fn write(db: &Connection, key: &Key, text: &str) -> rusqlite::Result<()> {
    let mut insert = db.prepare_cached("INSERT OR REPLACE INTO objects VALUES (?1, ?2, ?3, ?4, ?5)")?;
    insert.execute(params![key.kind.group, key.kind.plural, key.namespace, key.name, text]).map(drop)
}

/// Removes an object and, with it, those of its namespace that name it as their owner.
///
/// Pods and their sets stay: whoever supervises their processes ends those first.
fn remove(
    db: &Transaction<'_>,
    key: &Key,
    object: Value,
    next: &mut u64,
    changes: &mut Vec<Change>,
) -> rusqlite::Result<()> {
    let mut ending = vec![(key.clone(), object)];
    while let Some((key, mut object)) = ending.pop() {
        let mut delete = db.prepare_cached(
            "DELETE FROM objects WHERE api_group = ?1 AND plural = ?2 AND namespace = ?3 AND name = ?4",
        )?;
        delete.execute(params![key.kind.group, key.kind.plural, key.namespace, key.name])?;
        let uid = object.pointer("/metadata/uid").cloned().unwrap_or_default();
        let owned = owned(db, &key.namespace, &uid)?.into_iter();
        ending.extend(owned.filter(|(key, _)| !matches!(key.kind.kind, "Pod" | "ReplicaSet")));
        *next += 1;
        let before = object.clone();
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("resourceVersion".to_owned(), next.to_string().into());
        }
        changes.push(Change::new(key, *next, Some(&before), None, object.to_string()));
    }
    Ok(())
}

/// Removes the oldest events of a namespace that has too many.
fn trim(db: &Transaction<'_>, key: &Key, next: &mut u64, changes: &mut Vec<Change>) -> rusqlite::Result<()> {
    let of = params![key.kind.group, key.kind.plural, key.namespace];
    let within = "FROM objects WHERE api_group = ?1 AND plural = ?2 AND namespace = ?3";
    let count = db.query_row(&format!("SELECT count(*) {within}"), of, |row| row.get::<_, i64>(0))?;
    let count = usize::try_from(count).unwrap_or(0);
    if count <= EVENTS {
        return Ok(());
    }
    let by_age = "ORDER BY CAST(json_extract(body, '$.metadata.resourceVersion') AS INTEGER)";
    let surplus = count - EVENTS * 3 / 4;
    let mut oldest = db.prepare_cached(&format!("SELECT name, body {within} {by_age} LIMIT {surplus}"))?;
    let rows = oldest.query_map(of, |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
    for row in rows.collect::<rusqlite::Result<Vec<_>>>()? {
        remove(db, &Key { name: row.0, ..key.clone() }, parsed(&row.1)?, next, changes)?;
    }
    Ok(())
}

fn owned(db: &Transaction<'_>, namespace: &str, uid: &Value) -> rusqlite::Result<Vec<(Key, Value)>> {
    let mut query = db.prepare_cached(
        "SELECT api_group, plural, name, body FROM objects WHERE namespace = ?1 AND EXISTS (
           SELECT 1 FROM json_each(body, '$.metadata.ownerReferences') WHERE json_extract(value, '$.uid') = ?2)",
    )?;
    let rows = query.query_map(params![namespace, uid.as_str()], |row| {
        let texts: (String, String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
        Ok(texts)
    })?;
    let mut found = vec![];
    for row in rows {
        let (group, plural, name, body) = row?;
        let kind = KINDS.iter().find(|kind| kind.group == group && kind.plural == plural);
        if let Some(kind) = kind {
            found.push((Key { kind, namespace: namespace.to_owned(), name }, parsed(&body)?));
        }
    }
    Ok(found)
}

/// A random UUID (RFC 9562, version 4).
fn uid() -> Result<String, Refused> {
    let mut bytes = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Refused::unavailable("the system gives no random bytes"))?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-"))
}

/// What keeps the disk of a folder from taking what is written, with the way out; none for what passes by itself.
fn disk_trouble(error: &rusqlite::Error, folder: &Path) -> Option<&'static str> {
    use rusqlite::ErrorCode::{CannotOpen, DiskFull, PermissionDenied, ReadOnly, SystemIoFailure};
    let full = "the disk of the state folder is full; free some room there, and it goes on by itself";
    let closed = "the state folder cannot be written; make it writable for the daemon, and it goes on by itself";
    let code = error.sqlite_error_code()?;
    if code == DiskFull {
        return Some(full);
    }
    if matches!(code, ReadOnly | PermissionDenied | CannotOpen) {
        return Some(closed);
    }
    // SQLite does not say which one; who makes something there is told.
    (code == SystemIoFailure).then(|| match makes_something(folder).map_err(|error| error.kind()) {
        Err(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => full,
        Err(io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied) => closed,
        Ok(()) | Err(_) => {
            "the disk of the state folder does not take what is written; see the system's log, and whether there is room"
        }
    })
}

/// Whether a folder takes something new, which goes at once.
fn makes_something(folder: &Path) -> io::Result<()> {
    let something = folder.join(".probe");
    let _ = std::fs::remove_dir(&something);
    std::fs::create_dir(&something)?;
    std::fs::remove_dir(&something)
}

fn unavailable(error: &rusqlite::Error) -> Refused {
    Refused::unavailable(format!("the database does not answer: {error}"))
}
