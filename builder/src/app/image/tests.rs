//! Images made here, read back, damaged, and of other machines.

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;
use crate::tree::{Kind, Node, Tree, TreePath};

/// An image with one file, for a machine.
pub(crate) fn sample(name: &str, machine: oci::Architecture) -> Vec<u8> {
    let mut tree = Tree::new();
    let file = Node::file(Content::bytes(*b"hello"), 0o755, "test");
    tree.insert(TreePath::new("bin/hello").unwrap(), file).unwrap();
    let directory = Node::new(Kind::Directory, 0o755, "test");
    tree.insert(TreePath::new("tmp").unwrap(), directory).unwrap();
    let image = oci::Image {
        name,
        tag: "1",
        architecture: machine,
        tree: &tree,
        command: &["/bin/hello"],
        environment: &BTreeMap::new(),
    };
    image.build().unwrap().bytes
}

fn unpack(archive: &[u8]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    tar::Archive::new(archive).unpack(directory.path()).unwrap();
    directory
}

fn read(source: &str) -> Result<Vec<Image>> {
    source.parse::<Source>()?.read()
}

#[test]
fn a_layout_and_an_archive_of_one_image_are_the_same_image() {
    let archive = sample("shop/web", oci::Architecture::Arm64);
    let directory = unpack(&archive);
    let file = directory.path().join("web.tar");
    fs::write(&file, &archive).unwrap();
    let layout = read(&format!("oci:{}", directory.path().display())).unwrap();
    let archive = read(&format!("docker-archive:{}", file.display())).unwrap();
    assert_eq!(layout[0].names, ["shop/web:1"]);
    assert_eq!((&layout[0].id, &layout[0].names), (&archive[0].id, &archive[0].names));
    let renamed = read(&format!("docker.io/x/y=oci:{}", directory.path().display())).unwrap();
    assert_eq!(renamed[0].names, ["x/y:latest"]);
}

#[test]
fn an_image_for_another_machine_is_refused_by_name() {
    let directory = unpack(&sample("shop/web", oci::Architecture::Amd64));
    let error = read(&format!("oci:{}", directory.path().display())).unwrap_err();
    assert!(error.chain().ends_with("shop/web:1 is for linux/amd64"), "{}", error.chain());
    assert!(error.next_step().unwrap().contains("--platform linux/arm64"));
}

#[test]
fn the_image_for_devices_is_taken_out_of_several() {
    let of = |machine: &str| json!({ "platform": { "os": "linux", "architecture": machine } });
    let (amd64, arm64) = (of("amd64"), of("arm64"));
    assert_eq!(for_device(&[amd64.clone(), arm64.clone()]).unwrap(), &arm64);
    let error = for_device(std::slice::from_ref(&amd64)).unwrap_err();
    assert_eq!(error.to_string(), "the image is for linux/amd64");
}

#[test]
fn a_flipped_byte_in_a_blob_is_found() {
    let directory = unpack(&sample("shop/web", oci::Architecture::Arm64));
    for entry in fs::read_dir(directory.path().join("blobs/sha256")).unwrap() {
        let path = entry.unwrap().path();
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        bad[7] ^= 1;
        fs::write(&path, bad).unwrap();
        let error = read(&format!("oci:{}", directory.path().display())).unwrap_err();
        assert!(error.chain().contains("is damaged"), "{}", error.chain());
        fs::write(&path, good).unwrap();
    }
}

#[test]
fn compressed_layers_become_what_their_engine_knows_them_by() {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(b"layer").unwrap();
    let zstd = zstd::encode_all(&b"layer"[..], 1).unwrap();
    for bytes in [gzip.finish().unwrap(), zstd, b"layer".to_vec()] {
        assert_eq!(&*plain(Content::bytes(bytes)).unwrap().read().unwrap(), b"layer");
    }
}

#[test]
fn an_archive_is_as_long_as_it_says_and_leaves_out_what_the_other_side_has() {
    let directory = unpack(&sample("shop/web", oci::Architecture::Arm64));
    let image = read(&format!("oci:{}", directory.path().display())).unwrap().remove(0);
    let stack = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
    let own = image.layers()[0].diff_id.clone();
    assert_eq!(image.shared_with(&[stack(&["sha256:x"]), stack(&[&own, "y"])]), 1);
    assert_eq!(image.shared_with(&[stack(&["sha256:x", &own])]), 0);
    for (without, files) in [(0, 3), (1, 2)] {
        let archive = image.archive(&image.names, without);
        let mut bytes = Vec::new();
        archive.write(&mut bytes).unwrap();
        assert_eq!(archive.length(), bytes.len() as u64);
        assert_eq!(tar::Archive::new(&bytes[..]).entries().unwrap().count(), files);
    }
}

#[test]
fn a_source_says_what_it_is() {
    for (text, name) in [
        ("oci:dir", None),
        ("docker-archive:x.tar", None),
        ("web=oci:dir", Some("web:latest")),
        ("web:2=docker-archive:a=b.tar", Some("web:2")),
        ("oci:a=b", None),
        ("docker://debian:13", None),
        ("web=docker://ghcr.io/a/b:1", Some("web:latest")),
    ] {
        let source: Source = text.parse().unwrap();
        assert_eq!(source.name.as_deref(), name, "{text}");
    }
    for text in ["dir", "oci:", "docker:debian:13", "docker://", "tar:x", "docker-archive:"] {
        assert!(text.parse::<Source>().is_err(), "{text}");
    }
}
