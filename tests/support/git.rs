//! Real Git for tests: repositories with fixed dates, and servers over HTTP and SSH.
#![allow(dead_code, reason = "shared by several test programs, each of which uses a part")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use backstay::model::CommitId;
use backstay::source::{RemoteUrl, SshKey};
use tempfile::TempDir;

/// The author and committer of every commit that a test makes, unless it says otherwise.
pub(crate) const PERSON: (&str, &str) = ("Alice Example", "alice@example.com");

/// A bare repository that the real `git` works on, with fixed names and dates: equal steps give equal commits.
pub(crate) struct TestRepo {
    folder: TempDir,
    name: String,
    minutes: AtomicI64,
}

impl TestRepo {
    /// An empty bare repository `agents.git` in a folder of its own, on branch `main`.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let repo = Self { folder, name: "agents.git".to_owned(), minutes: AtomicI64::new(0) };
        std::fs::create_dir(repo.work()).expect("a folder for files");
        repo.run(Command::new("git").args(["init", "-q", "--bare", "-b", "main"]).arg(repo.path()));
        for (key, value) in [("http.receivepack", "true"), ("gc.auto", "0")] {
            repo.run(Command::new("git").arg("--git-dir").arg(repo.path()).args(["config", key, value]));
        }
        repo
    }

    /// A repository with one commit: `a.txt` holds `one`.
    pub(crate) fn with_one_commit() -> Self {
        let repo = Self::new();
        repo.commit(&[("a.txt", "one\n")], "first");
        repo
    }

    /// The bare repository's folder.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join(&self.name)
    }

    /// The folder that holds the repository: what a server serves.
    pub(crate) fn parent(&self) -> &Path {
        self.folder.path()
    }

    /// Its address as a path.
    pub(crate) fn url(&self) -> RemoteUrl {
        self.path().to_str().expect("a path").parse().expect("an address")
    }

    /// The repository, for objects that `git` would not make.
    pub(crate) fn raw(&self) -> git2::Repository {
        git2::Repository::open_bare(self.path()).expect("the repository")
    }

    fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    /// Runs `git` with the repository and a work tree; gives what it printed.
    pub(crate) fn git(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("git");
        command.args(["-c", "core.bare=false"]).arg("--git-dir").arg(self.path()).arg("--work-tree").arg(self.work());
        self.run(command.env("GIT_INDEX_FILE", self.folder.path().join("index")).args(arguments))
    }

    /// Runs `git` beside the repository; gives what it printed.
    pub(crate) fn plain(&self, arguments: &[&str]) -> String {
        self.run(Command::new("git").args(arguments))
    }

    fn run(&self, command: &mut Command) -> String {
        let date = format!("{} +0000", 1_790_000_000 + 60 * self.minutes.load(Ordering::Relaxed));
        for who in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{who}_NAME"), PERSON.0).env(format!("GIT_{who}_EMAIL"), PERSON.1);
            command.env(format!("GIT_{who}_DATE"), &date);
        }
        hermetic(command).env("HOME", self.folder.path());
        command.env("GIT_EDITOR", "true").current_dir(self.folder.path());
        let output = command.output().expect("git runs");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{command:?}: {out}{err}");
        out.trim().to_owned()
    }

    fn tick(&self) {
        self.minutes.fetch_add(1, Ordering::Relaxed);
    }

    /// The commit that a name comes to.
    pub(crate) fn id(&self, name: &str) -> CommitId {
        self.git(&["rev-parse", &format!("{name}^{{commit}}")]).parse().expect("a commit id")
    }

    /// Commits files on `main`; empty content removes the file.
    pub(crate) fn commit(&self, files: &[(&str, &str)], message: &str) -> CommitId {
        self.commit_on("main", files, message)
    }

    /// Commits files on a branch, which is made from nothing when it is not there.
    pub(crate) fn commit_on(&self, branch: &str, files: &[(&str, &str)], message: &str) -> CommitId {
        self.switch(branch);
        for (path, content) in files {
            let path = self.work().join(path);
            if content.is_empty() {
                std::fs::remove_file(path).expect("a file to remove");
            } else {
                std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
                std::fs::write(path, content).expect("a file");
            }
        }
        self.tick();
        self.git(&["add", "-A", "-f"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", message]);
        self.id(branch)
    }

    /// Makes the work tree that of a branch.
    pub(crate) fn switch(&self, branch: &str) {
        let exists = self.raw().find_reference(&format!("refs/heads/{branch}")).is_ok();
        if exists {
            self.git(&["checkout", "-q", "-f", branch]);
            self.git(&["clean", "-q", "-f", "-d", "-x"]);
        } else {
            std::fs::remove_dir_all(self.work()).expect("the files");
            std::fs::create_dir(self.work()).expect("a folder for files");
            self.git(&["symbolic-ref", "HEAD", &format!("refs/heads/{branch}")]);
            self.git(&["read-tree", "--empty"]);
        }
    }

    /// Reverts commits on `main`, as `git revert` does, one commit each.
    pub(crate) fn revert(&self, commits: &[&CommitId]) -> CommitId {
        self.switch("main");
        for commit in commits {
            self.tick();
            let merge = self.git(&["rev-list", "--parents", "-n", "1", commit.as_str()]).split(' ').count() > 2;
            let mainline: &[&str] = if merge { &["-m", "1"] } else { &[] };
            self.git(&[&["revert", "--no-edit"], mainline, &[commit.as_str()]].concat());
        }
        self.id("main")
    }

    /// Merges a branch into `main`, with a commit of its own.
    pub(crate) fn merge(&self, branch: &str) -> CommitId {
        self.switch("main");
        self.tick();
        self.git(&["merge", "-q", "--no-ff", "-m", &format!("Merge branch '{branch}'"), branch]);
        self.id("main")
    }

    /// Makes a branch at a commit, wherever it was.
    pub(crate) fn force(&self, branch: &str, at: &CommitId) {
        self.git(&["update-ref", &format!("refs/heads/{branch}"), at.as_str()]);
    }

    /// Deletes a branch.
    pub(crate) fn delete_branch(&self, branch: &str) {
        self.git(&["update-ref", "-d", &format!("refs/heads/{branch}")]);
    }

    /// Makes or moves a tag.
    pub(crate) fn tag(&self, name: &str, at: &CommitId) {
        self.git(&["tag", "-f", name, at.as_str()]);
    }

    /// Makes or moves an annotated tag.
    pub(crate) fn annotated_tag(&self, name: &str, at: &CommitId) {
        self.git(&["tag", "-f", "-a", "-m", name, name, at.as_str()]);
    }

    /// Deletes a tag.
    pub(crate) fn delete_tag(&self, name: &str) {
        self.git(&["tag", "-d", name]);
    }

    /// Puts a hook in place: a shell script.
    pub(crate) fn hook(&self, name: &str, script: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.path().join("hooks").join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder for hooks");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a hook");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    }

    /// Points `main` at a commit with this very folder object, whatever is in it.
    pub(crate) fn commit_tree(&self, tree: git2::Oid) -> CommitId {
        let raw = self.raw();
        let at = git2::Time::new(1_790_000_000, 0);
        let who = git2::Signature::new(PERSON.0, PERSON.1, &at).expect("a signature");
        let tree = raw.find_tree(tree).expect("a tree");
        let id = raw.commit(None, &who, &who, "by hand\n", &tree, &[]).expect("a commit");
        raw.reference("refs/heads/main", id, true, "by hand").expect("a branch");
        id.to_string().parse().expect("a commit id")
    }

    /// Writes a folder object, byte by byte: mode, name, id of each entry.
    pub(crate) fn tree(&self, entries: &[(&str, &[u8], git2::Oid)]) -> git2::Oid {
        let mut bytes = Vec::new();
        for (mode, name, id) in entries {
            bytes.extend_from_slice(mode.as_bytes());
            bytes.push(b' ');
            bytes.extend_from_slice(name);
            bytes.push(0);
            bytes.extend_from_slice(id.as_bytes());
        }
        self.raw().odb().expect("objects").write(git2::ObjectType::Tree, &bytes).expect("a tree")
    }

    /// Writes a file's object.
    pub(crate) fn blob(&self, bytes: &[u8]) -> git2::Oid {
        self.raw().blob(bytes).expect("a blob")
    }
}

