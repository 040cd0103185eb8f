//! The properties that librdkafka has, for `[kafka]`: a wrong name or value is refused where it was given, and not when
//! a client is made. Source: librdkafka 2.12, CONFIGURATION.md; callbacks and pointers left out.

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;

use super::nearest::hint;

/// Names, separated by spaces.
const PROPERTIES: &str = "\
    acks allow.auto.create.topics api.version.fallback.ms api.version.request api.version.request.timeout.ms \
    auto.commit.enable auto.commit.interval.ms auto.offset.reset batch.num.messages batch.size bootstrap.servers \
    broker.address.family broker.address.ttl broker.version.fallback builtin.features check.crcs \
    client.dns.lookup client.id client.rack compression.codec compression.level compression.type \
    connections.max.idle.ms consume.callback.max.messages coordinator.query.interval.ms debug \
    delivery.report.only.error delivery.timeout.ms enable.auto.commit enable.auto.offset.store \
    enable.gapless.guarantee enable.idempotence enable.metrics.push enable.partition.eof enable.random.seed \
    enable.sasl.oauthbearer.unsecure.jwt enable.ssl.certificate.verification fetch.error.backoff.ms \
    fetch.max.bytes fetch.message.max.bytes fetch.min.bytes fetch.queue.backoff.ms fetch.wait.max.ms group.id \
    group.instance.id group.protocol group.protocol.type group.remote.assignor heartbeat.interval.ms \
    https.ca.location https.ca.pem internal.termination.signal isolation.level linger.ms log.connection.close \
    log.queue log.thread.name log_level max.in.flight max.in.flight.requests.per.connection \
    max.partition.fetch.bytes max.poll.interval.ms message.copy.max.bytes message.max.bytes \
    message.send.max.retries message.timeout.ms metadata.broker.list metadata.max.age.ms \
    metadata.recovery.rebootstrap.trigger.ms metadata.recovery.strategy offset.store.method offset.store.path \
    offset.store.sync.interval.ms partition.assignment.strategy partitioner plugin.library.paths \
    produce.offset.report queue.buffering.backpressure.threshold queue.buffering.max.kbytes \
    queue.buffering.max.messages queue.buffering.max.ms queued.max.messages.kbytes queued.min.messages \
    queuing.strategy receive.message.max.bytes reconnect.backoff.jitter.ms reconnect.backoff.max.ms \
    reconnect.backoff.ms request.required.acks request.timeout.ms retries retry.backoff.max.ms retry.backoff.ms \
    sasl.kerberos.keytab sasl.kerberos.kinit.cmd sasl.kerberos.min.time.before.relogin sasl.kerberos.principal \
    sasl.kerberos.service.name sasl.mechanism sasl.mechanisms sasl.oauthbearer.assertion.algorithm \
    sasl.oauthbearer.assertion.claim.aud sasl.oauthbearer.assertion.claim.exp.seconds \
    sasl.oauthbearer.assertion.claim.iss sasl.oauthbearer.assertion.claim.jti.include \
    sasl.oauthbearer.assertion.claim.nbf.seconds sasl.oauthbearer.assertion.claim.sub \
    sasl.oauthbearer.assertion.file sasl.oauthbearer.assertion.jwt.template.file \
    sasl.oauthbearer.assertion.private.key.file sasl.oauthbearer.assertion.private.key.passphrase \
    sasl.oauthbearer.assertion.private.key.pem sasl.oauthbearer.client.credentials.client.id \
    sasl.oauthbearer.client.credentials.client.secret sasl.oauthbearer.client.id sasl.oauthbearer.client.secret \
    sasl.oauthbearer.config sasl.oauthbearer.extensions sasl.oauthbearer.grant.type \
    sasl.oauthbearer.metadata.authentication.type sasl.oauthbearer.method sasl.oauthbearer.scope \
    sasl.oauthbearer.token.endpoint.url sasl.password sasl.username security.protocol session.timeout.ms \
    socket.blocking.max.ms socket.connection.setup.timeout.ms socket.keepalive.enable socket.max.fails \
    socket.nagle.disable socket.receive.buffer.bytes socket.send.buffer.bytes socket.timeout.ms \
    ssl.ca.certificate.stores ssl.ca.location ssl.ca.pem ssl.certificate.location ssl.certificate.pem \
    ssl.cipher.suites ssl.crl.location ssl.curves.list ssl.endpoint.identification.algorithm ssl.engine.id \
    ssl.engine.location ssl.key.location ssl.key.password ssl.key.pem ssl.keystore.location \
    ssl.keystore.password ssl.providers ssl.sigalgs.list statistics.interval.ms sticky.partitioning.linger.ms \
    topic.blacklist topic.metadata.propagation.max.ms topic.metadata.refresh.fast.cnt \
    topic.metadata.refresh.fast.interval.ms topic.metadata.refresh.interval.ms topic.metadata.refresh.sparse \
    transaction.timeout.ms transactional.id";

fn properties() -> impl Iterator<Item = &'static str> {
    PROPERTIES.split_ascii_whitespace()
}

/// Whether librdkafka takes this value for this property; in words why not.
pub(super) fn check(property: &str, value: &str) -> Result<(), String> {
    if properties().all(|known| known != property) {
        let hint = hint(property, properties().map(str::to_owned));
        return Err(format!("librdkafka has no such property{hint}"));
    }
    match ClientConfig::new().set(property, value).create_native_config() {
        // Of TLS and SASL: a legal property, and the client says what it lacks.
        Err(KafkaError::ClientConfig(_, words, ..))
            if words.contains("in this build") || words.contains("at build time") =>
        {
            Ok(())
        }
        Err(KafkaError::ClientConfig(_, words, ..)) => Err(words),
        Err(error) => Err(error.to_string()),
        Ok(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_librdkafkas() {
        for name in properties() {
            let told = check(name, "no value is like this").err().unwrap_or_default();
            assert!(!told.contains("No such configuration property"), "{name}: {told}");
        }
        let unknown = ClientConfig::new().set("no.such", "1").create_native_config();
        let words = unknown.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(words.contains("No such configuration property"), "{words}");
    }

    #[test]
    fn a_slip_gets_a_hint_and_a_bad_value_a_reason() {
        let unknown = check("sesion.timeout.ms", "5000").expect_err("no such property");
        assert!(unknown.ends_with("did you mean `session.timeout.ms`?"), "{unknown}");
        assert!(check("session.timeout.ms", "soon").is_err_and(|words| words.contains("session.timeout.ms")));
        assert_eq!(check("session.timeout.ms", "6000"), Ok(()));
    }
}
