//! HTTP as a client of the tests speaks it: calls, and event streams.

use std::io::{BufRead, BufReader, Read};
use std::time::Duration;

use serde_json::Value;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: ureq::http::HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("not JSON ({e}): {self:?}"))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// `error.code`.
    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_mins(5)))
        .build();
    ureq::Agent::new_with_config(config)
}

fn answer(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Answer {
    let mut response = response.expect("an answer");
    Answer {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        text: response
            .body_mut()
            .with_config()
            .limit(u64::MAX)
            .read_to_string()
            .expect("text"),
    }
}

pub fn get(http: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = agent().get(format!("http://{http}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    answer(request.call())
}

pub fn post(http: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut request = agent().post(format!("http://{http}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    answer(request.send(body))
}

pub const ONE: (&str, &str) = ("content-type", "application/cloudevents+json");
pub const MANY: (&str, &str) = ("content-type", "application/cloudevents-batch+json");

/// A structured event.
pub fn event(subject: &str, sequence: u64, kind: &str, data: &str) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"{sequence}","source":"web","type":"{kind}","subject":"{subject}","sequence":{sequence},"data":{data}}}"#
    )
}

/// One frame of an event stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub id: Option<u64>,
    pub event: String,
    pub data: String,
}

/// An open event stream.
pub struct Events {
    lines: BufReader<Box<dyn Read + Send + Sync>>,
}

impl Events {
    pub fn open(http: &str, path: &str, headers: &[(&str, &str)]) -> Self {
        let mut request = agent().get(format!("http://{http}{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.call().expect("an answer");
        assert_eq!(response.status().as_u16(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let lines = BufReader::new(Box::new(response.into_body().into_reader()) as Box<_>);
        Self { lines }
    }

    /// The next frame with data; `None` at the end of the stream.
    pub fn next(&mut self) -> Option<Frame> {
        let mut frame = Frame {
            id: None,
            event: "message".to_owned(),
            data: String::new(),
        };
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).unwrap_or(0) == 0 {
                return None;
            }
            match line.trim_end().split_once(": ") {
                Some(("id", id)) => frame.id = id.parse().ok(),
                Some(("event", event)) => event.clone_into(&mut frame.event),
                Some(("data", data)) => frame.data.push_str(data),
                _ if line.trim_end().is_empty() && !frame.data.is_empty() => return Some(frame),
                _ => {}
            }
        }
    }

    /// Ids of all frames up to `[DONE]` or the end, and whether it was `[DONE]`.
    pub fn ids(mut self) -> (Vec<u64>, bool) {
        let mut ids = Vec::new();
        while let Some(frame) = self.next() {
            if frame.data == "[DONE]" {
                return (ids, true);
            }
            ids.extend(frame.id);
        }
        (ids, false)
    }
}
