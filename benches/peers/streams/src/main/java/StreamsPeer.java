import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import redis.clients.jedis.Jedis;

/** Kafka Streams with exactly_once_v2: an aggregate into a topic of documents, and a sink from there, as its manual advises. */
public final class StreamsPeer {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final String BROKER = System.getenv("PEER_BROKER");
    private static final String GROUP = System.getenv("PEER_GROUP");
    private static final String DOCUMENTS = GROUP + "-documents";
    private static final int PARTITIONS = 12;

    public static void main(String[] args) throws Exception {
        Map<String, Object> broker = Map.of("bootstrap.servers", BROKER);
        try (Admin admin = Admin.create(broker)) {
            NewTopic topic = new NewTopic(DOCUMENTS, Optional.of(PARTITIONS), Optional.empty());
            admin.createTopics(List.of(topic.configs(Map.of("cleanup.policy", "compact")))).all().get();
        } catch (java.util.concurrent.ExecutionException failure) {
            if (!(failure.getCause() instanceof TopicExistsException)) {
                throw failure;
            }
        }
        Thread sink = new Thread(StreamsPeer::sink, "sink");
        sink.setUncaughtExceptionHandler((thread, error) -> {
            error.printStackTrace();
            Runtime.getRuntime().halt(1);
        });
        sink.start();

        StreamsBuilder builder = new StreamsBuilder();
        builder.<String, String>stream(System.getenv("PEER_TOPIC"))
            .groupByKey()
            .aggregate(() -> "{\"event_count\":0,\"latest_seq\":0}", (key, event, document) -> fold(event, document))
            .toStream()
            .to(DOCUMENTS);
        Properties config = new Properties();
        config.putAll(broker);
        config.put(StreamsConfig.APPLICATION_ID_CONFIG, GROUP);
        config.put(StreamsConfig.STATE_DIR_CONFIG, System.getenv("PEER_STATE"));
        config.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        config.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 2);
        config.put(StreamsConfig.DEFAULT_KEY_SERDE_CLASS_CONFIG, Serdes.StringSerde.class);
        config.put(StreamsConfig.DEFAULT_VALUE_SERDE_CLASS_CONFIG, Serdes.StringSerde.class);
        config.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
        config.put(ConsumerConfig.SESSION_TIMEOUT_MS_CONFIG, 6000);
        new KafkaStreams(builder.build(), config).start();
    }

    private static String fold(String value, String before) {
        try {
            JsonNode event = JSON.readTree(value);
            ObjectNode document = (ObjectNode) JSON.readTree(before);
            long sequence = event.get("sequence").asLong();
            if (sequence <= document.get("latest_seq").asLong()) {
                return before;
            }
            document.put("latest_seq", sequence).put("event_count", document.get("event_count").asLong() + 1);
            switch (event.get("type").asText()) {
                case "run.created" -> document.put("status", "queued");
                case "run.started" -> document.put("status", "running");
                case "run.finished" -> document.set("status", event.get("data").get("status"));
                default -> { }
            }
            return JSON.writeValueAsString(document);
        } catch (java.io.IOException error) {
            throw new java.io.UncheckedIOException(error);
        }
    }

    /** Documents of committed transactions into Redis, one pipeline a poll; the offset is committed behind it. */
    private static void sink() {
        String[] redis = System.getenv("PEER_REDIS").split(":");
        Map<String, Object> config = Map.of(
            "bootstrap.servers", BROKER, "group.id", GROUP + "-sink", "auto.offset.reset", "earliest",
            "isolation.level", "read_committed", "enable.auto.commit", false, "session.timeout.ms", 6000);
        var text = new StringDeserializer();
        try (var consumer = new KafkaConsumer<>(config, text, text);
                var jedis = new Jedis(redis[0], Integer.parseInt(redis[1]))) {
            consumer.subscribe(List.of(DOCUMENTS));
            while (true) {
                var documents = consumer.poll(Duration.ofMillis(100));
                if (documents.isEmpty()) {
                    continue;
                }
                var pipeline = jedis.pipelined();
                documents.forEach(document -> pipeline.set(document.key(), document.value()));
                pipeline.sync();
                consumer.commitSync();
            }
        }
    }
}
