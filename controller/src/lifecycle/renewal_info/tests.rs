//! Windows as CAs tell them, sensible and not.

use super::super::renewal::tests::certificate;
use super::*;

const HALF: Draws = Draws { instant: 0.5, spread: 0.0 };

fn hour(hour: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + hour * 3_600).unwrap()
}

fn said(start: i64, end: i64) -> Suggestion {
    Suggestion { start: hour(start), end: hour(end), explanation_url: None, retry_after: None }
}

/// A version valid from hour 0 to hour 2160.
fn current() -> CurrentVersion {
    certificate(90 * 24).current.unwrap()
}

fn answered(earlier: Option<&RenewalInfo>, said: Suggestion, now: i64, draws: Draws) -> RenewalInfo {
    RenewalInfo::answered(earlier, &current(), ("c", said), hour(now), draws)
}

#[test]
fn the_instant_is_drawn_once_and_kept_while_the_window_stands() {
    let first = answered(None, said(1400, 1440), 1, HALF);
    assert_eq!(first.window.unwrap().instant, hour(1420));
    let other_draw = Draws { instant: 0.9, spread: 0.0 };
    let again = answered(Some(&first), said(1400, 1440), 1430, other_draw);
    assert_eq!(again.window, first.window, "even when it is past");
    assert!(!again.moved(Some(&first)));
    let moved = answered(Some(&again), said(100, 200), 50, other_draw);
    assert_eq!(moved.window.unwrap().instant, hour(190));
    assert!(moved.moved(Some(&again)));
    let widened = answered(Some(&moved), said(100, 300), 50, other_draw);
    assert!(!widened.moved(Some(&moved)), "the old instant lies in it");
}

#[test]
fn of_an_open_window_only_the_rest_is_drawn_from_and_a_past_one_means_now() {
    assert_eq!(answered(None, said(10, 30), 20, HALF).window.unwrap().instant, hour(25));
    let past = answered(None, said(10, 30), 40, HALF).window.unwrap().instant;
    assert_eq!(past, hour(30), "it has passed");
    for draw in [0.0, 1.0, -3.0, 7.0] {
        let draws = Draws { instant: draw, spread: 0.0 };
        let instant = answered(None, said(10, 30), 0, draws).window.unwrap().instant;
        assert!((hour(10)..=hour(30)).contains(&instant), "{draw}");
    }
}

#[test]
fn a_window_that_makes_no_sense_is_not_believed() {
    for (start, end) in [(30, 30), (30, 10), (-20, -10), (-20, 0)] {
        let info = answered(None, said(start, end), 1, HALF);
        assert_eq!(info.window, None, "{start} to {end}");
        assert!(info.problem.is_some_and(|problem| !problem.cause.is_empty()));
        let stood = answered(None, said(1400, 1440), 1, HALF);
        let info = answered(Some(&stood), said(start, end), 2, HALF);
        assert_eq!(info.window, stood.window, "what stood before stands");
    }
    let forever = Suggestion { start: Timestamp::MIN, end: Timestamp::MAX, ..said(0, 0) };
    assert!(answered(None, forever, 1, Draws { instant: 1.0, spread: 0.0 }).window.is_some(), "no overflow");
}

#[test]
fn asks_again_as_told_within_a_minute_and_a_day() {
    let asks = |retry_after: Option<u64>| {
        let said = Suggestion { retry_after: retry_after.map(Duration::from_secs), ..said(1400, 1440) };
        answered(None, said, 0, HALF).ask_at.duration_since(hour(0)).as_secs()
    };
    assert_eq!(asks(Some(21_600)), 21_600);
    assert_eq!(asks(Some(0)), 60);
    assert_eq!(asks(Some(1)), 60);
    assert_eq!(asks(Some(u64::MAX)), 1_440 * 60);
    assert_eq!(asks(None), 6 * 3_600);
    let spread = Draws { instant: 0.5, spread: 1.0 };
    assert_eq!(answered(None, said(1400, 1440), 0, spread).ask_at.duration_since(hour(0)).as_secs(), 23_760);
}

#[test]
fn failures_keep_what_is_known_and_are_spaced_out() {
    let problem = || Problem::new("CA_UNREACHABLE", "m", "c", "h");
    let stood = answered(None, said(1400, 1440), 1, HALF);
    let mut info = stood.clone();
    for seconds in [60, 600, 6_000, 21_600, 21_600] {
        info = RenewalInfo::failed(Some(&info), ("c", "v"), (problem(), None), hour(2), 0.0);
        assert_eq!(info.ask_at.duration_since(hour(2)).as_secs(), seconds);
        assert_eq!((info.window, info.answered_at), (stood.window, stood.answered_at));
    }
    let slow = Some(Duration::from_secs(40_000));
    assert_eq!(
        RenewalInfo::failed(None, ("c", "v"), (problem(), slow), hour(2), 0.0).ask_at.duration_since(hour(2)).as_secs(),
        40_000
    );
    assert_eq!(answered(Some(&info), said(1400, 1440), 3, HALF).failures, 0);
}
