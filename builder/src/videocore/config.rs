//! `config.txt` as the firmware reads it: lines, filters, and which setting a model sees.
//!
//! Follows the vendor's pages on the file format and on conditional filters. A filter that asks
//! for something other than the model (a monitor, a pin, a serial number) is taken as not passed:
//! what a boot needs must not hang on it.

use super::model::Model;
use crate::suggest;

#[path = "config_keys.rs"]
mod keys;

/// Behind this column of a line nothing is read.
const MOST_COLUMNS: usize = 98;

/// Every model filter that the firmware of 2026 holds.
const MODEL_FILTERS: [&str; 17] = [
    "pi0",
    "pi0w",
    "pi02",
    "pi1",
    "pi2",
    "pi3",
    "pi3+",
    "pi4",
    "pi400",
    "pi5",
    "pi500",
    "cm0",
    "cm4",
    "cm4s",
    "cm5",
    "none",
    "board-type=",
];
/// How filters begin that ask for something else than the model; also of that firmware.
const OTHER_FILTERS: [&str; 10] = [
    "tryboot",
    "EDID=",
    "gpio",
    "HDMI:",
    "0x",
    "partition=",
    "boot_partition=",
    "bootvar0",
    "board_attributes",
    "cust_otp",
];

/// The settings of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Config {
    settings: Vec<Setting>,
}

/// `key=value` under its filters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Setting {
    /// Line number from 1.
    pub line: usize,
    /// Key, without the number of a port.
    pub key: String,
    /// Everything behind the `=`.
    pub value: String,
    filters: Filters,
}

/// What stands in the way of a setting.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Filters {
    /// The last model filter; each replaces the one before.
    model: Option<String>,
    /// The last filter of any other sort.
    other: Option<String>,
}

/// A line that does not do what it seems to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Complaint {
    /// Line number from 1.
    pub line: usize,
    /// What stands there.
    pub what: String,
    /// What the firmware makes of it.
    pub why: &'static str,
    /// What to change.
    pub mend: String,
    /// The key that was probably meant.
    pub meant: Option<&'static str>,
}

impl Config {
    /// Reads a file; the complaints are about lines that no model understands.
    pub(super) fn parse(text: &str) -> (Self, Vec<Complaint>) {
        let (mut config, mut complaints) = (Self::default(), Vec::new());
        let mut filters = Filters::default();
        for (index, line) in text.split('\n').enumerate() {
            let (number, line) = (index + 1, line.trim_end_matches('\r').trim_start());
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            if line.chars().count() > MOST_COLUMNS {
                complaints.push(too_long(number));
            }
            let taken = match line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
                Some(filter) => filters.set(filter).map_err(|meant| unknown_filter(filter, meant)),
                None => Setting::parse(number, line, &filters)
                    .map(|setting| config.settings.push(setting)),
            };
            complaints.extend(taken.err().map(|complaint| Complaint { line: number, ..complaint }));
        }
        (config, complaints)
    }

    /// The value that a model sees: the last one that its filters let through.
    pub(super) fn value(&self, key: &str, model: Model) -> Option<&str> {
        self.all(key, model).last().map(|setting| setting.value.as_str())
    }

    /// All settings of a key that a model sees; few keys, such as `dtoverlay`, add up.
    pub(super) fn all(&self, key: &str, model: Model) -> impl Iterator<Item = &Setting> {
        self.settings.iter().filter(move |setting| setting.key == key && setting.reaches(model))
    }

    /// A setting of that key and value which a model does not see.
    pub(super) fn withheld(&self, key: &str, value: &str, model: Model) -> Option<&Setting> {
        self.settings.iter().find(|setting| {
            (setting.key.as_str(), setting.value.as_str()) == (key, value)
                && !setting.reaches(model)
        })
    }
}

impl Setting {
    fn parse(line: usize, text: &str, filters: &Filters) -> Result<Self, Complaint> {
        let complaint = |why, mend: String, meant| Complaint {
            line,
            what: format!("`{text}`"),
            why,
            mend,
            meant,
        };
        let Some((key, value)) = text.split_once('=') else {
            return match text.split_once(' ') {
                Some(("initramfs", value)) => Ok(Self::new(line, "initramfs", value, filters)),
                Some(("include", _)) => Err(complaint(
                    "neither bootcode.bin nor the EEPROM reads included files",
                    "write the settings into config.txt itself".into(),
                    None,
                )),
                _ => Err(complaint(
                    "a line is `key=value`, a filter or a comment",
                    "remove the line or start it with `#`".into(),
                    None,
                )),
            };
        };
        let name = key.split(':').next().unwrap_or(key);
        if keys::KNOWN.binary_search(&name).is_ok() {
            return Ok(Self::new(line, name, value, filters));
        }
        let meant = suggest::nearest(name, keys::KNOWN)
            .and_then(|meant| keys::KNOWN.iter().copied().find(|known| *known == meant));
        let mend = match meant {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => "remove the line; keys are listed in the vendor's documentation".into(),
        };
        Err(complaint("the firmware skips a key that it does not know", mend, meant))
    }

    fn new(line: usize, key: &str, value: &str, filters: &Filters) -> Self {
        Self { line, key: key.into(), value: value.into(), filters: filters.clone() }
    }

