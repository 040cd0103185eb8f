// Goka, at-least-once: a group table in LevelDB folds, a second processor reads the table's topic and brings documents to Redis.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"hash"
	"log"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"
	"github.com/lovoo/goka/codec"
	"github.com/lovoo/goka/multierr"
	"github.com/lovoo/goka/storage"
	"github.com/redis/go-redis/v9"
)

type event struct {
	Sequence string `json:"sequence"`
	Type     string `json:"type"`
	Data     struct {
		Status string `json:"status"`
	} `json:"data"`
}

type document struct {
	Status     string `json:"status"`
	EventCount int64  `json:"event_count"`
	LatestSeq  int64  `json:"latest_seq"`
}

// jsonCodec is how Goka's examples keep a struct.
type jsonCodec[T any] struct{}

func (jsonCodec[T]) Encode(value any) ([]byte, error) { return json.Marshal(value) }

func (jsonCodec[T]) Decode(data []byte) (any, error) {
	value := new(T)
	return value, json.Unmarshal(data, value)
}

func fold(ctx goka.Context, message any) {
	its := message.(*event)
	before := &document{}
	if value := ctx.Value(); value != nil {
		before = value.(*document)
	}
	sequence, err := strconv.ParseInt(its.Sequence, 10, 64)
	if err != nil {
		ctx.Fail(err)
	}
	if sequence <= before.LatestSeq {
		// After a crash LevelDB can be ahead of the table's topic: what the topic may have missed goes there again.
		ctx.SetValue(before)
		return
	}
	after := *before
	after.LatestSeq, after.EventCount = sequence, before.EventCount+1
	switch its.Type {
	case "run.created":
		after.Status = "queued"
	case "run.started":
		after.Status = "running"
	case "run.finished":
		after.Status = its.Data.Status
	}
	ctx.SetValue(&after)
}

type write struct {
	key   string
	value []byte
	done  func(error)
}

// sink writes what has come in one pipeline, and only then lets the offsets go.
func sink(ctx context.Context, client *redis.Client, writes <-chan write) error {
	for {
		var batch []write
		select {
		case <-ctx.Done():
			return ctx.Err()
		case first := <-writes:
			batch = append(batch, first)
		}
		for len(writes) > 0 {
			batch = append(batch, <-writes)
		}
		_, err := client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
			for _, each := range batch {
				pipe.Set(ctx, each.key, each.value, 0)
			}
			return nil
		})
		for _, each := range batch {
			each.done(err)
		}
		if err != nil {
			return err
		}
	}
}

// murmur2 is the Java client's placing of keys, by which the events came in; Goka's own would be FNV.
type murmur2 struct{ data []byte }

func newMurmur2() hash.Hash32 { return &murmur2{} }

func (m *murmur2) Write(data []byte) (int, error) {
	m.data = append(m.data, data...)
	return len(data), nil
}
func (m *murmur2) Sum(before []byte) []byte { return before }
func (m *murmur2) Reset()                   { m.data = m.data[:0] }
func (m *murmur2) Size() int                { return 4 }
func (m *murmur2) BlockSize() int           { return 4 }

func (m *murmur2) Sum32() uint32 {
	const mix = 0x5bd1e995
	data, h := m.data, uint32(0x9747b28c)^uint32(len(m.data))
	for ; len(data) >= 4; data = data[4:] {
		k := (uint32(data[0]) | uint32(data[1])<<8 | uint32(data[2])<<16 | uint32(data[3])<<24) * mix
		h = h*mix ^ (k^k>>24)*mix
	}
	if len(data) > 0 {
		for i, each := range data {
			h ^= uint32(each) << (8 * i)
		}
		h *= mix
	}
	h = (h ^ h>>13) * mix
	return (h ^ h>>15) & 0x7fffffff
}

func main() {
	brokers, group, state := []string{os.Getenv("PEER_BROKER")}, goka.Group(os.Getenv("PEER_GROUP")), os.Getenv("PEER_STATE")
	config := goka.DefaultConfig()
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.Group.Session.Timeout = 6 * time.Second
	config.Consumer.Group.Heartbeat.Interval = 2 * time.Second
	goka.ReplaceGlobalConfig(config)
	topics := goka.NewTopicManagerConfig()
	topics.Table.Replication, topics.Stream.Replication = 1, 1
	options := func(name goka.Group) []goka.ProcessorOption {
		return []goka.ProcessorOption{
			goka.WithHasher(newMurmur2),
			goka.WithStorageBuilder(storage.DefaultBuilder(filepath.Join(state, string(name)))),
			goka.WithTopicManagerBuilder(goka.TopicManagerBuilderWithTopicManagerConfig(topics)),
		}
	}

	client := redis.NewClient(&redis.Options{Addr: os.Getenv("PEER_REDIS")})
	writes := make(chan write, 1000)
	toRedis := func(ctx goka.Context, message any) {
		writes <- write{ctx.Key(), message.([]byte), ctx.DeferCommit()}
	}
	input := goka.Stream(os.Getenv("PEER_TOPIC"))
	folding, err := goka.NewProcessor(brokers, goka.DefineGroup(group,
		goka.Input(input, jsonCodec[event]{}, fold),
		goka.Persist(jsonCodec[document]{}),
	), options(group)...)
	if err != nil {
		log.Fatal(err)
	}
	// The table's topic is there from here on.
	name := group + "-redis"
	writing, err := goka.NewProcessor(brokers, goka.DefineGroup(name,
		goka.Input(goka.Stream(goka.GroupTable(group)), new(codec.Bytes), toRedis),
	), options(name)...)
	if err != nil {
		log.Fatal(err)
	}
	together, ctx := multierr.NewErrGroup(context.Background())
	together.Go(func() error { return folding.Run(ctx) })
	together.Go(func() error { return writing.Run(ctx) })
	together.Go(func() error { return sink(ctx, client, writes) })
	log.Fatal(errors.Join(together.Wait().ErrorOrNil(), errors.New("ended")))
}
