//! One door for people who change this code.
fn main() {}
