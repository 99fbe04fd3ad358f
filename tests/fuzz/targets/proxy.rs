//! The proxy: its table and settings, what is said over its control socket, and HTTP as it comes from anybody.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use backstay::model::ReleaseId;
use backstay::proxy::{
    self, Arm, Client, Question, Reply, Role, Routes, Settings, Table, WHOLE, arm_of, load_table, write_table,
};
use http::HeaderMap;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

use super::{assert_plain, scratch};

/// A table, bare or as a file holds it.
pub(super) fn table(data: &[u8]) {
    let folder = scratch();
    let path = folder.path().join("routes.json");
    std::fs::write(&path, data).expect("a file");
    match load_table(&path) {
        Ok(loaded) => {
            assert!(loaded.fallback.is_none() && loaded.digest == loaded.table.digest());
            routed(&loaded.table);
        }
        Err(error) => assert_plain(&error.to_string()),
    }
    let Ok(table) = serde_json::from_slice::<Table>(data) else { return };
    let other = folder.path().join("other.json");
    match write_table(&other, &table) {
        Ok(digest) => {
            let loaded = load_table(&other).expect("what was written is read");
            assert_eq!((&loaded.table, loaded.digest), (&table, digest));
            assert_eq!(write_table(&other, &table).ok(), Some(digest), "the same again is nothing new");
            routed(&table);
        }
        Err(error) => assert_plain(&error.to_string()),
    }
}

/// In a table that may be used, every request has an instance, or its agent has none.
fn routed(table: &Table) {
    let routes = Routes::of(table);
    for route in &table.routes {
        let host = route.hosts.first().map_or("any", |host| host.strip_prefix("*.").unwrap_or(host));
        let host = if route.hosts.first().is_some_and(|host| host.starts_with("*.")) {
            format!("x.{host}")
        } else {
            host.to_owned()
        };
        let found = routes.find(&host, &route.path).expect("a route fits what it says");
        let found = &table.routes[found];
        let agent = &table.agents[&found.agent];
        for chance in [0, 1, WHOLE / 2, WHOLE - 1] {
            match arm_of(agent, found, &HeaderMap::new(), chance).map(|arm| &agent.arms[arm]) {
                Some(Arm { role, weight, instances, .. }) => {
                    assert!(!instances.is_empty() || *role == Role::Preview && *weight == 0);
                }
                None => assert!(agent.arms.is_empty(), "{agent:?}"),
            }
        }
    }
}

/// The proxy's own settings.
pub(super) fn settings(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(settings) = toml::from_str::<Settings>(text) else { return };
    match settings.check() {
        Ok(()) => {
            let limits = &settings.limits;
            for span in
                [limits.head, limits.idle, limits.stall, limits.connect, limits.answer, limits.silence, limits.drain]
            {
                assert!((Duration::from_millis(1)..=Duration::from_hours(30 * 24)).contains(&span.0), "{span:?}");
            }
            assert!((8192..=1 << 20).contains(&limits.head_bytes) && settings.trusted_hops <= 16);
        }
        Err(error) => assert_plain(&error.to_string()),
    }
}

/// A proxy that serves in this process, and what its one agent was asked.
struct Running {
    address: SocketAddr,
    control: PathBuf,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// One request as an agent gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    from: String,
    method: Vec<u8>,
    target: Vec<u8>,
    body: Vec<u8>,
}

