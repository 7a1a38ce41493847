//! Apps: Compose files with what belongs to them, and the images that they run.
//!
//! Reading order: [`yaml`] → [`compose`] (the check; its tables are in `rules.rs`) → [`image`] →
//! [`carried`] (what goes into a root).

pub mod carried;
pub mod compose;
pub mod image;
pub mod pull;
mod rules;
pub mod yaml;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Context, Error, Result};
use compose::{Checked, Surroundings};

/// What the Compose file of an app may be called; the first is what devices call it.
pub const FILE_NAMES: [&str; 4] =
    ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];

/// All files of an app together: it describes images, it is none.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// A directory with a Compose file, read and checked. Holding one proves that the check found no
/// problem, and that name and files are such as a device takes.
#[derive(Clone, Debug)]
pub struct App {
    /// What it is called.
    pub name: String,
    /// Its Compose file.
    pub file: PathBuf,
    /// All files of the app by their path below its directory, `compose.yaml` among them.
    pub files: BTreeMap<String, Vec<u8>>,
    /// What the check found.
    pub checked: Checked,
}

/// The Compose file of a path: the path itself, or that in the directory.
pub fn find(path: &Path) -> Result<PathBuf> {
    if !path.is_dir() {
        fs::metadata(path).context(|| format!("cannot read {}", path.display()))?;
        return Ok(path.to_owned());
    }
    let files = FILE_NAMES.map(|name| path.join(name));
    files.into_iter().find(|file| file.is_file()).ok_or_else(|| {
        Error::new(format!("{} has no compose.yaml", path.display()))
            .hint("an app is a directory with a Compose file")
    })
}

/// Checks a Compose file with what lies beside it.
pub fn check(file: &Path) -> Result<Checked> {
    let text = fs::read_to_string(file).context(|| format!("cannot read {}", file.display()))?;
    let files = files_beside(file)?;
    Ok(compose::check(&text, &surroundings(&files)))
}

impl App {
    /// Reads and checks the app of a directory; its name is the directory's.
    ///
    /// Errors: no Compose file; the first of its problems; a name or file that no device takes.
    pub fn load(directory: &Path, name: Option<&str>) -> Result<Self> {
        let file = find(directory)?;
        let absolute = file.canonicalize().context(|| format!("cannot open {}", file.display()))?;
        let parent = absolute.parent().and_then(Path::file_name).unwrap_or_default();
        let name = name.map_or_else(|| parent.to_string_lossy().into_owned(), str::to_owned);
        check_name(&name)?;
        let mut files = files_beside(&file)?;
        let checked = check(&file)?;
        if let Some(problem) = checked.problems.first() {
            let more = checked.problems.len() - 1;
            let error = Error::new(format!("{}: {problem}", file.display()));
            let all = format!("`iota app check {}` says all ({more} more)", file.display());
            return Err(error.hint(problem.hint.clone().unwrap_or(all)));
        }
        let own = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = files.remove(&own).unwrap_or_default();
        files.insert(FILE_NAMES[0].to_owned(), text);
        Ok(Self { name, file, files, checked })
    }

    /// The names of its images, each once.
    pub fn images(&self) -> BTreeSet<&str> {
        self.checked.services.iter().map(|service| service.image.as_str()).collect()
    }
}

/// As Compose wants names of projects, and no longer than a file name of the device.
fn check_name(name: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let good = !name.is_empty() && name.len() <= 40 && name.bytes().all(plain);
    match good && !name.starts_with('-') {
        true => Ok(()),
        false => Err(Error::new(format!("`{name}` is not a name of an app"))
            .hint("rename its directory: at most 40 lower-case letters, digits and -")),
    }
}

/// The files beside a Compose file and below, by their path; nothing hidden but `.env`.
fn files_beside(file: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let directory = match file.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let mut files = BTreeMap::new();
    let mut left = MAX_BYTES;
    collect(directory, "", &mut files, &mut left)?;
    Ok(files)
}

