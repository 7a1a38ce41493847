//! One value of a file changed; comments, order and blanks stay as their owner wrote them.
//!
//! A file says the same thing in many ways: headers, dotted keys, tables within braces. So a
//! change is tried at the places where a person would put it, one after the other, and what comes
//! of each is read back by the one check there is: taken is the first text that is good, and that
//! differs from the old one in nothing but this key. A place that was misjudged costs a try.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use toml::de::{DeTable, DeValue};

use crate::Config;
use crate::keys::Shape;
use crate::print::quoted;
use crate::problem::{Problem, Problems};
use crate::read::{Value, flatten};
use crate::values::{Key, Named, Table};

/// Gives a key of a good file these values; an empty text is one that sets nothing.
pub fn set(text: &str, key: &Key, values: &[&str]) -> Result<String, Problems> {
    let before = if text.is_empty() { Config::default() } else { Config::parse(text.as_bytes())? };
    let text = text.trim_start_matches('\u{feff}');
    let literal = literal(key, values)?;
    let mut refused = None;
    for (place, lines) in places(text, key, &literal) {
        let (front, rest) = (text.get(..place.start), text.get(place.end..));
        let Some((front, rest)) = front.zip(rest) else { continue };
        let changed = format!("{front}{lines}{rest}");
        match Config::parse(changed.as_bytes()) {
            Ok(after) if changes_only(&before, &after, key) => return Ok(changed),
            Ok(_) => {}
            Err(problems) => {
                refused.get_or_insert(problems);
            }
        }
    }
    Err(refused.unwrap_or_else(|| {
        let message = format!("there is no place for `{}` in the file as it is", key.path());
        Problem::of_file(message, "change the file itself, then: iota config apply FILE").into()
    }))
}

/// Nothing else got another value on the way.
fn changes_only(before: &Config, after: &Config, key: &Key) -> bool {
    let path = key.path();
    !after.value(&path).is_empty() && before.differences(after).iter().all(|other| *other == path)
}

