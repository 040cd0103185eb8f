//! Notes: small facts beside the documents, told alone or some at once.

use super::write::Write;
use super::writer::{Reply, Request, Swap, Target, Writer};
use super::{EmbeddedStore, View, keys};
use crate::pure::place::PartitionId;
use crate::store::{Note, StoreError, Told};

impl EmbeddedStore {
    pub(super) async fn tell(&self, note: Note, text: Option<&str>) -> Result<(), StoreError> {
        let (key, value) = self.sealed((note, text));
        let target = self.target(PartitionId(0));
        self.ask(|reply| Request::Note(target, key, value, reply)).await
    }

    pub(super) async fn swap(&self, seen: Told<'_>, notes: &[Told<'_>]) -> Result<bool, StoreError> {
        let swap = Swap {
            key: keys::note(&self.namespace, seen.0),
            seen: seen.1.map(str::to_owned),
            notes: notes.iter().map(|note| self.sealed(*note)).collect(),
        };
        let target = self.target(PartitionId(0));
        self.ask(|reply| Request::Swap(target, swap, reply)).await
    }

    fn sealed(&self, (note, text): Told<'_>) -> (Vec<u8>, Option<Vec<u8>>) {
        let key = keys::note(&self.namespace, note);
        let value = text.map(|text| crate::disk::seal(&key, text.as_bytes()));
        (key, value)
    }
}

impl Writer {
    pub(super) fn swap(&self, write: &mut Write, target: Target, swap: Swap, reply: Reply<bool>) {
        let view = View::new(self.shared.clone(), &target.namespace, target.partition);
        let done = view.note(&swap.key).map(|found| {
            let is_seen = found == swap.seen;
            for (key, value) in swap.notes.into_iter().filter(|_| is_seen) {
                match value {
                    Some(value) => write.batch.insert(self.shared.disk.meta(), key, value),
                    None => write.batch.remove(self.shared.disk.meta(), key),
                }
            }
            is_seen
        });
        write.places.insert(target.place);
        write.answer(reply, done);
    }
}
