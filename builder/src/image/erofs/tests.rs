//! The writer's proof: text dump, foreign tools, own reader, pinned digests, random trees.

use std::collections::HashMap;
use std::io::Read;

use expect_test::expect;
use sha2::{Digest, Sha256};

use super::*;
use crate::image::foreign;
use crate::tree::{Content, Kind, Node, Tree};

const ALL: [Compression; 5] = [
    Compression::None,
    Compression::Lz4 { cluster_bytes: 65536 },
    Compression::Lz4 { cluster_bytes: 4096 },
    Compression::Lz4hc { level: 9, cluster_bytes: 16384 },
    Compression::Zstd { level: 3, cluster_bytes: 65536 },
];

fn options(compression: Compression) -> Options {
    Options {
        compression,
        uuid: *b"0123456789abcdef",
        build_time_s: 1_700_000_000,
        volume_label: "iota-root".into(),
    }
}

fn image(tree: &Tree, compression: Compression) -> Vec<u8> {
    let mut image = Vec::new();
    let report = write(tree, &options(compression), &mut image).unwrap();
    assert_eq!(report.length_bytes, image.len() as u64);
    let spent: u64 = report.by_origin.values().sum();
    assert!(spent <= report.length_bytes, "origins account for more than the image");
    image
}

fn path(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

fn file(bytes: impl Into<Vec<u8>>) -> Node {
    Node::file(Content::bytes(bytes.into()), 0o644, "test")
}

/// Bytes that compress to about a quarter, the same for the same seed.
fn prose(seed: u64, length: usize) -> Vec<u8> {
    let mut random = Random(seed);
    let words: Vec<Vec<u8>> = (0..200)
        .map(|_| (0..2 + random.below(9)).map(|_| random.below(26) as u8 + 97).collect())
        .collect();
    let mut bytes = Vec::new();
    while bytes.len() < length {
        bytes.extend(&words[random.below(200)]);
        bytes.push(b' ');
    }
    bytes.truncate(length);
    bytes
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut random = Random(seed);
    (0..length).map(|_| random.below(256) as u8).collect()
}

/// A linear congruential generator (Knuth's MMIX constants).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % limit
    }
}

/// One of everything.
fn sample() -> Tree {
    let mut tree = Tree::new();
    let mut add = |name: &str, node: Node| tree.insert(path(name), node).unwrap();
    add("bin", Node::symlink("usr/bin", "test"));
    add("dev/console", Node::new(Kind::CharDevice { major: 5, minor: 1 }, 0o600, "test"));
    add("dev/disk", Node::new(Kind::BlockDevice { major: 259, minor: 70_000 }, 0o660, "test"));
    add("dev/pipe", Node::new(Kind::Fifo, 0o644, "test"));
    add("empty", file(""));
    add("short", file("twenty bytes of text"));
    add("prose", file(prose(1, 50_000)));
    add("copy-of-prose", file(prose(1, 50_000)));
    add("noise", file(noise(2, 10_000)));
    add("link-to-prose", Node::new(Kind::HardLink(path("prose")), 0o644, "test"));
    let mut sparse = vec![0; 300_000];
    sparse[140_000..140_005].copy_from_slice(b"alive");
    add("sparse", file(sparse));
    let mut ping = file("ping program");
    ping.mode = 0o4755;
    ping.xattrs.insert(b"security.capability".to_vec(), vec![1, 0, 0, 2, 0, 0x20, 0, 0]);
    ping.xattrs.insert(b"user.note".to_vec(), b"only here".to_vec());
    add("usr/bin/ping", ping.clone());
    ping.xattrs.remove(&b"user.note"[..]);
    add("usr/bin/arping", ping);
    let mut far = file("owned from afar");
    (far.uid, far.gid) = (100_000, 65_536);
    add("far", far);
    tree
}

