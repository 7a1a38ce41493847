//! The device's own `iota` command.
fn main() {}
