//! The reference's own tests: it must be right before it may judge.

#[path = "mod.rs"]
mod reference;

#[expect(
    clippy::unwrap_used,
    reason = "tests, which clippy does not see as such in a module of their own"
)]
mod checks;