/// The values as the file has them.
fn literal(key: &Key, values: &[&str]) -> Result<String, Problems> {
    let list = || values.iter().map(quoted).collect::<Vec<_>>().join(", ");
    match (key.shape, values) {
        (Shape::List, [_, ..]) | (Shape::TextOrList, [_, _, ..]) => Ok(format!("[{}]", list())),
        (Shape::Text | Shape::TextOrList, [value]) => Ok(quoted(value)),
        (Shape::Number, [value]) if is_number(value) => Ok((*value).into()),
        (Shape::Switch, ["true" | "false"]) => Ok(values.concat()),
        (Shape::Switch, [value]) => {
            let message = format!("`{}`: `{value}` is neither true nor false", key.path());
            Err(Problem::of_file(message, "expected true or false").into())
        }
        (Shape::Number, [value]) => {
            let message = format!("`{}`: `{value}` is not a number", key.path());
            Err(Problem::of_file(message, "expected digits alone").into())
        }
        (_, []) => {
            let message = format!("`{}` needs a value", key.path());
            Err(Problem::of_file(message, "docs/config.md has an example of each").into())
        }
        _ => {
            let message = format!("`{}` takes one value, not {}", key.path(), values.len());
            Err(Problem::of_file(message, "put a value with blanks in quotes").into())
        }
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A stretch of the text, and what is put in place of it.
type Change = (Range<usize>, String);

/// Where the key may be put, the best place first.
fn places(text: &str, key: &Key, literal: &str) -> Vec<Change> {
    let (document, _) = DeTable::parse_recoverable(text);
    let root = document.get_ref();
    if let Some(value) = find(root, key) {
        return [(value.span(), literal.into())].into();
    }
    let Key { table, name, .. } = key;
    let line = format!("{name} = {literal}\n");
    let mut places = Vec::new();
    match (table, table_of(root, table)) {
        (Table::Single(""), _) => {
            let end = end_of_all(text, root).map(|end| line_end(text, end));
            places.push(insert(text, end.unwrap_or_else(|| behind_heading(text)), &line));
        }
        (_, Some(value)) if starts_with(text, value, "[") => {
            let own = value.as_ref().as_table().and_then(|inner| end_of_all(text, inner));
            let end = own.unwrap_or(0).max(value.span().end);
            places.push(insert(text, line_end(text, end), &line));
        }
        (_, Some(value)) if starts_with(text, value, "{") => {
            let own = value.as_ref().as_table().and_then(|inner| end_of_all(text, inner));
            let (at, comma) =
                own.map_or((value.span().start.saturating_add(1), ""), |end| (end, ","));
            return [(at..at, format!("{comma} {name} = {literal}"))].into();
        }
        // Made by dotted keys, which another one can follow.
        (Table::Single(path), Some(value)) => {
            let end = end(text, value).map(|end| line_end(text, end));
            places.extend(end.map(|end| insert(text, end, &format!("{path}.{line}"))));
        }
        // Within braces, where nothing can be added from below.
        (Table::Named(kind, _), None) if is_in_braces(text, root, kind) => return places,
        (Table::Named(..), _) | (_, None) => {}
    }
    let header = match table {
        Table::Single("") => return places,
        Table::Single(path) => format!("[{path}]\n"),
        Table::Named(kind, own) => {
            format!("[[{}]]\n{} = {}\n", kind.table(), kind.key(), quoted(own))
        }
    };
    let blank = if text.is_empty() { "" } else { "\n" };
    places.push(insert(text, text.len(), &format!("{blank}{header}{line}")));
    places
}

/// Whether the table around a list of tables is `{ … }`, or they are a list in brackets.
fn is_in_braces(text: &str, root: &DeTable<'_>, kind: &Named) -> bool {
    let Some(network) = root.get("network") else { return false };
    let list = network.as_ref().as_table().and_then(|table| table.get(kind.last()));
    starts_with(text, network, "{") || list.is_some_and(|list| end(text, list).is_some())
}

/// The value that a key has.
fn find<'a, 't>(root: &'a DeTable<'t>, key: &Key) -> Option<&'a Value<'t>> {
    let table = match &key.table {
        Table::Single("") => root,
        other => table_of(root, other)?.as_ref().as_table()?,
    };
    let mut leaves = Vec::new();
    flatten("", table, &mut leaves);
    leaves.into_iter().find(|(path, ..)| *path == key.name).map(|(_, _, value)| value)
}

/// The table of a key, if there is one.
fn table_of<'a, 't>(root: &'a DeTable<'t>, table: &Table) -> Option<&'a Value<'t>> {
    let (kind, own) = match table {
        Table::Single(path) => return root.get(*path),
        Table::Named(kind, own) => (kind, own),
    };
    let list = root.get("network")?.as_ref().as_table()?.get(kind.last())?.as_ref().as_array()?;
    list.iter().find(|value| {
        let name = value.as_ref().as_table().and_then(|table| table.get(kind.key()));
        name.and_then(|name| name.as_ref().as_str()) == Some(own)
    })
}

fn starts_with(text: &str, value: &Value<'_>, start: &str) -> bool {
    text.get(value.span()).is_some_and(|own| own.starts_with(start))
}

/// Where a value ends that stands within a table, not below a header of its own.
fn end(text: &str, value: &Value<'_>) -> Option<usize> {
    let has_header = starts_with(text, value, "[");
    match value.get_ref() {
        DeValue::Table(_) if has_header => None,
        DeValue::Table(table) if !starts_with(text, value, "{") => end_of_all(text, table),
        DeValue::Array(list) if list.iter().any(|item| is_below_header(text, item)) => None,
        _ => Some(value.span().end),
    }
}

fn is_below_header(text: &str, value: &Value<'_>) -> bool {
    matches!(value.get_ref(), DeValue::Table(_)) && starts_with(text, value, "[")
}

fn end_of_all(text: &str, table: &DeTable<'_>) -> Option<usize> {
    table.values().filter_map(|value| end(text, value)).max()
}

/// Behind the line that holds this byte.
fn line_end(text: &str, byte: usize) -> usize {
    let rest = text.get(byte..).unwrap_or_default();
    let line = rest.find('\n').map_or(rest.len(), |end| end.saturating_add(1));
    byte.saturating_add(line)
}

/// Behind the comment that a file begins with; one that a table follows at once is about that.
fn behind_heading(text: &str) -> usize {
    let mut place = 0_usize;
    for line in text.split_inclusive('\n') {
        match line.trim() {
            "" => return place,
            comment if comment.starts_with('#') => place = place.saturating_add(line.len()),
            _ => return 0,
        }
    }
    place
}

/// Whole lines at this place, which is the beginning of one or the end of the text.
fn insert(text: &str, place: usize, lines: &str) -> Change {
    let front = text.get(..place).unwrap_or_default();
    let unfinished = !front.is_empty() && !front.ends_with('\n');
    (place..place, format!("{}{lines}", if unfinished { "\n" } else { "" }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::borrow::ToOwned as _;
    use alloc::string::ToString as _;

    fn change(text: &str, path: &str, values: &[&str]) -> Result<String, String> {
        let key = Key::parse(path).map_err(|problems| problems.to_string())?;
        set(text, &key, values).map_err(|problems| problems.to_string())
    }

    /// Before, key, values, after.
    fn check(before: &str, path: &str, values: &[&str], after: &str) {
        assert_eq!(change(before, path, values).as_deref(), Ok(after), "{path} in {before:?}");
    }

    #[test]
    fn a_value_is_replaced_where_it_stands_and_all_around_it_stays() {
        let before = "# Mine.\r\n  hostname=\"a\" # by the door\r\n\n[health]\nwindow-s = 60\n";
        let after = before.replace("\"a\"", "\"b\"");
        check(before, "hostname", &["b"], &after);
        check(before, "health.window-s", &["90"], &before.replace("60", "90"));
        let inline = "network = { dns = [\"1.1.1.1\"], interface = [\
            { name = \"eth0\", address = \"10.0.0.2/8\" }] } # one line\n";
        check(inline, "network.dns", &["9.9.9.9"], &inline.replace("1.1.1.1", "9.9.9.9"));
        let other = inline.replace("10.0.0.2/8", "10.0.0.3/8");
        check(inline, "network.interface.eth0.address", &["10.0.0.3/8"], &other);
        let quoted = "[sysctl]\n\"vm.swappiness\" = 0x0a\n";
        check(quoted, "sysctl.vm.swappiness", &["20"], &quoted.replace("0x0a", "20"));
    }

    #[test]
    fn a_new_value_is_put_where_a_person_would() {
        check("", "hostname", &["b"], "hostname = \"b\"\n");
        let table = "# The kernel.\n[sysctl]\nvm.swappiness = 1";
        check(table, "hostname", &["b"], &format!("hostname = \"b\"\n{table}"));
        let heading = "# Kiosk.\n# By the door.\n";
        let after = format!("{heading}hostname = \"b\"\n\n{table}");
        check(&format!("{heading}\n{table}"), "hostname", &["b"], &after);
        let after = format!("{table}\nvm.max_map_count = 70000\n");
        check(table, "sysctl.vm.max_map_count", &["70000"], &after);
        let dotted = "sysctl.vm.swappiness = 1 # low\n\n[health]\n";
        let after = "sysctl.vm.swappiness = 1 # low\nsysctl.vm.dirty_ratio = 9\n\n[health]\n";
        check(dotted, "sysctl.vm.dirty_ratio", &["9"], after);
        check("[time]", "time.servers", &["a", "b"], "[time]\nservers = [\"a\", \"b\"]\n");
        check("[time]\n", "health.window-s", &["90"], "[time]\n\n[health]\nwindow-s = 90\n");
    }

    #[test]
    fn an_interface_is_found_by_its_name_or_gets_a_table_of_its_own() {
        let eth0 = "[[network.interface]]\nname = \"eth0\"\naddress = \"10.0.0.2/8\"\n";
        let after = format!("{eth0}router = \"10.0.0.1\"\n");
        check(eth0, "network.interface.eth0.router", &["10.0.0.1"], &after);
        let eth1 = "[[network.interface]]\nname = \"eth1.7\"\naddress = \"11.0.0.2/8\"\n";
        let both = format!("{eth0}\n{eth1}");
        check(eth0, "network.interface.eth1.7.address", &["11.0.0.2/8"], &both);
        let after = both.replace("\n\n", "\nrouter = \"10.0.0.1\"\n\n");
        check(&both, "network.interface.eth0.router", &["10.0.0.1"], &after);
        // The table above them may be opened after them.
        let after = format!("{eth0}\n[network]\ndns = [\"10.0.0.1\"]\n");
        check(eth0, "network.dns", &["10.0.0.1"], &after);
        let wifi = "[[network.wifi]]\nssid = \"My. \\\"Net\\\"\"\npassword = \"12345678\"\n";
        check("", "network.wifi.My. \"Net\".password", &["12345678"], wifi);
        let after = format!("{wifi}hidden = true\n");
        check(wifi, "network.wifi.My. \"Net\".hidden", &["true"], &after);
        let two = "address = [\"11.0.0.2/8\", \"fd00::2/64\"]";
        let after = both.replace("address = \"11.0.0.2/8\"", two);
        let values = ["11.0.0.2/8", "fd00::2/64"];
        check(&both, "network.interface.eth1.7.address", &values, &after);
    }

    #[test]
    fn what_the_check_refuses_is_refused_with_its_place() {
        for (path, values, expected) in [
            ("hostname", &["Kiosk 7"][..], "line 1, column 12: `Kiosk 7` is no name of a device"),
            ("hostname", &["a\"\nx = 1"], "line 1, column 12: `a\"?x = 1` is no name of a device"),
            ("hostname", &["a", "b"], "`hostname` takes one value, not 2"),
            ("network.dns", &[], "`network.dns` needs a value"),
            ("health.window-s", &["1"], "line 4, column 12: 1 is out of range"),
            ("health.window-s", &["soon"], "`health.window-s`: `soon` is not a number"),
            ("network.interface.eth0.router", &["10.0.0.1"], "an interface without `address`"),
            ("network.interface.lo.address", &["10.0.0.1/8"], "`lo` belongs to the system"),
            ("network.interface.eth0.name", &["eth1"], "`network.interface.eth0.name` is not"),
            ("network.wifi.My. Net.password", &["short"], "line 5, column 12: 5 characters"),
            ("network.wifi.a.hidden", &["no"], "`no` is neither true nor false"),
            ("network.wifi.a.ssid", &["b"], "`network.wifi.a.ssid` is not a key"),
            ("hostnam", &["b"], "`hostnam` is not a key"),
            ("sysctl.vm.swapiness", &["1"], "`sysctl.vm.swapiness` is not a key"),
        ] {
            let error = change("hostname = \"a\"\n", path, values).unwrap_err();
            assert!(error.contains(expected), "{path} {values:?}: {error}");
        }
        let hint = |path| Key::parse(path).unwrap_err().first().hint.clone().unwrap();
        assert_eq!(hint("hostnam"), "did you mean `hostname`?");
        assert_eq!(hint("sysctl.vm.swapiness"), "did you mean `sysctl.vm.swappiness`?");
        assert!(hint("network.interface").contains("network.interface.NAME.address"));
    }

    #[test]
    fn within_braces_a_key_is_added_to_those_that_are_there() {
        let two = "sysctl = { vm.swappiness = 1, vm.dirty_ratio = 9 } # kernel\n";
        let one = "sysctl = { vm.swappiness = 1 } # kernel\n";
        check(one, "sysctl.vm.dirty_ratio", &["9"], two);
        check("time = {}\n", "time.servers", &["a"], "time = { servers = [\"a\"]}\n");
        for text in [
            "network = { dns = [\"1.1.1.1\"] }\n",
            "network.interface = [{ name = \"eth1\", address = \"11.0.0.2/8\" }]\n",
        ] {
            let error = change(text, "network.interface.eth0.address", &["10.0.0.2/8"]);
            let expected =
                "there is no place for `network.interface.eth0.address` in the file as it is";
            assert_eq!(error, Err(expected.to_owned()));
        }
    }
}
