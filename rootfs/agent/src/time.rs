//! Times as engines write them (RFC 3339) and as they want them back (seconds of the epoch).

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use ondisk::calendar::{Day, days_since_epoch};

/// Seconds since 1970 by the system's clock, which may be wrong.
pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs())
}

/// A point in time, to the nanosecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    seconds: i64,
    nanoseconds: u32,
}

impl Moment {
    /// This moment by the system's clock, which may be wrong; the engine has the same one.
    pub fn now() -> Self {
        Self::of(SystemTime::now())
    }

    /// A time of a file; what is before 1970 counts as that.
    pub fn of(time: SystemTime) -> Self {
        let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            seconds: i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX),
            nanoseconds: since_epoch.subsec_nanos(),
        }
    }

    /// Reads `2026-11-23T14:29:30.123456789Z`, with any or no fraction and any offset.
    pub fn parse(text: &str) -> Option<Self> {
        let (date, rest) = text.split_once('T')?;
        let (time, offset) = match rest.strip_suffix('Z') {
            Some(time) => (time, 0),
            None => split_offset(rest)?,
        };
        let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
        let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
        let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
        let in_range = (1..=12).contains(&month)
            && (1..=days_of_month(year, month)).contains(&day)
            && (0..=23).contains(&hour)
            && (0..=59).contains(&minute)
            && (0..=60).contains(&second);
        let clock = hour * 3600 + minute * 60 + second;
        let nanoseconds = nanoseconds(fraction)?;
        let seconds = days_since_epoch(year, month, day) * 86_400 + clock - offset;
        in_range.then_some(Self { seconds, nanoseconds })
    }

    /// True unless it is the zero that engines write for "never", which lies in the year 1.
    pub fn is_real(&self) -> bool {
        self.seconds > 0
    }

    /// Whole seconds since an earlier moment; none since a later one.
    pub fn seconds_since(&self, earlier: Self) -> u64 {
        u64::try_from(self.seconds.saturating_sub(earlier.seconds)).unwrap_or(0)
    }

    /// As [`Moment::parse`] reads it, in UTC. What is before 1970 is written as that.
    pub fn rfc3339(&self) -> String {
        let seconds = u64::try_from(self.seconds).unwrap_or(0);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        let (day, nanoseconds) = (Day(seconds), self.nanoseconds);
        format!("{day}T{hour:02}:{minute:02}:{second:02}.{nanoseconds:09}Z")
    }

    /// The next nanosecond.
    #[must_use]
    pub fn next(self) -> Self {
        match self.nanoseconds {
            999_999_999 => Self { seconds: self.seconds.saturating_add(1), nanoseconds: 0 },
            other => Self { nanoseconds: other + 1, ..self },
        }
    }
}

/// Seconds of the epoch with nine digits of fraction: `1795444170.123456789`.
impl fmt::Display for Moment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{:09}", self.seconds, self.nanoseconds)
    }
}

/// `14:29:30+02:00` → the time and the offset in seconds.
fn split_offset(text: &str) -> Option<(&str, i64)> {
    let sign = text.rfind(['+', '-'])?;
    let (time, offset) = text.split_at(sign);
    let [hours, minutes] = numbers(&offset[1..], ':', [2, 2])?;
    let seconds = hours * 3600 + minutes * 60;
    let fine = hours <= 23 && minutes <= 59;
    fine.then_some((time, if offset.starts_with('-') { -seconds } else { seconds }))
}

/// Exactly `N` numbers of exactly these many digits.
fn numbers<const N: usize>(text: &str, separator: char, digits: [usize; N]) -> Option<[i64; N]> {
    let mut parts = text.split(separator);
    let mut values = [0; N];
    for (value, digits) in values.iter_mut().zip(digits) {
        let part = parts.next()?;
        let fine = part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit());
        *value = fine.then(|| part.parse().ok())??;
    }
    parts.next().is_none().then_some(values)
}

/// One to nine digits after the point; further ones are cut.
fn nanoseconds(fraction: &str) -> Option<u32> {
    let fine = !fraction.is_empty() && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let nine = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
    fine.then(|| nine.fold(0, |value, digit| value * 10 + u32::from(digit - b'0')))
}

fn days_of_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_become_seconds_of_the_epoch() {
        // Expected values from `date -u -d TEXT +%s`.
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", "0.000000000"),
            ("2026-11-23T14:29:30.123456789Z", "1795444170.123456789"),
            ("2024-02-29T23:59:59.5Z", "1709251199.500000000"),
            ("2000-03-01T00:00:00Z", "951868800.000000000"),
            ("2026-11-23T16:29:30.1234567891+02:00", "1795444170.123456789"),
            ("2026-11-23T04:29:30-10:00", "1795444170.000000000"),
            ("0001-01-01T00:00:00Z", "-62135596800.000000000"),
        ] {
            let moment = Moment::parse(text).map(|moment| moment.to_string());
            assert_eq!(moment.as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "T",
            "Z",
            "hello",
            "2026-11-23",
            "2026-11-23T14:29Z",
            "2026-11-23T14:29:30",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-11-00T00:00:00Z",
            "2026-11-23T24:00:00Z",
            "2026-11-23T14:60:00Z",
            "2026-11-23T14:29:30.Z",
            "2026-11-23T14:29:30.1x2Z",
            "+026-11-23T14:29:30Z",
            "2026-11-23T14:29:30+2:00",
            "2026-11-23T14:29:30+24:00",
            "2026-11-23T14:29:30:1Z",
            "é026-11-23T14:29:30Z",
        ] {
            assert_eq!(Moment::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_time_is_written_as_it_is_read() {
        for text in ["1970-01-01T00:00:00.000000000Z", "2026-11-28T20:09:05.123456789Z"] {
            assert_eq!(Moment::parse(text).unwrap().rfc3339(), text);
        }
        let (first, later) = ("2026-11-28T20:00:00.9Z", "2026-11-28T20:01:00.1Z");
        let (first, later) = (Moment::parse(first).unwrap(), Moment::parse(later).unwrap());
        assert_eq!((later.seconds_since(first), first.seconds_since(later)), (60, 0));
    }

    #[test]
    fn the_next_nanosecond_carries() {
        let moment = Moment::parse("1970-01-01T00:00:01.999999999Z").unwrap();
        assert_eq!(moment.next().to_string(), "2.000000000");
        assert!(moment.next() > moment);
    }
}
