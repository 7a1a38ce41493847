//! A signed archive in memory behind a web server, and what builds do when it changes.

use std::fs;
use std::path::PathBuf;

use super::archive::tests::deb;
use super::catalog::Trust;
use super::digest::Digest;
use super::index::tests::paragraph;
use super::lock::Lock;
use super::manifest::Manifest;
use super::obtain::{Options, obtain};
use super::signature::tests::Signer;
use crate::host::progress::Progress;
use crate::host::store::Store;
use crate::host::test_server::TestServer;
use crate::verbs;

struct Archive {
    server: TestServer,
    signer: Signer,
    directory: tempfile::TempDir,
    store: Store,
    manifest: Manifest,
}

impl Archive {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let manifest = "architecture = 'arm64'\n[[suite]]\nname = 'trixie'\ncomponents = ['main']\n\
            [[package]]\nname = 'tool'\nreason = 'r'\n";
        Self {
            server: TestServer::start(),
            signer: Signer::new(7),
            store: Store::open(Some(&directory.path().join("cache"))).unwrap(),
            directory,
            manifest: Manifest::parse(manifest).unwrap(),
        }
    }

    /// Publishes packages `name version`, signed, and takes back everything published before.
    fn publish(&mut self, packages: &[(&str, &str)]) {
        let text = self.release(packages);
        let signed = self.signer.sign(&text);
        self.server.put("dists/trixie/InRelease", signed);
    }

    /// Publishes all but the InRelease file, whose text it returns.
    fn release(&mut self, packages: &[(&str, &str)]) -> String {
        let mut index = String::new();
        for (name, version) in packages {
            let bytes = deb("data.tar.xz", format!("{name} {version}").as_bytes());
            let depends = if *name == "tool" { "Depends: lib" } else { "" };
            let entry = paragraph(name, version, depends)
                .replace("Size: 7", &format!("Size: {}", bytes.len()))
                .replace(
                    &Digest::of(format!("{name} {version}").as_bytes()).to_string(),
                    &Digest::of(&bytes).to_string(),
                );
            index += &entry;
            self.server.put(&format!("pool/{name}_{version}.deb"), bytes);
        }
        let digest = Digest::of(index.as_bytes());
        let length = index.len();
        let path = "main/binary-arm64";
        self.server.put(&format!("dists/trixie/{path}/by-hash/SHA256/{digest}"), index);
        format!(
            "Codename: trixie\nDate: today\nAcquire-By-Hash: yes\nArchitectures: arm64\n\
            SHA256:\n {digest} {length} {path}/Packages"
        )
    }

    fn trust(&self) -> Trust {
        let keyring = self.directory.path().join("keyring");
        fs::write(&keyring, self.signer.keyring()).unwrap();
        Trust { fingerprints: vec![self.signer.fingerprint()], keyrings: vec![keyring] }
    }

    fn lock_path(&self) -> PathBuf {
        self.directory.path().join("packages.lock")
    }

    fn lock_with(&self, trust: Trust, offline: bool) -> Result<String, String> {
        let options = verbs::lock::Options {
            manifest: self.manifest.clone(),
            lock: self.lock_path(),
            mirror: Some(self.server.address()),
            offline,
            trust,
        };
        verbs::lock::run(&options, &self.store, &Progress::quiet()).map_err(|error| error.chain())
    }

    fn lock(&self) -> Result<String, String> {
        self.lock_with(self.trust(), false)
    }

    /// `name version` of what a build gets, or the error and its hint.
    fn obtain(&self, locked: bool, offline: bool) -> Result<Vec<String>, String> {
        let options = Options {
            mirror: Some(self.server.address()),
            locked,
            offline,
            trust: self.trust(),
            ..Options::default()
        };
        let lock = Lock::read(&self.lock_path()).map_err(|error| error.chain())?;
        let got = obtain(&lock, &self.manifest, &self.store, &options, &Progress::quiet());
        let got = got.map_err(|error| {
            format!("{} / {}", error.chain(), error.next_step().unwrap_or("no hint"))
        })?;
        for package in &got {
            let unpacked = self.store.unpack(package).map_err(|error| error.chain())?;
            assert_eq!(&*unpacked.name, package.name);
        }
        Ok(got.iter().map(|one| format!("{} {}", one.name, one.version)).collect())
    }
}

