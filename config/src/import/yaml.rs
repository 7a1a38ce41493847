//! YAML to a tree: one document, of bounded depth, without aliases.
//!
//! An alias repeats what an anchor named, and aliases of aliases multiply a short file into more
//! than any memory holds. No tool that prepares cards writes one, so they are refused.

use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use granit_parser::{Event, Parser, ScalarStyle, Span};

use super::node::{Entry, Node, Value, plain};
use crate::problem::{Problem, Problems};

/// Levels of a tree; the files of cloud-init that are read have seven.
const MOST_LEVELS: usize = 24;

/// A list or table whose end has not come yet.
enum Open {
    List(usize, Vec<Node>),
    Table(usize, Vec<Entry>, Option<(usize, String)>),
}

/// Reads the one document of a text; one that has none is nothing.
pub(super) fn read(text: &str) -> Result<Node, Problems> {
    let options = granit_parser::options! {
        flow_nesting_limit: MOST_LEVELS,
        block_nesting_limit: MOST_LEVELS,
        disallow_directives: true,
    };
    let mut builder = Builder { text, open: Vec::new(), done: None };
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|error| {
            let byte = error.marker().byte_offset().unwrap_or(text.len());
            builder.problem(byte, &error.info())
        })?;
        builder.take(event, start(&span))?;
    }
    Ok(builder.done.unwrap_or(Node::new(0, Value::Nothing)))
}

fn start(span: &Span) -> usize {
    span.start.byte_offset().unwrap_or_default()
}

struct Builder<'t> {
    text: &'t str,
    open: Vec<Open>,
    done: Option<Node>,
}

impl Builder<'_> {
    fn problem(&self, byte: usize, message: &str) -> Problems {
        Problem::at(self.text, byte, message.to_owned(), None).into()
    }

    fn take(&mut self, event: Event<'_>, at: usize) -> Result<(), Problems> {
        match event {
            Event::Scalar(text, style, ..) => {
                let value = match style {
                    ScalarStyle::Plain => plain(&text),
                    _ => Value::Text(text.into_owned()),
                };
                self.put(Node::new(at, value))
            }
            Event::SequenceStart(..) => self.begin(at, Open::List(at, Vec::new())),
            Event::MappingStart(..) => self.begin(at, Open::Table(at, Vec::new(), None)),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List(at, items)) => self.put(Node::new(at, Value::List(items))),
                Some(Open::Table(at, entries, _)) => self.put(Node::new(at, Value::Table(entries))),
                None => Ok(()),
            },
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                Err(self.problem(at, "an alias, which is not supported: write the value itself"))
            }
            Event::DocumentStart(..) if self.done.is_some() => {
                Err(self.problem(at, "a second document: one is read"))
            }
            _ => Ok(()),
        }
    }

    fn begin(&mut self, at: usize, open: Open) -> Result<(), Problems> {
        if self.open.len() >= MOST_LEVELS {
            return Err(self.problem(at, &format!("nested deeper than {MOST_LEVELS} levels")));
        }
        self.open.push(open);
        Ok(())
    }

    fn put(&mut self, node: Node) -> Result<(), Problems> {
        match self.open.last_mut() {
            None => self.done = Some(node),
            Some(Open::List(_, items)) => items.push(node),
            Some(Open::Table(_, entries, key)) => match (key.take(), &node.value) {
                (Some((at, key)), _) => entries.push(Entry { at, key, value: node }),
                (None, Value::Text(text)) => *key = Some((node.at, text.clone())),
                (None, _) => return Err(self.problem(node.at, "a key that is not a text")),
            },
        }
        Ok(())
    }
}
