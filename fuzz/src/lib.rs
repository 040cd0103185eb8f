//! What the fuzz targets do with bytes, as plain functions: the coverage-guided runs (`scripts/fuzz`) and the ordinary
//! test of corpus and mutations (`tests/corpus.rs`) call the same.
//! In: any bytes. Out: nothing. Invariant: an assertion fails, or all is as it must be.

pub mod envelope;
pub mod http;
pub mod script;
pub mod settings;

/// A target: its name, which is its corpus' folder, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 4] = [
    ("envelope", envelope::run),
    ("http", http::run),
    ("settings", settings::run),
    ("script", script::run),
];

/// Bytes taken from the front, for as long as there are any; nothing, and zeros, after that.
pub struct Bytes<'a>(pub &'a [u8]);

impl<'a> Bytes<'a> {
    /// The next byte, or 0.
    pub fn byte(&mut self) -> u8 {
        self.cut(1).first().copied().unwrap_or_default()
    }

    /// The next eight bytes as a number.
    pub fn number(&mut self) -> u64 {
        let mut bytes = [0; 8];
        let taken = self.cut(8);
        bytes[..taken.len()].copy_from_slice(taken);
        u64::from_le_bytes(bytes)
    }

    /// A byte that says how long, then as many bytes.
    pub fn part(&mut self) -> &'a [u8] {
        let length = self.byte().into();
        self.cut(length)
    }

    fn cut(&mut self, length: usize) -> &'a [u8] {
        let (head, tail) = self.0.split_at(length.min(self.0.len()));
        self.0 = tail;
        head
    }
}
