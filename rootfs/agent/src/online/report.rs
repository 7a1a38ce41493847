//! What came of looking for updates, for `iota status`: a document in memory.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::own_config::report::write;

/// How it stands with updates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Seconds since 1970 by this device's clock, when a look last succeeded.
    pub looked_s: Option<u64>,
    /// What there is to do, in one word.
    pub verdict: String,
    /// What is known, in one clause.
    pub says: String,
    /// Why the last look or installation failed.
    pub error: Option<String>,
    /// What to do about that.
    pub hint: Option<String>,
    /// Number of the channel.
    pub number: u64,
    /// When the channel was signed, in seconds since 1970 by its publisher's clock.
    pub issued_s: u64,
    /// The version it offers.
    pub version: Option<String>,
    /// Whether it is started without a wait for the hours that the owner wants.
    pub critical: bool,
    /// What its publisher says is new.
    pub notes: Vec<String>,
}

impl Report {
    /// Where it is.
    pub fn path() -> PathBuf {
        "/run/iota/update.json".into()
    }

    /// Reads it; nobody has looked if there is none.
    pub fn read(path: &Path) -> Option<Self> {
        let document: Value = serde_json::from_str(&fs::read_to_string(path).ok()?).ok()?;
        let text = |name: &str| document[name].as_str().map(str::to_owned);
        let notes = document["notes"].as_array().into_iter();
        Some(Self {
            looked_s: document["looked-s"].as_u64(),
            verdict: text("verdict").unwrap_or_default(),
            says: text("says").unwrap_or_default(),
            error: text("error"),
            hint: text("hint"),
            number: document["number"].as_u64().unwrap_or_default(),
            issued_s: document["issued-s"].as_u64().unwrap_or_default(),
            version: text("version"),
            critical: document["critical"].as_bool().unwrap_or_default(),
            notes: notes.flatten().filter_map(Value::as_str).map(str::to_owned).collect(),
        })
    }

    /// Puts it there.
    pub fn write(&self, path: &Path) -> Result<(), String> {
        write(path, &self.json()).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// For programs.
    pub fn json(&self) -> Value {
        json!({
            "looked-s": self.looked_s,
            "verdict": self.verdict,
            "says": self.says,
            "error": self.error,
            "hint": self.hint,
            "number": self.number,
            "issued-s": self.issued_s,
            "version": self.version,
            "critical": self.critical,
            "notes": self.notes,
        })
    }

    /// A line for people.
    pub fn line(&self) -> String {
        match &self.error {
            Some(error) => format!("{}; ERROR: {error}", self.says),
            None => self.says.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_back_and_tells_trouble_after_what_is_known() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("update.json");
        assert_eq!(Report::read(&path), None);
        let report = Report {
            looked_s: Some(1_764_341_000),
            verdict: "install".to_owned(),
            says: "2.0 is there".to_owned(),
            error: Some("no connection".to_owned()),
            hint: Some("wait".to_owned()),
            number: 7,
            issued_s: 1_764_340_000,
            version: Some("2.0".to_owned()),
            critical: true,
            notes: vec!["Closes a hole.".to_owned(), "Starts sooner.".to_owned()],
        };
        report.write(&path).unwrap();
        assert_eq!(Report::read(&path), Some(report.clone()));
        assert_eq!(report.line(), "2.0 is there; ERROR: no connection");
    }
}