impl Running {
    fn start() -> Self {
        let folder = scratch().keep();
        let (control, path) = (folder.join("control"), folder.join("routes.json"));
        let agent = TcpListener::bind("127.0.0.1:0").expect("a port");
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let (upstream, own) = (agent.local_addr().expect("an address"), Arc::clone(&seen));
        std::thread::spawn(move || {
            for stream in agent.incoming().flatten() {
                let own = Arc::clone(&own);
                std::thread::spawn(move || agent_serves(stream, &own));
            }
        });
        let release = ReleaseId::of(b"a");
        let table = serde_json::json!({"format": proxy::FORMAT, "epoch": 1, "generation": 1,
            "boot_id": backstay::sys::boot_id().unwrap_or_default(),
            "routes": [{"hosts": [], "path": "/", "agent": "support"}],
            "agents": {"support": {"arms": [{"release": release, "role": "stable", "weight": WHOLE,
                "instances": [{"id": "a", "generation": 1, "address": {"tcp": upstream}}]}]}}});
        write_table(&path, &serde_json::from_value(table).expect("a table")).expect("a file");
        // Free a moment ago: the proxy is told where to listen.
        let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port");
        let settings =
            format!("listen = [\"{address}\"]\ncontrol = \"{}\"\ntable = \"{}\"\n", control.display(), path.display());
        let settings: Settings = toml::from_str(&settings).expect("settings");
        std::thread::spawn(move || proxy::run(&settings).expect("it serves"));
        let began = std::time::Instant::now();
        while TcpStream::connect(address).is_err() || UnixStream::connect(&control).is_err() {
            assert!(began.elapsed() < Duration::from_mins(1), "the proxy does not serve");
            std::thread::yield_now();
        }
        Self { address, control, seen }
    }
}

/// Reads requests and answers each with two letters.
fn agent_serves(stream: TcpStream, seen: &Mutex<Vec<Seen>>) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut out = stream.try_clone().ok()?;
    let mut input = BufReader::new(stream);
    let line = |input: &mut BufReader<TcpStream>| {
        let mut line = vec![];
        input.read_until(b'\n', &mut line).ok().filter(|count| *count > 0)?;
        Some(line.strip_suffix(b"\r\n").expect("lines end alike").to_vec())
    };
    let take = |input: &mut BufReader<TcpStream>, count: u64| {
        let mut bytes = vec![];
        let read = input.take(count).read_to_end(&mut bytes).ok()?;
        (read as u64 == count).then_some(bytes)
    };
    loop {
        let first = line(&mut input)?;
        let mut words = first.split(|byte| *byte == b' ').map(<[u8]>::to_vec);
        let (method, target) = (words.next()?, words.next()?);
        let (mut from, mut length, mut chunked) = (String::new(), 0, false);
        loop {
            let header = line(&mut input)?;
            if header.is_empty() {
                break;
            }
            let header = String::from_utf8_lossy(&header).into_owned();
            let (name, value) = header.split_once(':').expect("a header");
            match (&*name.to_ascii_lowercase(), value.trim()) {
                ("x-forwarded-for", value) => value.clone_into(&mut from),
                ("content-length", value) => length = value.parse().expect("a length"),
                ("transfer-encoding", value) => chunked = value.eq_ignore_ascii_case("chunked"),
                _ => {}
            }
        }
        let body = if chunked {
            let mut body = vec![];
            loop {
                let size = String::from_utf8_lossy(&line(&mut input)?).into_owned();
                let size = u64::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
                if size == 0 {
                    while !line(&mut input)?.is_empty() {}
                    break body;
                }
                body.extend(take(&mut input, size)?);
                line(&mut input)?;
            }
        } else {
            take(&mut input, length)?
        };
        let is_head = method == b"HEAD";
        seen.lock().unwrap_or_else(PoisonError::into_inner).push(Seen { from, method, target, body });
        out.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n").ok()?;
        if !is_head {
            out.write_all(b"ok").ok()?;
        }
    }
}

