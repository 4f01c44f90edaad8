//! Deploy windows (features.md D9): the hours in which a new version may reach the targets of a certificate, as an operator
//! writes them. Knows no rules of time zones, which lie on the disk: they are handed in. Called by `rpc`, and by
//! `store/certificate` for `lifecycle/rollout`.

use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use serde::{Deserialize, Serialize};

/// Most windows of one certificate.
pub const WINDOWS_MAX: usize = 20;
/// Days looked ahead: a window of one weekday, and the next one when a change of the clocks leaves it out.
const LOOK_AHEAD: i32 = 15;
const DAY_MINUTES: u16 = 24 * 60;
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const DAILY: &str = "daily";
/// The zone that needs no rules.
pub const UTC: &str = "UTC";

/// Hours of some days of the week.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Days on which it opens, Monday is 0; ascending.
    pub days: Vec<u8>,
    /// When it opens, minutes of the day.
    pub from: u16,
    /// When it closes; not later than `from` means on the next day.
    pub to: u16,
    /// Name in the time zone database, or UTC.
    pub zone: String,
}

/// Whether deployments may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowIs {
    /// Until then.
    Open(Timestamp),
    /// Until then.
    Closed(Timestamp),
}

impl WindowIs {
    /// Returns until when it stays so.
    #[must_use]
    pub fn until(self) -> Timestamp {
        match self {
            Self::Open(until) | Self::Closed(until) => until,
        }
    }
}

impl Window {
    /// Reads `Sat,Sun 02:00-05:00 Europe/Berlin`, also `Mon-Fri` and `daily`; without a zone it is UTC. Whether the zone exists
    /// is for the caller to see.
    ///
    /// # Errors
    /// A sentence about what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (days, hours, zone) = match words.as_slice() {
            [days, hours] => (days, hours, UTC),
            [days, hours, zone] => (days, hours, *zone),
            _ => return Err(format!("\"{text}\" is not DAYS HH:MM-HH:MM ZONE")),
        };
        let days = self::days(days).ok_or_else(|| format!("\"{days}\" names no days: Mon,Tue or Mon-Fri or daily"))?;
        let from_to = hours.split_once('-').and_then(|(from, to)| Some((minutes(from)?, minutes(to)?)));
        let (from, to) =
            from_to.filter(|(from, _)| *from < DAY_MINUTES).ok_or_else(|| format!("\"{hours}\" is not HH:MM-HH:MM"))?;
        Ok(Self { days, from, to: to % DAY_MINUTES, zone: zone.to_owned() })
    }

    /// Returns the words that read back as this.
    #[must_use]
    pub fn words(&self) -> String {
        let days: Vec<&str> = self.days.iter().filter_map(|day| DAYS.get(usize::from(*day)).copied()).collect();
        let days = if days.len() == DAYS.len() { DAILY.to_owned() } else { days.join(",") };
        let clock = |minutes: u16| format!("{:02}:{:02}", minutes / 60, minutes % 60);
        format!("{days} {}-{} {}", clock(self.from), clock(self.to), self.zone)
    }

    /// When it is open next, or is open now: from and to. `None` when it never is within the days looked ahead.
    fn next(&self, zone: &TimeZone, now: Timestamp) -> Option<(Timestamp, Timestamp)> {
        let today = now.to_zoned(zone.clone()).date();
        let at = |date: jiff::civil::Date, minutes: u16| {
            let time = Time::new(i8::try_from(minutes / 60).ok()?, i8::try_from(minutes % 60).ok()?, 0, 0).ok()?;
            // A time that a change of the clocks leaves out is later, one that it repeats is the first of both (RFC 5545).
            Some(date.to_datetime(time).to_zoned(zone.clone()).ok()?.timestamp())
        };
        let spans = (-1..LOOK_AHEAD).filter_map(|offset| {
            let date = today.checked_add(Span::new().days(offset)).ok()?;
            if !self.days.contains(&day(date.weekday())) {
                return None;
            }
            let end = if self.to > self.from { date } else { date.tomorrow().ok()? };
            Some((at(date, self.from)?, at(end, self.to)?))
        });
        spans.filter(|(from, to)| *to > now && from < to).min()
    }
}

