//! The namespaces of a store: which there are, who projects them, where their readers are led; and taking one away.

use serde::{Deserialize, Serialize};

use super::{Access, AccessError};
use crate::rollout::CohortRoute;
use crate::store::{Note, StoreError};

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
    /// How many percent of the entities' readers do; a rollout's list comes beside them.
    #[serde(default)]
    pub percent: u32,
}

impl Access {
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
            route: None,
            percent: 0,
        };
        if let Some(text) = store.note(Note::Route).await? {
            let route = CohortRoute::read(&text).map_err(AccessError::Failed)?;
            (row.route, row.percent) = (Some(route.candidate), route.percent);
        }
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
        self.ensure_no_rollout().await?;
        self.store.set_note(Note::Route, None).await?;
        Ok(route)
    }
}