    /// The filters in words, as they stand in the file.
    pub(super) fn filters(&self) -> String {
        let both = [&self.filters.other, &self.filters.model];
        both.into_iter().flatten().map(|filter| format!("[{filter}]")).collect()
    }

    fn reaches(&self, model: Model) -> bool {
        self.filters.other.is_none()
            && self.filters.model.as_deref().is_none_or(|filter| passes(filter, model))
    }
}

impl Filters {
    /// Takes one filter; `Err` with the nearest known one if there is no such filter.
    fn set(&mut self, filter: &str) -> Result<(), Option<&'static str>> {
        if filter == "all" {
            *self = Self::default();
        } else if MODEL_FILTERS.contains(&filter) || filter.starts_with("board-type=") {
            self.model = Some(filter.to_owned());
        } else if OTHER_FILTERS.iter().any(|start| filter.starts_with(start)) {
            self.other = Some(filter.to_owned());
        } else {
            // What is not understood lets nothing through.
            self.other = Some(filter.to_owned());
            let known = MODEL_FILTERS.into_iter().chain(["all", "tryboot"]);
            let near = suggest::nearest(filter, known.clone());
            return Err(near.and_then(|near| known.clone().find(|known| *known == near)));
        }
        Ok(())
    }
}

fn passes(filter: &str, model: Model) -> bool {
    match filter.strip_prefix("board-type=") {
        Some(number) => {
            let hexadecimal = number.trim_start_matches("0x");
            let number = u32::from_str_radix(hexadecimal, 16);
            number.is_ok_and(|number| model.board_types().contains(&number))
        }
        None => model.filters().contains(&filter),
    }
}

fn too_long(line: usize) -> Complaint {
    Complaint {
        line,
        what: format!("a line of more than {MOST_COLUMNS} characters"),
        why: "the firmware ignores what is behind them",
        mend: "shorten the line".into(),
        meant: None,
    }
}

fn unknown_filter(filter: &str, meant: Option<&str>) -> Complaint {
    Complaint {
        line: 0,
        what: format!("`[{filter}]`"),
        why: "there is no such filter, so nothing behind it is read",
        mend: meant.map_or_else(
            || "use a filter of the vendor's documentation".into(),
            |meant| format!("did you mean `[{meant}]`?"),
        ),
        meant: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str, model: Model) -> Option<String> {
        Config::parse(text).0.value("gpu_mem", model).map(str::to_owned)
    }

    #[test]
    fn a_model_sees_what_its_filters_let_through_and_the_last_value_wins() {
        let text = "gpu_mem=16\n[pi3]\ngpu_mem=32\r\n[pi3+]\ngpu_mem=48\n[pi02]\ngpu_mem=64\n\
                    [board-type=0x13]\ngpu_mem=80\n";
        assert_eq!(value(text, Model::Pi3B).as_deref(), Some("32"));
        assert_eq!(value(text, Model::Pi3BPlus).as_deref(), Some("48"));
        assert_eq!(value(text, Model::Zero2W).as_deref(), Some("64"));
        assert_eq!(value(text, Model::Pi400).as_deref(), Some("80"));
        assert_eq!(value(text, Model::Pi4B).as_deref(), Some("16"));
    }

    #[test]
    fn filters_of_two_sorts_add_up_until_all() {
        let text = "[gpio4=1]\n[pi4]\ngpu_mem=16\n[all]\n[none]\ngpu_mem=32\n";
        assert_eq!(value(text, Model::Pi4B), None);
        assert_eq!(value(&format!("{text}[all]\ngpu_mem=48"), Model::Pi4B).as_deref(), Some("48"));
    }

    fn complaint(text: &str) -> String {
        let (_, complaints) = Config::parse(text);
        let [complaint] = complaints.try_into().unwrap();
        let Complaint { line, what, why, mend, .. } = complaint;
        format!("{line}: {what}: {why} ({mend})")
    }

    #[test]
    fn lines_that_do_nothing_are_named_with_what_was_meant() {
        assert_eq!(
            complaint("\nenable_uartt=1"),
            "2: `enable_uartt=1`: the firmware skips a key that it does not know \
             (did you mean `enable_uart`?)"
        );
        assert_eq!(
            complaint("arm_64bit =1"),
            "1: `arm_64bit =1`: the firmware skips a key that it does not know \
             (did you mean `arm_64bit`?)"
        );
        assert_eq!(
            complaint("[pi44]\n"),
            "1: `[pi44]`: there is no such filter, so nothing behind it is read \
             (did you mean `[pi4]`?)"
        );
        assert_eq!(
            complaint("include more.txt"),
            "1: `include more.txt`: neither bootcode.bin nor the EEPROM reads included files \
             (write the settings into config.txt itself)"
        );
        assert_eq!(
            complaint("uart"),
            "1: `uart`: a line is `key=value`, a filter or a comment \
             (remove the line or start it with `#`)"
        );
    }

    #[test]
    fn a_line_is_read_as_far_as_its_98th_character() {
        let line = |length: usize| format!("cmdline={}", "x".repeat(length - 8));
        assert_eq!(Config::parse(&line(98)).1, []);
        assert_eq!(Config::parse(&line(99)).1, [too_long(1)]);
        assert_eq!(Config::parse(&format!("# {}", line(99))).1, []);
    }

    #[test]
    fn the_list_of_keys_is_sorted_and_has_none_twice() {
        assert!(keys::KNOWN.is_sorted_by(|left, right| left < right));
    }
}
