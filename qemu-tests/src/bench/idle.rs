//! A device that nobody uses: how often PID 1 wakes up, and what is written to the card.
//!
//! Each machine is left alone for [`SETTLING`] once everything runs, and then watched for
//! [`WATCHED`]; the figures are scaled to a day. The questions are two calls of `iota status`
//! through the command port, whose own wake-ups are in the figures.

use std::path::Path;
use std::time::Duration;

use builder::error::{Error, Result};
use builder::host::qemu::Options;
use serde_json::Value as Json;

use super::table::{Goal, Row, Value};
use crate::disk::Disk;
use crate::machine::Machine;

/// Emulated processors on a busy machine.
const LONG: Duration = Duration::from_secs(240);
/// Caches are written back, daemons have said what they say once.
const SETTLING: Duration = Duration::from_secs(120);
/// Two rounds of whoever collects lines for ten minutes.
const WATCHED: Duration = Duration::from_secs(1200);
/// How often PID 1 feeds a watchdog that would wait for longer (`initramfs/src/watchdog.rs`).
const FED_EACH: Duration = Duration::from_secs(5);
const DAY: Duration = Duration::from_secs(86_400);

/// Most that an idle device shall write in a day: a card of 32 GB lasts centuries with it.
const MOST_A_DAY: u64 = 5_000_000;

/// Watches the image as it is, and with a log that is kept.
pub fn run(outputs: &Path) -> Result<Vec<Row>> {
    let most = Goal::AtMost(Value::Megabytes(MOST_A_DAY));
    let mut rows = Vec::new();
    for (kind, config) in [("", "# as it is\n"), (", log kept", "[logs]\npersistent = true\n")] {
        let idle = watch(outputs, config)?;
        rows.push(
            Row::new(
                format!("PID 1 wakes up in an idle hour, its watchdog left out{kind}"),
                Value::Times(idle.wake_ups),
            )
            .goal(Goal::AtMost(Value::Times(60))),
        );
        rows.push(Row::new(
            format!("all programs' first threads wake up, in an idle hour{kind}"),
            Value::Times(idle.all_wake_ups),
        ));
        rows.push(
            Row::new(format!("written in an idle day{kind}"), Value::Megabytes(idle.written))
                .goal(most),
        );
    }
    Ok(rows)
}

/// What an idle device does: in an hour, and bytes in a day.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Idle {
    wake_ups: u64,
    all_wake_ups: u64,
    written: u64,
}

fn watch(outputs: &Path, config: &str) -> Result<Idle> {
    let disk = Disk::flashed_with_config(outputs, "bench-idle", config);
    let options = Options { persist: true, ..Options::new(disk.path()) };
    let mut machine = Machine::boot("bench-idle", &options);
    machine.expect_somewhere("system ready", LONG);
    std::thread::sleep(SETTLING);
    let before = machine.status();
    std::thread::sleep(WATCHED);
    let after = machine.status();
    between(&before, &after).ok_or_else(|| Error::new(format!("cannot read {before}, {after}")))
}

/// What happened from one answer of `iota status --json` to another.
fn between(before: &Json, after: &Json) -> Option<Idle> {
    let of_one = |status: &Json| wake_ups(status).find(|(pid, _)| *pid == 1).map(|(_, n)| n);
    let a_day = |count: u64| count * DAY.as_secs() / WATCHED.as_secs();
    let fed = WATCHED.as_secs() / FED_EACH.as_secs();
    let written = |status: &Json| status["data"]["written-bytes"].as_u64();
    let all: u64 = wake_ups(after)
        .map(|(pid, count)| {
            let known = wake_ups(before).find(|(other, _)| *other == pid);
            count.saturating_sub(known.map_or(0, |(_, before)| before))
        })
        .sum();
    Some(Idle {
        wake_ups: a_day((of_one(after)? - of_one(before)?).saturating_sub(fed)) / 24,
        all_wake_ups: a_day(all) / 24,
        written: a_day(written(after)?.checked_sub(written(before)?)?),
    })
}

fn wake_ups(status: &Json) -> impl Iterator<Item = (u64, u64)> {
    let processes = status["memory"]["processes"].as_array().into_iter().flatten();
    processes.filter_map(|it| Some((it["pid"].as_u64()?, it["wake-ups"].as_u64()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_happens_in_twenty_minutes_happens_three_times_in_an_hour() {
        let status = |one: u64, other: u64, written: u64| {
            json!({
                "memory": { "processes": [
                    { "pid": 1, "wake-ups": one },
                    { "pid": 70, "wake-ups": other },
                ] },
                "data": { "written-bytes": written },
            })
        };
        let found = between(&status(100, 5, 1000), &status(342, 25, 3000));
        let expected = Idle { wake_ups: 6, all_wake_ups: 3 * 262, written: 144_000 };
        assert_eq!(found, Some(expected));
        assert_eq!(between(&json!({}), &status(1, 1, 1)), None);
    }
}
