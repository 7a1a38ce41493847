//! What lies in the boot partition besides the loader: firmware, its settings, device trees.
//!
//! Data of a board, [`RawBoot`] in `board.toml`, checked once into [`Boot`]; which bytes that means
//! is decided by [`Boot::files`] from the unpacked packages.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::device_tree::{self, Edit};
use crate::error::{Context, Error, Result};
use crate::host::unpack::Unpacked;
use crate::image::fat::FatFile;
use crate::slice::matches;
use crate::suggest;
use crate::tree::{Content, Kind, TreePath};
use crate::uboot_environment::{self, Environment};

/// The table `boot` of a `board.toml`; absent where the machine has firmware of its own.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RawBoot {
    #[serde(default)]
    package: Vec<FromPackage>,
    #[serde(default)]
    file: Vec<Own>,
    #[serde(default)]
    device_tree: Vec<TreeEdit>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
}

/// Files of a package.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FromPackage {
    /// The package; may hold `*` where a version is part of the name.
    package: String,
    /// Why these files are there.
    reason: String,
    /// Absolute paths in the package, as patterns (see [`crate::slice`]). Each has to match
    /// exactly one file, which keeps its name.
    files: Vec<String>,
    /// Another name, for one file.
    name: Option<String>,
}

/// A file that lies beside `board.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Own {
    name: String,
    reason: String,
}

/// A change to the device trees among the files.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TreeEdit {
    /// Names of the device trees, as a pattern.
    files: String,
    change: Edit,
}

/// What the boot partition holds besides the loader. Holding one proves: every file has a reason
/// and a name that is no path, no two have one name, U-Boot can read its settings.
#[derive(Clone, Debug, Default)]
pub struct Boot {
    packages: Vec<FromPackage>,
    own: Vec<Own>,
    edits: Vec<TreeEdit>,
    environment: Option<Environment>,
    /// Contents of the files of the board's directory.
    contents: BTreeMap<String, Content>,
}

impl Boot {
    /// Checks what a `board.toml` says.
    pub fn check(raw: RawBoot) -> Result<Self> {
        let RawBoot { package: packages, file: own, device_tree: edits, environment } = raw;
        for one in &packages {
            let what = || format!("boot.package: {}", one.package);
            check_reason(&one.reason).context(what)?;
            check_source(one).context(what)?;
        }
        for one in &own {
            check_reason(&one.reason).context(|| format!("boot.file: {}", one.name))?;
            check_name(&one.name)?;
        }
        for one in &edits {
            one.change.check().context(|| format!("boot.device-tree: {}", one.files))?;
        }
        let environment = match environment.is_empty() {
            true => None,
            false => Some(Environment::new(environment).context(|| "boot.environment".into())?),
        };
        Ok(Self { packages, own, edits, environment, contents: BTreeMap::new() })
    }

    /// Reads the board's own files from its directory.
    pub fn load(&mut self, directory: &Path) -> Result<()> {
        for own in &self.own {
            let path = directory.join(&own.name);
            let bytes = fs::read(&path).context(|| format!("cannot read {}", path.display()))?;
            self.contents.insert(own.name.clone(), Content::bytes(bytes));
        }
        Ok(())
    }

    /// The files, sorted by name. Pure but for reading contents of the store.
    ///
    /// Errors: a package or file that is not there, with the nearest one; two files of one name;
    /// a device tree that cannot be changed.
    pub fn files(&self, packages: &[Unpacked]) -> Result<Vec<FatFile>> {
        let mut files: BTreeMap<String, Content> = self.contents.clone();
        let environment = self.environment.as_ref().map(Environment::encode);
        let environment =
            environment.map(|bytes| (uboot_environment::FILE.to_owned(), Content::bytes(bytes)));
        let found = self.packages.iter().map(|source| source.find(packages));
        let found = found.collect::<Result<Vec<_>>>()?;
        for (name, content) in found.into_iter().flatten().chain(environment) {
            if files.contains_key(&name) {
                return Err(Error::new(format!("the boot partition has two files {name}")));
            }
            let content = self.edited(&name, content).context(|| name.clone())?;
            files.insert(name, content);
        }
        Ok(files.into_iter().map(|(path, content)| FatFile { path, content }).collect())
    }

