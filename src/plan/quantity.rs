//! Kubernetes' quantities: `1000m` is `1`, `1Gi` is `1024Mi`.

use serde_json::Value;

/// Billionths of one.
const NANO: i128 = 1_000_000_000;

/// Whether two quantities are one amount, as text or numbers. What cannot be read equals only itself.
pub(super) fn same_amount(a: &Value, b: &Value) -> bool {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    let (Some(a), Some(b)) = (text(a), text(b)) else { return a == b };
    a == b || matches!((nano(&a), nano(&b)), (Some(a), Some(b)) if a == b)
}

/// How many whole ones a quantity is; nothing where it is none, is below nothing, or does not fit.
pub fn whole_amount(text: &str) -> Option<u64> {
    u64::try_from(nano(text)? / NANO).ok()
}

/// The amount in billionths, the finest that Kubernetes keeps; nothing where it is no quantity or does not fit.
fn nano(text: &str) -> Option<i128> {
    let (sign, text) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let digits: i128 = format!("0{whole}{fraction}").parse().ok()?;
    let (base, power): (i128, i32) = match suffix {
        "n" => (10, -9),
        "u" => (10, -6),
        "m" => (10, -3),
        "" => (10, 0),
        "k" => (10, 3),
        "M" => (10, 6),
        "G" => (10, 9),
        "T" => (10, 12),
        "P" => (10, 15),
        "E" => (10, 18),
        "Ki" => (1024, 1),
        "Mi" => (1024, 2),
        "Gi" => (1024, 3),
        "Ti" => (1024, 4),
        "Pi" => (1024, 5),
        "Ei" => (1024, 6),
        _ => (10, suffix.strip_prefix(['e', 'E'])?.parse().ok()?),
    };
    // digits × base^power × 10^(9 − places): the powers of ten first, so that halves stay whole.
    let places = i32::try_from(fraction.len()).ok()?;
    let (binary, tens) = if base == 10 { (1, power + 9 - places) } else { (pow(base, power)?, 9 - places) };
    let scaled = digits.checked_mul(binary)?;
    let scaled = if tens >= 0 {
        scaled.checked_mul(pow(10, tens)?)?
    } else {
        let divisor = pow(10, -tens)?;
        (scaled % divisor == 0).then(|| scaled / divisor)?
    };
    Some(sign * scaled)
}

fn pow(base: i128, power: i32) -> Option<i128> {
    base.checked_pow(u32::try_from(power).ok()?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_form_of_a_quantity_has_whole_ones() {
        for (text, expected) in [
            ("128Mi", Some(134_217_728)),
            ("1G", Some(1_000_000_000)),
            ("1.5Gi", Some(1_610_612_736)),
            ("7", Some(7)),
            ("1e9", Some(1_000_000_000)),
            ("134217728000m", Some(134_217_728)),
            ("2Pi", Some(1 << 51)),
            ("1500m", Some(1)),
            ("-1", None),
            ("1e308", None),
            ("9999999999999999999Ei", None),
            ("1x", None),
        ] {
            assert_eq!(whole_amount(text), expected, "{text}");
        }
    }

    #[test]
    fn amounts_are_compared_not_texts() {
        for (a, b) in [
            (json!("1000m"), json!("1")),
            (json!("1Gi"), json!("1024Mi")),
            (json!("0.5"), json!("500m")),
            (json!(2), json!("2")),
            (json!(0.5), json!("500m")),
            (json!("1.5Gi"), json!("1536Mi")),
            (json!("1e3"), json!("1k")),
            (json!("1E"), json!("1000P")),
            (json!("1E3"), json!("1000")),
            (json!("+1"), json!("1")),
            (json!(".5"), json!("0.5")),
            (json!("-1"), json!("-1000m")),
            (json!("nonsense"), json!("nonsense")),
        ] {
            assert!(same_amount(&a, &b), "{a} is {b}");
        }
        for (a, b) in [
            (json!("1"), json!("2")),
            (json!("1M"), json!("1Mi")),
            (json!("1"), json!("-1")),
            (json!("1x"), json!("1")),
            (json!(""), json!("0")),
            (json!("."), json!("0")),
            (json!("1e99"), json!("1e98")),
            (json!(true), json!("1")),
        ] {
            assert!(!same_amount(&a, &b), "{a} is not {b}");
        }
    }
}
