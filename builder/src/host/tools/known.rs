//! The list of tools: where each lies in the tree, and from which version on a machine's own
//! will do.

use std::path::{Path, PathBuf};
use std::process::Command;

/// One tool.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Known {
    /// The name by which it is found and run.
    pub(super) name: &'static str,
    /// Its group in `builder/tools/packages.toml`.
    pub(super) group: &'static str,
    /// Where the tree has it.
    pub(super) path: &'static str,
    /// Run by the tree's Python instead of by itself.
    pub(super) is_python: bool,
    /// The argument that makes it say its version.
    version_argument: &'static str,
    /// The oldest version that will do.
    oldest: (u32, u32),
    /// The package that has it, for advice.
    package: &'static str,
}

const fn tool(
    name: &'static str,
    path: &'static str,
    package: &'static str,
    version_argument: &'static str,
    oldest: (u32, u32),
) -> Known {
    let group = "formats";
    Known { name, group, path, is_python: false, version_argument, oldest, package }
}

/// What only the benchmark of updates is held against.
const PEERS: &str = "delta-peers";

/// All tools. Versions are those from which on the tests have been seen to pass, or that brought
/// what the tests use.
static KNOWN: [Known; 32] = [
    // 8.2 is the first that knows all of `-cpu max` that current firmware expects.
    Known {
        group: "qemu",
        ..tool(
            "qemu-system-aarch64",
            "usr/bin/qemu-system-aarch64",
            "qemu-system-arm",
            "--version",
            (8, 2),
        )
    },
    // 1.8 brought zstd and the checks that older ones leave out.
    tool("fsck.erofs", "usr/bin/fsck.erofs", "erofs-utils", "--version", (1, 8)),
    tool("mkfs.erofs", "usr/bin/mkfs.erofs", "erofs-utils", "--version", (1, 8)),
    tool("dump.erofs", "usr/bin/dump.erofs", "erofs-utils", "--version", (1, 8)),
    tool("mksquashfs", "usr/bin/mksquashfs", "squashfs-tools", "-version", (4, 6)),
    tool("veritysetup", "usr/sbin/veritysetup", "cryptsetup-bin", "--version", (2, 4)),
    tool("sgdisk", "usr/sbin/sgdisk", "gdisk", "--version", (1, 0)),
    tool("mtools", "usr/bin/mtools", "mtools", "--version", (4, 0)),
    tool("mdir", "usr/bin/mdir", "mtools", "--version", (4, 0)),
    tool("mcopy", "usr/bin/mcopy", "mtools", "--version", (4, 0)),
    tool("mtype", "usr/bin/mtype", "mtools", "--version", (4, 0)),
    tool("minfo", "usr/bin/minfo", "mtools", "--version", (4, 0)),
    tool("fsck.vfat", "usr/sbin/fsck.vfat", "dosfstools", "--help", (4, 1)),
    // 1.47 knows every feature that today's ext4 writers turn on.
    tool("e2fsck", "usr/sbin/e2fsck", "e2fsprogs", "-V", (1, 47)),
    tool("mke2fs", "usr/sbin/mke2fs", "e2fsprogs", "-V", (1, 47)),
    tool("dumpe2fs", "usr/sbin/dumpe2fs", "e2fsprogs", "-V", (1, 47)),
    tool("debugfs", "usr/sbin/debugfs", "e2fsprogs", "-V", (1, 47)),
    tool("cpio", "usr/bin/cpio", "cpio", "--version", (2, 12)),
    Known { group: "access", ..tool("ssh", "usr/bin/ssh", "openssh-client", "-V", (8, 2)) },
    // 18.09 brought `ssh://`.
    Known {
        group: "access",
        ..tool("docker", "usr/bin/docker", "docker-cli", "--version", (18, 9))
    },
    Known { group: "time", ..tool("chronyd", "usr/sbin/chronyd", "chrony", "--version", (4, 1)) },
    Known { group: "deltas", ..tool("xdelta3", "usr/bin/xdelta3", "xdelta3", "-V", (3, 0)) },
    // 1.4.7 brought --patch-from.
    Known { group: "deltas", ..tool("zstd", "usr/bin/zstd", "zstd", "--version", (1, 4)) },
    Known { group: PEERS, ..tool("casync", "usr/bin/casync", "casync", "--version", (2, 0)) },
    Known { group: PEERS, ..tool("zck", "usr/bin/zck", "zchunk", "--version", (1, 2)) },
    Known {
        group: PEERS,
        ..tool("zck_delta_size", "usr/bin/zck_delta_size", "zchunk", "--version", (1, 2))
    },
    // It tells no version; 4.3 is from 2005.
    Known { group: PEERS, ..tool("bsdiff", "usr/bin/bsdiff", "bsdiff", "--version", (4, 3)) },
    Known { group: PEERS, ..tool("ostree", "usr/bin/ostree", "ostree", "--version", (2022, 1)) },
    // It answers 2.8's questions since 2.0; older ones are out of use.
    Known {
        group: "registry",
        ..tool("docker-registry", "usr/bin/docker-registry", "docker-registry", "--version", (2, 8))
    },
    Known { group: "web", ..tool("nginx", "usr/sbin/nginx", "nginx", "-v", (1, 18)) },
    // 14 is the oldest of which it is known that crate ring is built with it.
    Known {
        group: "c",
        ..tool("clang", "usr/lib/llvm-19/bin/clang", "clang", "--version", (14, 0))
    },
    Known {
        group: "bmap",
        is_python: true,
        ..tool("bmaptool", "usr/bin/bmaptool", "bmap-tools", "--version", (3, 5))
    },
];