    /// A file as it is written: device trees with the board's changes.
    fn edited(&self, name: &str, content: Content) -> Result<Content> {
        let fits = |edit: &&TreeEdit| matches(edit.files.as_bytes(), name.as_bytes());
        let edits: Vec<Edit> =
            self.edits.iter().filter(fits).map(|edit| edit.change.clone()).collect();
        if edits.is_empty() {
            return Ok(content);
        }
        Ok(Content::bytes(device_tree::edit(&content.read()?, &edits)?))
    }
}

impl FromPackage {
    /// The files with their names in the boot partition.
    fn find(&self, packages: &[Unpacked]) -> Result<Vec<(String, Content)>> {
        let fits = |one: &&Unpacked| matches(self.package.as_bytes(), one.name.as_bytes());
        let package = packages.iter().find(fits).ok_or_else(|| {
            Error::new(format!("boot partition: no package {} in this image", self.package))
                .hint("name the group that has it in `groups` of the board")
        })?;
        self.files.iter().map(|pattern| self.find_one(package, pattern)).collect()
    }

    fn find_one(&self, package: &Unpacked, pattern: &str) -> Result<(String, Content)> {
        let absolute = |path: &TreePath| [b"/", path.as_bytes()].concat();
        let mut found = package.entries.iter().filter_map(|(path, node)| match &node.kind {
            Kind::File(content) if matches(pattern.as_bytes(), &absolute(path)) => {
                Some((path, content))
            }
            _ => None,
        });
        let (path, content) = found.next().ok_or_else(|| missing(package, pattern))?;
        if let Some((other, _)) = found.next() {
            let (one, other) = (path.display(), other.display());
            return Err(Error::new(format!("{pattern} is both {one} and {other}")));
        }
        let own = String::from_utf8_lossy(path.name()).into_owned();
        let name = self.name.clone().unwrap_or(own);
        check_name(&name)?;
        Ok((name, content.clone()))
    }
}

fn missing(package: &Unpacked, pattern: &str) -> Error {
    let error = Error::new(format!("package {} has no file {pattern}", package.name));
    let paths: Vec<String> = package.entries.iter().map(|(path, _)| path.display()).collect();
    match suggest::nearest(pattern, paths.iter().map(String::as_str)) {
        Some(near) => error.hint(format!("did you mean {near}?")),
        None => error,
    }
}

fn check_reason(reason: &str) -> Result<()> {
    match reason.trim() {
        "" => Err(Error::new("it needs a reason")),
        _ => Ok(()),
    }
}

fn check_source(source: &FromPackage) -> Result<()> {
    if let Some(bad) = source.files.iter().find(|file| !file.starts_with('/')) {
        return Err(Error::new(format!("`{bad}` is not an absolute path")));
    }
    match (&source.name, source.files.len()) {
        (_, 0) => Err(Error::new("it lists no files")),
        (Some(name), 1) => check_name(name),
        (Some(name), _) => Err(Error::new(format!("several files cannot all be named {name}"))),
        (None, _) => Ok(()),
    }
}

