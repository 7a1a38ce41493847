//! Proxies, authorities and registries: what the engine is started with, and what the agent's
//! downloads trust.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use config::{Config, Engine};
use serde_json::json;

use super::Places;
use crate::files;
use crate::online::tls;

/// The public authorities and the owner's, if there are any.
pub const BUNDLE: &str = "/run/iota/ca-certificates.crt";

/// The bundle that holds on this device.
pub fn bundle() -> PathBuf {
    let own = Path::new(BUNDLE);
    if own.exists() { own.into() } else { tls::ROOTS.into() }
}

/// Writes both files; says what could not be written.
pub fn write(places: &Places, config: &Config) -> Vec<String> {
    let roots = write_bundle(places, config);
    let environment = environment(config, &places.bundle);
    let written = put(&places.environment, &environment);
    let shown = |path: &Path| path.display().to_string();
    let roots = roots.map_err(|error| format!("{}: {error}", shown(&places.bundle)));
    let written = written.map_err(|error| format!("{}: {error}", shown(&places.environment)));
    let files = [(&places.docker, docker(config)), (&places.podman, podman(config))];
    let told = files
        .map(|(path, text)| put(path, &text).map_err(|error| format!("{}: {error}", shown(path))));
    [roots, written].into_iter().chain(told).filter_map(Result::err).collect()
}

/// The engine and the agent each read one file, so the public authorities are in it as well.
fn write_bundle(places: &Places, config: &Config) -> io::Result<()> {
    let mut text = String::new();
    if !config.certificates().is_empty() {
        text = fs::read_to_string(&places.roots)?;
        text.push_str(if text.ends_with('\n') { "" } else { "\n" });
    }
    config.certificates().iter().for_each(|certificate| text.push_str(&certificate.to_string()));
    put(&places.bundle, &text)
}

/// In one step; a text without anything in it is no file.
fn put(path: &Path, text: &str) -> io::Result<()> {
    if !text.is_empty() {
        return files::replace(path, text.as_bytes(), 0o644);
    }
    files::remove(path).map(drop)
}

/// See dockerd(8), "Daemon configuration file".
fn docker(config: &Config) -> String {
    let engine = config.engine();
    if *engine == Engine::default() {
        return String::new();
    }
    let document = json!({
        "registry-mirrors": engine.mirrors(),
        "insecure-registries": engine.insecure(),
    });
    format!("{document}\n")
}

/// See containers-registries.conf(5). Podman wants the file even if there is nothing to say.
fn podman(config: &Config) -> String {
    let mut text = String::from("# From iota.toml.\n");
    let engine = config.engine();
    if !engine.mirrors().is_empty() {
        text.push_str("[[registry]]\nlocation = \"docker.io\"\n");
    }
    for mirror in engine.mirrors() {
        let (scheme, location) = mirror.split_once("://").unwrap_or(("", mirror));
        let insecure = scheme == "http";
        let entry = format!("location = \"{location}\"\ninsecure = {insecure}\n");
        text.push_str(&format!("[[registry.mirror]]\n{entry}"));
    }
    for location in engine.insecure() {
        text.push_str(&format!("[[registry]]\nlocation = \"{location}\"\ninsecure = true\n"));
    }
    text
}

/// The variables that programs written in Go and many others know.
fn environment(config: &Config, bundle: &Path) -> String {
    let proxy = config.proxy();
    let mut entries = Vec::new();
    entries.extend(proxy.http().map(|address| ("HTTP_PROXY", address.to_owned())));
    entries.extend(proxy.https().map(|address| ("HTTPS_PROXY", address.to_owned())));
    if !entries.is_empty() && !proxy.no_proxy().is_empty() {
        entries.push(("NO_PROXY", proxy.no_proxy().join(",")));
    }
    if !config.certificates().is_empty() {
        entries.push(("SSL_CERT_FILE", bundle.display().to_string()));
    }
    // Nobody reads this one: an engine that began without it is started anew, and finds its file.
    let engine = config.engine();
    if *engine != Engine::default() {
        let all = engine.mirrors().iter().chain(engine.insecure());
        let all: Vec<&str> = all.map(String::as_str).collect();
        entries.push(("IOTA_REGISTRIES", all.join(",")));
    }
    entries.iter().map(|(name, value)| format!("{name}={value}\n")).collect()
}
