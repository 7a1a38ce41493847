//! The compiler for what of a component is C and assembly: crate ring, below TLS, and libzstd.
//!
//! It is clang, for one program of its compiles for every machine. The machine's own is taken, else
//! Debian's from the tool tree, as for other tools. It links nothing, and archives are made by the
//! `ar` that comes with every linker.
//!
//! What both libraries ask of a C library's headers are seven functions, which stand in two headers
//! of ours: those of the machine are for the machine, and are not looked at.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use ondisk::digest::Digest;

use super::Components;
use crate::error::{Context, Error, Result};
use crate::host::store::write_atomically;
use crate::host::tools::{Tool, Tools};

/// A C compiler for device programs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct CCompiler {
    program: PathBuf,
    /// Where its headers are.
    headers: PathBuf,
    /// Which one it is, for the fingerprint.
    pub(super) id: String,
}

/// Variables that crate cc reads, or clang by itself: all that begin like this.
const FOREIGN: [&str; 14] = [
    "AR",
    "CC",
    "CFLAGS",
    "CPATH",
    "CRATE_CC_",
    "CROSS_COMPILE",
    "C_INCLUDE_PATH",
    "HOST_AR",
    "HOST_CC",
    "HOST_CFLAGS",
    "RANLIB",
    "TARGET_AR",
    "TARGET_CC",
    "TARGET_CFLAGS",
];

/// Names and texts.
const HEADERS: [(&str, &str); 2] = [
    ("stdlib.h", include_str!("headers/stdlib.h")),
    ("string.h", include_str!("headers/string.h")),
];

impl CCompiler {
    /// Finds one, or fetches it.
    pub(super) fn provide(components: &Components<'_>) -> Result<Self> {
        let tools = Tools {
            store: components.store,
            mirror: components.mirror,
            offline: components.offline,
            progress: components.progress,
        };
        let headers = components.device_directory().join("c-headers");
        for (name, text) in HEADERS {
            provide_file(&headers.join(name), text.as_bytes(), 0o644)?;
        }
        let clang = tools.find("clang")?;
        let Some(tree) = clang.tree() else {
            let program = PathBuf::from(clang.command().get_program());
            let id = with_headers(&version(&program)?);
            return Ok(Self { program, headers, id });
        };
        // It starts itself again, by the name it was started with.
        let program = components.device_directory().join("clang");
        provide_file(&program, &script(&clang, tree), 0o755)?;
        let id = with_headers(&tree.file_name().unwrap_or_default().to_string_lossy());
        Ok(Self { program, headers, id })
    }

    /// Has a run of cargo take it for `triple`.
    pub(super) fn put_into(&self, command: &mut Command, triple: &str) {
        let name = triple.replace('-', "_");
        command.env(format!("CC_{name}"), &self.program).env(format!("AR_{name}"), "ar");
        let flags = [OsStr::new("-nostdlibinc"), OsStr::new("-isystem"), self.headers.as_os_str()];
        // Crate cc takes words as a shell does, if it is told so.
        command.env(format!("CFLAGS_{name}"), flags.map(quoted_text).join(" "));
        command.env("CC_SHELL_ESCAPED_FLAGS", "1");
    }
}

/// What a compiler makes depends on the headers too.
fn with_headers(compiler: &str) -> String {
    let texts = HEADERS.map(|(_, text)| text).concat();
    format!("{compiler} {}", Digest::of(texts.as_bytes()))
}

/// Has the file hold these bytes, and leaves it alone if it does.
fn provide_file(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let what = || format!("cannot write {}", path.display());
    if fs::read(path).ok().as_deref() == Some(bytes) {
        return Ok(());
    }
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).context(what)?;
    }
    write_atomically(path, bytes)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).context(what)
}

/// Takes away what a user set for C programs of their own.
pub(super) fn without_foreign_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if FOREIGN.iter().any(|start| text.starts_with(start)) {
            command.env_remove(&name);
        }
    }
}

/// What a compiler of this machine says of itself.
fn version(program: &Path) -> Result<String> {
    let what = || format!("cannot run {} --version", program.display());
    let output = Command::new(program).arg("--version").output().context(what)?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.lines().next().map(str::to_owned).ok_or_else(|| Error::new(what()))
}

/// A program of one file in place of the tool's many words: whoever asks for a C compiler takes a
/// path. The tree's clang cannot see where it lies, since what runs is a dynamic linker, so it is
/// told its name and its own headers.
fn script(clang: &Tool, tree: &Path) -> Vec<u8> {
    let command = clang.command();
    let headers = tree.join("usr/lib/llvm-19/lib/clang/19");
    let mut words = vec![quoted(command.get_program())];
    for word in command.get_args() {
        let is_name = word == clang.name();
        words.push(if is_name { b"\"$0\"".to_vec() } else { quoted(word) });
    }
    let headers = quoted(headers.as_os_str());
    [
        b"#!/bin/sh\n# Made by `iota build`: the clang of the tool tree.\n".as_slice(),
        b"case $1 in -cc1*) ;; *) set -- -no-canonical-prefixes -resource-dir ",
        &headers,
        b" \"$@\" ;; esac\nunset LD_LIBRARY_PATH LD_PRELOAD\nexec ",
        &words.join(b" ".as_slice()),
        b" \"$@\"\n",
    ]
    .concat()
}

fn quoted_text(word: &OsStr) -> String {
    String::from_utf8_lossy(&quoted(word)).into_owned()
}

/// A word that a shell takes as it is.
fn quoted(word: &OsStr) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt as _;
    let mut quoted = vec![b'\''];
    for byte in word.as_bytes() {
        match byte {
            b'\'' => quoted.extend(b"'\\''"),
            other => quoted.push(*other),
        }
    }
    quoted.push(b'\'');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_quoted_whatever_is_in_it() {
        for word in ["plain", "with space", "it's", "$HOME `x` \"y\" \\"] {
            let line = [b"printf %s ".as_slice(), &quoted(word.as_ref())].concat();
            let line = String::from_utf8(line).unwrap();
            let output = Command::new("/bin/sh").args(["-c", &line]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), word);
        }
    }

    #[test]
    fn a_run_of_cargo_gets_the_compiler_for_the_device_alone() {
        let compiler = CCompiler {
            program: "/x/clang".into(),
            headers: "/x/c headers".into(),
            id: String::new(),
        };
        let mut command = Command::new("cargo");
        compiler.put_into(&mut command, "aarch64-unknown-linux-musl");
        let value = |value: Option<&OsStr>| value.unwrap().to_str().unwrap().to_owned();
        let set: Vec<_> = command
            .get_envs()
            .map(|(name, text)| (name.to_str().unwrap().to_owned(), value(text)))
            .collect();
        let expected = [
            ("AR_aarch64_unknown_linux_musl", "ar"),
            ("CC_SHELL_ESCAPED_FLAGS", "1"),
            ("CC_aarch64_unknown_linux_musl", "/x/clang"),
            ("CFLAGS_aarch64_unknown_linux_musl", "'-nostdlibinc' '-isystem' '/x/c headers'"),
        ];
        assert_eq!(set, expected.map(|(name, text)| (name.to_owned(), text.to_owned())));
    }
}
