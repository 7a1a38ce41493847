//! A YAML file as a tree of texts in which every key and value knows its place, with merge keys
//! (`<<`) and variables (`${NAME}`) resolved as Compose resolves them.
//!
//! Specifications: YAML 1.2; Compose Specification, "Interpolation" and "Fragments".

use std::collections::BTreeMap;

use saphyr::{LoadableYamlNode as _, MarkedYaml, Marker, Scalar, YamlData};

/// Where something begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

/// A value and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Where it begins.
    pub place: Place,
    /// What it is.
    pub value: Value,
}

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing, or `null`.
    Null,
    /// Any other scalar, as text.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order of the file.
    Map(Vec<Entry>),
}

/// A key of a mapping and what it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key begins.
    pub place: Place,
    /// What it has.
    pub node: Node,
}

/// Something that cannot be read, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub place: Place,
    /// What is wrong, one clause.
    pub message: String,
    /// What would be right.
    pub hint: Option<String>,
}

/// Reads a file; `variables` are what `.env` sets. Faults of variables do not end the reading.
pub fn read(text: &str, variables: &BTreeMap<String, String>) -> (Option<Node>, Vec<Fault>) {
    let documents = match MarkedYaml::load_from_str(text) {
        Ok(documents) => documents,
        Err(error) => {
            let message = format!("this is not YAML: {}", error.info());
            return (None, vec![Fault { place: place(error.marker()), message, hint: None }]);
        }
    };
    let [document] = documents.as_slice() else {
        let message = match documents.len() {
            0 => "the file is empty".to_owned(),
            count => format!("the file has {count} documents, an app has one"),
        };
        let place = Place { line: 1, column: 1 };
        return (None, vec![Fault { place, message, hint: None }]);
    };
    let mut reader = Reader { variables, faults: Vec::new() };
    let node = reader.node(document);
    (Some(node), reader.faults)
}

struct Reader<'a> {
    variables: &'a BTreeMap<String, String>,
    faults: Vec<Fault>,
}

impl Reader<'_> {
    fn node(&mut self, yaml: &MarkedYaml<'_>) -> Node {
        let place = place(&yaml.span.start);
        let value = match &yaml.data {
            YamlData::Value(scalar) => self.scalar(scalar, place),
            YamlData::Representation(text, ..) => self.text(text, place),
            YamlData::Sequence(items) => {
                Value::List(items.iter().map(|item| self.node(item)).collect())
            }
            YamlData::Mapping(entries) => Value::Map(self.entries(entries.iter())),
            YamlData::Tagged(_, inner) => return self.node(inner),
            YamlData::Alias(_) | YamlData::BadValue => Value::Null,
        };
        Node { place, value }
    }

    fn entries<'y>(
        &mut self,
        entries: impl Iterator<Item = (&'y MarkedYaml<'y>, &'y MarkedYaml<'y>)>,
    ) -> Vec<Entry> {
        let mut own = Vec::new();
        let mut merged = Vec::new();
        for (key, value) in entries {
            let node = self.node(value);
            let (key, place) = (name(key), place(&key.span.start));
            match key.as_str() {
                "<<" => merged.push(node),
                _ => own.push(Entry { key, place, node }),
            }
        }
        for node in merged {
            let maps = match node.value {
                Value::List(items) => items,
                other => vec![Node { place: node.place, value: other }],
            };
            for map in maps {
                let Value::Map(entries) = map.value else { continue };
                for entry in entries {
                    if own.iter().all(|present| present.key != entry.key) {
                        own.push(entry);
                    }
                }
            }
        }
        own
    }

    fn scalar(&mut self, scalar: &Scalar<'_>, place: Place) -> Value {
        match scalar {
            Scalar::Null => Value::Null,
            Scalar::String(text) => self.text(text, place),
            Scalar::Boolean(value) => Value::Text(value.to_string()),
            Scalar::Integer(value) => Value::Text(value.to_string()),
            Scalar::FloatingPoint(value) => Value::Text(value.to_string()),
        }
    }

    fn text(&mut self, text: &str, place: Place) -> Value {
        match substitute(text, self.variables) {
            Ok(text) => Value::Text(text),
            Err((message, hint)) => {
                self.faults.push(Fault { place, message, hint: Some(hint) });
                Value::Text(text.to_owned())
            }
        }
    }
}

fn name(key: &MarkedYaml<'_>) -> String {
    match &key.data {
        YamlData::Value(Scalar::String(text)) => text.to_string(),
        YamlData::Value(Scalar::Integer(value)) => value.to_string(),
        YamlData::Value(Scalar::Boolean(value)) => value.to_string(),
        _ => String::new(),
    }
}

fn place(marker: &Marker) -> Place {
    Place { line: marker.line(), column: marker.col() + 1 }
}

