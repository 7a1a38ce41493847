//! What `iota push` sends: what the device lacks, once, also over a connection that breaks.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read as _, empty};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use builder::cli::Cli;
use builder::oci::{self, Architecture};
use builder::tree::{Content, Node, Tree, TreePath};
use clap::Parser as _;
use ondisk::digest::Digest;
use qemu_tests::image;
use qemu_tests::machine::Machine;
use qemu_tests::site::noise;
use qemu_tests::ssh::Person;
use serde_json::json;

const MIB: usize = 1 << 20;
/// The connection breaks after so many bytes of the first image.
const BREAK: u64 = 9_000_000;
/// More than heads, config and manifest come to.
const LITTLE: u64 = 16 * 1024;

/// An app with an image of 33 MiB is pushed over a connection that breaks in the middle; then a
/// line of its upper layer, which has one of them, changes.
pub(crate) fn sends_only_what_is_missing(
    machine: &mut Machine,
    owner: &Person,
    ssh: u16,
    directory: &Path,
) {
    let app = directory.join("notes");
    fs::create_dir_all(&app).unwrap();
    fs::write(app.join("compose.yaml"), "services:\n  web:\n    image: big/notes:1\n").unwrap();
    let program = owner.program_that_breaks(ssh, BREAK);
    let lower = lower();
    let length = |layers: &[Vec<u8>]| layers.iter().map(|layer| layer.len() as u64).sum::<u64>();

    let first = [lower.clone(), upper("a line")];
    let pushed =
        |layers: &[Vec<u8>]| push("notes", &app, &save(directory, layers), &program, "300");
    assert_eq!(pushed(&first), ExitCode::SUCCESS);
    // Read by the program that stands in for ssh.
    let sent = || fs::metadata(program.with_extension("sent")).unwrap().len();
    let rest = length(&first) - BREAK;
    assert!((rest..rest + LITTLE).contains(&sent()), "{} of {rest}", sent());

    let second = [lower, upper("another line")];
    assert_eq!(pushed(&second), ExitCode::SUCCESS);
    let changed = length(&second[1..]);
    println!("    a line of a layer of {changed} bytes changed: {} bytes were sent", sent());
    assert!(sent() * 10 <= changed * 12, "{} bytes for a layer of {changed}", sent());

    let (code, said) = machine.execute(&["app", "list"], empty());
    assert!(code == 0 && said.contains("notes (release 2): web running"), "{said}");
    let (code, said) = machine.execute(&["app", "rm", "notes"], empty());
    assert!(code == 0 && said.contains("app notes is gone"), "{said}");
}

/// `iota push` of an app under this name, with its image in an archive, by a program for SSH.
pub(crate) fn push(name: &str, app: &Path, archive: &Path, ssh: &Path, within: &str) -> ExitCode {
    let source = format!("docker-archive:{}", archive.display());
    let words = ["iota", "push", "127.0.0.1", "--name", name, "--within", within, "--with-image"];
    let rest = [source.as_ref(), "--ssh".as_ref(), ssh.as_os_str(), app.as_os_str()];
    let words = words.map(OsStr::new).into_iter().chain(rest);
    builder::verbs::main(Cli::try_parse_from(words).unwrap())
}

fn lower() -> Vec<u8> {
    let mut tree = oci::busybox_tree(Content::bytes(image::busybox()), &["sleep"]).unwrap();
    put(&mut tree, "lib/noise", noise(1, 32 * MIB));
    layer(&tree)
}

fn upper(line: &str) -> Vec<u8> {
    let mut tree = Tree::new();
    put(&mut tree, "app/code", [line.as_bytes(), &noise(2, MIB)].concat());
    layer(&tree)
}

fn put(tree: &mut Tree, path: &str, bytes: Vec<u8>) {
    tree.insert(TreePath::new(path).unwrap(), Node::file(Content::bytes(bytes), 0o644, "test"))
        .unwrap();
}

/// The tree as a layer, out of an image that has it alone.
fn layer(tree: &Tree) -> Vec<u8> {
    let image = oci::Image {
        name: "layer",
        tag: "1",
        architecture: Architecture::Arm64,
        tree,
        command: &["none"],
        environment: &std::collections::BTreeMap::new(),
    };
    let archive = image.build().unwrap().bytes;
    let mut largest = Vec::new();
    for entry in tar::Archive::new(&*archive).entries().unwrap() {
        let mut bytes = Vec::new();
        entry.unwrap().read_to_end(&mut bytes).unwrap();
        if bytes.len() > largest.len() {
            largest = bytes;
        }
    }
    largest
}

/// An image of these layers, as `docker save` writes it.
fn save(directory: &Path, layers: &[Vec<u8>]) -> PathBuf {
    let digests: Vec<String> = layers.iter().map(|bytes| Digest::of(bytes).to_string()).collect();
    let ids: Vec<String> = digests.iter().map(|digest| format!("sha256:{digest}")).collect();
    let config = json!({
        "architecture": "arm64",
        "os": "linux",
        "config": { "Cmd": ["/bin/sleep", "1000000"], "Env": ["PATH=/bin"] },
        "rootfs": { "type": "layers", "diff_ids": ids },
    })
    .to_string();
    let manifest = json!([{
        "Config": "config.json",
        "RepoTags": ["big/notes:1"],
        "Layers": digests,
    }])
    .to_string();
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, bytes).unwrap();
    };
    add("manifest.json", manifest.as_bytes());
    add("config.json", config.as_bytes());
    digests.iter().zip(layers).for_each(|(digest, layer)| add(digest, layer));
    let path = directory.join("notes.tar");
    fs::write(&path, tar.into_inner().unwrap()).unwrap();
    path
}