#[test]
fn a_lock_is_made_then_unchanged_then_shows_what_changed() {
    let mut archive = Archive::new();
    archive.publish(&[("tool", "1"), ("lib", "1"), ("other", "1")]);
    assert!(archive.lock().unwrap().starts_with("locked 2 packages, "));
    let text = fs::read_to_string(archive.lock_path()).unwrap();
    assert!(!text.contains("127.0.0.1"), "{text}");
    assert!(archive.lock().unwrap().starts_with("nothing changed: 2 packages"));
    archive.publish(&[("tool", "2"), ("lib", "1")]);
    let report = archive.lock().unwrap();
    assert!(report.starts_with("updated tool 1 → 2 ("), "{report}");
    assert!(report.contains("\n1 changes: 2 packages"), "{report}");
}

#[test]
fn a_build_downloads_once_and_then_needs_no_network() {
    let mut archive = Archive::new();
    archive.publish(&[("tool", "1"), ("lib", "1")]);
    archive.lock().unwrap();
    let error = archive.obtain(false, true).unwrap_err();
    assert_eq!(error, "not in the cache: lib 1, tool 1 / run once without --offline");
    assert_eq!(archive.obtain(true, false).unwrap(), ["lib 1", "tool 1"]);
    archive.server.requests();
    assert_eq!(archive.obtain(true, true).unwrap(), ["lib 1", "tool 1"]);
    assert_eq!(archive.obtain(false, false).unwrap(), ["lib 1", "tool 1"]);
    assert!(archive.lock_with(archive.trust(), true).unwrap().starts_with("nothing changed"));
    assert_eq!(archive.server.requests(), [""; 0]);
}

#[test]
fn a_version_the_mirror_dropped_is_replaced_unless_the_build_is_locked() {
    let mut archive = Archive::new();
    archive.publish(&[("tool", "1"), ("lib", "1")]);
    archive.lock().unwrap();
    archive.publish(&[("tool", "2"), ("lib", "1")]);
    archive.server.remove("pool/tool_1.deb");
    assert_eq!(
        archive.obtain(true, false).unwrap_err(),
        "the mirror does not have the locked tool 1 / take the newer versions: iota lock"
    );
    assert_eq!(archive.obtain(false, false).unwrap(), ["lib 1", "tool 2"]);
    assert!(fs::read_to_string(archive.lock_path()).unwrap().contains("tool 1 "));
    archive.server.remove("pool/tool_2.deb");
    // Unpacked by now: what the mirror has does not matter any more.
    assert_eq!(archive.obtain(false, false).unwrap(), ["lib 1", "tool 2"]);
}

#[test]
fn a_damaged_package_in_the_cache_is_fetched_again() {
    let mut archive = Archive::new();
    archive.publish(&[("tool", "1"), ("lib", "1")]);
    archive.lock().unwrap();
    let lock = Lock::read(&archive.lock_path()).unwrap();
    let options = Options { mirror: Some(archive.server.address()), ..Options::default() };
    let quiet = Progress::quiet();
    obtain(&lock, &archive.manifest, &archive.store, &options, &quiet).unwrap();
    let path = archive.store.deb_path(&lock.packages()[0]);
    let good = fs::read(&path).unwrap();
    let mut flipped = good.clone();
    flipped[200] ^= 1;
    for bad in [&good[..good.len() - 1], &flipped, b""] {
        fs::write(&path, bad).unwrap();
        archive.server.requests();
        obtain(&lock, &archive.manifest, &archive.store, &options, &quiet).unwrap();
        assert_eq!(fs::read(&path).unwrap(), good);
        assert_eq!(archive.server.requests(), ["pool/lib_1.deb"]);
    }
}