/// Returns whether one of the windows is open at `now`, and until when that stays so; `None` without any that ever opens.
/// `zone` gives the rules of a time zone by its name.
#[must_use]
pub fn look(windows: &[Window], zone: impl Fn(&str) -> TimeZone, now: Timestamp) -> Option<WindowIs> {
    let next: Vec<_> = windows.iter().filter_map(|window| window.next(&zone(&window.zone), now)).collect();
    let open = next.iter().filter(|(from, _)| *from <= now).map(|(_, to)| *to).max();
    let opens = next.iter().map(|(from, _)| *from).min();
    open.map(WindowIs::Open).or_else(|| opens.map(WindowIs::Closed))
}

fn day(weekday: Weekday) -> u8 {
    u8::try_from(weekday.to_monday_zero_offset()).unwrap_or_default()
}

fn days(text: &str) -> Option<Vec<u8>> {
    let one = |name: &str| {
        let at = DAYS.iter().position(|day| day.eq_ignore_ascii_case(name))?;
        u8::try_from(at).ok()
    };
    if text.eq_ignore_ascii_case(DAILY) {
        return Some((0..7).collect());
    }
    let mut days = Vec::new();
    for part in text.split(',') {
        match part.split_once('-') {
            // Fri-Mon goes over the end of the week.
            Some((first, last)) => {
                let (first, last) = (one(first)?, one(last)?);
                let count = (last + 7 - first) % 7;
                days.extend((0..=count).map(|step| (first + step) % 7));
            }
            None => days.push(one(part)?),
        }
    }
    days.sort_unstable();
    days.dedup();
    Some(days)
}

