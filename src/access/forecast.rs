//! `khala replay --dry-run`: what a replay would do. In: what a replay is asked. Out: a forecast. Nothing is written.

use super::{Access, AccessError, ReplayRequest, Watch};
use crate::repair::{self, Forecast, Stretch};

impl Access {
    /// Tells what this replay would do.
    ///
    /// # Errors
    /// `BadRequest`: what is asked for makes no sense. Log or store do not answer; a rewind is under way.
    pub async fn forecast(&self, request: &ReplayRequest, watch: Watch<'_>) -> Result<Forecast, AccessError> {
        let stretches: Vec<Stretch> = self.stretches(request).await?;
        Ok(repair::forecast(&self.ground(), &stretches, self.settings.audit_memory, watch).await?)
    }
}
