//! What RFC 8785, RFC 3720, Kafka's tests and INTERFACE.md give as examples.

mod decoding;
mod folding;
mod words;
