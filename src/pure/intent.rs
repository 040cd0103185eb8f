//! What a checkpoint's `intent` says: a rewind or restore under way, or one that is done and not yet picked up.
//! In and out: the text of the store's field. Invariant: the text is all that is needed to finish what was begun.

use std::fmt;

use super::checkpoint::{Checkpoint, Digest};
use super::place::NextOffset;
use super::record::RecordIdentity;

/// What was begun, under a random token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Intent {
    /// Documents go back to a mark. Only the mark's place, counts and digest are held.
    Rewind {
        /// The target.
        mark: Box<Target>,
        /// Tells this rewind from any other.
        token: String,
    },
    /// Documents come from a snapshot.
    Restore {
        /// Tells this restore from any other.
        token: String,
    },
    /// A rewind or restore is done: whoever projects next redoes from here and clears this.
    Rewound {
        /// Where the checkpoint stood before.
        from: NextOffset,
        /// As of the rewind.
        token: String,
    },
}

/// A mark to go back to: what its checkpoint will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The next offset to apply.
    pub next: NextOffset,
    /// The last record applied there.
    pub last_record: Option<RecordIdentity>,
    /// Over all documents there.
    pub digest: Digest,
    /// Records, accepted, duplicates, dead letters.
    pub counts: [u64; 4],
}

impl Target {
    /// What of a mark is needed to go back to it.
    pub fn of(mark: &Checkpoint) -> Self {
        Self {
            next: mark.next,
            last_record: mark.last_record,
            digest: mark.digest,
            counts: [mark.records, mark.accepted, mark.duplicates, mark.dead_letters],
        }
    }

    /// The checkpoint at this place, for the log and fold of `now`.
    pub fn checkpoint(&self, now: &Checkpoint) -> Checkpoint {
        let [records, accepted, duplicates, dead_letters] = self.counts;
        Checkpoint {
            next: self.next,
            last_record: self.last_record,
            digest: self.digest,
            records,
            accepted,
            duplicates,
            dead_letters,
            intent: String::new(),
            ..now.clone()
        }
    }
}

impl Intent {
    /// Reads a checkpoint's field; `None` if it is empty.
    ///
    /// # Errors
    /// It is of no form known: a newer Khala wrote it.
    pub fn parse(text: &str) -> Result<Option<Self>, UnknownIntent> {
        let unknown = || UnknownIntent(text.to_owned());
        let words: Vec<&str> = text.split(' ').collect();
        let intent = match words.as_slice() {
            [""] => return Ok(None),
            ["rewind", next, last, digest, counts @ .., token] => Self::Rewind {
                mark: Box::new(target(next, last, digest, counts).ok_or_else(unknown)?),
                token: (*token).to_owned(),
            },
            ["restore", token] => Self::Restore {
                token: (*token).to_owned(),
            },
            ["rewound", from, token] => Self::Rewound {
                from: NextOffset(from.parse().map_err(|_| unknown())?),
                token: (*token).to_owned(),
            },
            _ => return Err(unknown()),
        };
        Ok(Some(intent))
    }

    /// Whether documents may be between two states now.
    pub fn is_under_way(&self) -> bool {
        !matches!(self, Self::Rewound { .. })
    }
}

fn target(next: &str, last: &str, digest: &str, counts: &[&str]) -> Option<Target> {
    let last_record = match last {
        "-" => None,
        text => Some(RecordIdentity::parse(text)?),
    };
    let counts: Vec<u64> = counts.iter().map(|count| count.parse().ok()).collect::<Option<_>>()?;
    Some(Target {
        next: NextOffset(next.parse().ok()?),
        last_record,
        digest: Digest(u128::from_str_radix(digest, 16).ok()?),
        counts: counts.try_into().ok()?,
    })
}

impl fmt::Display for Intent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rewind { mark, token } => {
                let last = mark.last_record.map_or_else(|| "-".to_owned(), |last| last.text());
                let [records, accepted, duplicates, dead_letters] = mark.counts;
                write!(
                    f,
                    "rewind {} {last} {} {records} {accepted} {duplicates} {dead_letters} {token}",
                    mark.next, mark.digest
                )
            }
            Self::Restore { token } => write!(f, "restore {token}"),
            Self::Rewound { from, token } => write!(f, "rewound {from} {token}"),
        }
    }
}

/// An intent that this version does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the checkpoint's intent {0:?} is none that this khala knows: finish it with the version that began it")]
pub struct UnknownIntent(pub String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_intent_reads_its_own_text() {
        let mark = Target {
            next: NextOffset(42),
            last_record: RecordIdentity::parse("41:-1:0000abcd"),
            digest: Digest(7),
            counts: [42, 40, 1, 1],
        };
        let first = Target::of(&Checkpoint::first(NextOffset(3), "t", 1));
        let token = || "0af3".to_owned();
        assert_eq!(
            Intent::Rewind {
                mark: Box::new(mark.clone()),
                token: token()
            }
            .to_string(),
            "rewind 42 41:-1:0000abcd 00000000000000000000000000000007 42 40 1 1 0af3",
            "as stored: another form is another format"
        );
        for intent in [
            Intent::Rewind {
                mark: Box::new(mark),
                token: token(),
            },
            Intent::Rewind {
                mark: Box::new(first),
                token: token(),
            },
            Intent::Restore { token: token() },
            Intent::Rewound {
                from: NextOffset(9),
                token: token(),
            },
        ] {
            assert_eq!(Intent::parse(&intent.to_string()), Ok(Some(intent)));
        }
        assert_eq!(Intent::parse(""), Ok(None));
        for bad in [
            "x",
            "rewind 1 - 0 1 1 1 t",
            "rewind a - 0 1 1 1 1 t",
            "restore",
            "rewound x t",
        ] {
            assert!(Intent::parse(bad).is_err(), "{bad}");
        }
    }
}
