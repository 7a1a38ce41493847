//! `iota config check`: what is wrong with an `iota.toml`, before a device has to say it; of a file
//! of cloud-init or Raspberry Pi Imager, what a device makes of it. Other verbs that take an
//! `iota.toml` load it here.

use std::path::Path;
use std::process::ExitCode;

use ::config::problem::document;
use ::config::{READ_BYTES, check};

use crate::error::{Context as _, Result};
use crate::flash::config::Config as OwnersFile;
use crate::host::output::{self, out};

/// Prints every problem; exit code 2 if there is one, as for a file that cannot be read.
pub fn check(file: &Path, json: bool) -> Result<ExitCode> {
    let shown = file.display().to_string();
    let bytes = read(file).context(|| format!("cannot read {shown}"))?;
    match check::check(&shown, &bytes) {
        Ok(good) if json => out!("{}", good.document),
        Ok(good) => output::print(format_args!("{}", good.text)),
        Err(problems) => {
            match json {
                true => out!("{}", document(&shown, Some(&problems))),
                false => problems.iter().for_each(|it| eprint!("{}", it.render(&shown))),
            }
            return Ok(ExitCode::from(2));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A file that is put into a boot partition; a wrong one is an error, with the first mistake.
pub(super) fn load(path: &Path) -> Result<OwnersFile> {
    let shown = || path.display().to_string();
    let bytes = read(path).context(|| format!("cannot read {}", shown()))?;
    OwnersFile::new(bytes).context(shown)
}

/// No more than shows that it is too long.
fn read(file: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let most = u64::try_from(READ_BYTES).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    std::fs::File::open(file)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use ::config::Config;

    use super::*;

    #[test]
    fn a_good_file_is_0_a_bad_one_2_and_none_at_all_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("iota.toml");
        assert!(check(&path, false).unwrap_err().chain().starts_with("cannot read "));
        for (text, code) in [("hostname = \"box\"\n", 0), ("hostnam = \"box\"\n", 2), ("", 2)] {
            std::fs::write(&path, text).unwrap();
            for json in [false, true] {
                assert_eq!(check(&path, json).unwrap(), ExitCode::from(code), "{text}");
            }
        }
    }

    #[test]
    fn a_file_of_cloud_init_is_known_by_its_name_and_wrong_only_if_it_cannot_be_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("user-data");
        let good = "#cloud-config\nhostname: box\nruncmd: []\n";
        for (text, code) in [(good, 0), ("#cloud-config\na: [\n", 2), ("", 2)] {
            std::fs::write(&path, text).unwrap();
            for json in [false, true] {
                assert_eq!(check(&path, json).unwrap(), ExitCode::from(code), "{text}");
            }
        }
    }

    #[test]
    fn a_file_for_a_boot_partition_is_loaded_only_if_it_is_good() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("iota.toml");
        std::fs::write(&path, "hostname = \"box\"\n").unwrap();
        assert_eq!(load(&path).unwrap().bytes(), b"hostname = \"box\"\n");
        std::fs::write(&path, "hostnam = \"box\"\n").unwrap();
        let error = load(&path).unwrap_err();
        let expected = "iota.toml: line 1, column 1: `hostnam` is not a key";
        assert!(error.chain().ends_with(expected), "{}", error.chain());
        assert_eq!(error.next_step(), Some("did you mean `hostname`?"));
    }

    #[test]
    fn json_has_the_place_and_the_hint_of_each_problem() {
        let problems = Config::parse(b"hostnam = \"box\"\n[health]\nwindow-s = 1\n").unwrap_err();
        let found = document("iota.toml", Some(&problems));
        assert_eq!(found["good"], false);
        let first = json!({
            "line": 1,
            "column": 1,
            "text": "hostnam = \"box\"",
            "message": "`hostnam` is not a key",
            "hint": "did you mean `hostname`?",
        });
        assert_eq!(found["problems"][0], first);
        assert_eq!(found["problems"][1]["line"], 3);
        let good = json!({ "file": "x", "good": true, "problems": [] });
        assert_eq!(document("x", None), good);
    }
}
