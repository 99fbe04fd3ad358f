//! Every byte between a remote and libgit2, counted on its way, and a connection that is cut when there are too many
//! or it takes too long.
//!
//! libgit2 notices silence, and says how far a pack has come. It says nothing of all that comes before the pack, and
//! keeps it: a server could list references for ever, or answer one byte a second. So libgit2 gets one end of a pair
//! of local sockets from here, for whatever it speaks over it (HTTP, TLS, SSH), and a relay carries the bytes.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use libgit2_sys as raw;

/// Bytes that are carried at a time.
const CHUNK: usize = 64 * 1024;

/// What one connection may bring, and how long it may take; shared with its relay.
#[derive(Debug, Clone)]
pub(super) struct Meter(Arc<Mutex<Left>>);

#[derive(Debug)]
struct Left {
    bytes: usize,
    until: Instant,
    connect: Duration,
    idle: Duration,
    over: Option<Over>,
}

/// What a connection had too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// Bytes from the remote.
    Bytes,
    /// Time.
    Time,
}

thread_local! {
    /// libgit2 opens a connection on the thread that asked for it, and says nothing of what for.
    static METER: RefCell<Option<Meter>> = const { RefCell::new(None) };
}

/// Puts the meter of before back.
pub(super) struct Metered(Option<Meter>);

// === impl Meter ===

impl Meter {
    /// A meter that allows nothing yet, with the limits of one connection and of one silence.
    pub(super) fn new(connect: Duration, idle: Duration) -> Self {
        Self(Arc::new(Mutex::new(Left { bytes: 0, until: Instant::now(), connect, idle, over: None })))
    }

    /// Allows so much from now on.
    pub(super) fn allow(&self, bytes: usize, time: Duration) {
        let mut left = self.lock();
        left.bytes = bytes;
        left.until = Instant::now() + time;
    }

    /// What there was too much of.
    pub(super) fn over(&self) -> Option<Over> {
        self.lock().over
    }

    /// Counts the connections that this thread opens, until the guard is dropped.
    pub(super) fn here(&self) -> Metered {
        Metered(METER.replace(Some(self.clone())))
    }

    /// Takes bytes that came; whether they were allowed.
    fn spend(&self, bytes: usize) -> bool {
        let mut left = self.lock();
        match left.bytes.checked_sub(bytes) {
            Some(rest) => left.bytes = rest,
            None => left.over = left.over.or(Some(Over::Bytes)),
        }
        left.over.is_none()
    }

    /// The time that is left; nothing when it is over.
    fn time(&self) -> Option<Duration> {
        let mut left = self.lock();
        let time = left.until.checked_duration_since(Instant::now()).filter(|time| !time.is_zero());
        if time.is_none() {
            left.over = left.over.or(Some(Over::Time));
        }
        time
    }

    fn lock(&self) -> MutexGuard<'_, Left> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        METER.set(self.0.take());
    }
}

/// A connection with its relay.
struct Relay {
    near: UnixStream,
    far: TcpStream,
    carriers: Vec<JoinHandle<()>>,
}

// === impl Relay ===

impl Relay {
    fn open(host: &str, port: &str, meter: &Meter) -> Result<Self, String> {
        let port: u16 = port.parse().map_err(|_| format!("failed to connect to {host}: no port"))?;
        let places = (host, port).to_socket_addrs().map_err(|_| format!("failed to resolve address for {host}"))?;
        let connect = meter.lock().connect;
        let mut refused = format!("failed to resolve address for {host}");
        for place in places {
            match TcpStream::connect_timeout(&place, connect) {
                Ok(far) => {
                    return Self::over(far, meter).map_err(|error| format!("failed to connect to {host}: {error}"));
                }
                Err(error) if error.kind() == ErrorKind::TimedOut => {
                    return Err(format!("failed to connect to {host}: timed out"));
                }
                Err(error) => refused = format!("failed to connect to {host}: {error}"),
            }
        }
        Err(refused)
    }

    fn over(far: TcpStream, meter: &Meter) -> io::Result<Self> {
        far.set_nodelay(true)?;
        let (near, inner) = UnixStream::pair()?;
        let mut relay = Self { near, far, carriers: Vec::new() };
        let (from, to, down) = (relay.far.try_clone()?, inner.try_clone()?, meter.clone());
        relay.carry("from the remote", move || bring(from, to, &down))?;
        let (from, to, up) = (inner, relay.far.try_clone()?, meter.clone());
        relay.carry("to the remote", move || send(from, to, &up))?;
        Ok(relay)
    }

