//! An object store that others wrote: s3s, with its files in a directory. It checks signatures,
//! lets everybody read, as a bucket that devices follow does, and remembers what it was asked.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use async_trait::async_trait;
use builder::s3::Access;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3Result, s3_error};
use s3s_fs::FileSystem;

/// The only bucket.
pub(super) const BUCKET: &str = "updates";
const KEY: &str = "AKIAEXAMPLE";
const SECRET: &str = "an example of a secret";

type Log = Arc<Mutex<Vec<String>>>;

/// A running store with an empty bucket; its thread ends with the test process.
pub(super) struct StoreServer {
    port: u16,
    log: Log,
    _root: tempfile::TempDir,
}

impl StoreServer {
    pub(super) fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join(BUCKET)).unwrap();
        let log = Log::default();
        let mut service = S3ServiceBuilder::new(FileSystem::new(root.path()).unwrap());
        service.set_auth(SimpleAuth::from_single(KEY, SECRET));
        service.set_access(Readers(Arc::clone(&log)));
        let service = service.build();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(serve(listener, service));
        });
        Self { port, log, _root: root }
    }

    /// Its port of TCP.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// What it was asked since the last call: `PutObject updates/iota/files/…`.
    pub(super) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Who has the key of a store at this port.
pub(super) fn access(port: u16) -> Access {
    access_as(port, KEY, SECRET)
}

/// Somebody with another key.
pub(super) fn access_as(port: u16, key: &str, secret: &str) -> Access {
    let endpoint = format!("http://127.0.0.1:{port}");
    let variable = |name: &str| match name {
        "AWS_ACCESS_KEY_ID" => Some(key.to_owned()),
        "AWS_SECRET_ACCESS_KEY" => Some(secret.to_owned()),
        _ => None,
    };
    Access::of(Some(&endpoint), variable).unwrap()
}

async fn serve(listener: TcpListener, service: S3Service) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let server = Builder::new(TokioExecutor::new());
    while let Ok((socket, _)) = listener.accept().await {
        let connection = server.serve_connection(TokioIo::new(socket), service.clone());
        let connection = connection.into_owned();
        // What a client does to its connection is the client's affair.
        tokio::spawn(async move { connection.await.is_ok() });
    }
}

struct Readers(Log);

#[async_trait]
impl S3Access for Readers {
    async fn check(&self, asked: &mut S3AccessContext<'_>) -> S3Result<()> {
        let name = asked.s3_op().name();
        let line = format!("{name} {}", asked.uri().path().trim_start_matches('/'));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        match (asked.credentials(), name) {
            (Some(_), _) | (None, "GetObject") => Ok(()),
            (None, _) => Err(s3_error!(AccessDenied, "only for those with a key")),
        }
    }
}
