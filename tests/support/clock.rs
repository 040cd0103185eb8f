//! The wall's clock of one process, put ahead or back while it runs (`clock.c`, compiled here by the linker that Rust
//! needs too).

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A clock for those who are started with its variables.
pub struct Clock {
    file: PathBuf,
    library: PathBuf,
}

impl Clock {
    /// One that is right, its files in this directory.
    pub fn new(dir: &Path) -> Self {
        let clock = Self {
            file: dir.join("clock"),
            library: dir.join("clock.so"),
        };
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/clock.c");
        let mut compiler = Command::new("cc");
        compiler
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(&clock.library)
            .arg(source)
            .arg("-ldl");
        assert!(compiler.status().expect("cc runs").success(), "clock.c is compiled");
        fs::write(&clock.file, 0_i64.to_ne_bytes()).expect("a file in our directory");
        clock
    }

    /// So many seconds ahead of the true time, from this instant on.
    pub fn set(&self, ahead: i64) {
        let file = OpenOptions::new().write(true).open(&self.file).expect("made above");
        file.write_all_at(&ahead.to_ne_bytes(), 0)
            .expect("a file in our directory");
    }

    /// What a process is started with.
    pub fn variables(&self) -> Vec<(String, String)> {
        [("LD_PRELOAD", &self.library), ("KHALA_TEST_CLOCK", &self.file)]
            .map(|(name, path)| (name.to_owned(), path.display().to_string()))
            .to_vec()
    }
}
