//! Writes a directory as an EROFS image: `erofs_from_dir DIRECTORY IMAGE [METHOD [CLUSTER_BYTES]]`,
//! where METHOD is `none`, `lz4`, `lz4hc:LEVEL` or `zstd:LEVEL`.
//!
//! For benchmarks against `mkfs.erofs` on the same directory; prints length and times.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use builder::error::{Context, Error, Result};
use builder::image::erofs::{self, Compression, Options};
use builder::tree::{Content, Kind, Node, Tree, TreePath};

fn main() {
    if let Err(error) = run() {
        eprintln!("error: {}", error.chain());
        std::process::exit(2);
    }
}

fn run() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, image, rest @ ..] = &arguments[..] else {
        return Err(Error::new("usage: erofs_from_dir DIRECTORY IMAGE [METHOD [CLUSTER_BYTES]]"));
    };
    let compression = compression(rest)?;
    let mut tree = Tree::new();
    let mut links = HashMap::new();
    add(Path::new(directory), &TreePath::root(), &mut tree, &mut links)?;
    let options =
        Options { compression, uuid: [0; 16], build_time_s: 0, volume_label: String::new() };
    let mut sink = File::create(image).context(|| format!("cannot create {image}"))?;
    let start = Instant::now();
    let report = erofs::write(&tree, &options, &mut sink)?;
    println!(
        "{} bytes, {} inodes, data {}, metadata {}, content {}, {:.3} s",
        report.length_bytes,
        report.inodes,
        report.data_bytes,
        report.metadata_bytes,
        report.content_bytes,
        start.elapsed().as_secs_f64()
    );
    Ok(())
}

fn compression(arguments: &[String]) -> Result<Compression> {
    let method = arguments.first().map_or("none", String::as_str);
    let number = |text: &str| text.parse().context(|| format!("`{text}` is no number"));
    let cluster_bytes = arguments.get(1).map_or(Ok(65536), |text| number(text))?;
    match method.split_once(':') {
        None if method == "none" => Ok(Compression::None),
        None if method == "lz4" => Ok(Compression::Lz4 { cluster_bytes }),
        Some(("lz4hc", level)) => {
            let level = u8::try_from(number(level)?).context(|| format!("level {level}"))?;
            Ok(Compression::Lz4hc { level, cluster_bytes })
        }
        Some(("zstd", level)) => {
            let level = i32::try_from(number(level)?).context(|| format!("level {level}"))?;
            Ok(Compression::Zstd { level, cluster_bytes })
        }
        _ => Err(Error::new(format!("unknown method `{method}`"))),
    }
}

/// Adds a path and all below it; files stay on disk until the writer reads them.
fn add(
    path: &Path,
    at: &TreePath,
    tree: &mut Tree,
    links: &mut HashMap<(u64, u64), TreePath>,
) -> Result<()> {
    let what = || format!("cannot read {}", path.display());
    let metadata = path.symlink_metadata().context(what)?;
    let kind = metadata.file_type();
    let identity = (metadata.dev(), metadata.ino());
    let kind = if kind.is_dir() {
        Kind::Directory
    } else if kind.is_symlink() {
        Kind::Symlink(path.read_link().context(what)?.as_os_str().as_bytes().to_vec())
    } else if let Some(first) = links.get(&identity) {
        Kind::HardLink(first.clone())
    } else if kind.is_file() {
        let path = Arc::new(path.to_path_buf());
        Kind::File(Content::Range { path, offset: 0, length: metadata.len() })
    } else if kind.is_fifo() {
        Kind::Fifo
    } else {
        return Err(Error::new(format!("{} is of a kind not expected here", path.display())));
    };
    if matches!(kind, Kind::File(_)) && metadata.nlink() > 1 {
        links.insert(identity, at.clone());
    }
    let is_directory = matches!(kind, Kind::Directory);
    let mut node = Node::new(kind, (metadata.mode() & 0o7777) as u16, "directory");
    (node.uid, node.gid) = (metadata.uid(), metadata.gid());
    tree.replace(at.clone(), node)?;
    if is_directory {
        let mut names = Vec::new();
        for entry in path.read_dir().context(what)? {
            names.push(entry.context(what)?.file_name());
        }
        // Sorted, so that of several hard links the first by path carries the content.
        names.sort();
        for name in names {
            add(&path.join(&name), &at.join(name.as_bytes())?, tree, links)?;
        }
    }
    Ok(())
}
