//! `iota config get`: values in force, the owner's or else the image's and the kernel's.

use std::fs;

use config::values::Key;
use ondisk::system::System;
use serde_json::{Value, json};

use super::{Places, Report, window_s};

/// What is printed in place of a password.
const SECRET: &str = "(secret; --secrets shows it)";

/// Values of a key as they may be printed: without passwords, unless they are asked for.
pub fn shown(key: &Key, values: Vec<String>, secrets: bool) -> Vec<String> {
    match key.is_secret() && !secrets {
        true => values.iter().map(|_| SECRET.to_owned()).collect(),
        false => values,
    }
}

/// The values of a key that are in force; none where the network or nobody says.
pub fn values(key: &Key, places: &Places, report: &Report, system: &System) -> Vec<String> {
    let (path, health) = (key.path(), system.health.as_ref());
    let own = report.config.value(&path);
    if let Some(name) = key.sysctl() {
        let file = places.sysctls.join(name.replace('.', "/"));
        let kernels = fs::read_to_string(file).ok();
        return kernels.map_or(own, |text| vec![text.trim().to_owned()]);
    }
    match &*path {
        "hostname" if own.is_empty() => vec![system.hostname.clone()],
        "health.window-s" => {
            Vec::from_iter(health.map(|health| window_s(Some(report), health).to_string()))
        }
        _ => own,
    }
}

/// Every key that has a value of the owner or the image, with its values.
pub fn all(
    places: &Places,
    report: &Report,
    system: &System,
    secrets: bool,
) -> Vec<(String, Vec<String>)> {
    let own = report.config.values().into_iter().map(|(key, _)| key);
    let mut keys: Vec<String> = own.collect();
    let images = ["hostname", "health.window-s"].map(str::to_owned);
    keys.extend(images.into_iter().filter(|key| report.config.value(key).is_empty()));
    let known = keys.iter().filter_map(|path| Key::parse(path).ok());
    let values = known.map(|key| {
        let values = values(&key, places, report, system);
        (key.path(), shown(&key, values, secrets))
    });
    values.filter(|(_, values)| !values.is_empty()).collect()
}

/// A line for each key, as `iota config set` takes them in a shell.
pub fn lines(all: &[(String, Vec<String>)]) -> String {
    let word = |value: &String| match value.contains(' ') {
        true => format!("'{value}'"),
        false => value.clone(),
    };
    let words = |values: &[String]| values.iter().map(word).collect::<Vec<_>>().join(" ");
    all.iter().map(|(key, values)| format!("{key} {}\n", words(values))).collect()
}

/// The same for programs: each value a list.
pub fn document(all: &[(String, Vec<String>)]) -> Value {
    all.iter().map(|(key, values)| (key.clone(), json!(values))).collect()
}
