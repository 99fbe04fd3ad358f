//! Where one HTTP/1 message ends and the next begins, read strictly.
//!
//! hyper reads requests leniently where two parties may disagree about their length (it takes `Content-Length` beside
//! `Transfer-Encoding`, repeated lengths, bare line feeds). This stands before it and lets nothing of that through: a
//! request that anybody could read in two ways is refused whole. RFC 9112, sections 2.2, 5.2, 6.3, 7.1 and 11.2.

/// Bytes that the line of a chunk's size may have, extensions included.
const CHUNK_LINE: usize = 300;

/// Bytes that all trailers of a message may have.
const TRAILERS: usize = 8 * 1024;

/// Empty lines before a request line that are overlooked.
const EMPTY_LINES: u8 = 4;

/// What hyper is given in place of a message that it shall answer with 400.
pub(super) const BAD: &[u8] = b"\0\r\n\r\n";

/// Knows at every byte of a connection which part of which message it belongs to.
#[derive(Debug)]
pub(super) struct Framing {
    state: State,
    /// Bytes of the part at hand that were looked at without finding its end.
    scanned: usize,
    empty: u8,
    limit: usize,
    max_headers: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    Length(u64),
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailers(usize),
    /// After a head that asks to change the protocol.
    Asked,
    /// No HTTP any more.
    Other,
    Refused,
}

/// What to do with the bytes at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// That many may be read by hyper.
    Pass(usize),
    /// The same, and they end a request's head.
    PassHead(usize),
    /// That many are left out.
    Skip(usize),
    /// More are needed to know.
    More,
    /// Nothing may be read until it is known whether the protocol changes.
    Hold,
    /// No byte from here on is a request's.
    Refuse(Refusal),
}

/// Why a message is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It can be read in two ways, or in none.
    Bad,
    /// Its head is longer, or has more lines, than the limit.
    TooLarge,
}

/// How the body of a request is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    length: u64,
    chunked: bool,
    upgrade: bool,
}

// === impl Framing ===

impl Framing {
    pub(super) fn new(limit: usize, max_headers: usize) -> Self {
        Self { state: State::Head, scanned: 0, empty: 0, limit, max_headers }
    }

    /// Whether the next byte begins or continues a head.
    pub(super) fn in_head(&self) -> bool {
        self.state == State::Head
    }

    /// Whether a request's body is being read.
    pub(super) fn in_body(&self) -> bool {
        matches!(
            self.state,
            State::Length(_) | State::ChunkSize | State::ChunkData(_) | State::ChunkEnd | State::Trailers(_)
        )
    }

    /// Whether it is open if the protocol changes.
    pub(super) fn asked(&self) -> bool {
        self.state == State::Asked
    }

    pub(super) fn refused(&self) -> bool {
        self.state == State::Refused
    }

    /// Says whether the protocol changed, after [`Step::Hold`].
    pub(super) fn decide(&mut self, changed: bool) {
        if self.state == State::Asked {
            self.state = if changed { State::Other } else { State::Head };
        }
    }

    /// Looks at the bytes that come next; `input` is not empty, and begins where the last step ended.
    pub(super) fn step(&mut self, input: &[u8]) -> Step {
        let step = match self.state {
            State::Head => self.head(input),
            State::Length(left) => {
                let (taken, left) = take(input.len(), left);
                self.state = if left == 0 { State::Head } else { State::Length(left) };
                Step::Pass(taken)
            }
            State::ChunkSize => self.chunk_size(input),
            State::ChunkData(left) => {
                let (taken, left) = take(input.len(), left);
                self.state = if left == 0 { State::ChunkEnd } else { State::ChunkData(left) };
                Step::Pass(taken)
            }
            State::ChunkEnd => match input {
                [b'\r', b'\n', ..] => {
                    self.state = State::ChunkSize;
                    Step::Pass(2)
                }
                [b'\r'] => Step::More,
                _ => Step::Refuse(Refusal::Bad),
            },
            State::Trailers(seen) => self.trailer(input, seen),
            State::Asked => Step::Hold,
            State::Other => Step::Pass(input.len()),
            State::Refused => Step::Refuse(Refusal::Bad),
        };
        if step == Step::More {
            self.scanned = input.len();
        } else {
            self.scanned = 0;
        }
        if matches!(step, Step::Refuse(_)) {
            self.state = State::Refused;
        }
        step
    }

