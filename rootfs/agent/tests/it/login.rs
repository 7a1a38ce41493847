//! Servers that let in only whom they know, and others that would like to know the password.

use std::io::Read as _;
use std::path::Path;
use std::sync::PoisonError;

use agent::online::web::{Answer, Http, Trouble, Web};
use config::{Config, Secret};

use crate::registry::{Asked, FILE, Request, device, manifest, reply, serve};

/// `anna` with the password `secret`, as HTTP's basic authentication sends it.
const ANNA: &str = "Basic YW5uYTpzZWNyZXQ=";
const ASKS: &str = "www-authenticate: Basic realm=\"a\"\r\n";

fn login(user: &str, password: &str) -> Option<Secret> {
    let text = format!("[update]\nuser = \"{user}\"\npassword = \"{password}\"\n");
    Config::parse(text.as_bytes()).unwrap().update().authorization()
}

fn anna() -> Option<Secret> {
    login("anna", "secret")
}

fn shown(request: &Request) -> Option<&str> {
    request.headers.get("authorization").map(String::as_str)
}

/// What a server was shown, request by request.
fn all_shown(asked: &Asked) -> Vec<Option<String>> {
    let asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
    asked.iter().map(|(_, shown)| shown.clone()).collect()
}

fn content() -> String {
    reply("200 OK", "", str::from_utf8(FILE).unwrap())
}

fn redirect(port: u16) -> String {
    reply("307 Temporary Redirect", &format!("location: http://127.0.0.1:{port}/x\r\n"), "")
}

fn unauthorized(headers: &str) -> String {
    reply("401 Unauthorized", headers, "")
}

fn wants_token(realm: u16) -> String {
    unauthorized(&format!("www-authenticate: Bearer realm=\"http://127.0.0.1:{realm}/token\"\r\n"))
}

/// A registry that lets in whoever shows this, and otherwise answers something else; its blobs are
/// elsewhere.
fn registry(good: &'static str, otherwise: String, store: u16) -> (u16, Asked) {
    serve(move |request| match shown(request) {
        Some(text) if text == good && request.target.contains("/manifests/") => {
            reply("200 OK", "", &manifest().to_string())
        }
        Some(text) if text == good => redirect(store),
        _ => otherwise.clone(),
    })
}

fn static_server(port: u16) -> Http {
    let source = format!("http://127.0.0.1:{port}/iota");
    Http::new(&source, Path::new("/nowhere"), &config::Proxy::default())
}

fn bytes(answer: Result<Answer, Trouble>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let answer = answer.unwrap_or_else(|trouble| panic!("{trouble:?}"));
    answer.body.take(100).read_to_end(&mut bytes).unwrap();
    bytes
}

/// Refusals are told at once, with a hint, and say no name and no password.
fn check_refusal(web: &dyn Web, expected: &str, hint: &str) {
    let Err(Trouble::Lasting(why)) = web.get("files/a", None) else { panic!("{expected}") };
    let (error, advice) = why.split_once("\nhint: ").unwrap_or_else(|| panic!("no hint: {why}"));
    assert!(error.contains(expected) && advice.contains(hint), "{why}");
    assert!(!why.contains("anna") && !why.contains("secret"), "{why}");
}

#[test]
fn a_registry_is_shown_a_token_and_only_whom_it_names_for_them_the_password() {
    let (store, stored) = serve(|_| content());
    let (tokens, given) = serve(|request| match shown(request) {
        Some(ANNA) => reply("200 OK", "", "{\"access_token\": \"abc\"}"),
        _ => unauthorized(""),
    });
    let (port, asked) = registry("Bearer abc", wants_token(tokens), store);
    assert_eq!(bytes(device(port).with_login(anna()).get("files/a", None)), FILE);
    assert_eq!(all_shown(&given), [Some(ANNA.to_owned())]);
    let token = Some("Bearer abc".to_owned());
    assert_eq!(all_shown(&asked), [None, token.clone(), token]);
    assert_eq!(all_shown(&stored), [None]);
    check_refusal(&device(port), "the registry wants a name and a password", "update.user");
    let mistyped = device(port).with_login(login("anna", "sekret"));
    check_refusal(&mistyped, "the registry refuses the name and the password", "update.password");
}

#[test]
fn a_registry_that_asks_for_the_password_itself_gets_it_and_its_store_does_not() {
    let (store, stored) = serve(|_| content());
    let (port, asked) = registry(ANNA, unauthorized(ASKS), store);
    assert_eq!(bytes(device(port).with_login(anna()).get("files/a", None)), FILE);
    assert_eq!(all_shown(&asked), [None, Some(ANNA.to_owned()), Some(ANNA.to_owned())]);
    assert_eq!(all_shown(&stored), [None]);
    check_refusal(&device(port), "the registry wants a name and a password", "update.user");
    let mistyped = device(port).with_login(login("anna", "sekret"));
    check_refusal(&mistyped, "the registry refuses the name and the password", "update.password");
}

#[test]
fn a_login_that_may_not_read_the_repository_is_told_although_it_gets_a_token() {
    let (tokens, _) = serve(|_| reply("200 OK", "", "{\"token\": \"useless\"}"));
    let (port, _) = registry("Bearer abc", wants_token(tokens), 0);
    let expected = "the registry refuses the name and the password";
    check_refusal(&device(port).with_login(anna()), expected, "update.user");
    check_refusal(&device(port), "the registry wants a name and a password", "update.user");
}

#[test]
fn where_a_redirect_leads_to_nobody_gets_the_password_however_it_asks() {
    let (thief, caught) = serve(|_| unauthorized(ASKS));
    let (token_thief, caught_too) = serve(|_| reply("200 OK", "", "{\"token\": \"x\"}"));
    let (sly, asked) = serve(move |_| wants_token(token_thief));
    let check = |web: &dyn Web, to: u16| {
        check_refusal(web, &format!("sends this device to 127.0.0.1:{to}"), "update.source");
    };
    for to in [thief, sly] {
        let (port, _) = serve(move |_| redirect(to));
        check(&device(port).with_login(anna()), to);
        check(&static_server(port).with_login(anna()), to);
        let (port, _) = registry(ANNA, unauthorized(ASKS), to);
        check(&device(port).with_login(anna()), to);
    }
    // Nor where whoever gives tokens sends the device.
    let (tokens, _) = serve(move |_| redirect(thief));
    let (port, _) = registry("Bearer abc", wants_token(tokens), 0);
    check(&device(port).with_login(anna()), thief);
    assert!(!all_shown(&caught).is_empty() && all_shown(&caught).iter().all(Option::is_none));
    assert!(!all_shown(&asked).is_empty() && all_shown(&asked).iter().all(Option::is_none));
    assert!(all_shown(&caught_too).is_empty());
}

#[test]
fn a_web_server_is_shown_the_password_in_each_request() {
    let (port, asked) = serve(|request| match shown(request) {
        Some(ANNA) => content(),
        _ => unauthorized(ASKS),
    });
    let known = static_server(port).with_login(anna());
    for _ in 0..2 {
        assert_eq!(bytes(known.get("files/a", None)), FILE);
    }
    assert_eq!(all_shown(&asked), [Some(ANNA.to_owned()), Some(ANNA.to_owned())]);
    check_refusal(&static_server(port), "the server wants a name and a password", "update.user");
    let mistyped = static_server(port).with_login(login("anna", "sekret"));
    check_refusal(&mistyped, "the server refuses the name and the password", "update.password");
}
