//! A registry that wants a token and keeps its blobs elsewhere, as the large ones do.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use agent::online::registry::Registry;
use agent::online::web::{Trouble, Web as _};
use config::registry::Repository;
use ondisk::digest::Digest;
use serde_json::{Value, json};

const TOKEN: &str = "Bearer abc";
pub(crate) const FILE: &[u8] = b"0123456789";

/// A request: its target, and its headers by their names in lower case.
pub(crate) struct Request {
    pub(crate) target: String,
    pub(crate) headers: BTreeMap<String, String>,
}

/// What a server was asked: target, and what was shown to be let in.
pub(crate) type Asked = Arc<Mutex<Vec<(String, Option<String>)>>>;

pub(crate) fn serve(answer: impl Fn(&Request) -> String + Send + 'static) -> (u16, Asked) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Asked::default();
    let log = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Some(request) = stream.as_ref().ok().and_then(read) else { continue };
            let shown = request.headers.get("authorization").cloned();
            log.lock().unwrap().push((request.target.clone(), shown));
            let _ = stream.unwrap().write_all(answer(&request).as_bytes());
        }
    });
    (port, asked)
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let target = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers = lines.take_while(|line| !line.is_empty());
    let headers = headers.filter_map(|line| {
        let (name, value) = line.split_once(": ")?;
        Some((name.to_lowercase(), value.to_owned()))
    });
    Some(Request { target, headers: headers.collect() })
}

pub(crate) fn reply(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    )
}

pub(crate) fn manifest() -> Value {
    let title = json!({ "org.opencontainers.image.title": "files/a" });
    let digest = format!("sha256:{}", Digest::of(FILE));
    json!({ "layers": [{ "digest": digest, "size": FILE.len(), "annotations": title }] })
}

pub(crate) fn device(port: u16) -> Registry {
    let host = format!("127.0.0.1:{port}");
    let repository = Repository { tls: false, host, name: "team/iota".to_owned() };
    let channel = ("stable", "pi4");
    Registry::new(&repository, channel, Path::new("/nowhere"), &config::Proxy::default())
}

#[test]
fn a_token_is_asked_for_once_and_shown_to_the_registry_alone() {
    let text = std::str::from_utf8(FILE).unwrap();
    let (store, stored) = serve(move |request| {
        let range = request.headers.get("range").map_or("", String::as_str);
        assert_eq!(range, "bytes=2-4");
        reply("206 Partial Content", "content-range: bytes 2-4/10\r\n", &text[2..5])
    });
    let (tokens, given) = serve(|_| reply("200 OK", "", "{\"token\": \"abc\"}"));
    let (port, asked) = serve(move |request| match request.headers.get("authorization") {
        None => {
            let realm = format!("http://127.0.0.1:{tokens}/token");
            let challenge = format!("Bearer realm=\"{realm}\",service=\"a registry\"");
            reply("401 Unauthorized", &format!("www-authenticate: {challenge}\r\n"), "")
        }
        Some(_) if request.target.contains("/manifests/") => {
            reply("200 OK", "", &manifest().to_string())
        }
        Some(_) => {
            let place = format!("location: http://127.0.0.1:{store}/x\r\n");
            reply("307 Temporary Redirect", &place, "")
        }
    });
    let device = device(port);
    for _ in 0..2 {
        let answer = device.get("files/a", Some((2, 5))).unwrap();
        assert_eq!((answer.from, answer.total), (2, Some(10)));
        let mut bytes = Vec::new();
        answer.body.take(100).read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, FILE[2..5]);
    }
    let given = given.lock().unwrap();
    assert_eq!(given.len(), 1, "{given:?}");
    assert!(given[0].0.contains("service=a%20registry"), "{given:?}");
    assert!(given[0].0.contains("repository%3Ateam%2Fiota%3Apull"), "{given:?}");
    let stored = stored.lock().unwrap();
    assert!(stored.iter().all(|(_, shown)| shown.is_none()), "the store got the token: {stored:?}");
    let asked = asked.lock().unwrap();
    let shown: Vec<Option<&str>> = asked.iter().map(|(_, shown)| shown.as_deref()).collect();
    assert_eq!(shown, [None, Some(TOKEN), Some(TOKEN), Some(TOKEN)]);
    assert!(asked[0].0.ends_with("/v2/team/iota/manifests/stable-pi4"), "{asked:?}");
}

#[test]
fn whatever_a_registry_answers_instead_is_told_and_does_no_harm() {
    let endless = format!("[{}]", "[".repeat(200_000));
    for (status, headers, body, why) in [
        ("401 Unauthorized", "", "", "in a way that is not known here"),
        ("401 Unauthorized", "www-authenticate: Bearer x\r\n", "", "does not say who gives tokens"),
        ("401 Unauthorized", "www-authenticate: Basic x\r\n", "", "wants a name and a password"),
        ("404 Not Found", "", "", "answers 404"),
        ("200 OK", "", "<html>log in</html>", "something else than a document"),
        ("200 OK", "", endless.as_str(), "something else than a document"),
        ("200 OK", "", "{\"layers\": 7}", "is not among the files of tag stable-pi4"),
    ] {
        let answer = reply(status, headers, body);
        let (port, _) = serve(move |_| answer.clone());
        let Err(trouble) = device(port).get("files/a", None) else { panic!("{status}") };
        assert!(!matches!(trouble, Trouble::Passing { .. }), "{status}: {trouble:?}");
        assert!(trouble.why().contains(why), "{status}: {trouble:?}");
    }
    let (port, _) = serve(|_| reply("200 OK", "", &" ".repeat(300_000)));
    let Err(trouble) = device(port).get("files/a", None) else { panic!("too long") };
    assert!(trouble.why().contains("sends more than 262144 bytes"), "{trouble:?}");
}