/// Everything that must survive, one line a path, independent of which hard link holds the data.
fn facts(tree: &Tree) -> Vec<String> {
    let mut names: HashMap<&TreePath, usize> = HashMap::new();
    for (_, node) in tree.iter() {
        if let Kind::HardLink(target) = &node.kind {
            *names.entry(target).or_insert(1) += 1;
        }
    }
    let line = |(path, node): (&TreePath, &Node)| {
        let (target, node) = match &node.kind {
            Kind::HardLink(target) => (target, tree.get(target).unwrap()),
            _ => (path, node),
        };
        let what = match &node.kind {
            Kind::File(content) => {
                let links = names.get(target).unwrap_or(&1);
                format!("file {:x?} links {links}", Sha256::digest(content.read().unwrap()))
            }
            other => format!("{other:?}"),
        };
        let xattrs = &node.xattrs;
        format!("{} {:o} {}:{} {what} {xattrs:?}", path.display(), node.mode, node.uid, node.gid)
    };
    tree.iter().map(line).collect()
}

fn check_round_trip(tree: &Tree, compression: Compression) -> Vec<u8> {
    let image = image(tree, compression);
    let read = Image::open(&image[..]).unwrap().tree().unwrap();
    assert_eq!(facts(&read), facts(tree), "{compression:?}");
    image
}

/// Two foreign readers: the crate erofs-rs, always, and fsck.erofs where it is.
fn check_foreign(image: &[u8], tree: &Tree) {
    check_erofs_rs(image, tree);
    check_fsck(image);
}

/// Contents, targets, attributes, owners and links as the crate erofs-rs sees them.
fn check_erofs_rs(image: &[u8], tree: &Tree) {
    let foreign = erofs_rs::EroFS::new(erofs_rs::backend::SliceImage::new(image)).unwrap();
    let own = Image::open(image).unwrap();
    for (path, node) in tree.iter() {
        let node = match &node.kind {
            Kind::HardLink(target) => tree.get(target).unwrap(),
            _ => node,
        };
        let name = path.display();
        let inode = foreign.get_inode(own.find(path).unwrap().unwrap().nid).unwrap();
        assert_eq!((inode.uid(), inode.gid()), (node.uid, node.gid), "{name}");
        assert_eq!(foreign.xattrs_inode(inode).unwrap(), node.xattrs, "{name}");
        match &node.kind {
            Kind::File(content) => {
                let mut bytes = Vec::new();
                foreign.open(&name).unwrap().read_to_end(&mut bytes).unwrap();
                assert!(bytes[..] == content.read().unwrap()[..], "{name}");
            }
            Kind::Symlink(target) => {
                let found = foreign.read_link_inode(inode).unwrap();
                assert_eq!(found.as_bytes(), target, "{name}");
            }
            Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
                assert_eq!(inode.device(), Some((*major, *minor)), "{name}");
            }
            Kind::Directory => assert!(inode.is_dir(), "{name}"),
            Kind::Fifo | Kind::HardLink(_) => {}
        }
    }
}

/// fsck.erofs checks and decompresses everything; skipped with a line where it is missing.
fn check_fsck(image: &[u8]) {
    let Some(fsck) = foreign::tool("fsck.erofs") else { return };
    let directory = tempfile::tempdir().unwrap();
    let name = directory.path().join("image");
    std::fs::write(&name, image).unwrap();
    fsck.run(&["--extract", name.to_str().unwrap()]);
}

#[test]
fn one_of_everything_survives_every_compression() {
    for compression in ALL {
        check_foreign(&check_round_trip(&sample(), compression), &sample());
    }
}

#[test]
fn random_trees_survive_every_compression() {
    for seed in 0..12 {
        let tree = random_tree(seed);
        for compression in ALL {
            let image = check_round_trip(&tree, compression);
            check_erofs_rs(&image, &tree);
            if seed < 3 {
                check_fsck(&image);
            }
        }
    }
}

