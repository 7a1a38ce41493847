//! Days of the calendar, for programs that have no library for it.

use core::fmt;

/// The day of a moment, given in seconds since 1970: `2026-11-29`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Day(pub u64);

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = self.0 / 86_400;
        // A time beyond what can be told apart is far away; the search below has to end.
        let (year, month, day) = date_of(i64::try_from(days.min(10_000_000)).unwrap_or(0));
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

/// Days from 1970-01-01 to a day. Years begin in March here, so that the leap day is a year's last.
///
/// Months and days count from 1. OK to saturate: years of any clock are far from the end of 64
/// bits.
pub const fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year.saturating_sub(1) } else { year };
    let months_since_march = month.saturating_add(9).rem_euclid(12);
    let days_before_month = months_since_march.saturating_mul(153).saturating_add(2).div_euclid(5);
    let leap_days = year
        .div_euclid(4)
        .saturating_sub(year.div_euclid(100))
        .saturating_add(year.div_euclid(400));
    // 719,468 days lie between the first of March of the year 0 and the epoch.
    year.saturating_mul(365)
        .saturating_add(leap_days)
        .saturating_add(days_before_month)
        .saturating_add(day)
        .saturating_sub(719_469)
}

/// Year, month and day of a day after 1970-01-01, the other way round.
///
/// OK to saturate, as above.
pub const fn date_of(days: i64) -> (i64, i64, i64) {
    // Never too late, since no year has more days.
    let mut year = days.div_euclid(366).saturating_add(1970);
    while days_since_epoch(year.saturating_add(1), 1, 1) <= days {
        year = year.saturating_add(1);
    }
    let mut month = 1_i64;
    while month < 12 && days_since_epoch(year, month.saturating_add(1), 1) <= days {
        month = month.saturating_add(1);
    }
    (year, month, days.saturating_sub(days_since_epoch(year, month, 1)).saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_turned_into_its_date_and_back() {
        for days in 0..80_000 {
            let (year, month, day) = date_of(days);
            assert_eq!(days_since_epoch(year, month, day), days);
            assert!((1..=12).contains(&month) && (1..=31).contains(&day), "{year}-{month}-{day}");
        }
        assert_eq!(date_of(11_016), (2000, 2, 29));
        assert_eq!(date_of(20_818), (2026, 12, 31));
        assert_eq!(Day(20_818 * 86_400 + 86_399).to_string(), "2026-12-31");
        assert_eq!(Day(0).to_string(), "1970-01-01");
        assert!(Day(u64::MAX).to_string().ends_with("-26"), "{}", Day(u64::MAX));
    }

    #[test]
    fn days_are_those_that_date_counts() {
        // `date -u -d DAY +%s`, divided by 86,400.
        for ((year, month, day), days) in [
            ((1970, 1, 1), 0),
            ((1970, 3, 1), 59),
            ((2000, 2, 29), 11_016),
            ((2000, 3, 1), 11_017),
            ((2026, 12, 31), 20_818),
            ((2027, 1, 1), 20_819),
            ((2100, 3, 1), 47_541),
            ((1, 1, 1), -719_162),
        ] {
            assert_eq!(days_since_epoch(year, month, day), days, "{year}-{month}-{day}");
        }
    }
}