/// The tool of that name.
pub(super) fn find(name: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.name == name)
}

/// All names, for suggestions.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    KNOWN.iter().map(|known| known.name)
}

impl Known {
    /// Whether images depend on its version: then it is the lock's wherever that runs, and two
    /// machines make the same bytes.
    pub(super) fn makes_bytes_of_images(&self) -> bool {
        self.group == "c" && cfg!(target_arch = "x86_64")
    }

    /// This machine's own program, if it is there and new enough.
    pub(super) fn on_this_machine(&self) -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        // Programs for administrators are not in the path of users, and run for them all the same.
        let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
        let program = std::env::split_paths(&path)
            .chain(more)
            .map(|directory| directory.join(self.name))
            .find(|program| program.is_file())?;
        self.is_new_enough(&program).then_some(program)
    }

    fn is_new_enough(&self, program: &Path) -> bool {
        let Ok(output) = Command::new(program).arg(self.version_argument).output() else {
            return false;
        };
        let said = [output.stdout, output.stderr].concat();
        version(&String::from_utf8_lossy(&said)).is_some_and(|version| version >= self.oldest)
    }

    /// What to install, for people who would rather.
    pub(super) fn advice(&self) -> String {
        let (major, minor) = self.oldest;
        format!("{} from version {major}.{minor} on (Debian's package {})", self.name, self.package)
    }
}

/// The first `1.2` in what a program says of itself.
fn version(text: &str) -> Option<(u32, u32)> {
    let is_part = |c: char| c.is_ascii_digit() || c == '.';
    text.split(|c: char| !is_part(c)).find_map(|word| {
        let mut numbers = word.split('.').map(str::parse::<u32>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => Some((major, minor)),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_programs_say() {
        for (text, expected) in [
            ("QEMU emulator version 10.0.3 (Debian 1:10.0.3+ds-0+deb13u1)", Some((10, 0))),
            ("fsck.erofs (erofs-utils) 1.8.6\navailable compressors", Some((1, 8))),
            ("e2fsck 1.47.2 (1-Jan-2025)", Some((1, 47))),
            ("GPT fdisk (sgdisk) version 1.0.10", Some((1, 0))),
            ("mkfs.fat 4.2 (2021-01-31)", Some((4, 2))),
            ("no version at all.", None),
        ] {
            assert_eq!(version(text), expected, "{text}");
        }
    }

    #[test]
    fn an_old_or_missing_program_does_not_do() {
        let fit = |oldest| Known { oldest, ..tool("cargo", "", "", "--version", oldest) };
        assert!(fit((1, 0)).on_this_machine().is_some());
        assert!(fit((99, 0)).on_this_machine().is_none());
        let missing = tool("no-such-program", "", "", "--version", (0, 0));
        assert!(missing.on_this_machine().is_none());
    }
}
