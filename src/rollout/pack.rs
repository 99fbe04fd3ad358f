//! What the judge knows, packed as a record keeps it: a text within a text within a text would be mostly quotation marks.

use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;

use crate::render::{base64, from_base64};

/// Marks a packed text.
const PACKED: &str = "zlib:";
/// Bytes of what was packed: whoever can write records does not fill our memory.
const MOST: u64 = 64 * 1024 * 1024;

/// Packs a text.
pub(super) fn pack(text: &str) -> String {
    let mut encoder = ZlibEncoder::new(vec![], Compression::default());
    // Nothing that is written to memory fails; if it did, the text itself would do.
    match encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish()) {
        Ok(bytes) => format!("{PACKED}{}", base64(&bytes)),
        Err(_) => text.to_owned(),
    }
}

/// Unpacks a text; one that is not packed is itself. Nothing where it is broken.
pub(super) fn unpack(text: &str) -> Option<String> {
    let Some(packed) = text.strip_prefix(PACKED) else { return Some(text.to_owned()) };
    let bytes = from_base64(packed)?;
    let mut out = String::new();
    let read = ZlibDecoder::new(&*bytes).take(MOST + 1).read_to_string(&mut out).ok()?;
    (read as u64 <= MOST).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_out_the_same_and_what_is_broken_not_at_all() {
        for text in ["", "{}", "a \"b\" \\ c\u{1f600}", &"{\"n\":12}".repeat(10_000)] {
            assert_eq!(unpack(&pack(text)).as_deref(), Some(text));
            assert_eq!(unpack(text).as_deref(), Some(text), "what an earlier version kept");
        }
        let long = pack(&"{\"n\":12}".repeat(10_000));
        assert!(long.len() < 1000, "{}", long.len());
        for broken in ["zlib:", "zlib:AAAA", "zlib:!", &long[..long.len() - 8]] {
            assert_eq!(unpack(broken), None, "{broken}");
        }
    }
}
