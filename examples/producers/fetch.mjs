// A run's life over HTTP, and the same run followed as it comes, with nothing but fetch: node fetch.mjs URL RUN [TOKEN]
// The reader works in a browser as it stands: EventSource cannot send a token, fetch can.
const [url, run, token] = process.argv.slice(2);
const headers = token ? { authorization: `Bearer ${token}` } : {};
const source = `example/fetch/${crypto.randomUUID()}`;

async function publish(sequence, type, data) {
  const event = { specversion: "1.0", id: `${source}/${sequence}`, source, type, subject: `run/${run}`, sequence, data };
  const body = JSON.stringify(event);
  const answer = await fetch(`${url}/v1/events`, { method: "POST", headers: { ...headers, "content-type": "application/cloudevents+json" }, body });
  if (answer.status !== 202) throw new Error(`${answer.status} ${await answer.text()}`);
}

/** Events from behind `after` to the end of the run; what was missed while disconnected comes first. */
async function* follow(after) {
  for (;;) {
    const answer = await fetch(`${url}/v1/runs/${run}/events?after=${after}&wait=30s`, { headers: { ...headers, accept: "text/event-stream" } });
    if (answer.status >= 500) { await new Promise((wake) => setTimeout(wake, 1000)); continue; }
    if (!answer.ok) throw new Error(`${answer.status} ${await answer.text()}`); // 409: load the document, go on from its plan
    let rest = "";
    for await (const text of answer.body.pipeThrough(new TextDecoderStream())) {
      const frames = (rest + text).split("\n\n");
      rest = frames.pop();
      for (const frame of frames) {
        const field = (name) => frame.split("\n").find((line) => line.startsWith(name + ": "))?.slice(name.length + 2);
        const data = field("data");
        if (data === "[DONE]") return;
        if (!data || !field("id")) continue; // a heartbeat
        after = Number(field("id"));
        yield JSON.parse(data);
      }
    }
  }
}

await publish(1, "run.started", { owner_user_id: "ada" });
const reading = (async () => {
  let text = "";
  for await (const event of follow(0)) text += event.data?.delta ?? "";
  return text;
})();
for (const [i, delta] of ["all ", "of ", "it"].entries()) await publish(i + 2, "run.delta", { delta });
await publish(5, "run.finished", { status: "succeeded" });
console.log(await reading);
