//! News of entities' events. In: entities whose events were written. Out: a bell that rings for those who wait.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use tokio::sync::watch;

use crate::pure::entity::Entity;

const BELLS: usize = 64;

/// Wakes those who wait for events. Many entities share a bell: whoever hears it looks for itself.
pub(super) struct News {
    bells: Vec<watch::Sender<()>>,
    hasher: BuildHasherDefault<DefaultHasher>,
}

impl News {
    pub(super) fn new() -> Self {
        Self {
            bells: (0..BELLS).map(|_| watch::Sender::new(())).collect(),
            hasher: BuildHasherDefault::default(),
        }
    }

    pub(super) fn bell(&self, entity: &Entity) -> &watch::Sender<()> {
        &self.bells[self.hasher.hash_one(entity.subject()) as usize % BELLS]
    }

    pub(super) fn tell(&self, entities: &[Entity]) {
        for entity in entities {
            self.bell(entity).send_replace(());
        }
    }
}