/// Questions over the control socket, one a line: each is answered, or the connection ends.
pub(super) fn question(data: &[u8]) {
    static RUNNING: OnceLock<Running> = OnceLock::new();
    for line in data.split(|byte| *byte == b'\n') {
        if let Ok(question) = serde_json::from_slice::<Question>(line) {
            let text = serde_json::to_vec(&question).expect("what was read can be written");
            assert_eq!(serde_json::from_slice::<Question>(&text).ok(), Some(question));
        }
    }
    let running = RUNNING.get_or_init(Running::start);
    let mut stream = UnixStream::connect(&running.control).expect("the proxy lives");
    stream.set_read_timeout(Some(Duration::from_mins(1))).expect("a socket");
    // It may end before all is said.
    let _ = stream.write_all(data).and_then(|()| stream.shutdown(std::net::Shutdown::Write));
    let mut told = vec![];
    let read = stream.read_to_end(&mut told);
    assert!(!read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock), "it does not answer");
    let answers: Vec<_> = told.split_inclusive(|byte| *byte == b'\n').collect();
    assert!(answers.len() <= data.len() + 1);
    for answer in answers {
        match serde_json::from_slice::<Reply>(answer).expect("an answer") {
            Reply::Refused(refused) => assert_plain(&refused.message),
            Reply::Active(_) | Reply::State(_) | Reply::Metrics(_) | Reply::Drained { .. } => {}
        }
    }
}

/// What something says that should be the proxy, to whatever it is asked.
pub(super) fn reply(data: &[u8]) {
    struct Fake {
        path: PathBuf,
        says: Arc<Mutex<Vec<u8>>>,
        turn: Mutex<tokio::runtime::Runtime>,
    }
    static FAKE: OnceLock<Fake> = OnceLock::new();
    let fake = FAKE.get_or_init(|| {
        let path = scratch().keep().join("control");
        let listener = UnixListener::bind(&path).expect("a socket");
        let says = Arc::<Mutex<Vec<u8>>>::default();
        let own = Arc::clone(&says);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut asked = vec![];
                let _ = stream.try_clone().map(|stream| BufReader::new(stream).read_until(b'\n', &mut asked));
                let says = own.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let _ = stream.write_all(&says);
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Fake { path, says, turn: Mutex::new(runtime) }
    });
    if let Ok(reply) = serde_json::from_slice::<Reply>(data) {
        let text = serde_json::to_vec(&reply).expect("what was read can be written");
        assert_eq!(serde_json::from_slice::<Reply>(&text).ok(), Some(reply));
    }
    let runtime = fake.turn.lock().unwrap_or_else(PoisonError::into_inner);
    // A line always: what breaks off is asked for again, after a while.
    *fake.says.lock().unwrap_or_else(PoisonError::into_inner) = [data, b"\n"].concat();
    runtime.block_on(async {
        let client = Client::new(&fake.path, 1).patience(Duration::from_secs(20));
        let told = [
            client.state().await.map(drop),
            client.metrics(1).await.map(drop),
            client.load(1).await.map(drop),
            client.drain("a", 1, true).await.map(drop),
        ];
        for error in told.into_iter().filter_map(Result::err) {
            assert_plain(&error.to_string());
        }
    });
}

/// The requests of a connection, read in the one way that nobody can read differently; none from the first on that could
/// be.
fn requests(mut input: &[u8]) -> Vec<(Vec<u8>, Vec<u8>, Vec<u8>)> {
    let mut all = vec![];
    while let Some(one) = request(&mut input) {
        all.push(one);
    }
    all
}

fn line<'i>(input: &mut &'i [u8]) -> Option<&'i [u8]> {
    let at = input.windows(2).position(|two| two == b"\r\n")?;
    let line = &input[..at];
    *input = &input[at + 2..];
    (!line.contains(&b'\r') && !line.contains(&b'\n')).then_some(line)
}