    fn head(&mut self, input: &[u8]) -> Step {
        match input {
            [b'\r', b'\n', ..] if self.empty < EMPTY_LINES => {
                self.empty += 1;
                return Step::Skip(2);
            }
            [b'\r'] => return Step::More,
            _ => {}
        }
        let mut from = self.scanned;
        let end = loop {
            let Some(at) = input[from..].iter().position(|byte| *byte == b'\n').map(|at| from + at) else {
                return if input.len() > self.limit { Step::Refuse(Refusal::TooLarge) } else { Step::More };
            };
            if at == 0 || input[at - 1] != b'\r' {
                return Step::Refuse(Refusal::Bad);
            }
            if at >= 3 && input[at - 2] == b'\n' {
                break at + 1;
            }
            from = at + 1;
        };
        if end > self.limit {
            return Step::Refuse(Refusal::TooLarge);
        }
        match shape(&input[..end], self.max_headers) {
            Ok(shape) => {
                self.empty = 0;
                self.state = match shape {
                    Shape { chunked: true, .. } => State::ChunkSize,
                    Shape { length: 1.., .. } => State::Length(shape.length),
                    Shape { upgrade: true, .. } => State::Asked,
                    Shape { .. } => State::Head,
                };
                Step::PassHead(end)
            }
            Err(refusal) => Step::Refuse(refusal),
        }
    }

    fn chunk_size(&mut self, input: &[u8]) -> Step {
        let line = match line(input, self.scanned, CHUNK_LINE) {
            Ok(Some(line)) => line,
            Ok(None) => return Step::More,
            Err(refusal) => return Step::Refuse(refusal),
        };
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let rest = &line[digits..];
        let extension = rest.is_empty() || rest.first() == Some(&b';');
        let text = std::str::from_utf8(&line[..digits]).unwrap_or_default();
        match u64::from_str_radix(text, 16) {
            Ok(size) if digits <= 15 && extension && rest.iter().all(|byte| visible(*byte)) => {
                self.state = if size == 0 { State::Trailers(0) } else { State::ChunkData(size) };
                Step::Pass(line.len() + 2)
            }
            Ok(_) | Err(_) => Step::Refuse(Refusal::Bad),
        }
    }

    fn trailer(&mut self, input: &[u8], seen: usize) -> Step {
        let line = match line(input, self.scanned, TRAILERS) {
            Ok(Some(line)) => line,
            Ok(None) => return Step::More,
            Err(refusal) => return Step::Refuse(refusal),
        };
        let (taken, seen) = (line.len() + 2, seen + line.len() + 2);
        if line.is_empty() {
            self.state = State::Head;
            return Step::Pass(taken);
        }
        let framing = |name: &[u8]| {
            [&b"content-length"[..], b"transfer-encoding", b"host"].iter().any(|own| name.eq_ignore_ascii_case(own))
        };
        match field(line) {
            Some((name, _)) if seen <= TRAILERS && !framing(name) => {
                self.state = State::Trailers(seen);
                Step::Pass(taken)
            }
            Some(_) | None => Step::Refuse(Refusal::Bad),
        }
    }
}

/// A whole line without its end; none when it has not come yet.
fn line(input: &[u8], scanned: usize, limit: usize) -> Result<Option<&[u8]>, Refusal> {
    let Some(at) = input[scanned..].iter().position(|byte| *byte == b'\n').map(|at| scanned + at) else {
        return if input.len() > limit { Err(Refusal::Bad) } else { Ok(None) };
    };
    match input[..at].split_last() {
        Some((b'\r', line)) if line.len() <= limit && !line.contains(&b'\r') => Ok(Some(line)),
        Some(_) | None => Err(Refusal::Bad),
    }
}

