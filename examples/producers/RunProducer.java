// A run's life into Kafka with kafka-clients: java -cp 'kafka-clients-*.jar:…' RunProducer.java BROKERS TOPIC RUN
// The Java client's default partitioner is the right one: murmur2 of the key.

import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.Future;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.serialization.StringSerializer;

public class RunProducer {
    public static void main(String[] args) throws Exception {
        String brokers = args[0], topic = args[1], subject = "run/" + args[2];
        String source = "example/java/" + UUID.randomUUID(); // a new source for each process: sequences begin at 1
        Map<String, Object> settings = Map.of("bootstrap.servers", brokers, "acks", "all", "enable.idempotence", true);
        try (var producer = new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer())) {
            String[][] life = {
                {"run.started", "{\"owner_user_id\":\"ada\"}"},
                {"run.delta", "{\"delta\":\"all \"}"},
                {"run.delta", "{\"delta\":\"of \"}"},
                {"run.delta", "{\"delta\":\"it\"}"},
                {"run.finished", "{\"status\":\"succeeded\"}"},
            };
            List<Future<RecordMetadata>> waiting = new ArrayList<>();
            for (int i = 0; i < life.length; i++) {
                // A real program writes JSON with a library.
                String event = String.format(
                    "{\"specversion\":\"1.0\",\"id\":\"%s\",\"source\":\"%s\",\"type\":\"%s\",\"subject\":\"%s\","
                        + "\"time\":\"%s\",\"sequence\":\"%d\",\"data\":%s}",
                    UUID.randomUUID(), source, life[i][0], subject, Instant.now(), i + 1, life[i][1]);
                var record = new ProducerRecord<>(topic, subject, event);
                record.headers().add("content-type", "application/cloudevents+json".getBytes());
                waiting.add(producer.send(record));
            }
            for (var delivery : waiting) {
                delivery.get(); // all in-sync replicas have it, or an exception
            }
        }
    }
}
