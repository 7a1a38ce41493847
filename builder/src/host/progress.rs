//! What the user sees while work goes on: bars on a terminal, plain lines elsewhere.
//!
//! Everything goes to standard error, so that standard output stays data. Tasks run in parallel:
//! each has a bar of its own. Without a terminal a task is one line when it starts to take time
//! and one when it is done, so that a log stays readable. Quiet mode prints warnings only.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Where progress goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Bars that redraw themselves.
    Bars,
    /// One line an event.
    Lines,
    /// Warnings only.
    Quiet,
}

/// What a task counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Bytes, shown as MB with a rate.
    Bytes,
    /// Things, shown as `3/45`.
    Items,
}

/// The one printer of a run; cheap to clone and to share between threads.
#[derive(Clone)]
pub struct Progress {
    mode: Mode,
    bars: MultiProgress,
}

impl Progress {
    /// Bars if standard error is a terminal, lines if not, nothing but warnings when `quiet`.
    pub fn new(quiet: bool) -> Self {
        Self::with_mode(match () {
            () if quiet => Mode::Quiet,
            () if std::io::stderr().is_terminal() => Mode::Bars,
            () => Mode::Lines,
        })
    }

    /// Warnings only; for tests and for `--json`.
    pub fn quiet() -> Self {
        Self::with_mode(Mode::Quiet)
    }

    /// A printer of the given mode.
    pub fn with_mode(mode: Mode) -> Self {
        let target = match mode {
            Mode::Bars => ProgressDrawTarget::stderr_with_hz(10),
            Mode::Lines | Mode::Quiet => ProgressDrawTarget::hidden(),
        };
        Self { mode, bars: MultiProgress::with_draw_target(target) }
    }

    /// The mode in force.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Prints one line of information above the bars; nothing in quiet mode.
    pub fn line(&self, text: impl AsRef<str>) {
        if self.mode != Mode::Quiet {
            self.print(text.as_ref());
        }
    }

    /// Prints a warning in every mode.
    pub fn warn(&self, text: impl AsRef<str>) {
        self.print(&format!("warning: {}", text.as_ref()));
    }

    fn print(&self, line: &str) {
        // Nobody is left to tell when standard error is closed.
        self.bars.suspend(|| {
            let _ = writeln!(std::io::stderr().lock(), "{line}");
        });
    }

    /// Starts a task that counts up to `total`; 0 when the total is not known yet.
    pub fn task(&self, name: impl Into<String>, unit: Unit, total: u64) -> Task {
        let name = name.into();
        let bar = self.bars.add(ProgressBar::new(total));
        bar.set_style(style(unit, total > 0));
        bar.set_prefix(name.clone());
        bar.enable_steady_tick(Duration::from_millis(100));
        Task {
            shared: Arc::new(Shared {
                progress: self.clone(),
                name,
                unit,
                bar,
                started: Instant::now(),
                next_line_at_ms: AtomicU64::new(FIRST_LINE_MS),
            }),
        }
    }
}

/// Without a terminal, a task says how far it is after this time, then after twice that and so on.
const FIRST_LINE_MS: u64 = 2_000;

/// A running task. Clones count on the same bar, which disappears with the last of them.
#[derive(Clone)]
pub struct Task {
    shared: Arc<Shared>,
}

struct Shared {
    progress: Progress,
    name: String,
    unit: Unit,
    bar: ProgressBar,
    started: Instant,
    next_line_at_ms: AtomicU64,
}

impl Task {
    /// Counts `amount` more bytes or items.
    pub fn add(&self, amount: u64) {
        self.shared.bar.inc(amount);
        self.shared.line_when_due();
    }

    /// Takes back what a failed attempt counted.
    pub fn take_back(&self, amount: u64) {
        self.shared.bar.dec(amount);
    }

    /// Sets how far it is: another attempt may begin elsewhere.
    pub fn set_done(&self, amount: u64) {
        self.shared.bar.set_position(amount);
    }