fn collect(
    directory: &Path,
    prefix: &str,
    files: &mut BTreeMap<String, Vec<u8>>,
    left: &mut u64,
) -> Result<()> {
    let failed = || format!("cannot read {}", directory.display());
    for entry in fs::read_dir(directory).context(failed)? {
        let entry = entry.context(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') && name != ".env" {
            continue;
        }
        let (path, inside) = (entry.path(), format!("{prefix}{name}"));
        // Links are followed: on the device there is what they lead to.
        let metadata = fs::metadata(&path).context(|| format!("cannot read {}", path.display()))?;
        if metadata.is_dir() {
            collect(&path, &format!("{inside}/"), files, left)?;
            continue;
        }
        *left = left.checked_sub(metadata.len()).ok_or_else(|| {
            let most = MAX_BYTES >> 20;
            Error::new(format!("{}: the files of an app are more than {most} MiB", path.display()))
                .hint("put large files into an image; keep only what belongs to the app beside it")
        })?;
        files
            .insert(inside, fs::read(&path).context(|| format!("cannot read {}", path.display()))?);
    }
    Ok(())
}

fn surroundings(files: &BTreeMap<String, Vec<u8>>) -> Surroundings {
    let mut names = BTreeSet::new();
    for path in files.keys() {
        names.insert(path.clone());
        let ends = path.match_indices('/').map(|(at, _)| path[..at].to_owned());
        names.extend(ends);
    }
    let variables = files.get(".env").map(|bytes| variables(&String::from_utf8_lossy(bytes)));
    Surroundings { variables: variables.unwrap_or_default(), files: names }
}

/// The variables of `.env`: `KEY=VALUE` lines, quotes around a value left out.
fn variables(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.trim_start_matches("export ").split_once('='));
    let plain = |value: &str| {
        let value = value.trim();
        let quoted = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
        quoted('"').or_else(|| quoted('\'')).unwrap_or(value).to_owned()
    };
    pairs.map(|(key, value)| (key.trim().to_owned(), plain(value))).collect()
}

/// A name of an image as engines show it: Docker's registry left out, a tag always there.
pub fn image_name(name: &str) -> String {
    let mut name = name;
    for prefix in ["docker.io/", "index.docker.io/", "library/"] {
        name = name.strip_prefix(prefix).unwrap_or(name);
    }
    let last = name.rsplit('/').next().unwrap_or(name);
    match last.contains([':', '@']) {
        true => name.to_owned(),
        false => format!("{name}:latest"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_images_are_as_engines_show_them() {
        for (name, expected) in [
            ("web", "web:latest"),
            ("docker.io/library/web:1", "web:1"),
            ("docker.io/shop/web", "shop/web:latest"),
            ("localhost:5000/web", "localhost:5000/web:latest"),
            ("web@sha256:00", "web@sha256:00"),
        ] {
            assert_eq!(image_name(name), expected);
        }
    }

    #[test]
    fn an_app_is_a_directory_with_a_compose_file_and_what_lies_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let app = directory.path().join("web");
        fs::create_dir_all(app.join("conf")).unwrap();
        fs::write(app.join("compose.yml"), "services:\n  web:\n    image: web:${TAG}\n").unwrap();
        let error = App::load(&app, None).unwrap_err();
        assert!(error.chain().contains("line 3, column 12: the variable `TAG`"), "{error}");
        fs::write(app.join(".env"), "# tag\nTAG=\"2\"\n").unwrap();
        fs::write(app.join(".secret"), "no").unwrap();
        fs::write(app.join("conf/a"), "a").unwrap();
        let loaded = App::load(&app, None).unwrap();
        assert_eq!(loaded.name, "web");
        assert_eq!(loaded.images(), BTreeSet::from(["web:2"]));
        let names: Vec<&String> = loaded.files.keys().collect();
        assert_eq!(names, [".env", "compose.yaml", "conf/a"]);
        assert!(App::load(&app, Some("Web")).is_err());
        assert!(App::load(directory.path(), None).is_err());
    }
}