/// Resolves `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME-default}`, `${NAME:?why}`,
/// `${NAME:+other}` and `$$`; an error is a clause and a hint.
fn substitute(
    text: &str,
    variables: &BTreeMap<String, String>,
) -> Result<String, (String, String)> {
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        result.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            result.push('$');
            rest = after;
            continue;
        }
        let (expression, after) = match after.strip_prefix('{') {
            Some(braced) => {
                let end = closing(braced).ok_or_else(|| {
                    ("`${` has no `}`".to_owned(), "write $$ for a dollar sign".to_owned())
                })?;
                (&braced[..end], &braced[end + 1..])
            }
            None => {
                let end = after.find(|c: char| !is_name(c)).unwrap_or(after.len());
                (&after[..end], &after[end..])
            }
        };
        result.push_str(&variable(expression, variables)?);
        rest = after;
    }
    result.push_str(rest);
    Ok(result)
}

/// Where the brace ends that was opened before this text.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, character) in text.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => return Some(at),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

fn is_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

fn variable(
    expression: &str,
    variables: &BTreeMap<String, String>,
) -> Result<String, (String, String)> {
    let end = expression.find(|c: char| !is_name(c)).unwrap_or(expression.len());
    let (name, operation) = expression.split_at(end);
    if name.is_empty() {
        let message = format!("`${expression}` names no variable");
        return Err((message, "write $$ for a dollar sign".to_owned()));
    }
    let value = variables.get(name);
    let full = value.filter(|value| !value.is_empty());
    let found = match operation.get(..2).unwrap_or(operation) {
        ":-" => Some(full.cloned().map_or_else(|| substitute(&operation[2..], variables), Ok)?),
        ":+" => Some(full.map(|_| operation[2..].to_owned()).unwrap_or_default()),
        ":?" => full.cloned(),
        other if other.starts_with('-') => {
            Some(value.cloned().map_or_else(|| substitute(&operation[1..], variables), Ok)?)
        }
        other if other.starts_with('+') => {
            Some(value.map(|_| operation[1..].to_owned()).unwrap_or_default())
        }
        _ => value.cloned(),
    };
    found.ok_or_else(|| {
        let hint = format!("a device has no environment: set it in .env, or write ${{{name}:-…}}");
        (format!("the variable `{name}` is not set"), hint)
    })
}

impl Node {
    /// The text, if it is one.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The entries of a mapping; none for anything else.
    pub fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The items of a list; a single scalar counts as a list of one, as Compose has it.
    pub fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            Value::Text(_) => std::slice::from_ref(self),
            _ => &[],
        }
    }

    /// What a key of a mapping has.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|entry| entry.key == key).map(|entry| &entry.node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> BTreeMap<String, String> {
        BTreeMap::from([("TAG".into(), "1.2".into()), ("EMPTY".into(), String::new())])
    }

    #[test]
    fn variables_are_resolved_as_compose_resolves_them() {
        for (text, expected) in [
            ("plain", "plain"),
            ("web:$TAG", "web:1.2"),
            ("web:${TAG}!", "web:1.2!"),
            ("${NONE:-a}${EMPTY:-b}${EMPTY-c}", "ab"),
            ("${NONE:-${TAG}}", "1.2"),
            ("${TAG:+x}${NONE:+y}", "x"),
            ("$$HOME", "$HOME"),
        ] {
            assert_eq!(substitute(text, &variables()).as_deref(), Ok(expected), "{text}");
        }
        for text in ["$NONE", "${NONE}", "${EMPTY:?say}", "${TAG", "a $ b"] {
            assert!(substitute(text, &variables()).is_err(), "{text}");
        }
    }

    #[test]
    fn merge_keys_fill_in_what_is_not_there_and_places_are_those_of_the_file() {
        let text = "x-base: &base\n  image: a\n  tty: true\nservices:\n  web:\n    <<: *base\n    \
                    image: b\n";
        let (node, faults) = read(text, &variables());
        assert_eq!(faults, []);
        let node = node.unwrap();
        let web = node.get("services").unwrap().get("web").unwrap();
        assert_eq!(web.get("image").unwrap().text(), Some("b"));
        assert_eq!(web.get("tty").unwrap().text(), Some("true"));
        let image = web.entries().iter().find(|entry| entry.key == "image").unwrap();
        assert_eq!(image.place, Place { line: 7, column: 5 });
        assert_eq!(image.node.place, Place { line: 7, column: 12 });
    }

    #[test]
    fn what_is_no_yaml_is_said_with_its_place() {
        for (text, line) in [("a: [1\n", 2), ("a: 1\na: 2\n", 2), ("", 1), ("a: 1\n---\nb: 1\n", 1)]
        {
            let (node, faults) = read(text, &variables());
            assert_eq!((node, faults.len()), (None, 1), "{text:?}");
            assert!(faults[0].place.line <= line, "{faults:?}");
        }
    }
}
