//! `GET /openapi.json`: what the API is, for programs. Kept by hand beside the router; a test holds the two together.

use axum::http::header;
use axum::response::{IntoResponse, Response};

const DOCUMENT: &str = include_str!("openapi.json");

pub(super) async fn document() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::DOCUMENT;

    /// `post /v1/events` for each route of the router, as its source has them.
    fn routes() -> BTreeSet<String> {
        let source = include_str!("router.rs");
        let routes = source.split(".route(").skip(1).map(|rest| {
            let (path, handler) = rest.split_once(',').expect("a path and a handler");
            let path = path.trim().trim_matches('"');
            let method = handler.trim_start().split('(').next().expect("a method");
            format!("{method} {path}")
        });
        routes.collect()
    }

    fn described(document: &Value) -> BTreeSet<String> {
        let paths = document["paths"].as_object().expect("paths");
        let methods = |(path, methods): (&String, &Value)| {
            let methods = methods.as_object().expect("methods").keys();
            methods.map(|method| format!("{method} {path}")).collect::<Vec<_>>()
        };
        paths.iter().flat_map(methods).collect()
    }

    #[test]
    fn each_route_is_described_and_each_description_is_a_route() {
        let document: Value = serde_json::from_str(DOCUMENT).expect("JSON");
        assert_eq!(described(&document), routes());
    }

    #[test]
    fn each_reference_leads_somewhere_and_each_error_is_described() {
        let document: Value = serde_json::from_str(DOCUMENT).expect("JSON");
        for name in DOCUMENT.split("#/components/schemas/").skip(1) {
            let name = name.split('"').next().expect("a name");
            assert!(document["components"]["schemas"][name].is_object(), "{name}");
        }
        for methods in document["paths"].as_object().expect("paths").values() {
            for operation in methods.as_object().expect("methods").values() {
                let is_guarded = operation["x-role"].is_string();
                let says = |status: &str| operation["responses"][status].is_object();
                assert!(!is_guarded || (says("401") && says("403")), "{operation}");
            }
        }
    }
}