/// Reads a whole head, its last empty line included.
fn shape(head: &[u8], max_headers: usize) -> Result<Shape, Refusal> {
    let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let eleven = request_line(lines.next().unwrap_or_default()).ok_or(Refusal::Bad)?;
    let (mut length, mut chunked, mut hosts) = (None, false, 0_u32);
    let (mut upgrade, mut connection_upgrade, mut count) = (false, false, 0);
    for line in lines {
        if line.is_empty() {
            break;
        }
        count += 1;
        if count > max_headers {
            return Err(Refusal::TooLarge);
        }
        let (name, value) = field(line).ok_or(Refusal::Bad)?;
        let is = |own: &str| name.eq_ignore_ascii_case(own.as_bytes());
        match name.len() {
            14 if is("content-length") => {
                let text = std::str::from_utf8(value).map_err(|_| Refusal::Bad)?;
                if length.is_some() || text.is_empty() || text.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
                    return Err(Refusal::Bad);
                }
                length = Some(text.parse().map_err(|_| Refusal::Bad)?);
            }
            17 if is("transfer-encoding") => {
                if chunked || !eleven || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Refusal::Bad);
                }
                chunked = true;
            }
            4 if is("host") => {
                hosts += 1;
                let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._:[]%".contains(byte);
                if !value.iter().all(plain) {
                    return Err(Refusal::Bad);
                }
            }
            7 if is("upgrade") => upgrade = true,
            10 if is("connection") => {
                let mut tokens = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
                connection_upgrade |= tokens.any(|token| token.eq_ignore_ascii_case(b"upgrade"));
            }
            _ => {}
        }
    }
    if (chunked && length.is_some()) || hosts > 1 || (eleven && hosts == 0) {
        return Err(Refusal::Bad);
    }
    Ok(Shape { length: length.unwrap_or(0), chunked, upgrade: upgrade && connection_upgrade && eleven })
}

/// Whether the version is 1.1; none when the line is no request line of HTTP/1.
fn request_line(line: &[u8]) -> Option<bool> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (method, target, version) = (parts.next()?, parts.next()?, parts.next()?);
    let plain = parts.next().is_none() && token(method) && !target.is_empty();
    if !plain || !target.iter().all(|byte| (0x21..0x7f).contains(byte) && *byte != b'#') {
        return None;
    }
    match version {
        b"HTTP/1.1" => Some(true),
        b"HTTP/1.0" => Some(false),
        _ => None,
    }
}

/// Name and value of a line, as RFC 9112 writes it: no space before the colon, no folding, no control bytes.
fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    (token(name) && line[colon + 1..].iter().all(|byte| visible(*byte))).then_some((name, value))
}

fn token(text: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(plain)
}

/// No control byte but the tab.
fn visible(byte: u8) -> bool {
    byte == b'\t' || (byte >= 0x20 && byte != 0x7f)
}

