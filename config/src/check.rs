//! `iota config check`: the same words on the host and on a device.

use alloc::format;
use alloc::string::String;

use serde_json::Value;

use crate::Config;
use crate::import::{Imported, Name};
use crate::problem::{Problems, document};

/// What there is to say of a good file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Good {
    /// For people.
    pub text: String,
    /// For programs.
    pub document: Value,
}

/// Checks an `iota.toml`, or by its name a file that is [imported](crate::import); `file` is how
/// its owner calls it.
pub fn check(file: &str, bytes: &[u8]) -> Result<Good, Problems> {
    let name = file.rsplit('/').next().and_then(Name::of);
    let Some(name) = name else {
        Config::parse(bytes)?;
        return Ok(Good { text: format!("{file} is good\n"), document: document(file, None) });
    };
    let imported = Imported::of_file(name, bytes)?;
    Ok(Good { text: imported.render(file), document: imported.document(file) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_cloud_init_is_known_by_its_name_and_shown_as_what_it_means() {
        let bytes = b"#cloud-config\nhostname: box\nruncmd: []\n";
        let good = check("card/user-data", bytes).unwrap();
        let expected = "card/user-data:3:1: `runcmd` is not supported\n  3 | runcmd: []\n    | ^\n\
            card/user-data can be imported, 1 left out; it means:\n\nhostname = \"box\"\n";
        assert_eq!(good.text, expected);
        assert_eq!(good.document["good"], true);
        assert_eq!(good.document["left-out"][0]["line"], 3);
        assert!(check("user-data", b"#cloud-config\na: [\n").is_err());
        assert!(check("iota.toml", bytes).is_err());
        assert_eq!(check("iota.toml", b"#\n").unwrap().text, "iota.toml is good\n");
    }
}
