//! Secrets: read from files, never shown; tokens.

use std::path::Path;

use khala::config::{Role, StoreTarget, read_tokens};

use crate::{Place, env_refusal, load_all, row};

#[test]
fn secrets_come_from_files_and_are_never_shown() {
    let place = Place::with("[kafka]\n\"sasl.password_file\" = \"PASSWORD\"\n\"ssl.key.password\" = \"pa55\"");
    let password = place.write("password", "pa55word\n");
    place.write(
        "khala.toml",
        &format!("[kafka]\n\"sasl.password_file\" = {password:?}\n\"ssl.key.password\" = \"pa55\""),
    );
    let store = place.write("store", "redis://khala:pa55@redis:6379\n");
    let loaded = place
        .load(&[("KHALA_STORE_FILE", store.to_str().unwrap())], &[])
        .unwrap();
    assert_eq!(
        loaded.settings.store,
        StoreTarget::Redis("redis://khala:pa55@redis:6379".into())
    );
    assert_eq!(loaded.settings.kafka["sasl.password"], "pa55word");
    assert_eq!(
        row(&loaded, "store"),
        (
            "redis://khala:***@redis:6379".into(),
            "environment KHALA_STORE_FILE".into()
        )
    );
    assert_eq!(row(&loaded, "kafka.sasl.password").0, "***");
    let shown = format!("{:?} {loaded:?}", loaded.rows());
    assert!(!shown.contains("pa55"), "{shown}");

    let from_env = [("KHALA_KAFKA__SASL_PASSWORD_FILE", password.to_str().unwrap())];
    assert_eq!(
        load_all(None, &from_env, &[]).unwrap().settings.kafka["sasl.password"],
        "pa55word"
    );

    let said = env_refusal("KHALA_STORE_FILE", "/nowhere/store");
    assert!(
        said.starts_with("environment KHALA_STORE_FILE: `store_file`: cannot read /nowhere/store: "),
        "{said}"
    );
    let said = env_refusal("KHALA_STORE", "redsi://khala:pa55@redis");
    assert!(
        said.contains("`redsi://khala:***@redis` is no store's address") && !said.contains("pa55"),
        "{said}"
    );
}

#[test]
fn a_token_file_gives_roles_and_an_empty_one_is_an_error() {
    let place = Place::with("");
    let tokens = read_tokens(&place.write("tokens", "# people\nread r3ad\noperate 0perate\n\nall\n")).unwrap();
    let allowed: Vec<_> = tokens
        .iter()
        .map(|token| [Role::Read, Role::Publish, Role::Operate].map(|role| token.allows(role)))
        .collect();
    assert_eq!(allowed, [[true, false, false], [true, false, true], [true, true, true]]);
    assert!(!format!("{tokens:?}").contains("r3ad"));
    for text in [
        "",
        "# only this\n",
        "read\n",
        "king t0ken\n",
        "read a b\n",
        "read sha256:12\n",
        "read,king t0ken\n",
    ] {
        let said = read_tokens(&place.write("tokens", text)).expect_err(text).to_string();
        assert!(said.contains("tokens") && !said.contains("t0ken"), "{said}");
    }
    assert!(read_tokens(Path::new("/nowhere/tokens")).is_err());
}

#[test]
fn a_token_may_have_roles_a_scope_and_be_known_by_its_hash_alone() {
    let place = Place::with("");
    let hashed = "sha256:88d4266fd4e6338d13b845fcf289579d209c897823b9217da3e161936f031589"; // of `abcd`
    let text = format!("read,publish p1ain run/acme.,worker/acme.\noperate {hashed}\nabcd\n");
    let tokens = read_tokens(&place.write("tokens", &text)).unwrap();
    assert_eq!(tokens[0].scope, ["run/acme.", "worker/acme."]);
    assert!(tokens[0].allows(Role::Read) && tokens[0].allows(Role::Publish) && !tokens[0].allows(Role::Operate));
    assert_eq!((tokens[1].secret.as_deref(), tokens[1].hash), (None, tokens[2].hash));
    assert_eq!(tokens[0].clone().without_secret().secret, None);
}
