//! A web server that others wrote: nginx, with nothing but files.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::tools;

/// A running server; it ends when this is dropped.
pub struct WebServer {
    child: Child,
    port: u16,
    own: tempfile::TempDir,
}

/// Who a server is, with TLS: files of PEM.
pub struct Identity {
    /// Its certificate, and those in between.
    pub chain: PathBuf,
    /// Its secret key.
    pub key: PathBuf,
}

impl WebServer {
    /// Hands out a directory, to whoever is on this machine, with TLS if it has an identity.
    /// `settings` are lines of nginx's for that directory.
    pub fn start(directory: &Path, identity: Option<&Identity>, settings: &str) -> Self {
        let own = tempfile::tempdir().unwrap();
        let port = free_port();
        let (tls, files) = identity.map_or_else(Default::default, |Identity { chain, key }| {
            let (chain, key) = (chain.display(), key.display());
            ("ssl", format!("ssl_certificate {chain}; ssl_certificate_key {key};"))
        });
        let place = own.path().display();
        // nginx makes these directories even for what it does not do.
        let unused = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let unused = unused.map(|name| format!("{name}_temp_path {place}/{name};")).join(" ");
        // Its workers would give up root and then read nothing of root's; others ignore the line.
        let configuration = format!(
            "daemon off; master_process off; pid {place}/pid; error_log stderr;\n\
             events {{ }}\n\
             http {{ access_log {place}/access.log; {unused}\n\
             server {{ listen 127.0.0.1:{port} {tls}; {files} root {}; {settings} }} }}\n",
            directory.display()
        );
        let file = own.path().join("nginx.conf");
        fs::write(&file, configuration).unwrap();
        let mut command = tools::tool("nginx").command();
        command.arg("-p").arg(own.path()).arg("-c").arg(file).args(["-e", "stderr"]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let server = Self { child, port, own };
        server.wait();
        server
    }

    fn wait(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            assert!(Instant::now() < deadline, "nginx does not answer");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Its port of TCP.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its log: one line for each answer.
    pub fn log(&self) -> String {
        fs::read_to_string(self.own.path().join("access.log")).unwrap_or_default()
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port of this machine that nobody listens on at the moment.
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}
