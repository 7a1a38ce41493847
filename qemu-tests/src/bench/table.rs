//! The table of a benchmark run: ours, a peer's, their ratio, the goal, and whether it is met.

use std::fmt;

/// A measured quantity.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Value {
    /// Seconds on the clock.
    Seconds(f64),
    /// Seconds of processor time, all cores together.
    CpuSeconds(f64),
    /// Bytes, shown in units of 10^6.
    Megabytes(u64),
    /// Bytes, shown in units of 2^20.
    Mebibytes(u64),
    /// How often something happens.
    Times(u64),
}

impl Value {
    fn number(self) -> f64 {
        match self {
            Self::Seconds(seconds) | Self::CpuSeconds(seconds) => seconds,
            // 2^53 bytes are far away.
            Self::Megabytes(count) | Self::Mebibytes(count) | Self::Times(count) => count as f64,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seconds(seconds) => write!(f, "{seconds:.2} s"),
            Self::CpuSeconds(seconds) => write!(f, "{seconds:.3} cpu s"),
            Self::Megabytes(_) => write!(f, "{:.1} MB", self.number() / 1e6),
            Self::Times(times) => write!(f, "{times} times"),
            Self::Mebibytes(_) => write!(f, "{:.1} MiB", self.number() / f64::from(1 << 20)),
        }
    }
}

/// What is aimed at.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Goal {
    /// At most this much.
    AtMost(Value),
    /// At most this many times the peer's.
    Times(f64),
}

/// One line: something measured, alone or beside a peer.
#[derive(Clone, PartialEq, Debug)]
pub struct Row {
    what: String,
    ours: Value,
    peer: Option<(String, Value)>,
    goal: Option<Goal>,
}

impl Row {
    /// A measurement of ours.
    pub fn new(what: impl Into<String>, ours: Value) -> Self {
        Self { what: what.into(), ours, peer: None, goal: None }
    }

    /// The same of a peer, measured in the same run.
    #[must_use]
    pub fn beside(mut self, peer: impl Into<String>, value: Value) -> Self {
        self.peer = Some((peer.into(), value));
        self
    }

    /// What is aimed at.
    #[must_use]
    pub fn goal(mut self, goal: Goal) -> Self {
        self.goal = Some(goal);
        self
    }

    fn ratio(&self) -> Option<f64> {
        let (_, peer) = self.peer.as_ref()?;
        (peer.number() > 0.0).then(|| self.ours.number() / peer.number())
    }

    /// `None` if nothing is aimed at, or nothing can be said.
    fn is_met(&self) -> Option<bool> {
        match self.goal? {
            Goal::AtMost(most) => Some(self.ours.number() <= most.number()),
            Goal::Times(most) => self.ratio().map(|ratio| ratio <= most),
        }
    }

    fn cells(&self) -> [String; COLUMNS] {
        let (peer, theirs) = match &self.peer {
            Some((name, value)) => (name.clone(), value.to_string()),
            None => (String::new(), String::new()),
        };
        let goal = match self.goal {
            Some(Goal::AtMost(most)) => format!("<= {most}"),
            Some(Goal::Times(most)) => format!("<= {most:.2} x"),
            None => String::new(),
        };
        let ratio = self.ratio().map(|ratio| format!("{ratio:.2} x")).unwrap_or_default();
        let met = match self.is_met() {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "",
        };
        [self.what.clone(), self.ours.to_string(), theirs, peer, ratio, goal, met.to_owned()]
    }
}

const COLUMNS: usize = 7;
const HEADS: [&str; COLUMNS] = ["what", "ours", "peer's", "peer", "ratio", "goal", ""];

/// All lines under one head, as Markdown, so that a run can be pasted into the documents.
pub fn table(rows: &[Row]) -> String {
    let mut lines = vec![HEADS.map(str::to_owned)];
    lines.extend(rows.iter().map(Row::cells));
    let width = |column: usize| lines.iter().map(|cells| cells[column].chars().count()).max();
    let widths: Vec<usize> = (0..COLUMNS).map(|column| width(column).unwrap_or(0)).collect();
    let line = |cells: &[String; COLUMNS]| {
        let cells = cells.iter().zip(&widths).map(|(cell, width)| format!(" {cell:<width$} |"));
        format!("|{}\n", cells.collect::<String>())
    };
    let rule: String = widths.iter().map(|width| format!("{}|", "-".repeat(width + 2))).collect();
    let body: String = lines[1..].iter().map(line).collect();
    format!("{}|{rule}\n{body}", line(&lines[0]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_say_what_is_met() {
        let rows = [
            Row::new("a", Value::CpuSeconds(1.0))
                .beside("peer", Value::CpuSeconds(2.0))
                .goal(Goal::Times(1.0)),
            Row::new("long name", Value::Megabytes(12_345_678))
                .goal(Goal::AtMost(Value::Megabytes(12_000_000))),
            Row::new("no goal", Value::Mebibytes(1 << 20)),
        ];
        let expected = "\
            | what | ours | peer's | peer | ratio | goal | | |||||||| \
            | a | 1.000 cpu s | 2.000 cpu s | peer | 0.50 x | <= 1.00 x | met | \
            | long name | 12.3 MB | | | | <= 12.0 MB | MISSED | \
            | no goal | 1.0 MiB | | | | | |";
        let squeezed =
            |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ").replace('-', "");
        assert_eq!(squeezed(&table(&rows)), expected);
        let lengths: Vec<usize> = table(&rows).lines().map(|line| line.chars().count()).collect();
        assert_eq!(lengths, [lengths[0]; 5]);
    }

    #[test]
    fn a_ratio_goal_without_a_peer_is_neither_met_nor_missed() {
        let row = Row::new("a", Value::Seconds(1.0)).goal(Goal::Times(1.0));
        assert_eq!(row.is_met(), None);
        assert_eq!(row.beside("p", Value::Seconds(0.0)).is_met(), None);
    }
}
