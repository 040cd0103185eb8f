//! Who redrove what: records in the dead letters' topic itself, beside the letters, so that they live as long.
//! A claim comes before the events it names are published, a confirmation after. The first claim in log order has a
//! letter. Invariant: a letter is published by the claim that has it, and by no other; without a confirmation
//! nobody publishes it again unless told to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::log::NewRecord;
use crate::pure::place::{NextOffset, PartitionId};
use crate::pure::record::Record;

/// The last header of a record that is no letter but tells of a redrive.
const HEADER: &str = "khala_redrive";

/// One letter in a claim.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Claimed {
    /// Where the original record came from: `<topic>/<partition>/<offset>`. A letter that a crash put there twice has
    /// one source.
    pub source: String,
    /// How often it was claimed before.
    pub before: u32,
    /// The partition of the events' topic that it goes to.
    pub to: u32,
    /// That partition's end before the claim: it is published at or behind it, or not at all.
    pub from: u64,
}

/// What such a record says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Entry {
    /// These are about to be published.
    Claim { token: String, letters: Vec<Claimed> },
    /// These are published.
    Done { token: String, sources: Vec<String> },
}

impl Entry {
    /// As a record of the letters' partition.
    pub(super) fn record(&self, partition: PartitionId) -> NewRecord {
        NewRecord {
            partition: Some(partition),
            value: serde_json::to_vec(self).ok(),
            headers: vec![(HEADER.to_owned(), Some(b"1".to_vec()))],
            ..NewRecord::default()
        }
    }
}

/// Whether a record of the dead letters' topic tells of a redrive. A letter ends with headers of ours, so that no
/// header of an original record can make it look like one.
pub(in crate::access) fn tells_of_redrive(record: &Record<'_>) -> bool {
    let last = record.headers().last();
    last.is_some_and(|(name, _)| name == HEADER.as_bytes())
}

/// The claim that has a letter.
#[derive(Clone, Debug)]
pub(super) struct Holder {
    pub token: String,
    pub claims: u32,
    pub to: PartitionId,
    pub from: NextOffset,
    pub done: bool,
}

/// All claims of one partition of letters, by source.
#[derive(Debug, Default)]
pub(super) struct Claims(BTreeMap<String, Holder>);

impl Claims {
    /// Takes note of a record, in log order.
    pub(super) fn take(&mut self, record: &Record<'_>) {
        if !tells_of_redrive(record) {
            return;
        }
        match serde_json::from_slice(record.value.unwrap_or_default()) {
            Ok(Entry::Claim { token, letters }) => letters.into_iter().for_each(|letter| self.claim(&token, letter)),
            Ok(Entry::Done { token, sources }) => self.done(&token, &sources),
            Err(_) => {} // not ours
        }
    }

    fn claim(&mut self, token: &str, letter: Claimed) {
        let claims = self.0.get(&letter.source).map_or(0, |holder| holder.claims);
        if letter.before != claims {
            return; // another claim stands before it
        }
        let holder = Holder {
            token: token.to_owned(),
            claims: claims + 1,
            to: PartitionId(letter.to),
            from: NextOffset(letter.from),
            done: false,
        };
        self.0.insert(letter.source, holder);
    }

    fn done(&mut self, token: &str, sources: &[String]) {
        for source in sources {
            if let Some(holder) = self.0.get_mut(source).filter(|holder| holder.token == token) {
                holder.done = true;
            }
        }
    }

    pub(super) fn holder(&self, source: &str) -> Option<&Holder> {
        self.0.get(source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::place::Offset;
    use crate::pure::record::RecordBatch;

    fn told(entries: &[Entry]) -> Claims {
        let mut batch = RecordBatch::default();
        for (i, entry) in entries.iter().enumerate() {
            let record = entry.record(PartitionId(0));
            batch.push(Offset(i as u64), 0, None, record.value.as_deref());
            for (name, value) in &record.headers {
                batch.push_header(name.as_bytes(), value.as_deref());
            }
        }
        let mut claims = Claims::default();
        batch.iter().for_each(|record| claims.take(&record));
        claims
    }

    fn claim(token: &str, before: u32) -> Entry {
        let letter = Claimed {
            source: "t/0/7".to_owned(),
            before,
            to: 1,
            from: 9,
        };
        Entry::Claim {
            token: token.to_owned(),
            letters: vec![letter],
        }
    }

    fn done(token: &str) -> Entry {
        Entry::Done {
            token: token.to_owned(),
            sources: vec!["t/0/7".to_owned()],
        }
    }

    #[test]
    fn the_first_claim_has_the_letter_until_one_that_knows_of_it() {
        let holder = |entries: &[Entry]| told(entries).holder("t/0/7").cloned().expect("claimed");
        assert_eq!(holder(&[claim("a", 0), claim("b", 0)]).token, "a");
        assert!(!holder(&[claim("a", 0), claim("b", 0), done("b")]).done);
        assert!(holder(&[claim("a", 0), claim("b", 0), done("a")]).done);
        let third = holder(&[claim("a", 0), claim("b", 1), claim("c", 1), done("a")]);
        assert_eq!((third.token.as_str(), third.claims, third.done), ("b", 2, false));
    }

    #[test]
    fn an_original_header_of_that_name_makes_no_claim() {
        let mut batch = RecordBatch::default();
        batch.push(Offset(0), 0, None, Some(b"{}"));
        batch.push_header(HEADER.as_bytes(), Some(b"1"));
        batch.push_header(b"khala_detail", Some(b"why"));
        assert!(!tells_of_redrive(&batch.get(0)));
    }
}