/// Minutes of the day; 24:00 is its end.
fn minutes(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let two = |text: &str| -> Option<u16> {
        let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| digits)
    };
    let minutes = two(minutes).filter(|minutes| *minutes < 60)?;
    Some(two(hours)? * 60 + minutes).filter(|minutes| *minutes <= DAY_MINUTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn look_at(words: &[&str], now: &str) -> Option<WindowIs> {
        let windows: Vec<Window> = words.iter().map(|words| Window::parse(words).unwrap()).collect();
        // Two hours east of UTC, whatever the name.
        let zone = |name: &str| if name == UTC { TimeZone::UTC } else { TimeZone::fixed(jiff::tz::offset(2)) };
        look(&windows, zone, at(now))
    }

    #[test]
    fn a_window_is_open_in_its_hours_of_its_days() {
        // 2026-11-21 is a Saturday.
        let weekend = ["Sat,Sun 02:00-05:00"];
        let check = |now, is| assert_eq!(look_at(&weekend, now), Some(is), "{now}");
        check("2026-11-20T12:00:00Z", WindowIs::Closed(at("2026-11-21T02:00:00Z")));
        check("2026-11-21T02:00:00Z", WindowIs::Open(at("2026-11-21T05:00:00Z")));
        check("2026-11-21T05:00:00Z", WindowIs::Closed(at("2026-11-22T02:00:00Z")));
        check("2026-11-22T05:00:00Z", WindowIs::Closed(at("2026-11-28T02:00:00Z")));
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_it_opens_on() {
        let night = ["Fri 22:00-02:00"];
        assert_eq!(look_at(&night, "2026-11-21T01:00:00Z"), Some(WindowIs::Open(at("2026-11-21T02:00:00Z"))));
        assert_eq!(look_at(&night, "2026-11-21T22:00:00Z"), Some(WindowIs::Closed(at("2026-11-27T22:00:00Z"))));
        assert_eq!(
            look_at(&["daily 00:00-00:00"], "2026-11-21T22:00:00Z"),
            Some(WindowIs::Open(at("2026-11-22T00:00:00Z")))
        );
    }

    #[test]
    fn the_first_of_several_counts_each_in_its_zone() {
        let two = ["Mon 03:00-04:00", "Sun 03:00-04:00 Europe/Berlin"];
        assert_eq!(look_at(&two, "2026-11-21T12:00:00Z"), Some(WindowIs::Closed(at("2026-11-22T01:00:00Z"))));
        assert_eq!(look_at(&two, "2026-11-22T01:30:00Z"), Some(WindowIs::Open(at("2026-11-22T02:00:00Z"))));
        assert_eq!(look_at(&[], "2026-11-22T01:30:00Z"), None);
    }

    #[test]
    fn the_words_of_a_window_read_back_and_others_are_refused() {
        let same = |text: &str, words: &str| assert_eq!(Window::parse(text).unwrap().words(), words);
        same("sat,SUN 02:00-05:00 Europe/Berlin", "Sat,Sun 02:00-05:00 Europe/Berlin");
        same("Mon-Fri 22:00-02:00", "Mon,Tue,Wed,Thu,Fri 22:00-02:00 UTC");
        same("Sat-Mon 02:00-03:00", "Mon,Sat,Sun 02:00-03:00 UTC");
        same("daily 18:30-24:00", "daily 18:30-00:00 UTC");
        let wrong = "|Sat|Sat 2-5|Sat 02:00-25:00|Sat 02:00-24:01|Sat 24:00-02:00|Sam 02:00-05:00|Sat 02:00-05:60|\
                     Sat 02:00-05:00 UTC x|Sat +2:00-05:00|Sat-Sun-Mon 02:00-05:00|, 02:00-05:00";
        for wrong in wrong.split('|') {
            assert!(Window::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_clocks_change_and_a_window_stays_at_its_hours() {
        // Berlin: forward on 2027-03-28 at 01:00 UTC, back on 2026-10-25 at 01:00 UTC.
        let berlin = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let is = |words: &str, now: &str| look(&[Window::parse(words).unwrap()], |_| berlin.clone(), at(now)).unwrap();
        let check = |words: &str, now: &str, open: bool, until: &str| {
            let expected = if open { WindowIs::Open(at(until)) } else { WindowIs::Closed(at(until)) };
            assert_eq!(is(words, now), expected, "{words} at {now}");
        };
        let hours = "Sun 04:00-05:00 Europe/Berlin";
        check(hours, "2027-03-21T00:00:00Z", false, "2027-03-21T03:00:00Z");
        check(hours, "2027-03-28T00:00:00Z", false, "2027-03-28T02:00:00Z");
        // From two to three there is no hour on that day: the next Sunday's is the next.
        check("Sun 02:00-03:00 Europe/Berlin", "2027-03-27T00:00:00Z", false, "2027-04-04T00:00:00Z");
        // It begins within the missing hour: it begins after it.
        check("Sun 02:30-03:45 Europe/Berlin", "2027-03-28T00:00:00Z", false, "2027-03-28T01:30:00Z");
        check("Sun 02:30-03:45 Europe/Berlin", "2027-03-28T01:30:00Z", true, "2027-03-28T01:45:00Z");
        // The hour from two to three comes twice: it is open for both.
        check("Sun 02:00-03:00 Europe/Berlin", "2026-10-25T00:00:00Z", true, "2026-10-25T02:00:00Z");
        // And what lies within it is open once, the first time.
        check("Sun 02:15-02:45 Europe/Berlin", "2026-10-25T00:15:00Z", true, "2026-10-25T00:45:00Z");
        check("Sun 02:15-02:45 Europe/Berlin", "2026-10-25T01:15:00Z", false, "2026-11-01T01:15:00Z");
        check("Sat 22:00-06:00 Europe/Berlin", "2026-10-25T04:30:00Z", true, "2026-10-25T05:00:00Z");
    }
}