/// Deep and wide directories, lengths around every limit, links, attributes of all sizes.
fn random_tree(seed: u64) -> Tree {
    let mut random = Random(seed);
    let mut tree = Tree::new();
    let mut directories = vec![String::new()];
    let mut files: Vec<String> = Vec::new();
    for number in 0..150 {
        let parent = directories[random.below(directories.len())].clone();
        let name = format!("{parent}/{number}-{}", "n".repeat(random.below(200)));
        let mut node = match random.below(8) {
            0 => Node::directory("test"),
            1 => Node::symlink(vec![b'x'; 1 + random.below(4095)], "test"),
            2 if !files.is_empty() => {
                let target = files[random.below(files.len())].clone();
                Node::new(Kind::HardLink(path(&target)), 0o644, "test")
            }
            _ => file(random_content(&mut random)),
        };
        let is_link = matches!(node.kind, Kind::HardLink(_));
        if !is_link && random.below(4) == 0 {
            let most = if random.below(9) == 0 { 6000 } else { 40 };
            let value = noise(seed, random.below(most));
            node.xattrs.insert(format!("user.{}", random.below(3)).into_bytes(), value);
        }
        match node.kind {
            Kind::Directory => directories.push(name.clone()),
            Kind::File(_) => files.push(name.clone()),
            _ => {}
        }
        tree.insert(path(&name), node).unwrap();
    }
    tree
}

fn random_content(random: &mut Random) -> Vec<u8> {
    let near = [0, 1, 4000, 4032, 4096, 8192, 65_536, 70_000, 200_000][random.below(9)];
    let length = near + random.below(70);
    let seed = random.below(1000) as u64;
    match random.below(5) {
        0 => noise(seed, length),
        1 => vec![0; length],
        2 => [prose(seed, length / 2), noise(seed, length - length / 2)].concat(),
        3 => [noise(seed, length / 3), vec![0; length - length / 3]].concat(),
        _ => prose(seed, length),
    }
}

#[test]
fn files_longer_than_one_stretch_survive() {
    // Uncompressible parts in front of, across and behind the ends of stretches.
    let mut bytes = prose(3, 9_000_000);
    bytes[4_190_000..4_200_000].copy_from_slice(&noise(4, 10_000));
    bytes[8_999_000..].copy_from_slice(&noise(5, 1000));
    let mut tree = Tree::new();
    tree.insert(path("long"), file(bytes)).unwrap();
    tree.insert(path("zeros"), file(vec![0; 5_000_001])).unwrap();
    for compression in ALL {
        check_foreign(&check_round_trip(&tree, compression), &tree);
    }
}

#[test]
fn a_file_that_ends_in_an_uncompressed_cluster_across_pages_survives() {
    // Kernels take the end of such a cluster from a head of no length at the file's end.
    let mut bytes = prose(3, 30_000);
    bytes.extend(noise(5, 7001));
    let mut tree = Tree::new();
    tree.insert(path("ends-in-noise"), file(bytes)).unwrap();
    check_foreign(&check_round_trip(&tree, ALL[1]), &tree);
}

#[test]
fn contents_in_pack_files_are_read_by_range() {
    let directory = tempfile::tempdir().unwrap();
    let pack = std::sync::Arc::new(directory.path().join("pack"));
    let bytes = prose(7, 3_000_000);
    std::fs::write(pack.as_ref(), &bytes).unwrap();
    let mut in_memory = Tree::new();
    let mut on_disk = Tree::new();
    for (name, range) in [("a", 5..2_500_000), ("b", 2_500_000..2_500_100), ("c", 9..9)] {
        in_memory.insert(path(name), file(&bytes[range.clone()])).unwrap();
        let (offset, length) = (range.start as u64, range.len() as u64);
        let content = Content::Range { path: pack.clone(), offset, length };
        on_disk.insert(path(name), Node::file(content, 0o644, "test")).unwrap();
    }
    for compression in ALL {
        assert!(image(&in_memory, compression) == image(&on_disk, compression));
    }
}

#[test]
fn copies_share_blocks_and_holes_take_none() {
    let mut tree = Tree::new();
    tree.insert(path("a"), file(noise(1, 1_000_000))).unwrap();
    let alone = image(&tree, Compression::None).len();
    tree.insert(path("b"), file(noise(1, 1_000_000))).unwrap();
    tree.insert(path("hole"), file(vec![0; 10_000_000])).unwrap();
    assert_eq!(image(&tree, Compression::None).len(), alone);
}