/// How many of `there` bytes belong to what has `left` to come, and what is left then.
fn take(there: usize, left: u64) -> (usize, u64) {
    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(there);
    (taken, left - taken as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What passes, and why it ended, when `input` comes in pieces of these sizes.
    fn run(input: &[u8], sizes: &[usize]) -> (Vec<u8>, usize, Option<Refusal>) {
        let mut framing = Framing::new(4096, 64);
        let (mut passed, mut heads, mut held) = (vec![], 0, vec![]);
        let mut sizes = sizes.iter().cycle();
        let mut left = input;
        loop {
            while !held.is_empty() {
                match framing.step(&held) {
                    Step::Pass(count) => passed.extend(held.drain(..count)),
                    Step::PassHead(count) => {
                        heads += 1;
                        passed.extend(held.drain(..count));
                    }
                    Step::Skip(count) => drop(held.drain(..count)),
                    Step::More => break,
                    Step::Hold => return (passed, heads, None),
                    Step::Refuse(refusal) => return (passed, heads, Some(refusal)),
                }
            }
            if left.is_empty() {
                return (passed, heads, None);
            }
            let (piece, rest) = left.split_at((*sizes.next().unwrap()).clamp(1, left.len()));
            held.extend_from_slice(piece);
            left = rest;
        }
    }

    const GOOD: &[&str] = &[
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\nGET /x?y=z HTTP/1.0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\nHost: b\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1f;x=\"y\"\r\n0123456789012345678901234567890\r\n0\r\nA: b\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ];

    /// Shapes that two parties could read differently; `{}` is a head's usual rest.
    const EVIL: &[&str] = &[
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
        "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / x HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\r\n\r\n",
        "G\0T / HTTP/1.1\r\nHost: a\r\n\r\n",
    ];

    const EVIL_CHUNKS: &[&str] = &[
        "0x3\r\nabc\r\n",
        "+3\r\nabc\r\n",
        " 3\r\nabc\r\n",
        "3 \r\nabc\r\n",
        "\r\nabc\r\n",
        "g\r\n",
        "3\nabc\r\n",
        "3\r\nabcd\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "3;a\rb\r\nabc\r\n",
        "ffffffffffffffffff\r\n",
        "3;a=\0\r\nabc\r\n",
        "0\r\nContent-Length: 1\r\n\r\n",
        "0\r\n bad: x\r\n\r\n",
        "0\r\nbad\r\n\r\n",
        "0\n\n",
    ];

    #[test]
    fn good_messages_pass_whole() {
        for good in GOOD {
            let (passed, _, refused) = run(good.as_bytes(), &[usize::MAX]);
            assert_eq!((String::from_utf8(passed).unwrap().as_str(), refused), (good.trim_start(), None));
        }
    }

    #[test]
    fn evil_heads_do_not_pass_at_all() {
        for evil in EVIL {
            assert_eq!(run(evil.as_bytes(), &[usize::MAX]), (vec![], 0, Some(Refusal::Bad)), "{evil:?}");
        }
    }

    #[test]
    fn evil_chunks_end_the_message() {
        for evil in EVIL_CHUNKS {
            let whole = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{evil}");
            let (_, heads, refused) = run(whole.as_bytes(), &[usize::MAX]);
            assert_eq!((heads, refused), (1, Some(Refusal::Bad)), "{evil:?}");
        }
    }

    #[test]
    fn a_head_that_is_too_long_or_has_too_many_lines_is_too_large() {
        let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(5000));
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(80));
        for head in [long, many] {
            assert_eq!(run(head.as_bytes(), &[usize::MAX]).2, Some(Refusal::TooLarge));
        }
    }

    #[test]
    fn nothing_passes_while_a_change_of_protocol_is_open() {
        let asked =
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x00";
        let mut framing = Framing::new(4096, 64);
        let Step::PassHead(count) = framing.step(asked) else { panic!("no head") };
        assert_eq!(framing.step(&asked[count..]), Step::Hold);
        framing.decide(true);
        assert_eq!(framing.step(&asked[count..]), Step::Pass(2));
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(
            which in 0..GOOD.len() + EVIL.len() + EVIL_CHUNKS.len(),
            sizes in prop::collection::vec(1_usize..40, 1..20),
        ) {
            let all = GOOD.iter().chain(EVIL).map(|text| (*text).to_owned());
            let chunks = EVIL_CHUNKS.iter().map(|evil| {
                format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{evil}")
            });
            let text = all.chain(chunks).nth(which).unwrap();
            let (one, other) = (run(text.as_bytes(), &[usize::MAX]), run(text.as_bytes(), &sizes));
            prop_assert_eq!(one.1, other.1);
            prop_assert_eq!(one.2, other.2);
        }

        #[test]
        fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..300), sizes in prop::collection::vec(1_usize..40, 1..5)) {
            run(&bytes, &sizes);
        }
    }
}