fn hermetic(command: &mut Command) -> &mut Command {
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").env_remove("GIT_DIR")
}

/// What a test makes of a request, before Git sees it.
pub(crate) enum Answer {
    /// Git answers.
    Serve,
    /// This status and these headers (`Name: value`), and no body.
    Status(&'static str, Vec<String>),
    /// These bytes, whatever they are, and the connection is closed.
    Raw(Vec<u8>),
    /// Nothing, for as long as the server runs.
    Hang,
    /// Git gets the request, and its answer is lost.
    Lose,
    /// Git answers; the first half comes, and then nothing more until the client gives up.
    Half,
}

type Judge = dyn Fn(&Request) -> Answer + Send + Sync;

/// The head of one request.
pub(crate) struct Request {
    /// `GET` or `POST`.
    pub(crate) method: String,
    /// Path, without the query.
    pub(crate) path: String,
    /// After the `?`.
    pub(crate) query: String,
    /// Header fields, by lower-case name.
    pub(crate) headers: BTreeMap<String, String>,
}

/// A real Git server; ends with the value.
pub(crate) enum GitServer {
    /// Smart HTTP: `git http-backend`.
    Http(Http),
    /// `sshd`.
    Ssh(Ssh),
}

/// Serves the repositories of a folder over smart HTTP.
pub(crate) struct Http {
    address: SocketAddr,
    is_tls: bool,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

struct State {
    folder: PathBuf,
    judge: Box<Judge>,
    log: Mutex<Vec<String>>,
    logged: Condvar,
    ended: AtomicBool,
}

/// Serves the repositories of a folder over SSH, with a host key and a user key of its own.
pub(crate) struct Ssh {
    folder: TempDir,
    repositories: PathBuf,
    port: u16,
    child: Child,
}

impl GitServer {
    /// Serves the repositories in `folder` over HTTP, to everybody.
    pub(crate) fn http(folder: &Path) -> Self {
        Self::http_with(folder, |_| Answer::Serve)
    }

