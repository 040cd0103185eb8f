//! Questions to a server over HTTP. Blocking.

use std::time::Duration;

use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Web {
    agent: ureq::Agent,
    base: String,
    authorization: Option<String>,
}

impl Web {
    pub(super) fn new(base: &str, token: Option<&str>) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE));
        Self {
            agent: config.build().into(),
            base: base.trim_end_matches('/').to_owned(),
            authorization: token.map(|token| format!("Bearer {token}")),
        }
    }

    /// Status and text of the answer.
    pub(super) fn text(&self, path: &str) -> Result<(u16, String), String> {
        let url = format!("{}{path}", self.base);
        let mut request = self.agent.get(&url);
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let mut answer = request.call().map_err(|error| format!("{url}: {error}"))?;
        let status = answer.status().as_u16();
        let text = answer.body_mut().read_to_string();
        Ok((status, text.map_err(|error| format!("{url}: {error}"))?))
    }

    pub(super) fn json(&self, path: &str) -> Result<Value, String> {
        let (status, text) = self.text(path)?;
        if status != 200 {
            return Err(format!("{}{path}: status {status}", self.base));
        }
        serde_json::from_str(&text).map_err(|error| format!("{}{path}: {error}", self.base))
    }

    /// `200`, or what came instead.
    pub(super) fn status(&self, path: &str) -> String {
        match self.text(path) {
            Ok((status, _)) => status.to_string(),
            Err(error) => error,
        }
    }
}
