//! `custom.toml` of Raspberry Pi Imager.

use alloc::borrow::ToOwned as _;
use alloc::string::ToString as _;

use toml::de::{DeTable, DeValue};

use super::draft::{Draft, Network};
use super::node::{Entry, Node, Value};
use crate::problem::{Problem, Problems};

/// The same tree that YAML comes to. The parser stops at 80 levels.
pub(super) fn tree(text: &str) -> Result<Node, Problems> {
    let table = DeTable::parse(text).map_err(|error| {
        let byte = error.span().map_or(text.len(), |span| span.start);
        Problem::at(text, byte, error.message().to_owned(), None)
    })?;
    Ok(of_table(table.span().start, table.get_ref()))
}

fn of_table(at: usize, table: &DeTable<'_>) -> Node {
    let entries = table.iter().map(|(key, value)| Entry {
        at: key.span().start,
        key: key.get_ref().to_string(),
        value: of_value(value.span().start, value.get_ref()),
    });
    Node::new(at, Value::Table(entries.collect()))
}

fn of_value(at: usize, value: &DeValue<'_>) -> Node {
    let text = match value {
        DeValue::Table(table) => return of_table(at, table),
        DeValue::Array(list) => {
            let items = list.iter().map(|item| of_value(item.span().start, item.get_ref()));
            return Node::new(at, Value::List(items.collect()));
        }
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Datetime(time) => time.to_string(),
    };
    Node::new(at, Value::Text(text))
}

/// See `init_config` of Raspberry Pi OS, which reads the same file.
pub(super) fn custom(draft: &mut Draft<'_>, root: &Node) {
    for table in draft.entries(root, "custom.toml") {
        match &*table.key {
            "config_version" => version(draft, table),
            "system" => system(draft, &table.value),
            "ssh" => ssh(draft, &table.value),
            "wlan" => wlan(draft, table),
            "user" => user(draft, &table.value),
            "locale" => locale(draft, &table.value),
            _ => draft.unsupported(table, ""),
        }
    }
}

fn version(draft: &mut Draft<'_>, entry: &Entry) {
    if entry.value.text() != Some("1") {
        draft.unsupported(entry, "version 1 is read");
    }
}

fn system(draft: &mut Draft<'_>, node: &Node) {
    for entry in draft.entries(node, "[system]") {
        match &*entry.key {
            "hostname" => draft.hostname("hostname", &entry.value),
            _ => draft.unsupported(entry, ""),
        }
    }
}

fn user(draft: &mut Draft<'_>, node: &Node) {
    for entry in draft.entries(node, "[user]") {
        match &*entry.key {
            "name" | "password_encrypted" => {}
            _ => draft.unsupported(entry, "there are no passwords: who has a key logs in"),
        }
    }
}

fn ssh(draft: &mut Draft<'_>, node: &Node) {
    let is_off = node.get("enabled").and_then(Node::truth) == Some(false);
    for entry in draft.entries(node, "[ssh]") {
        match &*entry.key {
            "enabled" => {}
            "authorized_keys" if is_off => {
                draft.note(entry.at, "keys, but SSH is not enabled: they are left out", "");
            }
            "authorized_keys" => draft.ssh_keys("authorized_keys", &entry.value),
            "password_authentication" if entry.value.truth() == Some(false) => {}
            _ => draft.unsupported(entry, "there are no passwords: who has a key logs in"),
        }
    }
}

fn wlan(draft: &mut Draft<'_>, table: &Entry) {
    let node = &table.value;
    for entry in draft.entries(node, "[wlan]") {
        match &*entry.key {
            "country" => draft.country("country", &entry.value),
            "ssid" | "password" | "password_encrypted" | "hidden" => {}
            _ => draft.unsupported(entry, ""),
        }
    }
    // Imager writes the table for the country alone as well.
    let Some(ssid) = node.get("ssid") else { return };
    let hidden = node.get("hidden").and_then(Node::truth) == Some(true);
    let password = node.get("password").filter(|password| password.text() != Some(""));
    let (text, at) = (ssid.text().unwrap_or_default(), ssid.at);
    draft.wifi(&Network { ssid: text, at, password, security: None, hidden });
}

fn locale(draft: &mut Draft<'_>, node: &Node) {
    for entry in draft.entries(node, "[locale]") {
        match &*entry.key {
            "timezone" => draft.zone("timezone", &entry.value),
            _ => draft.unsupported(entry, ""),
        }
    }
}