#[test]
fn a_lock_that_was_made_for_another_manifest_is_refused() {
    let mut archive = Archive::new();
    archive.publish(&[("tool", "1"), ("lib", "1")]);
    archive.lock().unwrap();
    archive.manifest = archive.manifest.clone().with_group("more", ["lib"]).unwrap();
    assert_eq!(
        archive.obtain(false, false).unwrap_err(),
        "packages.toml has changed since packages.lock was made / \
        bring the lock up to date: iota lock"
    );
    assert!(archive.lock().unwrap().starts_with("same packages for a changed packages.toml"));
    archive.obtain(true, false).unwrap();
}

#[test]
fn a_damaged_lock_is_made_anew_by_iota_lock_and_refused_by_builds() {
    let mut archive = Archive::new();
    archive.publish(&[("tool", "1"), ("lib", "1")]);
    fs::write(archive.lock_path(), "iota-lock 1 arm64\n").unwrap();
    assert!(archive.obtain(false, false).unwrap_err().contains("packages.lock"));
    assert!(archive.lock().unwrap().starts_with("locked 2 packages"));
    archive.obtain(true, false).unwrap();
}

#[test]
fn an_archive_that_is_not_signed_by_a_pinned_key_gets_no_lock() {
    let mut archive = Archive::new();
    let text = archive.release(&[("tool", "1"), ("lib", "1")]);
    let good = String::from_utf8(archive.signer.sign(&text)).unwrap();
    let stranger = Signer::new(8).sign(&text);
    for bad in [
        stranger,
        text.clone().into_bytes(),
        good.replacen("Date: today", "Date: later", 1).into_bytes(),
        good.replacen("arm64/Packages", "arm64/Xackages", 1).into_bytes(),
        Vec::new(),
    ] {
        archive.server.put("dists/trixie/InRelease", bad);
        let error = archive.lock().unwrap_err();
        assert!(error.starts_with("suite trixie: "), "{error}");
        assert!(!archive.lock_path().exists());
    }
    archive.server.put("dists/trixie/InRelease", good);
    archive.lock().unwrap();
}

#[test]
fn an_index_with_another_content_than_signed_is_refused() {
    let mut archive = Archive::new();
    archive.publish(&[("tool", "1"), ("lib", "1")]);
    archive.lock().unwrap();
    let path = archive.server.requests().into_iter().find(|one| one.contains("by-hash")).unwrap();
    fs::remove_dir_all(archive.directory.path().join("cache/indices")).unwrap();
    fs::create_dir(archive.directory.path().join("cache/indices")).unwrap();
    archive.server.put(&path, "Package: tool\nVersion: 9\n");
    let error = archive.lock().unwrap_err();
    assert!(error.ends_with("main/binary-arm64/Packages is not what its Release file says"));
}

#[test]
fn a_machine_without_a_keyring_takes_it_from_the_mirror_if_its_fingerprint_is_pinned() {
    let mut archive = Archive::new();
    // A real archive's keyring package: here one whose long-named file is the keyring.
    archive.publish(&[("tool", "1"), ("lib", "1")]);
    let nothing_here = Trust { keyrings: vec![], ..archive.trust() };
    let error = archive.lock_with(nothing_here.clone(), false).unwrap_err();
    assert!(error.contains("cannot get the package debian-archive-keyring"), "{error}");

    let package = super::archive::tests::deb_with(
        "./usr/share/keyrings/debian-archive-keyring.pgp",
        &archive.signer.keyring(),
    );
    archive.publish(&[("tool", "1"), ("lib", "1"), ("debian-archive-keyring", "1")]);
    archive.server.put("pool/debian-archive-keyring_1.deb", package);
    archive.lock_with(nothing_here.clone(), false).unwrap();
    archive.server.requests();
    archive.lock_with(nothing_here, false).unwrap();
    let again = archive.server.requests();
    assert_eq!(again, ["dists/trixie/InRelease"], "the keyring is kept");

    let other = Archive::new();
    let pinned = vec![Signer::new(9).fingerprint()];
    let stranger = Trust { fingerprints: pinned, keyrings: vec![] };
    let lying = Archive { server: archive.server, ..other };
    let error = lying.lock_with(stranger, false).unwrap_err();
    assert!(error.contains("its Release file cannot be trusted"), "{error}");
}