    /// Serves over HTTP what `judge` lets through.
    pub(crate) fn http_with(folder: &Path, judge: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        Self::http_at((Ipv4Addr::LOCALHOST, 0).into(), folder, judge)
    }

    /// Serves the repositories in `folder` over HTTPS; gives the certificate of its authority, which nobody knows.
    /// Nothing where there is no `openssl` to make certificates with.
    pub(crate) fn https(folder: &Path) -> Option<(Self, tempfile::NamedTempFile)> {
        let (tls, authority) = certificates()?;
        let server = Self::listen((Ipv4Addr::LOCALHOST, 0).into(), folder, Some(tls), |_| Answer::Serve);
        Some((server, authority))
    }

    /// Serves over HTTP at an address, for clients elsewhere.
    pub(crate) fn http_at(
        address: SocketAddr,
        folder: &Path,
        judge: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::listen(address, folder, None, judge)
    }

    fn listen(
        address: SocketAddr,
        folder: &Path,
        tls: Option<Arc<rustls::ServerConfig>>,
        judge: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(State {
            folder: folder.to_owned(),
            judge: Box::new(judge),
            log: Mutex::default(),
            logged: Condvar::new(),
            ended: AtomicBool::new(false),
        });
        let (serving, is_tls) = (Arc::clone(&state), tls.is_some());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if serving.ended.load(Ordering::Acquire) {
                    return;
                }
                let (state, tls) = (Arc::clone(&serving), tls.clone());
                // A connection ends with its client or its answer.
                drop(stream.map(|stream| std::thread::spawn(move || drop(state.greet(stream, tls)))));
            }
        });
        Self::Http(Http { address, is_tls, state, thread: Some(thread) })
    }

    /// Serves over HTTP to who has this user and password.
    pub(crate) fn http_basic(folder: &Path, user: &str, password: &str) -> Self {
        let wanted = format!("Basic {}", base64(&format!("{user}:{password}")));
        Self::http_with(folder, move |request| {
            if request.headers.get("authorization") == Some(&wanted) {
                Answer::Serve
            } else {
                Answer::Status("401 Unauthorized", vec!["WWW-Authenticate: Basic realm=\"git\"".to_owned()])
            }
        })
    }

    /// Serves over SSH, on the loopback; nothing where there is no `sshd`.
    pub(crate) fn ssh(folder: &Path) -> Option<Self> {
        Ssh::start(folder).map(Self::Ssh)
    }

    /// The address of a repository.
    pub(crate) fn url(&self, name: &str) -> RemoteUrl {
        let text = match self {
            Self::Http(http) if http.is_tls => format!("https://{}/{name}", http.address),
            Self::Http(http) => format!("http://{}/{name}", http.address),
            Self::Ssh(ssh) => {
                let user = std::env::var("USER").unwrap_or_else(|_| "root".to_owned());
                format!("ssh://{user}@127.0.0.1:{}{}", ssh.port, ssh.repositories.join(name).display())
            }
        };
        text.parse().expect("an address")
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::Http(http) => http.address,
            Self::Ssh(ssh) => (Ipv4Addr::LOCALHOST, ssh.port).into(),
        }
    }

    /// The requests that came, as `GET /path?query`.
    pub(crate) fn requests(&self) -> Vec<String> {
        match self {
            Self::Http(http) => http.state.log.lock().expect("the log").clone(),
            Self::Ssh(_) => Vec::new(),
        }
    }

    /// Waits until so many requests came whose line has `word` in it.
    pub(crate) fn wait_for(&self, word: &str, times: usize) {
        let Self::Http(http) = self else { return };
        let few = |log: &mut Vec<String>| log.iter().filter(|line| line.contains(word)).count() < times;
        let log = http.state.log.lock().expect("the log");
        let (log, late) = http.state.logged.wait_timeout_while(log, Duration::from_mins(1), few).expect("the log");
        assert!(!late.timed_out(), "requests with `{word}` did not come: {log:?}");
    }
}

