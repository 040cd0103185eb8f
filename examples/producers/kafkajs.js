// A run's life into Kafka with kafkajs 2: node kafkajs.js BROKERS TOPIC RUN
// The default partitioner of kafkajs 2 is the right one (murmur2); LegacyPartitioner is not.
const { randomUUID } = require("node:crypto");
const { Kafka, Partitioners, logLevel } = require("kafkajs");

const [brokers, topic, run] = process.argv.slice(2);
const subject = `run/${run}`;
const source = `example/kafkajs/${randomUUID()}`; // a new source for each process: sequences begin at 1

function message(sequence, type, data) {
  const time = new Date().toISOString();
  const event = { specversion: "1.0", id: randomUUID(), source, type, subject, time, sequence, data };
  return { key: subject, value: JSON.stringify(event), headers: { "content-type": "application/cloudevents+json" } };
}

async function main() {
  const kafka = new Kafka({ brokers: brokers.split(","), logLevel: logLevel.ERROR });
  const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner, idempotent: true });
  await producer.connect();
  const deltas = ["all ", "of ", "it"].map((delta, i) => message(i + 2, "run.delta", { delta }));
  const messages = [message(1, "run.started", { owner_user_id: "ada" }), ...deltas, message(5, "run.finished", { status: "succeeded" })];
  await producer.send({ topic, messages, acks: -1 }); // resolves when all in-sync replicas have them
  await producer.disconnect();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
