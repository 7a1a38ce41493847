//! The programs of the device, built by cargo alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use builder::board::Architecture;
use builder::host::cargo::{Built, Component, Components};
use builder::host::progress::Progress;
use builder::host::store::Store;
use qemu_tests::{slow_tests_wanted, workspace};

fn build(workspace: &Path, component: Component) -> Built {
    let progress = Progress::new(false);
    let store = Store::open(None).unwrap();
    let components =
        Components { workspace, store: &store, mirror: None, offline: false, progress: &progress };
    components
        .build(component, Architecture::Aarch64)
        .unwrap_or_else(|error| panic!("{}", error.chain()))
}

/// The sources in another directory, at another depth.
fn copy_of_the_sources(root: &Path) {
    for name in [
        "Cargo.toml",
        "Cargo.lock",
        "ondisk",
        "config",
        "loader",
        "initramfs",
        "rootfs/agent",
        "builder",
        "qemu-tests",
        "xtask",
    ] {
        copy(&workspace().join(name), &root.join(name));
    }
}

fn copy(source: &Path, target: &Path) {
    if source.is_symlink() {
        // Links of the benchmark's systems lead to where nothing is here.
        std::os::unix::fs::symlink(fs::read_link(source).unwrap(), target).unwrap();
    } else if source.is_dir() {
        fs::create_dir_all(target).unwrap();
        for entry in fs::read_dir(source).unwrap() {
            let name = entry.unwrap().file_name();
            copy(&source.join(&name), &target.join(&name));
        }
    } else {
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(source, target).unwrap();
    }
}

#[test]
fn components_are_byte_identical_in_two_directories_and_name_neither() {
    if !slow_tests_wanted() {
        return;
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let root: PathBuf = elsewhere.path().join("some/where/else");
    copy_of_the_sources(&root);
    for component in Component::ALL {
        let here = build(&workspace(), component);
        let there = build(&root, component);
        assert_eq!(here.sha256, there.sha256, "{}", component.name());
        let program = fs::read(&here.path).unwrap();
        // Cargo and rustup are in hidden directories of a home; a device has a /root as well.
        for path in [workspace(), std::env::home_dir().unwrap_or("/root".into()).join(".")] {
            let path = path.to_str().unwrap();
            let found = program.windows(path.len()).any(|window| window == path.as_bytes());
            assert!(!found, "{} names {path}", component.name());
        }
    }
}

#[test]
fn an_unchanged_component_is_not_built_again() {
    if !slow_tests_wanted() {
        return;
    }
    let first = build(&workspace(), Component::Loader);
    let written = fs::metadata(&first.path).unwrap().modified().unwrap();
    let start = Instant::now();
    assert_eq!(build(&workspace(), Component::Loader), first);
    eprintln!("an unchanged component took {:?}", start.elapsed());
    assert_eq!(fs::metadata(&first.path).unwrap().modified().unwrap(), written);
}