impl State {
    fn greet(&self, stream: TcpStream, tls: Option<Arc<rustls::ServerConfig>>) -> std::io::Result<()> {
        let Some(tls) = tls else { return self.answer(stream) };
        let session = rustls::ServerConnection::new(tls).map_err(std::io::Error::other)?;
        self.answer(rustls::StreamOwned::new(session, stream))
    }

    fn answer<S: Read + Write>(&self, stream: S) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let mut words = line.split_whitespace();
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut request =
            Request { method: method.into(), path: path.into(), query: query.into(), headers: BTreeMap::new() };
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':') {
                request.headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
            }
        }
        if request.headers.get("expect").is_some_and(|expect| expect.contains("100")) {
            reader.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let body = body(&request, &mut reader)?;
        self.log.lock().expect("the log").push(format!("{method} {target}"));
        self.logged.notify_all();
        let answer = (self.judge)(&request);
        let stream = reader.get_mut();
        match answer {
            Answer::Serve => stream.write_all(&self.git(&request, &body)?)?,
            Answer::Lose => drop(self.git(&request, &body)?),
            Answer::Raw(bytes) => stream.write_all(&bytes)?,
            Answer::Half => {
                let bytes = self.git(&request, &body)?;
                stream.write_all(&bytes[..bytes.len() / 2])?;
                stream.flush()?;
                let _ = reader.read(&mut [0]);
                return Ok(());
            }
            Answer::Status(status, headers) => {
                let headers: String = headers.iter().fold(String::new(), |mut all, header| {
                    let _ = write!(all, "{header}\r\n");
                    all
                });
                write!(stream, "HTTP/1.1 {status}\r\n{headers}Content-Length: 0\r\nConnection: close\r\n\r\n")?;
            }
            // Ends when the client gives up.
            Answer::Hang => drop(reader.read(&mut [0])),
        }
        reader.get_mut().flush()
    }

    /// Lets `git http-backend` (CGI) answer.
    fn git(&self, request: &Request, body: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut command = Command::new("git");
        let header = |name: &str| request.headers.get(name).map(String::as_str).unwrap_or_default();
        hermetic(command.arg("http-backend"))
            .env("GIT_PROJECT_ROOT", &self.folder)
            .env("GIT_HTTP_EXPORT_ALL", "1")
            .env("REQUEST_METHOD", &request.method)
            .env("PATH_INFO", &request.path)
            .env("QUERY_STRING", &request.query)
            .env("CONTENT_TYPE", header("content-type"))
            .env("CONTENT_LENGTH", body.len().to_string())
            .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
            .env("REMOTE_ADDR", "127.0.0.1")
            .env("HOME", &self.folder);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut stdin = child.stdin.take().expect("a pipe");
        let body = body.to_vec();
        let writer = std::thread::spawn(move || stdin.write_all(&body));
        let output = child.wait_with_output()?.stdout;
        drop(writer.join());
        let end = output.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(output.len());
        let head = String::from_utf8_lossy(&output[..end]).into_owned();
        let content = output.get(end + 4..).unwrap_or_default();
        let status = head.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK");
        let mut answer = format!("HTTP/1.1 {status}\r\n").into_bytes();
        for line in head.lines().filter(|line| !line.starts_with("Status: ")) {
            answer.extend_from_slice(format!("{line}\r\n").as_bytes());
        }
        let rest = format!("Content-Length: {}\r\nConnection: close\r\n\r\n", content.len());
        answer.extend_from_slice(rest.as_bytes());
        answer.extend_from_slice(content);
        Ok(answer)
    }
}

