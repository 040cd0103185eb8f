//! What is stored of an entity against what the log says of it. In: both. Out: a verdict.
//! Invariant: what cannot be known for certain (the log has lost an entity's beginning) is said to be so.

use crate::pure::document::{Document, Unreadable};
use crate::pure::drift::Reason;
use crate::pure::place::{NextOffset, Offset};
use crate::store::Stored;

/// What an examination found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The document is what the log says.
    Clean,
    /// Neither log nor store know the entity.
    Unknown,
    /// The log has lost the document's beginning; the document is whole in itself.
    Unverifiable,
    /// It is not what the log says.
    Drift {
        /// Why.
        reason: Reason,
        /// In words; may be empty.
        detail: String,
        /// Whether the log still has all that it takes to put it right.
        rebuild: Rebuild,
    },
}

/// Whether a document can be made from the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rebuild {
    /// From its first event on.
    Possible,
    /// Its first events may be gone from the log.
    BeginningLost,
}

/// What is stored against what the log, which begins at `first`, says.
pub(super) fn judge(
    seen: &Stored,
    document: Option<&Result<Document, Unreadable>>,
    index: Option<Offset>,
    parked: Option<Offset>,
    folded: &Document,
    first: NextOffset,
) -> Verdict {
    if let Some(Ok(document)) = document
        && is_cut(document, first)
    {
        return judge_cut(document, index, parked, folded, first);
    }
    if *seen == Stored::Expired && parked.is_none() {
        return Verdict::Clean;
    }
    if folded.is_empty() && *seen == Stored::Absent && index.is_none() {
        return Verdict::Unknown;
    }
    let whole_log = first == NextOffset::START;
    let known_to_begin = matches!(document, Some(Ok(document)) if !document.is_empty());
    let rebuild = if whole_log || known_to_begin || (!folded.is_empty() && folded.has_beginning()) {
        Rebuild::Possible
    } else {
        Rebuild::BeginningLost
    };
    verdict(difference(seen, document, index, folded, rebuild), parked, rebuild)
}

/// Whether the log, which begins at `first`, has lost the document's beginning.
pub(super) fn is_cut(document: &Document, first: NextOffset) -> bool {
    document.first_offset().is_some_and(|began| first.is_past(began))
}

/// As far as the log goes back: `folded` is the stored document with what the log has behind it.
fn judge_cut(
    document: &Document,
    index: Option<Offset>,
    parked: Option<Offset>,
    folded: &Document,
    first: NextOffset,
) -> Verdict {
    let goes_on = document.offset().is_some_and(|offset| offset.next() >= first);
    let found = if document == folded || parked.is_some() {
        misplaced(index, document)
    } else {
        Some((Reason::SummaryHashMismatch, told(document, folded)))
    };
    // Without a place in the index it may as well be somebody's invention.
    let rebuild = if goes_on && index.is_some() {
        Rebuild::Possible
    } else {
        Rebuild::BeginningLost
    };
    match (found, parked) {
        (None, None) => Verdict::Unverifiable,
        (found, parked) => verdict(found, parked, rebuild),
    }
}

fn verdict(found: Option<(Reason, String)>, parked: Option<Offset>, rebuild: Rebuild) -> Verdict {
    let (reason, detail) = match (found, parked) {
        (None, None) => return Verdict::Clean,
        (Some(found), None) => found,
        (Some((reason, detail)), Some(offset)) => (reason, format!("{detail}; parked since offset {offset}")),
        (None, Some(offset)) => (
            Reason::DocumentCorrupt,
            format!("parked: its events from offset {offset} on wait for a repair"),
        ),
    };
    Verdict::Drift {
        reason,
        detail,
        rebuild,
    }
}

fn difference(
    seen: &Stored,
    document: Option<&Result<Document, Unreadable>>,
    index: Option<Offset>,
    folded: &Document,
    rebuild: Rebuild,
) -> Option<(Reason, String)> {
    let nothing_in_log = folded.is_empty() && rebuild == Rebuild::Possible;
    match (seen, document) {
        (Stored::Absent, _) => Some((Reason::MissingDocument, "the log has events of it".to_owned())),
        _ if nothing_in_log => Some((Reason::UnexpectedDocument, "the log has no event of it".to_owned())),
        (Stored::Expired, _) => None, // an event came late
        (Stored::Lost, _) => Some((
            Reason::MissingDocument,
            "the index knows it, its document is not there".to_owned(),
        )),
        (Stored::Unreadable(detail), _) => Some((Reason::DocumentCorrupt, (*detail).to_owned())),
        (_, Some(Err(unreadable @ Unreadable::Altered))) => Some((Reason::SummaryHashMismatch, unreadable.to_string())),
        (_, Some(Err(unreadable))) => Some((Reason::DocumentCorrupt, unreadable.to_string())),
        (_, Some(Ok(document))) if document != folded => Some((Reason::SummaryHashMismatch, told(document, folded))),
        _ if !has_state_of(seen, folded) => Some((
            Reason::DocumentCorrupt,
            "the state beside the document is not its own".to_owned(),
        )),
        _ => misplaced(index, folded),
    }
}

fn has_state_of(seen: &Stored, document: &Document) -> bool {
    let mut state = Vec::new();
    let has_state = document.write_state(&mut state);
    seen.state() == has_state.then_some(&state[..])
}

fn misplaced(index: Option<Offset>, document: &Document) -> Option<(Reason, String)> {
    match index {
        None => Some((Reason::MissingDocument, "the index does not know it".to_owned())),
        Some(index) if Some(index) != document.offset() => {
            let detail = format!("its place in the index is {index}");
            Some((Reason::SummaryHashMismatch, detail))
        }
        Some(_) => None,
    }
}

fn told(document: &Document, folded: &Document) -> String {
    let place = |document: &Document| {
        document
            .offset()
            .map_or_else(|| "none".to_owned(), |offset| offset.to_string())
    };
    let (stored, log) = (place(document), place(folded));
    if stored == log {
        "it is not the fold of its events".to_owned()
    } else {
        format!("it ends at offset {stored}, its events at {log}")
    }
}
