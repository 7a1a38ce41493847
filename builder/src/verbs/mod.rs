//! One module a verb of the command line: each owns its control flow and its output.

pub mod key;
