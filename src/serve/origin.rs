//! Which page sent a request, where a browser says so.
//! In: headers that no page can forge (`Origin`, `Sec-Fetch-Site`). Out: whether the page is of elsewhere. Invariant: a
//! program that is no browser sends neither, and passes. Source: the Fetch standard, and OWASP on request forgery.

use axum::http::{HeaderMap, HeaderValue, header};

/// The origin that may read the answer, if the request names one that is allowed.
pub(super) fn allowed_origin(allowed: &[String], headers: &HeaderMap) -> Option<HeaderValue> {
    let origin = headers.get(header::ORIGIN)?;
    let known = allowed
        .iter()
        .any(|one| one == "*" || one.as_bytes() == origin.as_bytes());
    known.then(|| origin.clone())
}

/// Whether a page of elsewhere has its browser send this: one that is neither the server's own nor allowed.
pub(super) fn is_of_elsewhere(headers: &HeaderMap, host: &str, allowed: &[String]) -> bool {
    if let Some(origin) = headers.get(header::ORIGIN) {
        let is_own = origin.to_str().is_ok_and(|origin| is_own(origin, host));
        return !is_own && allowed_origin(allowed, headers).is_none();
    }
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    let names_another = site.is_some_and(|site| !matches!(site, b"same-origin" | b"none"));
    names_another && !allowed.iter().any(|one| one == "*")
}

/// Whether the origin is of this host and port. Browsers leave a scheme's own port out, others may not.
fn is_own(origin: &str, host: &str) -> bool {
    let Some((scheme, name)) = origin.split_once("://") else {
        return false; // `null`: a page that has no origin to tell
    };
    let port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    let short = |name: &str| name.strip_suffix(port).unwrap_or(name).to_ascii_lowercase();
    short(name) == short(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (header::HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn only_an_allowed_origin_is_answered_to() {
        let a = headers(&[("origin", "https://a.example")]);
        let allowed = |one: &str| allowed_origin(&[one.to_owned()], &a);
        assert_eq!(allowed_origin(&["*".to_owned()], &HeaderMap::new()), None);
        let answered = Some(HeaderValue::from_static("https://a.example"));
        assert_eq!(allowed("https://a.example"), answered);
        assert_eq!(allowed("https://b.example"), None);
        assert_eq!(allowed_origin(&[], &a), None);
    }

    #[test]
    fn a_page_is_of_elsewhere_unless_it_is_the_servers_own() {
        #[rustfmt::skip] // a table is read by column
        let rows = [
            ("http://localhost:7600",  "localhost:7600", false),
            ("http://LOCALHOST:7600",  "localhost:7600", false),
            ("https://127.0.0.1:7600", "127.0.0.1:7600", false),
            ("http://[::1]:7600",      "[::1]:7600",     false),
            ("http://localhost",       "localhost:80",   false),
            ("https://localhost:443",  "localhost",      false),
            ("http://localhost:3000",  "localhost:7600", true),
            ("http://127.0.0.1:7600",  "localhost:7600", true),
            ("http://localhost",       "localhost:7600", true),
            ("http://evil.example",    "localhost:7600", true),
            ("null",                   "localhost:7600", true),
            ("file://",                "",               true),
            ("",                       "",               true),
        ];
        for (origin, host, expected) in rows {
            let headers = headers(&[("origin", origin)]);
            assert_eq!(is_of_elsewhere(&headers, host, &[]), expected, "{origin} at {host}");
        }
    }

    #[test]
    fn what_is_allowed_passes_and_so_does_a_program() {
        let is_foreign = |pairs: &[(&'static str, &'static str)], allowed: &[&str]| {
            let allowed: Vec<String> = allowed.iter().map(|&one| one.to_owned()).collect();
            is_of_elsewhere(&headers(pairs), "localhost:7600", &allowed)
        };
        let a = ("origin", "https://a.example");
        assert!(!is_foreign(&[a], &["https://a.example"]) && !is_foreign(&[a], &["*"]));
        assert!(is_foreign(&[a], &["https://b.example"]));
        assert!(!is_foreign(&[], &[]));
        for (site, expected) in [
            ("cross-site", true),
            ("same-site", true),
            ("same-origin", false),
            ("none", false),
        ] {
            assert_eq!(is_foreign(&[("sec-fetch-site", site)], &[]), expected, "{site}");
        }
        assert!(
            is_foreign(&[a, ("sec-fetch-site", "same-origin")], &[]),
            "the origin counts"
        );
        assert!(!is_foreign(&[("sec-fetch-site", "cross-site")], &["*"]));
    }
}
