//! The reference's own tests: it must be right before it may judge.

#[path = "mod.rs"]
mod reference;

mod checks;
