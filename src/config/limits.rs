//! Limits that hold between settings.
//! In: settings, each legal by itself. Out: nothing, or which two do not fit, and what to do.

use super::keys::key;
use super::load::{ConfigError, Loaded};

pub(super) fn check(loaded: &Loaded) -> Result<(), ConfigError> {
    let settings = &loaded.settings;
    if settings.max_event_bytes > settings.batch_bytes {
        let why = "a batch must hold the largest event: raise `batch_bytes` or lower `max_event_bytes`";
        return Err(clash(loaded, "batch_bytes", "is less than", "max_event_bytes", why));
    }
    if settings.http_tls_cert.is_some() != settings.http_tls_key.is_some() {
        let problem = "`http_tls_cert` and `http_tls_key` belong together: give both, or none";
        return Err(ConfigError::new("settings", problem));
    }
    if !settings.http.ip().is_loopback() && settings.token_file.is_none() {
        let problem = format!(
            "`http` {} can be reached from other machines, and there is no `token_file`: give `--token-file FILE` \
             with a token a line, or listen on loopback with `--http 127.0.0.1:{}`",
            settings.http,
            settings.http.port()
        );
        return Err(ConfigError::new(loaded.origin("http"), problem));
    }
    Ok(())
}

fn clash(loaded: &Loaded, small: &str, relation: &str, large: &str, why: &str) -> ConfigError {
    let show = |name: &str| {
        let value = key(name).map_or_else(String::new, |key| (key.get)(&loaded.settings));
        format!("`{name}` ({value}, {})", loaded.origin(name))
    };
    ConfigError::new("settings", format!("{} {relation} {}; {why}", show(small), show(large)))
}