#[test]
fn report_says_where_data_landed_and_who_brought_it() {
    let mut tree = Tree::new();
    tree.insert(path("a"), Node::file(Content::bytes(noise(1, 8192)), 0o644, "one")).unwrap();
    tree.insert(path("b"), Node::file(Content::bytes(noise(2, 4096)), 0o644, "two")).unwrap();
    let mut bytes = Vec::new();
    let report = write(&tree, &options(Compression::None), &mut bytes).unwrap();
    let stored = |name, offset, length_bytes| StoredFile { path: path(name), offset, length_bytes };
    assert_eq!(report.files, [stored("a", 4096, 8192), stored("b", 12_288, 4096)]);
    assert_eq!(bytes[12_288..16_384], noise(2, 4096));
    assert_eq!(report.by_origin["one"], 8192 + 32);
    assert_eq!(
        (report.content_bytes, report.data_bytes, report.metadata_bytes),
        (12_288, 12_288, 8192)
    );
    let measured = write(&tree, &options(Compression::None), &mut Measure).unwrap();
    assert_eq!(measured, report);
}

#[test]
fn what_the_format_cannot_hold_is_refused_with_its_path() {
    let with_xattr = |name: &str, length: usize| {
        let mut node = file("");
        node.xattrs.insert(name.as_bytes().to_vec(), vec![0; length]);
        node
    };
    let device = Node::new(Kind::CharDevice { major: 5000, minor: 0 }, 0o600, "test");
    let cases = [
        (&*"n".repeat(256), file(""), "name of 256 bytes, at most 255 fit"),
        ("link", Node::symlink("", "test"), "/link: symbolic link without a target"),
        (
            "link",
            Node::symlink("t".repeat(4096), "test"),
            "/link: symbolic link target of 4096 bytes, at most 4095 fit",
        ),
        (
            "x",
            with_xattr("system.other", 1),
            "/x: extended attribute `system.other` is of a class EROFS cannot store",
        ),
        (
            "x",
            with_xattr("user.big", 65_536),
            "/x: extended attribute `user.big` has a value of 65536 bytes, at most 65535 fit",
        ),
        ("x", device, "cannot store /x: device number 5000:0 does not fit into 12:20 bits"),
    ];
    for (name, node, expected) in cases {
        let mut tree = Tree::new();
        tree.insert(path(name), node).unwrap();
        let error = write(&tree, &options(Compression::None), &mut Measure).unwrap_err();
        assert!(error.chain().ends_with(expected), "{}", error.chain());
    }
}

#[test]
fn bad_options_are_refused() {
    let tree = Tree::new();
    let check = |compression, label: &str, expected| {
        let options = Options { volume_label: label.into(), ..options(compression) };
        let error = write(&tree, &options, &mut Measure).unwrap_err();
        assert_eq!(error.to_string(), expected);
    };
    let level = Compression::Lz4hc { level: 13, cluster_bytes: 65536 };
    check(level, "", "lz4hc level 13: must be from 2 to 12");
    check(
        Compression::Lz4 { cluster_bytes: 5000 },
        "",
        "EROFS cluster of 5000 bytes: must be a multiple of 4096 up to 1048576",
    );
    let long = "a label too long!";
    check(Compression::None, long, "volume label `a label too long!` is longer than 16 bytes");
}

#[test]
fn a_missing_pack_file_names_the_path_it_is_for() {
    let pack = std::sync::Arc::new("/nonexistent/pack".into());
    let content = Content::Range { path: pack, offset: 0, length: 10 };
    let mut tree = Tree::new();
    tree.insert(path("usr/x"), Node::file(content, 0o644, "test")).unwrap();
    for compression in ALL {
        let error = write(&tree, &options(compression), &mut Measure).unwrap_err();
        let chain = error.chain();
        assert!(chain.starts_with("cannot store /usr/x: cannot open /nonexistent/pack"), "{chain}");
    }
}