/// The body of a request, by length or in chunks.
fn body(request: &Request, reader: &mut impl BufRead) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if request.headers.get("transfer-encoding").is_some_and(|coding| coding.contains("chunked")) {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let length = usize::from_str_radix(line.trim(), 16).unwrap_or_default();
            let mut chunk = vec![0; length + 2];
            reader.read_exact(&mut chunk)?;
            body.extend_from_slice(&chunk[..length]);
            if length == 0 {
                return Ok(body);
            }
        }
    }
    let length = request.headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or_default();
    reader.take(length).read_to_end(&mut body)?;
    Ok(body)
}

impl Drop for Http {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::Release);
        let reach = match self.address.ip() {
            ip if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            ip => ip,
        };
        drop(TcpStream::connect((reach, self.address.port())));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Ssh {
    fn start(repositories: &Path) -> Option<Self> {
        let program = Path::new("/usr/sbin/sshd");
        if !program.exists() {
            return None;
        }
        // Where `sshd` gives up its rights, when it runs as root.
        let _ = std::fs::create_dir_all("/run/sshd");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name);
        for name in ["host", "user", "stranger"] {
            keygen(&at(name), "ed25519", "");
        }
        keygen(&at("host_ecdsa"), "ecdsa", "");
        keygen(&at("locked"), "ed25519", "pass phrase");
        let keys = ["user.pub", "locked.pub"].map(|name| std::fs::read_to_string(at(name)).expect("a key"));
        std::fs::write(at("authorized_keys"), keys.concat()).expect("keys");
        let port =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr()).expect("a port").port();
        let lines = [
            format!("Port {port}"),
            "ListenAddress 127.0.0.1".to_owned(),
            format!("HostKey {}", at("host_ecdsa").display()),
            format!("HostKey {}", at("host").display()),
            format!("AuthorizedKeysFile {}", at("authorized_keys").display()),
            "StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\nPidFile none".to_owned(),
        ];
        std::fs::write(at("sshd_config"), lines.join("\n") + "\n").expect("a configuration");
        let mut child = Command::new(program)
            .args(["-D", "-e", "-f"])
            .arg(at("sshd_config"))
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("sshd runs");
        let mut said = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut all = String::new();
        while !all.contains("Server listening") {
            let read = said.read_line(&mut all).expect("what sshd says");
            assert!(read > 0, "sshd ended: {all}");
        }
        // Read on, so that it never waits for a reader.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        let ssh = Self { folder, repositories: repositories.to_owned(), port, child };
        ssh.know(&["host", "host_ecdsa"]);
        Some(ssh)
    }

    /// Writes `known_hosts` with these of the server's keys.
    pub(crate) fn know(&self, keys: &[&str]) {
        let line = |name: &&str| {
            let key = std::fs::read_to_string(self.folder.path().join(format!("{name}.pub"))).expect("a key");
            format!("[127.0.0.1]:{} {key}", self.port)
        };
        let lines: String = keys.iter().map(line).collect();
        std::fs::write(self.known_hosts(), lines).expect("known hosts");
    }

    /// The file with the host keys.
    pub(crate) fn known_hosts(&self) -> PathBuf {
        self.folder.path().join("known_hosts")
    }

    /// The way in: `user` is let in, `locked` has a pass phrase, `stranger` is not let in.
    pub(crate) fn key(&self, name: &str) -> SshKey {
        SshKey { key: self.folder.path().join(name), passphrase: None, known_hosts: self.known_hosts() }
    }

    /// The fingerprint of one of the server's keys, as `ssh-keygen -l` shows it.
    pub(crate) fn fingerprint(&self, key: &str) -> String {
        let path = self.folder.path().join(format!("{key}.pub"));
        let output = Command::new("ssh-keygen").arg("-lf").arg(path).output().expect("ssh-keygen runs");
        String::from_utf8_lossy(&output.stdout).split_whitespace().nth(1).expect("a fingerprint").to_owned()
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A certificate for 127.0.0.1, and the authority that signed it.
pub(crate) fn certificates() -> Option<(Arc<rustls::ServerConfig>, tempfile::NamedTempFile)> {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let folder = tempfile::tempdir().expect("a temporary folder");
    let subject = format!("/CN=authority of {}", folder.path().display().to_string().replace('/', "-"));
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    std::fs::write(folder.path().join("names"), "subjectAltName=IP:127.0.0.1\n").expect("a file");
    let steps = [
        format!("req -x509 {key} -keyout ca.key -out ca.pem -days 30 -subj"),
        format!("req {key} -keyout tls.key -out tls.csr -subj /CN=127.0.0.1"),
        "x509 -req -in tls.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile names -out tls.pem"
            .to_owned(),
    ];
    for step in &steps {
        let mut command = Command::new("openssl");
        command.args(step.split(' ')).current_dir(folder.path());
        if step.ends_with("-subj") {
            command.arg(&subject);
        }
        let output = command.output().ok()?;
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let read = |name: &str| std::fs::read(folder.path().join(name)).expect("a file");
    let chain = vec![CertificateDer::from_pem_slice(&read("tls.pem")).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_slice(&read("tls.key")).expect("a key");
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .expect("a configuration");
    let authority = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(authority.path(), read("ca.pem")).expect("a file");
    Some((Arc::new(config), authority))
}

fn keygen(path: &Path, kind: &str, passphrase: &str) {
    let status = Command::new("ssh-keygen")
        .args(["-q", "-t", kind, "-N", passphrase, "-C", "test", "-f"])
        .arg(path)
        .status()
        .expect("ssh-keygen runs");
    assert!(status.success());
}

fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut coded = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let whole = (0..3).fold(0u32, |whole, n| whole << 8 | u32::from(chunk.get(n).copied().unwrap_or_default()));
        for n in 0..4 {
            let digit = (whole >> (18 - 6 * n)) & 63;
            coded.push(if n > chunk.len() { '=' } else { char::from(DIGITS[digit as usize]) });
        }
    }
    coded
}
