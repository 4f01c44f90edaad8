//! Limits of a CA in words, and read from words: `orders=300/3h`. Used by `output`, the command line and the screens. Pure.

use proto::operator::v1::{LimitLine, LimitSetting};

/// Units of a period, the largest first: how it is written, seconds.
const UNITS: [(&str, u32); 5] = [("d", 86_400), ("h", 3_600), ("m", 60), ("min", 60), ("s", 1)];

/// Returns a period in its largest whole unit: `3h`, `7d`.
#[must_use]
pub fn period(seconds: u32) -> String {
    let unit = UNITS.iter().find(|(_, size)| seconds >= *size && seconds.is_multiple_of(*size));
    unit.map_or_else(String::new, |(word, size)| format!("{}{word}", seconds / size))
}

/// Reads `orders=300/3h` and `orders=none`.
///
/// # Errors
/// What was expected instead.
pub fn parse_limit(text: &str) -> Result<LimitSetting, String> {
    let expected = || "expected KIND=N/PERIOD such as orders=300/3h, or KIND=none".to_owned();
    let (kind, limit) = text.split_once('=').ok_or_else(expected)?;
    if limit == "none" {
        return Ok(LimitSetting { kind: kind.to_owned(), count: 0, period_seconds: 0 });
    }
    let (count, period) = limit.split_once('/').ok_or_else(expected)?;
    let count = count.parse::<u32>().ok().filter(|count| *count > 0).ok_or_else(expected)?;
    // "requests=20/s" reads as in one second.
    let period =
        if period.starts_with(|letter: char| letter.is_ascii_digit()) { period } else { &format!("1{period}") };
    let seconds = seconds(period).ok_or_else(expected)?;
    Ok(LimitSetting { kind: kind.to_owned(), count, period_seconds: seconds })
}

/// Reads `90d`, `12h`, `30min`.
///
/// # Errors
/// What was expected instead.
pub fn parse_period(text: &str) -> Result<u32, String> {
    seconds(text).ok_or_else(|| "expected a number and d, h, min or s, such as 90d".to_owned())
}

fn seconds(text: &str) -> Option<u32> {
    let (number, unit) = text.split_at(text.find(|letter: char| !letter.is_ascii_digit())?);
    let number = number.parse::<u32>().ok().filter(|number| *number > 0)?;
    let (_, seconds) = UNITS.iter().find(|(word, _)| *word == unit)?;
    number.checked_mul(*seconds)
}

/// Returns what a limit counts and for whom: `registered domain example.com`.
#[must_use]
pub fn limit_subject(line: &LimitLine) -> String {
    format!("{} {}", line.kind.replace('-', " "), line.name).trim_end().to_owned()
}

/// Returns how much of a limit is used: `12 of 300 in 3h used`; empty where none is known.
#[must_use]
pub fn limit_used(line: &LimitLine) -> String {
    match (line.count, line.kind.as_str()) {
        (0, _) => String::new(),
        (count, "requests") => format!("at most {count} in {}", period(line.period_seconds)),
        (count, _) => format!("{} of {count} in {} used", line.used, period(line.period_seconds)),
    }
}

/// Returns what a CA does not count of the next order; empty when everything counts.
#[must_use]
pub fn limit_exemption(word: &str) -> &'static str {
    match word {
        "replaces" => "the CA counts nothing: the order says which version it replaces",
        "same_set" => "the CA counts neither orders nor the registered domain: the names are the same as before",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_kind_a_number_and_a_period() {
        let check = |text: &str, expected: Option<(&str, u32, u32)>| {
            let parsed = parse_limit(text).ok();
            let parsed = parsed.as_ref().map(|limit| (limit.kind.as_str(), limit.count, limit.period_seconds));
            assert_eq!(parsed, expected, "{text}");
        };
        check("orders=300/3h", Some(("orders", 300, 10_800)));
        check("exact-set=5/7d", Some(("exact-set", 5, 604_800)));
        check("requests=20/s", Some(("requests", 20, 1)));
        check("orders=10/90min", Some(("orders", 10, 5_400)));
        check("orders=none", Some(("orders", 0, 0)));
        for text in ["orders", "orders=", "orders=0/3h", "orders=3", "orders=3/", "orders=3/h3", "orders=3/2y", "=x"] {
            check(text, None);
        }
        assert!(parse_limit("orders=1/99999999d").is_err());
        assert_eq!((parse_period("3650d"), parse_period("90min")), (Ok(315_360_000), Ok(5_400)));
        assert!(parse_period("d").is_err() && parse_period("90").is_err() && parse_period("0d").is_err());
        assert_eq!([period(604_800), period(10_800), period(90), period(1)], ["7d", "3h", "90s", "1s"]);
    }
}
