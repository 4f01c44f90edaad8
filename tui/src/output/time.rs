//! Instants and durations as people read them. JSON has RFC 3339 in UTC, made by `jiff`.

use std::time::Duration;

use jiff::Timestamp;
use proto::clock::from_wire;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// Returns `2026-11-21 21:30:05Z`.
pub(crate) fn absolute(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// Returns `21:30:05Z`.
pub(crate) fn clock(at: Timestamp) -> String {
    at.strftime("%H:%M:%SZ").to_string()
}

/// Returns `in 59d`, `3h ago` or `now`.
pub(crate) fn relative(now: Timestamp, at: Timestamp) -> String {
    let seconds = at.as_second().saturating_sub(now.as_second());
    match seconds {
        0 => "now".to_owned(),
        1.. => format!("in {}", span(seconds)),
        _ => format!("{} ago", span(seconds.saturating_neg())),
    }
}

/// Returns the absolute and the relative form of an instant of the wire, or `-`.
pub(crate) fn both(now: Timestamp, wire: i64) -> String {
    from_wire(wire).map_or_else(|| "-".to_owned(), |at| format!("{} ({})", absolute(at), relative(now, at)))
}

/// Returns the relative form of an instant of the wire, or `-`.
pub(crate) fn short(now: Timestamp, wire: i64) -> String {
    from_wire(wire).map_or_else(|| "-".to_owned(), |at| relative(now, at))
}

/// Returns `59d`, `2h05m`, `3m20s` or `8s`: two units while the second one still matters.
fn span(seconds: i64) -> String {
    let two = |first: i64, unit: &str, second: i64, smaller: &str| match second {
        0 => format!("{first}{unit}"),
        _ => format!("{first}{unit}{second:02}{smaller}"),
    };
    match seconds {
        s if s >= 2 * DAY => format!("{}d", s / DAY),
        s if s >= HOUR => two(s / HOUR, "h", s % HOUR / MINUTE, "m"),
        s if s >= MINUTE => two(s / MINUTE, "m", s % MINUTE, "s"),
        s => format!("{s}s"),
    }
}

/// Returns how long something took: `812 ms`, `3.4 s`, `2m05s`.
pub(crate) fn took(milliseconds: u64) -> String {
    match milliseconds {
        ms if ms < 1_000 => format!("{ms} ms"),
        ms if ms < 60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        ms => span(i64::try_from(ms / 1_000).unwrap_or(i64::MAX)),
    }
}

/// Reads `60s`, `5m`, `1h30m`, or a number of seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<u64>().map(Duration::from_secs);
    let duration = seconds.or_else(|_| {
        let signed = text.parse::<jiff::SignedDuration>();
        signed
            .map_err(|error| error.to_string())
            .and_then(|signed| Duration::try_from(signed).map_err(|error| error.to_string()))
    });
    match duration {
        Ok(duration) if duration.is_zero() => Err("expected more than nothing, for example 60s".to_owned()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(format!("expected a duration such as 60s, 5m or 1h: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_read_as_people_say_them() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let at = |seconds: i64| Timestamp::from_second(1_800_000_000 + seconds).unwrap();
        let check = |seconds: i64, text: &str| assert_eq!(relative(now, at(seconds)), text);
        check(0, "now");
        check(8, "in 8s");
        check(600, "in 10m");
        check(200, "in 3m20s");
        check(7_500, "in 2h05m");
        check(59 * DAY + 5, "in 59d");
        check(-90, "1m30s ago");
        assert_eq!(short(now, 0), "-");
        assert_eq!((took(812), took(3_450), took(125_000)), ("812 ms".into(), "3.4 s".into(), "2m05s".into()));
    }

    #[test]
    fn a_duration_is_a_number_with_a_unit() {
        let seconds = |text: &str| parse_duration(text).map(|duration| duration.as_secs());
        assert_eq!(seconds("60s"), Ok(60));
        assert_eq!(seconds("90"), Ok(90));
        assert_eq!(seconds("5m"), Ok(300));
        assert_eq!(seconds("1h30m"), Ok(5_400));
        for text in ["", "0", "0s", "-5s", "soon"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
