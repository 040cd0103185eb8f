//! Rules of the protocol that can be switched off on purpose, in the simulated log and store: each must be found out.

use super::plan::{Call, Event};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weak {
    /// None is.
    Nothing,
    /// A commit is not compared with the checkpoint, nor is its owner.
    NoCompare,
    /// Only the checkpoint's offset is compared.
    OffsetOnly,
    /// All but the digest is compared.
    NoDigest,
    /// A projector takes documents of another version for its own.
    VersionIgnored,
    /// Whoever rewinds may write into another one's rewind.
    AnyIntent,
    /// Loads count under any checkpoint.
    LoadUnchecked,
    /// An entity is healed whatever became of it since it was looked at.
    HealUnseen,
    /// A missing document is taken for a new one.
    NoIndex,
    /// The last record is always the one that is named.
    NoLastRecord,
    /// Nobody is told of another leader epoch.
    NoEpoch,
    /// Where the store has nothing, the group's offset is believed.
    StartAtGroup,
    /// A commit is no atomic step: now and then the checkpoint moves, and the documents do not.
    Torn,
    /// The checkpoint is committed before the documents are.
    CommitFirst,
    /// An event is applied whether the document includes it or not.
    NoOffsetCheck,
    /// The digest is not updated.
    DigestStale,
    /// Dead letters are acknowledged, and not all are there.
    LettersLost,
    /// A snapshot's marker is there before all of its documents are.
    MarkerEarly,
    /// What retention took is jumped over without a word.
    GapUnnamed,
    /// A document that is lost while a restore writes is made anew from its later events.
    LostInRestore,
    /// Reading begins behind the last record applied.
    ReadBehind,
    /// A snapshot is asked for only where the store has nothing at all.
    OnlyForNothing,
}

impl Weak {
    pub const ALL: [Self; 21] = [
        Self::NoCompare,
        Self::OffsetOnly,
        Self::NoDigest,
        Self::VersionIgnored,
        Self::AnyIntent,
        Self::LoadUnchecked,
        Self::HealUnseen,
        Self::NoIndex,
        Self::NoLastRecord,
        Self::NoEpoch,
        Self::StartAtGroup,
        Self::Torn,
        Self::CommitFirst,
        Self::NoOffsetCheck,
        Self::DigestStale,
        Self::LettersLost,
        Self::MarkerEarly,
        Self::GapUnnamed,
        Self::LostInRestore,
        Self::ReadBehind,
        Self::OnlyForNothing,
    ];

    /// What must happen often, for the rule to matter at all: once in so many steps.
    pub fn needs(self, event: Event) -> Option<u64> {
        match (self, event) {
            (Self::OffsetOnly, Event::OtherVersion) => Some(60),
            (Self::NoDigest, Event::Spoil) => Some(12),
            (Self::NoDigest, Event::Audit | Event::Rollback) => Some(6),
            (Self::VersionIgnored, Event::Deploy) => Some(20),
            (Self::NoEpoch | Self::NoLastRecord | Self::ReadBehind, Event::Cut) => Some(40),
            (Self::HealUnseen, Event::Audit) => Some(6),
            (Self::HealUnseen, Event::Spoil) => Some(20),
            (Self::MarkerEarly, Event::Snapshot) => Some(20),
            (Self::MarkerEarly | Self::GapUnnamed, Event::Retain) => Some(40),
            (Self::MarkerEarly, Event::Flush) => Some(150),
            (Self::LostInRestore, Event::Lose | Event::Flush) => Some(40),
            (Self::LostInRestore, Event::Snapshot | Event::Retain) => Some(20),
            (Self::OnlyForNothing, Event::Rollback | Event::Snapshot | Event::Retain) => Some(20),
            (Self::AnyIntent, Event::Replay) => Some(6),
            (Self::AnyIntent, Event::Rebalance) => Some(40),
            _ => None,
        }
    }

    /// And which calls must go wrong often: once in so many.
    pub fn needs_call(self, call: Call) -> Option<u64> {
        match (self, call) {
            (Self::AnyIntent, Call::Late) => Some(4), // a write of a rewind that is over
            _ => None,
        }
    }
}
