//! People who log in: OpenSSH's client and Docker's, with keys made here.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Output, Stdio};

use ed25519_dalek::SigningKey;
use tempfile::TempDir;

use crate::tools;

/// Somebody with a key, and what their client knows about hosts.
pub struct Person {
    directory: TempDir,
    public_key: String,
}

impl Person {
    /// Somebody whose key follows from a number.
    pub fn new(name: &str, seed: u8) -> Self {
        let key = SigningKey::from_bytes(&[seed; 32]);
        let directory = tempfile::tempdir().unwrap();
        let private = directory.path().join("key");
        fs::write(&private, private_key(&key, name)).unwrap();
        fs::set_permissions(&private, Permissions::from_mode(0o600)).unwrap();
        let public_key = format!("ssh-ed25519 {} {name}", base64(&public_blob(&key)));
        Self { directory, public_key }
    }

    /// The line for `iota.toml`.
    pub fn public_key(&self) -> &str {
        &self.public_key
    }

    /// `ssh` to a port of this machine. A host's key is believed once; another one never.
    fn ssh(&self, port: u16) -> Command {
        let mut command = tools::tool("ssh").command();
        command.args([
            "-F",
            "none",
            "-o",
            "BatchMode=yes",
            "-o",
            "StrictHostKeyChecking=accept-new",
        ]);
        command.args(["-o", "IdentitiesOnly=yes", "-o", "ConnectTimeout=60"]);
        command.arg("-o").arg(format!("UserKnownHostsFile={}", self.file("hosts").display()));
        command.arg("-i").arg(self.file("key")).arg("-p").arg(port.to_string());
        command.env_remove("SSH_AUTH_SOCK");
        command
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Has a command run there, with this input.
    pub fn runs(&self, port: u16, words: &[&str], input: &str) -> Output {
        let mut command = self.ssh(port);
        command.arg("root@127.0.0.1").args(words);
        talk(&mut command, input)
    }

    /// A file of the device's becomes noise, so many blocks of 4 KiB from its start on.
    ///
    /// That may take the engine at once, and then nobody ends a session: it is left after a minute.
    pub fn spoils(&self, port: u16, file: &str, blocks: u32) {
        let line =
            format!("yes noise | dd of=/host{file} bs=4096 count={blocks} conv=notrunc && sync");
        let mut command = Command::new("timeout");
        command.arg("60").arg(self.program(port)).args(["root@127.0.0.1", &line]);
        let text = tools::text_of(&tools::output(&mut command));
        assert!(text.contains(&format!("{blocks}+0 records out")), "{text}");
    }

    /// Opens a shell on a terminal and types.
    pub fn types(&self, port: u16, input: &str) -> Output {
        let mut command = self.ssh(port);
        command.args(["-tt", "root@127.0.0.1"]);
        // A terminal whose input ends is hung up, whatever is still to come from it.
        let (child, input) = start(&mut command, input);
        let output = child.wait_with_output().unwrap();
        drop(input);
        output
    }

    /// Forwards a port of this machine to one of that host, until what is returned is dropped.
    pub fn forwards(&self, port: u16, here: u16, there: u16) -> Forwarding {
        let mut command = self.ssh(port);
        command.args(["-N", "-o", "ExitOnForwardFailure=yes", "-L"]);
        command.arg(format!("127.0.0.1:{here}:localhost:{there}")).arg("root@127.0.0.1");
        command.stdin(Stdio::null());
        Forwarding(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    /// A program that reaches a port of this machine, for those who run `ssh` themselves.
    pub fn program(&self, port: u16) -> PathBuf {
        self.write_program("ssh", &format!("exec {} \"$@\"", self.line(port)))
    }

    /// The same, with a connection that breaks after so many bytes of the first image that `iota
    /// push` sends. What it sends over the last connection stays beside it, in `.sent`.
    pub fn program_that_breaks(&self, port: u16, after: u64) -> PathBuf {
        let ssh = self.line(port);
        let script = format!(
            "case \"$*\" in *'iota app load '*)\n\
             if mkdir \"$0.broken\" 2>/dev/null; then\n\
             head -c {after} | {ssh} \"$@\"; exit 255\nfi\n\
             tee \"$0.sent\" | {ssh} \"$@\"; exit;;\nesac\nexec {ssh} \"$@\""
        );
        self.write_program("ssh-that-breaks", &script)
    }

    /// OpenSSH's client with all that it has to be told, for a shell.
    fn line(&self, port: u16) -> String {
        let ssh = self.ssh(port);
        let quoted = |text: &std::ffi::OsStr| format!("'{}'", text.to_string_lossy());
        let mut line = String::from("env");
        for (name, value) in ssh.get_envs().filter_map(|(name, value)| Some((name, value?))) {
            line.push_str(&format!(" {}={}", name.to_string_lossy(), quoted(value)));
        }
        line.push_str(&format!(" {}", quoted(ssh.get_program())));
        ssh.get_args().for_each(|argument| line.push_str(&format!(" {}", quoted(argument))));
        line
    }

    fn write_program(&self, name: &str, script: &str) -> PathBuf {
        let program = self.file(name);
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
        program
    }

    /// `docker -H ssh://…`, which runs the first `ssh` in its path.
    pub fn docker(&self, port: u16, words: &[&str]) -> Output {
        self.program(port);
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = tools::tool("docker").command();
        command.env("PATH", format!("{}:{path}", self.directory.path().display()));
        command.env("HOME", self.directory.path()).env_remove("DOCKER_HOST");
        command.env_remove("DOCKER_CONTEXT").args(["-H", "ssh://root@127.0.0.1"]).args(words);
        tools::output(&mut command)
    }
}

/// A port that is forwarded.
pub struct Forwarding(Child);

impl Drop for Forwarding {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

fn talk(command: &mut Command, input: &str) -> Output {
    let (child, input) = start(command, input);
    drop(input);
    child.wait_with_output().unwrap()
}

/// A command that has this much input, and whose input goes on.
fn start(command: &mut Command, input: &str) -> (Child, ChildStdin) {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut pipe = child.stdin.take().unwrap();
    // Whoever is not let in does not listen either.
    let _ = pipe.write_all(input.as_bytes());
    (child, pipe)
}

/// See PROTOCOL.key in OpenSSH's sources: one key, not encrypted.
fn private_key(key: &SigningKey, comment: &str) -> String {
    let public = public_blob(key);
    let pair = [key.to_bytes(), key.verifying_key().to_bytes()].concat();
    // The first two numbers only have to be the same.
    let mut secret = [[7; 4], [7; 4]].concat();
    secret.extend(public.iter());
    secret.extend(string(&pair));
    secret.extend(string(comment.as_bytes()));
    secret.extend((1..).take((8 - secret.len() % 8) % 8));
    let none = string(b"none");
    let parts = [
        b"openssh-key-v1\0".to_vec(),
        none.clone(),
        none,
        string(b""),
        1_u32.to_be_bytes().to_vec(),
        string(&public),
        string(&secret),
    ];
    let text = base64(&parts.concat());
    format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{text}\n-----END OPENSSH PRIVATE KEY-----\n")
}

/// RFC 8709, section 4.
fn public_blob(key: &SigningKey) -> Vec<u8> {
    [string(b"ssh-ed25519"), string(key.verifying_key().as_bytes())].concat()
}

/// RFC 4251, section 5.
fn string(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |bits: u32| char::from(DIGITS[usize::try_from(bits & 63).unwrap()]);
    let triple = |three: &[u8]| {
        let bits = three.iter().fold(0_u32, |bits, byte| (bits << 8) | u32::from(*byte));
        let bits = bits << (8 * (3 - three.len()));
        let digits = (0..4).map(|place| digit(bits >> (18 - 6 * place))).collect::<String>();
        format!("{}{}", &digits[..=three.len()], "=".repeat(3 - three.len()))
    };
    bytes.chunks(3).map(triple).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test vectors of RFC 4648, section 10.
    #[test]
    fn base64_is_that_of_the_standard() {
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
