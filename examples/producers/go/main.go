// A run's life into Kafka with franz-go: go run . BROKERS TOPIC RUN
// franz-go's default partitioner is the right one: murmur2 of the key, as Java's.
package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"log"
	"os"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

func unique() string {
	bytes := make([]byte, 16)
	if _, err := rand.Read(bytes); err != nil {
		log.Fatal(err)
	}
	return hex.EncodeToString(bytes)
}

func main() {
	brokers, topic, run := os.Args[1], os.Args[2], os.Args[3]
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(brokers, ",")...),
		kgo.DefaultProduceTopic(topic),
		kgo.RequiredAcks(kgo.AllISRAcks()), // the default, and idempotent
	)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	subject := "run/" + run
	source := "example/franz-go/" + unique() // a new source for each process: sequences begin at 1
	record := func(sequence int, kind string, data map[string]any) *kgo.Record {
		value, err := json.Marshal(map[string]any{
			"specversion": "1.0", "id": unique(), "source": source, "type": kind, "subject": subject,
			"time": time.Now().UTC().Format(time.RFC3339Nano), "sequence": sequence, "data": data,
		})
		if err != nil {
			log.Fatal(err)
		}
		headers := []kgo.RecordHeader{{Key: "content-type", Value: []byte("application/cloudevents+json")}}
		return &kgo.Record{Key: []byte(subject), Value: value, Headers: headers}
	}
	records := []*kgo.Record{record(1, "run.started", map[string]any{"owner_user_id": "ada"})}
	for i, word := range []string{"all ", "of ", "it"} {
		records = append(records, record(i+2, "run.delta", map[string]any{"delta": word}))
	}
	records = append(records, record(5, "run.finished", map[string]any{"status": "succeeded"}))
	// Returns when all in-sync replicas have them.
	if err := client.ProduceSync(context.Background(), records...).FirstErr(); err != nil {
		log.Fatal(err)
	}
}
