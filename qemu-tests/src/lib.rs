//! Proves the parts together; never shipped.
