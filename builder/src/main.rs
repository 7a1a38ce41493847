//! The command `iota`.
fn main() {}