    fn carry(&mut self, name: &str, deed: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.carriers.push(std::thread::Builder::new().name(name.to_owned()).spawn(deed)?);
        Ok(())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // Whatever a carrier waits for ends with these.
        let _ = self.near.shutdown(Shutdown::Both);
        let _ = self.far.shutdown(Shutdown::Both);
        for carrier in self.carriers.drain(..) {
            let _ = carrier.join();
        }
    }
}

/// Carries what the remote says, as far as it is allowed.
fn bring(mut from: TcpStream, mut to: UnixStream, meter: &Meter) {
    let mut chunk = vec![0; CHUNK];
    while let Some(time) = meter.time() {
        if from.set_read_timeout(Some(time)).is_err() {
            break;
        }
        match from.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => {
                if !meter.spend(read) || to.write_all(&chunk[..read]).is_err() {
                    break;
                }
            }
            Err(error) if waits(&error) => {}
            Err(_) => break,
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    if meter.over().is_some() {
        let _ = from.shutdown(Shutdown::Both);
    }
}

/// Carries what we say.
fn send(mut from: UnixStream, mut to: TcpStream, meter: &Meter) {
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = match from.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if waits(&error) => continue,
            Err(_) => break,
        };
        let sent = to.set_write_timeout(meter.time().or(Some(Duration::from_millis(1))));
        if sent.and_then(|()| to.write_all(&chunk[..read])).is_err() {
            // Fewer bytes than were meant arrived: the rest of the talk means nothing.
            let _ = to.shutdown(Shutdown::Both);
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

fn waits(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// The beginning is libgit2's `git_socket_stream` (1.9, `streams/socket.h`), whose socket its SSH transport takes out.
#[repr(C)]
struct Stream {
    version: c_int,
    /// Neither encrypted nor able to speak to a proxy.
    flags: c_uint,
    timeout: c_int,
    connect_timeout: c_int,
    connect: extern "C" fn(*mut Stream) -> c_int,
    certificate: *const c_void,
    set_proxy: *const c_void,
    read: extern "C" fn(*mut Stream, *mut c_void, usize) -> isize,
    write: extern "C" fn(*mut Stream, *const c_char, usize, c_int) -> isize,
    close: extern "C" fn(*mut Stream) -> c_int,
    free: extern "C" fn(*mut Stream),
    /// Read by nobody but libgit2's own functions, which are not in use here.
    host: *mut c_char,
    port: *mut c_char,
    socket: c_int,
    // From here on it is ours alone.
    place: (String, String),
    idle: Duration,
    meter: Meter,
    relay: Option<Relay>,
}

/// libgit2's `git_stream_registration`.
#[repr(C)]
struct Registration {
    version: c_int,
    init: Option<extern "C" fn(*mut *mut Stream, *const c_char, *const c_char) -> c_int>,
    wrap: *const c_void,
}

#[expect(unsafe_code, reason = "a function of libgit2 that its bindings leave out")]
unsafe extern "C" {
    fn git_stream_register(kind: c_int, registration: *const Registration) -> c_int;
}

/// Lets every connection of the process pass through here; called once, before the first.
#[expect(unsafe_code, reason = "libgit2 takes the maker of connections as a pointer")]
pub(super) fn register() -> Result<(), git2::Error> {
    const STANDARD: c_int = 1;
    let registration = Registration { version: 1, init: Some(init), wrap: ptr::null() };
    // SAFETY: libgit2 copies the registration, whose function lives as long as the process.
    let set = unsafe { git_stream_register(STANDARD, &raw const registration) };
    if set == 0 { Ok(()) } else { Err(git2::Error::from_str("connections cannot be counted")) }
}

/// Says why to libgit2, and gives the code of an ordinary error.
#[expect(unsafe_code, reason = "libgit2 keeps the text of an error itself")]
fn refuse(why: &str) -> c_int {
    let text = CString::new(why.replace('\0', " ")).unwrap_or_default();
    let class = c_int::try_from(raw::GIT_ERROR_NET).unwrap_or_default();
    // SAFETY: libgit2 copies the text.
    unsafe { raw::git_error_set_str(class, text.as_ptr()) };
    -1
}

#[expect(unsafe_code, reason = "called by libgit2, with pointers")]
extern "C" fn init(out: *mut *mut Stream, host: *const c_char, port: *const c_char) -> c_int {
    // SAFETY: both are texts of libgit2's that end with a zero and live through this call.
    let text = |text: *const c_char| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
    let Some(meter) = METER.with_borrow(Clone::clone) else { return refuse("a connection that nobody counts") };
    let idle = meter.lock().idle;
    let stream = Stream {
        version: 1,
        flags: 0,
        timeout: 0,
        connect_timeout: 0,
        connect,
        certificate: ptr::null(),
        set_proxy: ptr::null(),
        read,
        write,
        close,
        free,
        host: ptr::null_mut(),
        port: ptr::null_mut(),
        socket: -1,
        place: (text(host), text(port)),
        idle,
        meter,
        relay: None,
    };
    // SAFETY: `out` is where libgit2 wants the stream; `free` takes it back.
    unsafe { *out = Box::into_raw(Box::new(stream)) };
    0
}

/// The stream behind a pointer of libgit2's.
///
/// # Safety
///
/// It is one of [`init`]'s that was not freed, and libgit2 uses it on one thread at a time.
#[expect(unsafe_code, reason = "libgit2 hands its streams around as pointers")]
unsafe fn known<'a>(stream: *mut Stream) -> &'a mut Stream {
    // SAFETY: see above.
    unsafe { &mut *stream }
}

#[expect(unsafe_code, reason = "called by libgit2, with pointers")]
extern "C" fn connect(stream: *mut Stream) -> c_int {
    // SAFETY: libgit2 gives back the pointer that it got.
    let stream = unsafe { known(stream) };
    match Relay::open(&stream.place.0, &stream.place.1, &stream.meter) {
        Ok(relay) => {
            stream.socket = relay.near.as_raw_fd();
            stream.relay = Some(relay);
            0
        }
        Err(why) => refuse(&why),
    }
}

#[expect(unsafe_code, reason = "called by libgit2, with pointers")]
extern "C" fn read(stream: *mut Stream, buffer: *mut c_void, size: usize) -> isize {
    // SAFETY: libgit2 gives back the pointer that it got, and room for `size` bytes.
    let (stream, buffer) = unsafe { (known(stream), std::slice::from_raw_parts_mut(buffer.cast::<u8>(), size)) };
    let Some(relay) = &mut stream.relay else { return refuse("the connection is closed") as isize };
    let near = &mut relay.near;
    let read = near.set_read_timeout(Some(stream.idle)).and_then(|()| uninterrupted(|| near.read(buffer)));
    done(read, "read from")
}

#[expect(unsafe_code, reason = "called by libgit2, with pointers")]
extern "C" fn write(stream: *mut Stream, bytes: *const c_char, size: usize, _: c_int) -> isize {
    // SAFETY: libgit2 gives back the pointer that it got, and `size` bytes.
    let (stream, bytes) = unsafe { (known(stream), std::slice::from_raw_parts(bytes.cast::<u8>(), size)) };
    let Some(relay) = &mut stream.relay else { return refuse("the connection is closed") as isize };
    let near = &mut relay.near;
    let written = near.set_write_timeout(Some(stream.idle)).and_then(|()| uninterrupted(|| near.write(bytes)));
    done(written, "write to")
}

/// Does it again where a signal came in between. A call on a socket that has a time limit ends so whenever the process was
/// stopped or frozen and goes on, even where no signal is handled (`signal(7)`).
fn uninterrupted(mut deed: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match deed() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

fn done(bytes: io::Result<usize>, deed: &str) -> isize {
    const TIMEOUT: isize = raw::GIT_TIMEOUT as isize;
    match bytes {
        Ok(bytes) => isize::try_from(bytes).unwrap_or(isize::MAX),
        Err(error) if waits(&error) => {
            refuse(&format!("could not {deed} the socket: timed out"));
            TIMEOUT
        }
        Err(error) => refuse(&format!("could not {deed} the socket: {error}")) as isize,
    }
}

#[expect(unsafe_code, reason = "called by libgit2, with pointers")]
extern "C" fn close(stream: *mut Stream) -> c_int {
    // SAFETY: libgit2 gives back the pointer that it got.
    let stream = unsafe { known(stream) };
    stream.socket = -1;
    stream.relay = None;
    0
}

#[expect(unsafe_code, reason = "called by libgit2, with pointers")]
extern "C" fn free(stream: *mut Stream) {
    // SAFETY: made by `init`, and libgit2 frees it once.
    drop(unsafe { Box::from_raw(stream) });
}
