//! A commit as it was signed: its bytes without the signature, the signature, and the time that it gives.

use crate::model::Timestamp;

/// A commit, taken apart.
#[derive(Debug)]
pub(super) struct Signed {
    /// What the signature is over.
    pub(super) payload: Vec<u8>,
    /// The signature, armoured; nothing where there is none.
    pub(super) signature: Option<Vec<u8>>,
    /// When it was made, by its committer's clock.
    pub(super) made: Timestamp,
}

// === impl Signed ===

impl Signed {
    /// Takes the bytes of a commit apart.
    ///
    /// # Errors
    ///
    /// What is wrong with it: two signatures, of which another reader might take the other one, or no time.
    pub(super) fn parse(raw: &[u8]) -> Result<Self, String> {
        let mut payload = Vec::with_capacity(raw.len());
        let (mut signature, mut made) = (None::<Vec<u8>>, None);
        let mut in_signature = false;
        let mut rest = raw;
        while !rest.is_empty() {
            let end = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |at| at + 1);
            let (line, after) = rest.split_at(end);
            if line == b"\n" {
                break;
            }
            rest = after;
            if let (true, [b' ', more @ ..]) = (in_signature, line) {
                signature.get_or_insert_default().extend_from_slice(more);
                continue;
            }
            in_signature = false;
            if let Some(first) = line.strip_prefix(b"gpgsig ") {
                if signature.replace(first.to_vec()).is_some() {
                    return Err("it has two signatures".to_owned());
                }
                in_signature = true;
                continue;
            }
            if let Some(committer) = line.strip_prefix(b"committer ")
                && made.replace(time(committer)).is_some()
            {
                return Err("it has two committers".to_owned());
            }
            payload.extend_from_slice(line);
        }
        payload.extend_from_slice(rest);
        let made = made.flatten().ok_or("it does not say when it was made")?;
        Ok(Self { payload, signature, made })
    }
}

/// `Name <address> seconds zone`
fn time(committer: &[u8]) -> Option<Timestamp> {
    let text = String::from_utf8_lossy(committer);
    let (_, after) = text.rsplit_once('>')?;
    Timestamp::from_second(after.split_whitespace().next()?.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::Signed;

    const HEAD: &str = "tree 1\nparent 2\nauthor A <a@b> 1 +0000\ncommitter C <c@d> 1790000000 +0200\n";

    #[test]
    fn a_commit_is_taken_apart() {
        let raw = format!("{HEAD}gpgsig -----BEGIN\n one\n \n -----END\nencoding x\n\ngpgsig not this\n one\n");
        let signed = Signed::parse(raw.as_bytes()).expect("a commit");
        assert_eq!(signed.signature.as_deref(), Some(&b"-----BEGIN\none\n\n-----END\n"[..]));
        let payload = format!("{HEAD}encoding x\n\ngpgsig not this\n one\n");
        assert_eq!(String::from_utf8_lossy(&signed.payload), payload);
        assert_eq!(signed.made.as_second(), 1_790_000_000);
        let plain = Signed::parse(format!("{HEAD}\nmessage\n").as_bytes()).expect("a commit");
        assert_eq!(plain.signature, None);
    }

    #[test]
    fn a_commit_that_can_be_read_in_two_ways_is_refused() {
        let twice = format!("{HEAD}gpgsig a\nx-other b\ngpgsig c\n\nm\n");
        assert!(Signed::parse(twice.as_bytes()).is_err_and(|why| why.contains("two signatures")));
        let committers = format!("{HEAD}committer M <m@n> 1 +0000\n\nm\n");
        assert!(Signed::parse(committers.as_bytes()).is_err_and(|why| why.contains("two committers")));
        for broken in ["", "tree 1\n\nm\n", "tree 1\ncommitter C <c@d> soon +0000\n\nm\n", "\ncommitter C <c> 1 +0\n"] {
            assert!(Signed::parse(broken.as_bytes()).is_err(), "{broken:?}");
        }
    }
}