    /// Sets the total once it is known.
    pub fn set_total(&self, total: u64) {
        self.shared.bar.set_length(total);
        self.shared.bar.set_style(style(self.shared.unit, total > 0));
    }

    /// Shows what is being worked on, after the bar.
    pub fn detail(&self, text: impl Into<String>) {
        self.shared.bar.set_message(text.into());
    }

    /// Removes the bar and prints a closing line, such as `fetched 45 packages, 125 MB`.
    pub fn finish(&self, line: impl AsRef<str>) {
        self.shared.bar.finish_and_clear();
        let seconds = self.shared.started.elapsed().as_secs_f64();
        self.shared.progress.line(format!("{} in {seconds:.1} s", line.as_ref()));
    }
}

impl Shared {
    fn line_when_due(&self) {
        if self.progress.mode != Mode::Lines {
            return;
        }
        let due = self.next_line_at_ms.load(Ordering::Relaxed);
        let elapsed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let order = Ordering::Relaxed;
        if elapsed < due
            || self.next_line_at_ms.compare_exchange(due, elapsed * 2, order, order).is_err()
        {
            return;
        }
        let (done, total) = (self.bar.position(), self.bar.length().unwrap_or(0));
        self.progress.line(state_line(&self.name, self.unit, done, total));
    }
}

/// `fetch: 12 MB of 125 MB`; without the end as long as the total is not known.
fn state_line(name: &str, unit: Unit, done: u64, total: u64) -> String {
    let show = |number: u64| match unit {
        Unit::Bytes => megabytes(number),
        Unit::Items => number.to_string(),
    };
    match total {
        0 => format!("{name}: {}", show(done)),
        _ => format!("{name}: {} of {}", show(done), show(total)),
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn style(unit: Unit, total_known: bool) -> ProgressStyle {
    ProgressStyle::with_template(template(unit, total_known))
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

fn template(unit: Unit, total_known: bool) -> &'static str {
    match (unit, total_known) {
        (Unit::Bytes, true) => concat!(
            "{prefix:>12} [{bar:30}] {decimal_bytes}/{decimal_total_bytes} ",
            "{decimal_bytes_per_sec} {wide_msg}"
        ),
        (Unit::Bytes, false) => "{prefix:>12} {decimal_bytes} {wide_msg}",
        (Unit::Items, true) => "{prefix:>12} [{bar:30}] {pos}/{len} {wide_msg}",
        (Unit::Items, false) => "{prefix:>12} {pos} {wide_msg}",
    }
}

/// Bytes for people: `93 MB`, `1.2 MB`, `12 kB`; decimal, as download sizes are quoted.
pub fn megabytes(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{} kB", bytes / 1_000),
        1_000_000..10_000_000 => {
            format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000)
        }
        _ => format!("{} MB", bytes / 1_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_download_sizes_do() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (12_345, "12 kB"),
            (1_250_000, "1.2 MB"),
            (93_512_345, "93 MB"),
        ] {
            assert_eq!(megabytes(bytes), text);
        }
    }

    #[test]
    fn a_state_line_leaves_out_an_unknown_total() {
        assert_eq!(state_line("fetch", Unit::Bytes, 5_000, 9_000), "fetch: 5 kB of 9 kB");
        assert_eq!(state_line("indices", Unit::Bytes, 5_000, 0), "indices: 5 kB");
        assert_eq!(state_line("sign", Unit::Items, 1, 2), "sign: 1 of 2");
    }

    #[test]
    fn clones_of_a_task_count_on_one_bar() {
        let task = Progress::quiet().task("fetch", Unit::Items, 10);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let task = task.clone();
                scope.spawn(move || task.add(2));
            }
        });
        task.take_back(1);
        assert_eq!(task.shared.bar.position(), 7);
    }

    #[test]
    fn every_template_is_valid() {
        for unit in [Unit::Bytes, Unit::Items] {
            for total_known in [false, true] {
                assert!(ProgressStyle::with_template(template(unit, total_known)).is_ok());
            }
        }
    }
}
