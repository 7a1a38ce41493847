//! Names of time zones: data, since a device carries no rules of them.
//!
//! The host's own times are UTC. The name is for containers, which have the rules (`tzdata`) or do
//! not.

use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::string::String;

use crate::suggest;

/// One name a line, sorted; lines with `#` are comments.
const NAMES: &str = include_str!("zone/names.txt");

fn names() -> impl Iterator<Item = &'static str> {
    NAMES.lines().filter(|line| !line.starts_with('#'))
}

/// Reads a name of the list; an error is one clause, and says which one may have been meant.
pub(crate) fn zone(text: &str) -> Result<&'static str, String> {
    if let Some(known) = names().find(|known| *known == text) {
        return Ok(known);
    }
    let same = names().find(|known| known.eq_ignore_ascii_case(text));
    let city = names().find(|known| known.rsplit('/').next() == Some(text));
    Err(match same.or(city).or_else(|| suggest::nearest(text, names())) {
        Some(near) => format!("`{text}` is no time zone: did you mean `{near}`?"),
        None => format!("`{}` is no time zone", text.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_the_list_are_good_and_others_get_the_nearest() {
        assert!(names().count() > 500 && names().is_sorted());
        for good in ["Europe/Berlin", "UTC", "America/Argentina/Buenos_Aires", "Etc/GMT+5"] {
            assert_eq!(zone(good), Ok(good));
        }
        for (bad, near) in [
            ("Europe/Berln", "Europe/Berlin"),
            ("europe/berlin", "Europe/Berlin"),
            ("Berlin", "Europe/Berlin"),
            ("utc", "UTC"),
        ] {
            assert!(zone(bad).unwrap_err().ends_with(&format!("did you mean `{near}`?")), "{bad}");
        }
        for bad in ["", "CEST-2", "../etc/passwd", "#", "# without Factory, which is none."] {
            assert!(zone(bad).is_err(), "{bad}");
        }
    }
}
