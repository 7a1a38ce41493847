//! Servers with certificates, good and bad ones, over real connections on this machine.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use agent::online::offer;
use agent::online::web::{Http, Trouble, Web as _};
use ondisk::trust_root::TrustRoot;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

const CONTENT: &[u8] = b"what the server has";

/// An authority, and a bundle that names it.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    directory: TempDir,
}

/// A server's certificate and its key.
struct Identity {
    certificate: CertificateDer<'static>,
    key: KeyPair,
}

impl Authority {
    fn new() -> Self {
        Self::named("an authority")
    }

    fn named(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let own = params.self_signed(&key).unwrap();
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("bundle.crt"), own.pem()).unwrap();
        Self { issuer: Issuer::new(params, key), directory }
    }

    fn vouches_for(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        Identity { certificate, key }
    }

    fn device(&self, source: &str) -> Http {
        Http::new(source, &self.directory.path().join("bundle.crt"), &Default::default())
    }
}

/// Listens, and answers every connection in a thread of its own.
fn serve(answer: impl Fn(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || listener.incoming().flatten().for_each(answer));
    port
}

/// A server with TLS that answers everything with this.
fn serve_with_tls(identity: Identity, reply: String) -> u16 {
    let key = PrivateKeyDer::try_from(identity.key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![identity.certificate], key)
        .unwrap();
    let config = Arc::new(config);
    serve(move |socket| {
        let connection = ServerConnection::new(config.clone()).unwrap();
        let mut stream = StreamOwned::new(connection, socket);
        // A client that refuses the certificate reads no further.
        if stream.read(&mut [0; 4096]).is_ok() {
            let _ = stream.write_all(reply.as_bytes());
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    })
}

fn content() -> String {
    let text = str::from_utf8(CONTENT).unwrap();
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", CONTENT.len())
}

/// Why a device that trusts `authority` refuses a server: a look for a channel, as it is done for
/// `iota update check`. It has to come at once, not after tries that cannot help.
fn refusal(authority: &Authority, source: &str) -> String {
    let start = Instant::now();
    let trust = TrustRoot::default();
    let mut sleep = |_: Duration| panic!("waited for another try");
    let web = authority.device(source);
    let why = offer::fetch(&web, "stable", "board", &trust, &mut sleep).unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(10));
    why
}

fn check_refusal(authority: &Authority, source: &str, expected: &str, hint: &str) {
    let why = refusal(authority, source);
    let (error, advice) = why.split_once("\nhint: ").unwrap_or_else(|| panic!("no hint: {why}"));
    assert!(error.contains(expected) && !error.contains('\n'), "{why}");
    assert!(advice.contains(hint) && !advice.contains('\n'), "{why}");
}

#[test]
fn a_server_with_a_good_certificate_is_read() {
    let authority = Authority::new();
    for name in ["localhost", "127.0.0.1"] {
        let port = serve_with_tls(authority.vouches_for(name, |_| ()), content());
        let web = authority.device(&format!("https://{name}:{port}/iota"));
        let mut answer = web.get("file", None).unwrap_or_else(|trouble| panic!("{trouble:?}"));
        let mut bytes = Vec::new();
        answer.body.read_to_end(&mut bytes).unwrap();
        assert_eq!((bytes.as_slice(), answer.total), (CONTENT, Some(CONTENT.len() as u64)));
    }
}

#[test]
fn a_certificate_for_another_name_is_refused_and_both_names_are_told() {
    let authority = Authority::new();
    let port = serve_with_tls(authority.vouches_for("other.example", |_| ()), content());
    let source = format!("https://localhost:{port}");
    let expected = "the server's certificate is for other.example, not for localhost";
    check_refusal(&authority, &source, expected, "update.source");
}

#[test]
fn a_certificate_that_nobody_trusted_has_signed_is_refused_even_under_a_trusted_name() {
    for name in ["a stranger", "an authority"] {
        let stranger = Authority::named(name);
        let port = serve_with_tls(stranger.vouches_for("localhost", |_| ()), content());
        let source = format!("https://localhost:{port}");
        let expected = "nobody whom this device trusts has signed the server's certificate";
        check_refusal(&Authority::new(), &source, expected, "authority");
    }
}

#[test]
fn without_a_bundle_of_authorities_nobody_is_trusted() {
    let authority = Authority::new();
    let port = serve_with_tls(authority.vouches_for("localhost", |_| ()), content());
    fs::remove_file(authority.directory.path().join("bundle.crt")).unwrap();
    let source = format!("https://localhost:{port}");
    check_refusal(&authority, &source, "nobody whom this device trusts", "authority");
}

#[test]
fn an_expired_certificate_is_refused_with_both_dates() {
    let authority = Authority::new();
    let old = authority.vouches_for("localhost", |params| {
        params.not_before = date_time_ymd(2019, 1, 1);
        params.not_after = date_time_ymd(2020, 2, 29);
    });
    let source = format!("https://localhost:{}", serve_with_tls(old, content()));
    let expected = "not valid any more by this device's clock (2";
    check_refusal(&authority, &source, expected, "unless the clock is wrong");
    let why = refusal(&authority, &source);
    assert!(why.contains("it ended on 2020-02-29"), "{why}");
}

#[test]
fn a_certificate_that_begins_later_is_refused_and_the_clock_is_named() {
    let authority = Authority::new();
    let early = authority.vouches_for("localhost", |params| {
        params.not_before = date_time_ymd(2123, 4, 5);
        params.not_after = date_time_ymd(2124, 1, 1);
    });
    let source = format!("https://localhost:{}", serve_with_tls(early, content()));
    check_refusal(&authority, &source, "not valid yet by this device's clock (2", "clock");
    let why = refusal(&authority, &source);
    assert!(why.contains("it begins on 2123-04-05"), "{why}");
}

#[test]
fn a_server_without_tls_is_refused_where_tls_was_asked_for() {
    let port = serve(|mut socket| {
        let _ = socket.read(&mut [0; 4096]);
        let _ = socket.write_all(content().as_bytes());
    });
    let source = format!("https://localhost:{port}");
    let expected = "what answers does not speak TLS";
    check_refusal(&Authority::new(), &source, expected, "http://");
}

#[test]
fn a_server_with_tls_cannot_send_a_device_to_one_without() {
    let authority = Authority::new();
    let plain = serve(|mut socket| {
        let _ = socket.read(&mut [0; 4096]);
        let _ = socket.write_all(content().as_bytes());
    });
    let reply = format!(
        "HTTP/1.1 302 Found\r\nlocation: http://localhost:{plain}/file\r\ncontent-length: 0\r\n\r\n"
    );
    let port = serve_with_tls(authority.vouches_for("localhost", |_| ()), reply);
    let source = format!("https://localhost:{port}");
    check_refusal(&authority, &source, "to an address without TLS", "redirect to https://");
}

#[test]
fn nobody_at_the_port_is_trouble_that_may_pass() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let web = Authority::new().device(&format!("https://localhost:{port}"));
    assert!(matches!(web.get("file", None), Err(Trouble::Passing { .. })));
}
