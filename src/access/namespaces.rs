//! The namespaces of a store: which there are, who projects them, where their readers are led; and taking one away.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::{Access, AccessError};
use crate::store::{Note, Store, StoreError};

/// How long a route is believed.
const ROUTE_BELIEVED: Duration = Duration::from_secs(1);
/// So long readers wait at most until the namespace that they are led to has what they may have seen.
const LEVEL_PATIENCE: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// One namespace.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NamespaceRow {
    /// Its name.
    pub namespace: String,
    /// Partitions that have a checkpoint.
    pub partitions: u32,
    /// The sum of their offsets.
    pub offset: u64,
    /// Partitions that somebody projects now.
    pub projected: u32,
    /// The namespace whose documents its readers get; null: its own.
    pub route: Option<String>,
}

/// Where readers get documents, as it was told last.
#[derive(Default)]
pub struct Route(Mutex<Option<Known>>);

struct Known {
    asked: Instant,
    told: Option<String>,
    store: Arc<dyn Store>,
}

impl Access {
    /// The store that readers get documents from: another namespace's, once `rebuild --swap` has led them there. An
    /// answer that does not come leaves the route as it was; a namespace that is behind is not gone over to.
    ///
    /// # Errors
    /// The store does not answer, or the route names what is no namespace.
    pub async fn reading(&self) -> Result<Arc<dyn Store>, AccessError> {
        let mut known = self.route.0.lock().await;
        if let Some(known) = &*known
            && known.asked.elapsed() < ROUTE_BELIEVED
        {
            return Ok(Arc::clone(&known.store));
        }
        let told = match (self.store.note(Note::Route).await, &*known) {
            (Ok(told), _) => told,
            (Err(_), Some(known)) => known.told.clone(),
            (Err(_), None) => None, // what is read next fails too
        };
        let (told, store) = match &*known {
            Some(known) if known.told == told => (told, Arc::clone(&known.store)),
            before => {
                let store = match &told {
                    Some(namespace) => self.store.in_namespace(namespace)?,
                    None => Arc::clone(&self.store),
                };
                match before {
                    Some(before) if !self.is_level(&*before.store, &*store).await.unwrap_or(false) => {
                        (before.told.clone(), Arc::clone(&before.store))
                    }
                    _ => {
                        if self.serving.is_some() && (told.is_some() || before.is_some()) {
                            tracing::warn!(
                                namespace = told.as_deref().unwrap_or("their own"),
                                "readers are led over"
                            );
                        }
                        (told, store)
                    }
                }
            }
        };
        let asked = Instant::now();
        *known = Some(Known {
            asked,
            told,
            store: Arc::clone(&store),
        });
        Ok(store)
    }

    /// Whether readers get documents of this namespace itself.
    pub fn is_own(&self, reading: &Arc<dyn Store>) -> bool {
        Arc::ptr_eq(reading, &self.store)
    }

    /// Waits until `store` has come to where `seen` is now.
    pub(super) async fn is_level(&self, seen: &dyn Store, store: &dyn Store) -> Result<bool, AccessError> {
        let until = Instant::now() + LEVEL_PATIENCE;
        for partition in self.partitions().await? {
            let Some(seen) = seen.checkpoint(partition).await? else {
                continue;
            };
            while store
                .checkpoint(partition)
                .await?
                .is_none_or(|now| now.next < seen.next)
            {
                if Instant::now() >= until {
                    return Ok(false);
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        Ok(true)
    }

    /// All namespaces of the store.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn namespaces(&self) -> Result<Vec<NamespaceRow>, AccessError> {
        let mut rows = Vec::new();
        for namespace in self.store.namespaces().await? {
            rows.push(self.namespace_row(&namespace).await?);
        }
        Ok(rows)
    }

    async fn namespace_row(&self, namespace: &str) -> Result<NamespaceRow, AccessError> {
        let store = self.store.in_namespace(namespace)?;
        let mut row = NamespaceRow {
            namespace: namespace.to_owned(),
            partitions: 0,
            offset: 0,
            projected: 0,
            route: store.note(Note::Route).await?,
        };
        for partition in self.partitions().await? {
            // One that cannot be read is there all the same.
            match store.checkpoint(partition).await {
                Ok(None) => {}
                Ok(Some(checkpoint)) => {
                    row.partitions += 1;
                    row.offset += checkpoint.next.0;
                }
                Err(StoreError::Corrupt { .. }) => row.partitions += 1,
                Err(error) => return Err(error.into()),
            }
            row.projected += u32::from(store.owner(partition).await?.is_some());
        }
        Ok(row)
    }

    /// Makes sure that this namespace is there: what is asked of one that nobody has made is a slip of the pen.
    ///
    /// # Errors
    /// `BadRequest`: nobody projects it, and nobody has.
    pub(super) async fn ensure_there(&self) -> Result<(), AccessError> {
        let namespace = &self.settings.namespace;
        let row = self.namespace_row(namespace).await?;
        if row.partitions + row.projected > 0 {
            return Ok(());
        }
        let topic = &self.settings.topic;
        Err(AccessError::BadRequest(format!(
            "there is no namespace {namespace} of topic {topic}; nothing was changed; `khala namespaces list` tells which \
             there are"
        )))
    }

    /// Takes a namespace away, with all its documents.
    ///
    /// # Errors
    /// `BadRequest`: there is none, somebody projects it, or readers are led to it; nothing was changed.
    pub async fn drop_namespace(&self, namespace: &str) -> Result<(), AccessError> {
        crate::config::namespace(namespace).map_err(AccessError::BadRequest)?;
        let (rows, row) = (self.namespaces().await?, self.namespace_row(namespace).await?);
        let refused = |why: String| Err(AccessError::BadRequest(format!("{why}; nothing was changed")));
        if row.partitions == 0 && rows.iter().all(|row| row.namespace != namespace) {
            let names: Vec<&str> = rows.iter().map(|row| row.namespace.as_str()).collect();
            return refused(format!(
                "there is no namespace {namespace} (there are: {})",
                names.join(", ")
            ));
        }
        if row.projected > 0 {
            let partitions = row.projected;
            return refused(format!(
                "namespace {namespace} is projected now ({partitions} partitions); stop its `khala serve` first"
            ));
        }
        if let Some(from) = rows.iter().find(|row| row.route.as_deref() == Some(namespace)) {
            let from = &from.namespace;
            return refused(format!(
                "readers of namespace {from} get the documents of {namespace}; `khala namespaces back --namespace {from}` \
                 leads them back"
            ));
        }
        let partitions = self.partitions().await?.len() as u32;
        let store = self.store.in_namespace(namespace)?;
        Ok(store.clear(partitions.max(row.partitions)).await?)
    }

    /// Leads readers of this namespace back to its own documents; returns where they had been led.
    ///
    /// # Errors
    /// `BadRequest`: they were not led anywhere, or nobody projects this namespace; nothing was changed.
    pub async fn lead_back(&self) -> Result<String, AccessError> {
        let namespace = &self.settings.namespace;
        let row = self.namespace_row(namespace).await?;
        let Some(route) = row.route else {
            return Err(AccessError::BadRequest(format!(
                "readers of namespace {namespace} get its own documents already"
            )));
        };
        if row.projected < row.partitions || row.partitions == 0 {
            return Err(AccessError::BadRequest(format!(
                "namespace {namespace} is not projected now, its documents stand still; nothing was changed; start \
                 `khala serve --namespace {namespace}` first"
            )));
        }
        self.store.set_note(Note::Route, None).await?;
        Ok(route)
    }
}
