//! Canonical JSON after RFC 8785 (JCS): the bytes that releases and settings are named by.

use std::fmt::Write as _;

use serde_json::{Number, Value};

/// The largest integer that an IEEE 754 double carries exactly: 2^53.
const LARGEST: u64 = 1 << 53;

/// A number that canonical JSON cannot carry exactly.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the number {0} is beyond 2^53: write it as text")]
pub struct NotCanonical(pub String);

/// Writes `value` in canonical form: keys sorted by UTF-16 code units, numbers as ECMAScript writes them, no white space.
///
/// # Errors
///
/// When an integer is beyond 2^53 in either direction, since a double would change it; so is a double that would be
/// written as such an integer, since it could not be read back.
pub fn to_bytes(value: &Value) -> Result<Vec<u8>, NotCanonical> {
    to_text(value).map(String::into_bytes)
}

/// The same, as text.
pub(super) fn to_text(value: &Value) -> Result<String, NotCanonical> {
    let mut out = String::new();
    write(value, &mut out)?;
    Ok(out)
}

fn write(value: &Value, out: &mut String) -> Result<(), NotCanonical> {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => write_number(number, out)?,
        Value::String(text) => write_string(text, out),
        Value::Array(items) => {
            out.push('[');
            for (n, item) in items.iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                write(item, out)?;
            }
            out.push(']');
        }
        Value::Object(fields) => {
            let mut sorted: Vec<_> = fields.iter().collect();
            sorted.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            out.push('{');
            for (n, (key, field)) in sorted.into_iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                write_string(key, out);
                out.push(':');
                write(field, out)?;
            }
            out.push('}');
        }
    }
    Ok(())
}

fn write_string(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            c if c < ' ' => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

fn write_number(number: &Number, out: &mut String) -> Result<(), NotCanonical> {
    let beyond = || NotCanonical(number.to_string());
    if let Some(integer) = number.as_u64() {
        if integer > LARGEST {
            return Err(beyond());
        }
        out.push_str(&integer.to_string());
    } else if let Some(integer) = number.as_i64() {
        if integer.unsigned_abs() > LARGEST {
            return Err(beyond());
        }
        out.push_str(&integer.to_string());
    } else {
        let double = number.as_f64().filter(|double| double.is_finite()).ok_or_else(beyond)?;
        if is_long_integer(double) {
            return Err(beyond());
        }
        write_double(double, out);
    }
    Ok(())
}

/// Whether a double is written as the digits of an integer beyond 2^53: those of 10^21 and more have an exponent.
pub(super) fn is_long_integer(double: f64) -> bool {
    #[expect(clippy::cast_precision_loss, reason = "2^53 is exact in a double")]
    let largest = LARGEST as f64;
    double.abs() > largest && double.abs() < 1e21
}

/// ECMAScript's `Number::toString` (ECMA-262 6.1.6.1.20) over the shortest digits that read back.
fn write_double(double: f64, out: &mut String) {
    if double == 0.0 {
        out.push('0');
        return;
    }
    if double < 0.0 {
        out.push('-');
    }
    let scientific = format!("{:e}", double.abs());
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let digits = digits.replace('.', "");
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let count = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    let point = exponent + 1;
    let zeros = |n: i32| "0".repeat(usize::try_from(n).unwrap_or(0));
    if count <= point && point <= 21 {
        out.push_str(&digits);
        out.push_str(&zeros(point - count));
    } else if 0 < point && point <= 21 {
        let (whole, fraction) = digits.split_at(usize::try_from(point).unwrap_or(0));
        let _ = write!(out, "{whole}.{fraction}");
    } else if -6 < point && point <= 0 {
        let _ = write!(out, "0.{}{digits}", zeros(-point));
    } else {
        let (first, rest) = digits.split_at(1);
        let dot = if rest.is_empty() { "" } else { "." };
        let sign = if exponent < 0 { '-' } else { '+' };
        let _ = write!(out, "{first}{dot}{rest}e{sign}{}", exponent.abs());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(json: &str) -> String {
        let value = serde_json::from_str(json).expect("JSON");
        String::from_utf8(to_bytes(&value).expect("canonical")).expect("UTF-8")
    }

    // The example of RFC 8785, section 3.2.2, and the order of keys of section 3.2.3.
    #[test]
    fn the_examples_of_the_rfc() {
        let input = r#"{"numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
            "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/", "literals": [null, true, false]}"#;
        let output = r#"{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\u000f\nA'B\"\\\\\"/"}"#;
        assert_eq!(canonical(input), output);
        let input = r#"{"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\ud83d\ude00": 5, "\u0080": 6, "\u00f6": 7}"#;
        let keys: Vec<_> = canonical(input).chars().filter(char::is_ascii_digit).collect();
        assert_eq!(keys, ['2', '1', '4', '6', '7', '1', '5', '3'], "sorted by UTF-16 code units");
    }

    // Appendix B of RFC 8785.
    #[test]
    fn numbers_as_ecmascript_writes_them() {
        for (bits, text) in [
            (0x0000_0000_0000_0000_u64, "0"),
            (0x8000_0000_0000_0000, "0"),
            (0x0000_0000_0000_0001, "5e-324"),
            (0x7fef_ffff_ffff_ffff, "1.7976931348623157e+308"),
            (0x4340_0000_0000_0000, "9007199254740992"),
            (0x4430_0000_0000_0000, "295147905179352830000"),
            (0x44b5_2d02_c7e1_4af5, "9.999999999999997e+22"),
            (0x44b5_2d02_c7e1_4af6, "1e+23"),
            (0x444b_1ae4_d6e2_ef4e, "999999999999999700000"),
            (0x444b_1ae4_d6e2_ef50, "1e+21"),
            (0x3eb0_c6f7_a0b5_ed8c, "9.999999999999997e-7"),
            (0x3eb0_c6f7_a0b5_ed8d, "0.000001"),
            (0x41b3_de43_5555_5555, "333333333.3333333"),
            (0xbecb_f647_612f_3696, "-0.0000033333333333333333"),
        ] {
            let mut out = String::new();
            write_double(f64::from_bits(bits), &mut out);
            assert_eq!(out, text, "{bits:x}");
        }
    }

    #[test]
    fn integers_beyond_what_a_double_carries_are_refused() {
        assert_eq!(canonical("9007199254740992"), "9007199254740992");
        let value = serde_json::from_str("9007199254740993").expect("JSON");
        assert_eq!(to_bytes(&value), Err(NotCanonical("9007199254740993".to_owned())));
        let value = serde_json::from_str("1e18").expect("JSON");
        assert!(to_bytes(&value).is_err(), "it would be written as an integer");
        assert_eq!(canonical("1e21"), "1e+21");
        assert_eq!(canonical("-0.0"), "0");
        assert_eq!(canonical("1.0"), "1");
    }
}