#[test]
fn damaged_images_give_errors_and_never_panic() {
    let mut random = Random(9);
    for compression in ALL {
        let good = image(&sample(), compression);
        let metadata =
            u64::from(Image::open(&good[..]).unwrap().superblock.meta_block) as usize * 4096;
        for _ in 0..200 {
            let mut bad = good.clone();
            for _ in 0..1 + random.below(3) {
                let at = metadata + random.below(bad.len() - metadata);
                bad[at] = random.below(256) as u8;
            }
            let opened = Image::open(&bad[..]).unwrap();
            // Either is fine, and so is a tree that differs: data carry no checksum here.
            let _ = opened.tree();
            let _ = opened.dump();
        }
        for length in (0..metadata).step_by(997) {
            assert!(Image::open(&good[..length]).and_then(|image| image.tree()).is_err());
        }
    }
}

#[test]
fn digests_are_pinned() {
    // The root hash and with it every signature and update depends on these bytes. A change
    // must be meant; it makes every image new.
    let digest = |compression| {
        let digest = Sha256::digest(image(&sample(), compression));
        digest[..8].iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let digests: Vec<String> = ALL
        .iter()
        .map(|compression| format!("{compression:?} {}\n", digest(*compression)))
        .collect();
    expect![[r#"
        None ca69ed18f4fd8395
        Lz4 { cluster_bytes: 65536 } 8d7992126d40cf9c
        Lz4 { cluster_bytes: 4096 } 1e501a149292dadc
        Lz4hc { level: 9, cluster_bytes: 16384 } 5049beb6791f630b
        Zstd { level: 3, cluster_bytes: 65536 } a3cdfa60768685d4
    "#]]
    .assert_eq(&digests.concat());
}

#[test]
fn dump_shows_a_plain_image() {
    let image = image(&sample(), Compression::None);
    expect![[r#"
        superblock compat=0x3 incompat=0x4 algorithms=0x0
          uuid=30313233343536373839616263646566 label="iota-root\\x00\\x00\\x00\\x00\\x00\\x00\\x00" build_time=1700000000
          blocks=33 metadata=31 xattrs=31 inodes=17 root=1
        shared attributes at 0x1f000+32 sum=1e3866f5
        inode 1 at 0x1f020 FlatInline mode=040755 links=4 size=223 union=0x0 number=1 owner=0:0 time=1700000000
          0+223 plain at 0x1f040+223 sum=65b10f55
          entry . -> 1 type 2
          entry .. -> 1 type 2
          entry bin -> 9 type 7
          entry copy-of-prose -> 11 type 1
          entry dev -> 39 type 2
          entry empty -> 46 type 1
          entry far -> 47 type 1
          entry link-to-prose -> 128 type 1
          entry noise -> 50 type 1
          entry prose -> 128 type 1
          entry short -> 108 type 1
          entry sparse -> 110 type 1
          entry usr -> 112 type 2
        inode 9 at 0x1f120 FlatInline mode=120777 links=1 size=7 union=0x0 number=2 owner=0:0 time=1700000000
          0+7 plain at 0x1f140+7 sum=2856f463
        inode 11 at 0x1f160 FlatInline mode=100644 links=1 size=50000 union=0x1 number=3 owner=0:0 time=1700000000
          0+49152 plain at 0x1000+49152 sum=1dbd430c
          49152+848 plain at 0x1f180+848 sum=5eb42ba5
        inode 39 at 0x1f4e0 FlatInline mode=040755 links=2 size=78 union=0x0 number=4 owner=0:0 time=1700000000
          0+78 plain at 0x1f500+78 sum=89926c2a
          entry . -> 39 type 2
          entry .. -> 1 type 2
          entry console -> 43 type 3
          entry disk -> 44 type 4
          entry pipe -> 45 type 5
        inode 43 at 0x1f560 FlatPlain mode=020600 links=1 size=0 union=0x501 number=5 owner=0:0 time=1700000000
        inode 44 at 0x1f580 FlatPlain mode=060660 links=1 size=0 union=0x11110370 number=6 owner=0:0 time=1700000000
        inode 45 at 0x1f5a0 FlatPlain mode=010644 links=1 size=0 union=0x0 number=7 owner=0:0 time=1700000000
        inode 46 at 0x1f5c0 FlatPlain mode=100644 links=1 size=0 union=0x0 number=8 owner=0:0 time=1700000000
        inode 47 at 0x1f5e0 FlatInline mode=100644 links=1 size=15 union=0x0 number=9 owner=100000:65536 time=1700000000
          0+15 plain at 0x1f620+15 sum=a1746506
        inode 50 at 0x1f640 FlatInline mode=100644 links=1 size=10000 union=0xd number=10 owner=0:0 time=1700000000
          0+8192 plain at 0xd000+8192 sum=ddd0238a
          8192+1808 plain at 0x1f660+1808 sum=3fee1cb2
        inode 108 at 0x1fd80 FlatInline mode=100644 links=1 size=20 union=0x0 number=12 owner=0:0 time=1700000000
          0+20 plain at 0x1fda0+20 sum=fda2bb06
        inode 110 at 0x1fdc0 Chunked mode=100644 links=1 size=300000 union=0x4 number=13 owner=0:0 time=1700000000
          0+65536 hole at 0x0+0 sum=00000000
          65536+65536 hole at 0x0+0 sum=00000000
          131072+65536 plain at 0xf000+65536 sum=3196ef5a
          196608+65536 hole at 0x0+0 sum=00000000
          262144+37856 hole at 0x0+0 sum=00000000
        inode 112 at 0x1fe00 FlatInline mode=040755 links=3 size=42 union=0x0 number=14 owner=0:0 time=1700000000
          0+42 plain at 0x1fe20+42 sum=0f6f29f6
          entry . -> 112 type 2
          entry .. -> 1 type 2
          entry bin -> 115 type 2
        inode 115 at 0x1fe60 FlatInline mode=040755 links=2 size=61 union=0x0 number=15 owner=0:0 time=1700000000
          0+61 plain at 0x1fe80+61 sum=eda353e0
          entry . -> 115 type 2
          entry .. -> 112 type 2
          entry arping -> 118 type 1
          entry ping -> 120 type 1
        inode 118 at 0x1fec0 FlatInline mode=104755 links=1 size=12 union=0x0 number=16 owner=0:0 time=1700000000
          xattr security.capability=\x01\x00\x00\x02\x00 \x00\x00
          0+12 plain at 0x1fef0+12 sum=a3471ad0
        inode 120 at 0x1ff00 FlatInline mode=104755 links=1 size=12 union=0x0 number=17 owner=0:0 time=1700000000
          xattr security.capability=\x01\x00\x00\x02\x00 \x00\x00
          xattr user.note=only here
          0+12 plain at 0x1ff44+12 sum=a3471ad0
        inode 128 at 0x20000 FlatInline mode=100644 links=2 size=50000 union=0x1 number=11 owner=0:0 time=1700000000
          0+49152 plain at 0x1000+49152 sum=1dbd430c
          49152+848 plain at 0x20020+848 sum=5eb42ba5
    "#]].assert_eq(&Image::open(&image[..]).unwrap().dump().unwrap());
}

#[test]
fn dump_shows_a_compressed_image() {
    let image = image(&sample(), Compression::Lz4 { cluster_bytes: 8192 });
    expect![[r#"
        superblock compat=0x3 incompat=0x13 algorithms=0x1
          uuid=30313233343536373839616263646566 label="iota-root\\x00\\x00\\x00\\x00\\x00\\x00\\x00" build_time=1700000000
          blocks=11 metadata=9 xattrs=9 inodes=17 root=1
        shared attributes at 0x9000+32 sum=1e3866f5
        inode 1 at 0x9020 FlatInline mode=040755 links=4 size=223 union=0x0 number=1 owner=0:0 time=1700000000
          0+223 plain at 0x9040+223 sum=3e9014ab
          entry . -> 1 type 2
          entry .. -> 1 type 2
          entry bin -> 9 type 7
          entry copy-of-prose -> 11 type 1
          entry dev -> 14 type 2
          entry empty -> 21 type 1
          entry far -> 22 type 1
          entry link-to-prose -> 83 type 1
          entry noise -> 25 type 1
          entry prose -> 83 type 1
          entry short -> 86 type 1
          entry sparse -> 128 type 1
          entry usr -> 88 type 2
        inode 9 at 0x9120 FlatInline mode=120777 links=1 size=7 union=0x0 number=2 owner=0:0 time=1700000000
          0+7 plain at 0x9140+7 sum=2856f463
        inode 11 at 0x9160 Compressed mode=100644 links=1 size=50000 union=0x6 number=3 owner=0:0 time=1700000000
          0+18146 lz4 at 0x1000+8192 sum=030625ec
          18146+18107 lz4 at 0x3000+8192 sum=0e3bbffe
          36253+13747 lz4 at 0x5000+8192 sum=6683ea6b
        inode 14 at 0x91c0 FlatInline mode=040755 links=2 size=78 union=0x0 number=4 owner=0:0 time=1700000000
          0+78 plain at 0x91e0+78 sum=6027ea0b
          entry . -> 14 type 2
          entry .. -> 1 type 2
          entry console -> 18 type 3
          entry disk -> 19 type 4
          entry pipe -> 20 type 5
        inode 18 at 0x9240 FlatPlain mode=020600 links=1 size=0 union=0x501 number=5 owner=0:0 time=1700000000
        inode 19 at 0x9260 FlatPlain mode=060660 links=1 size=0 union=0x11110370 number=6 owner=0:0 time=1700000000
        inode 20 at 0x9280 FlatPlain mode=010644 links=1 size=0 union=0x0 number=7 owner=0:0 time=1700000000
        inode 21 at 0x92a0 FlatPlain mode=100644 links=1 size=0 union=0x0 number=8 owner=0:0 time=1700000000
        inode 22 at 0x92c0 FlatInline mode=100644 links=1 size=15 union=0x0 number=9 owner=100000:65536 time=1700000000
          0+15 plain at 0x9300+15 sum=a1746506
        inode 25 at 0x9320 FlatInline mode=100644 links=1 size=10000 union=0x7 number=10 owner=0:0 time=1700000000
          0+8192 plain at 0x7000+8192 sum=ddd0238a
          8192+1808 plain at 0x9340+1808 sum=3fee1cb2
        inode 83 at 0x9a60 Compressed mode=100644 links=2 size=50000 union=0x6 number=11 owner=0:0 time=1700000000
          0+18146 lz4 at 0x1000+8192 sum=030625ec
          18146+18107 lz4 at 0x3000+8192 sum=0e3bbffe
          36253+13747 lz4 at 0x5000+8192 sum=6683ea6b
        inode 86 at 0x9ac0 FlatInline mode=100644 links=1 size=20 union=0x0 number=12 owner=0:0 time=1700000000
          0+20 plain at 0x9ae0+20 sum=fda2bb06
        inode 88 at 0x9b00 FlatInline mode=040755 links=3 size=42 union=0x0 number=14 owner=0:0 time=1700000000
          0+42 plain at 0x9b20+42 sum=0cef43d6
          entry . -> 88 type 2
          entry .. -> 1 type 2
          entry bin -> 91 type 2
        inode 91 at 0x9b60 FlatInline mode=040755 links=2 size=61 union=0x0 number=15 owner=0:0 time=1700000000
          0+61 plain at 0x9b80+61 sum=83a51142
          entry . -> 91 type 2
          entry .. -> 88 type 2
          entry arping -> 94 type 1
          entry ping -> 96 type 1
        inode 94 at 0x9bc0 FlatInline mode=104755 links=1 size=12 union=0x0 number=16 owner=0:0 time=1700000000
          xattr security.capability=\x01\x00\x00\x02\x00 \x00\x00
          0+12 plain at 0x9bf0+12 sum=a3471ad0
        inode 96 at 0x9c00 FlatInline mode=104755 links=1 size=12 union=0x0 number=17 owner=0:0 time=1700000000
          xattr security.capability=\x01\x00\x00\x02\x00 \x00\x00
          xattr user.note=only here
          0+12 plain at 0x9c44+12 sum=a3471ad0
        inode 128 at 0xa000 Compressed mode=100644 links=1 size=300000 union=0x0 number=13 owner=0:0 time=1700000000
          0+300000 lz4 at 0xa0d0+1196 sum=dc004112
    "#]].assert_eq(&Image::open(&image[..]).unwrap().dump().unwrap());
}
