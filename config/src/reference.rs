//! `docs/config.md`, made of the tables of keys. A test holds the file against [`document`];
//! `UPDATE_EXPECT=1 cargo test -p config` writes it.

use alloc::format;
use alloc::string::String;

use crate::keys::{KEYS, Key, REPEATED};
use crate::sysctls::SYSCTLS;

/// How a config gets onto a device and what becomes of it there.
const INTRODUCTION: &str = include_str!("reference/introduction.md");

/// Why the list of settings is as long as it is.
const SETTINGS: &str = include_str!("reference/sysctl.md");

/// The whole page.
pub fn document() -> String {
    let mut page = format!("{INTRODUCTION}\n## Keys\n");
    let mut table = "";
    for key in KEYS {
        let (own, name) = key.path.rsplit_once('.').unwrap_or(("", key.path));
        if own != table {
            table = own;
            page.push_str(&format!("\n### {}\n", heading(own)));
        }
        page.push_str(&entry(name, key));
    }
    page.push_str(&format!("\n### `[sysctl]`\n\n{SETTINGS}\n"));
    page.push_str("| setting | values | what it does |\n|---|---|---|\n");
    for sysctl in SYSCTLS {
        page.push_str(&format!("| `{}` | {} | {} |\n", sysctl.name, sysctl.range(), sysctl.text));
    }
    page
}

/// A table that may be there more than once has two brackets.
fn heading(table: &str) -> String {
    let repeated = REPEATED.iter().any(|(path, _)| *path == table);
    if repeated { format!("`[[{table}]]`") } else { format!("`[{table}]`") }
}

fn entry(name: &str, key: &Key) -> String {
    let Key { expected, default, example, text, .. } = key;
    let text = wrapped(&format!("**`{name}`**: {text}"), "");
    let value = wrapped(&format!("- value: {expected}"), "  ");
    let example = match example.contains('\n') {
        true => format!("\n\n```toml\n{example}\n```"),
        false => format!(" `{example}`"),
    };
    format!("\n{text}\n{value}- without it: {default}\n- example:{example}\n")
}

/// Lines of a width that is read well in a review.
fn wrapped(text: &str, indent: &str) -> String {
    let mut lines = String::new();
    let mut column = 0_usize;
    for word in text.split(' ') {
        let width = word.chars().count();
        if column > 0 && column.saturating_add(width) >= 119 {
            lines.push('\n');
            lines.push_str(indent);
            column = indent.len();
        } else if column > 0 {
            lines.push(' ');
            column = column.saturating_add(1);
        }
        lines.push_str(word);
        column = column.saturating_add(width);
    }
    lines.push('\n');
    lines
}
