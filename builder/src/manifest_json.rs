//! `manifest.json`: what an image is and what is inside, for machines. Sorted and without times,
//! so that two of them can be compared line by line.

use ondisk::digest::Digest;
use ondisk::manifest::PartName;
use serde::Serialize;

use crate::build::Image;
use crate::error::{Context, Result};
use crate::hex;
use crate::image::fat::FatFile;
use crate::tree::Kind;

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Document<'a> {
    board: &'a str,
    version: &'a str,
    profile: String,
    key: &'a str,
    rollback_index: u64,
    engine: &'a str,
    command_line: &'a str,
    verity_root_hash: String,
    parts: Vec<Part>,
    boot_files: Vec<BootFile<'a>>,
    packages: Vec<Package<'a>>,
    files: Vec<File>,
}

#[derive(Serialize)]
struct Part {
    name: String,
    offset: u64,
    length: u64,
    sha256: String,
}

/// A file of the boot partition; the loader, which holds the key, is not listed.
#[derive(Serialize)]
struct BootFile<'a> {
    path: &'a str,
    length: u64,
    sha256: String,
}

#[derive(Serialize)]
struct Package<'a> {
    name: &'a str,
    version: &'a str,
    architecture: &'a str,
    sha256: String,
}

#[derive(Serialize)]
struct File {
    path: String,
    origin: String,
    length: u64,
}

/// The document of a finished image.
pub fn render(image: &Image<'_>, key: &str) -> Result<String> {
    let manifest = &image.slot.manifest;
    let parts = PartName::ALL.map(|name| {
        let part = manifest.part(name);
        let sha256 = hex::encode(part.sha256.as_bytes());
        let (offset, length) = (part.extent.offset, part.extent.length);
        Part { name: name.to_string(), offset, length, sha256 }
    });
    let packages = image.packages.iter().map(|package| Package {
        name: &package.name,
        version: package.version.as_str(),
        architecture: &package.architecture,
        sha256: package.sha256.to_string(),
    });
    let files = image.trees.root.iter().filter_map(|(path, node)| match &node.kind {
        Kind::File(content) => Some(File {
            path: path.display(),
            origin: node.origin.to_string(),
            length: content.length(),
        }),
        _ => None,
    });
    let boot_files = image.boot_files.iter().map(boot_file).collect::<Result<_>>()?;
    let document = Document {
        board: &image.plan.board,
        version: image.version,
        profile: image.plan.profile.to_string(),
        key,
        rollback_index: manifest.rollback_index,
        engine: &image.definitions.engine.name,
        command_line: &manifest.command_line,
        verity_root_hash: manifest.verity_root_hash.to_string(),
        parts: parts.into(),
        boot_files,
        packages: packages.collect(),
        files: files.collect(),
    };
    let mut text =
        serde_json::to_string_pretty(&document).context(|| "cannot write manifest.json".into())?;
    text.push('\n');
    Ok(text)
}

fn boot_file(file: &FatFile) -> Result<BootFile<'_>> {
    let sha256 = Digest::of(&file.content.read()?).to_string();
    Ok(BootFile { path: &file.path, length: file.content.length(), sha256 })
}
