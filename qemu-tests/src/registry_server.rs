//! A container registry that others wrote: Debian's docker-registry.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use config::registry::Repository;

use crate::tools;

/// `anna` with the password `secret`, as htpasswd keeps it (bcrypt).
const LOGINS: &str = "anna:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";
/// The same, as HTTP's basic authentication sends it.
pub const LOGIN: &str = "Basic YW5uYTpzZWNyZXQ=";

/// A running registry with nothing in it; it ends when this is dropped.
pub struct RegistryServer {
    child: Child,
    port: u16,
    _own: tempfile::TempDir,
}

impl RegistryServer {
    /// For everybody on this machine, or for those with [`LOGIN`].
    pub fn start(with_login: bool) -> Self {
        let own = tempfile::tempdir().unwrap();
        let port =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let place = own.path().display();
        let mut settings = format!(
            "version: 0.1\nlog: {{ level: error, accesslog: {{ disabled: true }} }}\n\
             storage: {{ filesystem: {{ rootdirectory: {place}/data }} }}\n\
             http: {{ addr: 127.0.0.1:{port}, secret: test }}\n"
        );
        if with_login {
            fs::write(own.path().join("logins"), LOGINS).unwrap();
            settings += &format!("auth: {{ htpasswd: {{ realm: test, path: {place}/logins }} }}\n");
        }
        let file = own.path().join("registry.yml");
        fs::write(&file, settings).unwrap();
        let mut command = tools::tool("docker-registry").command();
        command.arg("serve").arg(file).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let server = Self { child, port, _own: own };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            assert!(Instant::now() < deadline, "docker-registry does not answer");
            thread::sleep(Duration::from_millis(50));
        }
        server
    }

    /// Its port of TCP.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A repository of it.
    pub fn repository(&self, name: &str) -> Repository {
        Repository { tls: false, host: format!("127.0.0.1:{}", self.port), name: name.to_owned() }
    }
}

impl Drop for RegistryServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
