//! PID 1 of an Iota system.
fn main() {}