/// Everything lies in the root directory, where the firmware looks: U-Boot would prefer device
/// trees in directories that it knows to those that the firmware has prepared.
fn check_name(name: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.is_empty() || !name.bytes().all(plain) {
        let name = name.escape_debug();
        return Err(Error::new(format!("`{name}` is not a plain file name")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::tree::Node;

    fn package(name: &str, files: &[(&str, &str)]) -> Unpacked {
        let entry = |(path, text): &(&str, &str)| {
            let content = Content::bytes(text.as_bytes().to_vec());
            (TreePath::new(path).unwrap(), Node::file(content, 0o644, name))
        };
        Unpacked { name: Arc::from(name), entries: files.iter().map(entry).collect() }
    }

    fn packages() -> Vec<Unpacked> {
        vec![
            package("fw", &[("usr/lib/fw/start.elf", "start"), ("usr/lib/fw/fixup.dat", "fixup")]),
            package("linux-1-arm64", &[("dtb/a.dtb", "a"), ("dtb/b.dtb", "b")]),
        ]
    }

    const GOOD: &str = r#"
        [[package]]
        package = "fw"
        reason = "starts the machine"
        files = ["/usr/lib/fw/start.elf"]
        [[package]]
        package = "linux-*-arm64"
        reason = "the model"
        files = ["/dtb/a.dtb"]
        name = "model.dtb"
        [environment]
        bootdelay = "-2"
    "#;

    /// Names and lengths of the files, or the error.
    fn check(text: &str) -> String {
        let raw = toml::from_str(text).unwrap();
        let files = Boot::check(raw).and_then(|boot| boot.files(&packages()));
        match files {
            Ok(files) => {
                let line = |file: &FatFile| format!("{} {}", file.path, file.content.length());
                files.iter().map(line).collect::<Vec<_>>().join(", ")
            }
            Err(error) => format!("error: {}", error.chain()),
        }
    }

    #[test]
    fn files_of_packages_and_settings_are_put_together() {
        assert_eq!(check(GOOD), "model.dtb 1, start.elf 5, uboot.env 16384");
        assert_eq!(check(""), "");
    }

    #[test]
    fn one_wrong_value_gives_one_exact_error() {
        for (from, to, expected) in [
            ("\"fw\"", "\"fv\"", "boot partition: no package fv in this image"),
            ("start.elf", "strat.elf", "package fw has no file /usr/lib/fw/strat.elf"),
            (
                "start.elf",
                "*",
                "/usr/lib/fw/* is both /usr/lib/fw/start.elf and /usr/lib/fw/fixup.dat",
            ),
            ("starts the machine", " ", "boot.package: fw: it needs a reason"),
            (
                "model.dtb",
                "dtb/model.dtb",
                "boot.package: linux-*-arm64: `dtb/model.dtb` is not a plain file name",
            ),
            ("model.dtb", "start.elf", "the boot partition has two files start.elf"),
            (
                "/dtb/a.dtb\"",
                "/dtb/a.dtb\", \"/dtb/b.dtb\"",
                "boot.package: linux-*-arm64: several files cannot all be named model.dtb",
            ),
            ("\"/dtb/a.dtb\"", "", "boot.package: linux-*-arm64: it lists no files"),
            (
                "/dtb/a.dtb",
                "dtb/a.dtb",
                "boot.package: linux-*-arm64: `dtb/a.dtb` is not an absolute path",
            ),
            ("\"-2\"", "\"\"", "boot.environment: bootdelay: `` is not one line of text"),
        ] {
            assert!(GOOD.contains(from), "{from}");
            assert_eq!(check(&GOOD.replacen(from, to, 1)), format!("error: {expected}"));
        }
    }

    #[test]
    fn a_missing_file_gets_the_nearest_name() {
        let raw = toml::from_str(&GOOD.replace("start.elf", "strat.elf")).unwrap();
        let error = Boot::check(raw).unwrap().files(&packages()).unwrap_err();
        assert_eq!(error.next_step(), Some("did you mean /usr/lib/fw/start.elf?"));
    }

    #[test]
    fn only_the_named_device_trees_are_changed() {
        let text = format!(
            "{GOOD}\n[[device-tree]]\nfiles = 'model.*'\n[device-tree.change]\n\
             reason = 'r'\nnode = '/aliases'\nset = {{ mmc0 = '/mmc' }}\n"
        );
        // One byte is no device tree: it was looked at, and start.elf was not.
        let error = check(&text);
        assert!(error.starts_with("error: model.dtb: not a device tree"), "{error}");
        assert!(check(&text.replace("model.*", "other.*")).starts_with("model.dtb 1,"));
    }

    #[test]
    fn own_files_are_read_from_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        let text = "[[file]]\nname = 'config.txt'\nreason = 'settings'\n";
        let mut boot = Boot::check(toml::from_str(text).unwrap()).unwrap();
        assert!(boot.load(directory.path()).unwrap_err().to_string().ends_with("config.txt"));
        fs::write(directory.path().join("config.txt"), "arm_64bit=1\n").unwrap();
        boot.load(directory.path()).unwrap();
        let files = boot.files(&[]).unwrap();
        assert_eq!((files[0].path.as_str(), files[0].content.length()), ("config.txt", 12));
    }
}