fn request(input: &mut &[u8]) -> Option<(Vec<u8>, Vec<u8>, Vec<u8>)> {
    let mut first = line(input)?;
    while first.is_empty() {
        first = line(input)?;
    }
    let words: Vec<_> = first.split(|byte| *byte == b' ').collect();
    let [method, target, b"HTTP/1.1" | b"HTTP/1.0"] = words[..] else { return None };
    let (mut length, mut chunked) = (None, None);
    loop {
        let header = line(input)?;
        if header.is_empty() {
            break;
        }
        let colon = header.iter().position(|byte| *byte == b':')?;
        let (name, value) = (header[..colon].to_ascii_lowercase(), header[colon + 1..].trim_ascii());
        if !name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)) {
            return None;
        }
        match &*name {
            b"content-length" if length.is_some() || !value.iter().all(u8::is_ascii_digit) => return None,
            b"content-length" => length = Some(std::str::from_utf8(value).ok()?.parse::<usize>().ok()?),
            b"transfer-encoding" if chunked.is_some() || !value.eq_ignore_ascii_case(b"chunked") => return None,
            b"transfer-encoding" => chunked = Some(()),
            _ => {}
        }
    }
    let take = |input: &mut &[u8], count: usize| {
        let (taken, rest) = input.split_at_checked(count)?;
        *input = rest;
        Some(taken.to_vec())
    };
    let body = match (chunked, length) {
        (Some(()), Some(_)) => return None,
        (None, length) => take(input, length.unwrap_or(0))?,
        (Some(()), None) => {
            let mut body = vec![];
            loop {
                let size = line(input)?;
                let digits = size.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
                let size = usize::from_str_radix(std::str::from_utf8(&size[..digits]).ok()?, 16).ok()?;
                if size == 0 {
                    while !line(input)?.is_empty() {}
                    break body;
                }
                body.extend(take(input, size)?);
                line(input).filter(|rest| rest.is_empty())?;
            }
        }
    };
    Some((method.to_vec(), target.to_vec(), body))
}

/// The bytes of a client's connection, the first of them says where they are cut in two: no agent ever gets a request that
/// was not plainly there.
pub(super) fn http(data: &[u8]) {
    static RUNNING: OnceLock<Running> = OnceLock::new();
    /// Each connection has an address of its own, by which its requests are known.
    static CONNECTIONS: AtomicU32 = AtomicU32::new(2);
    let Some((cut, input)) = data.split_first() else { return };
    let running = RUNNING.get_or_init(Running::start);
    let number = CONNECTIONS.fetch_add(1, Ordering::Relaxed) % 0x00ff_fff0 + 2;
    let from = Ipv4Addr::from(0x7f00_0000 | number);
    let expected = requests(input);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((from, 0).into()).expect("an address of the loopback");
        let mut stream = socket.connect(running.address).await.expect("the proxy lives");
        stream.set_nodelay(true).expect("a socket");
        let (one, other) = input.split_at(usize::from(*cut).min(input.len()));
        // It may end before all is said.
        for piece in [one, other] {
            let _ = stream.write_all(piece).await;
            tokio::task::yield_now().await;
        }
        let mut told = vec![];
        let answers = |told: &[u8]| told.windows(9).filter(|part| *part == b"HTTP/1.1 ").count();
        while answers(&told) < expected.len().max(1) {
            let read = tokio::time::timeout(Duration::from_millis(60), stream.read_buf(&mut told)).await;
            if !matches!(read, Ok(Ok(1..))) {
                break;
            }
        }
        let _ = stream.shutdown().await;
        let _ = tokio::time::timeout(Duration::from_secs(2), stream.read_to_end(&mut told)).await;
    });
    let from = from.to_string();
    let mut seen = vec![];
    running.seen.lock().unwrap_or_else(PoisonError::into_inner).retain(|one| {
        let own = one.from == from;
        if own {
            seen.push(one.clone());
        }
        !own
    });
    // HTTP/2 has other words for the same.
    if input.starts_with(b"PRI ") {
        return;
    }
    let mut left = expected.iter();
    for one in &seen {
        let plainly = left.any(|(method, target, body)| {
            let same = *target == one.target || !target.starts_with(b"/");
            (method, body, true) == (&one.method, &one.body, same)
        });
        assert!(plainly, "{one:?} is not among {expected:?}");
    }
}
