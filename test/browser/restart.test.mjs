import assert from 'node:assert/strict';
import { scenario } from './harness/world.mjs';

const all = (n) => Array.from({ length: n }, (_, i) => i);
const transports = ['websocket', 'sse', 'poll'];

/** Starts a request over each transport, and waits until they show outputs. */
const begin = (page, n, every) =>
  page.evaluate(
    async ([transports, n, every]) => {
      globalThis.clients = transports.map((transport) => connect({ transport }));
      globalThis.all = clients.map((client, i) =>
        follow(client.submit('count', { n, every_ms: every }, { id: `over-${transports[i]}` })),
      );
      await until(() => all.every((seen) => seen.outputs.length > 5));
    },
    [transports, n, every],
  );

/** Returns what the page sees of its requests when they are over. */
const ends = (page) => page.evaluate(() => until(() => all.every((seen) => seen.over)).then(() => all));

scenario('what a server that shuts down still finishes is seen to its end', async (world) => {
  const page = await world.open('/');
  await begin(page, 60, 20);
  await world.service.stop();
  // Who polls may be between two questions when it closes, and then there is nobody to ask.
  await world.service.start();
  for (const [i, { outputs, result, error }] of (await ends(page)).entries()) {
    if (transports[i] === 'poll' && error) {
      assert.equal(error.code, 'NOT_FOUND');
      continue;
    }
    assert.deepEqual(outputs, all(60), transports[i]);
    assert.deepEqual(result, { n: 60 }, transports[i]);
  }
});

scenario(
  'a request that a restart lost is told to be unknown, and the client goes on with the new server',
  async (world) => {
    const page = await world.open('/');
    await begin(page, 100_000, 20);
    await world.service.restart();
    for (const [i, { outputs, error }] of (await ends(page)).entries()) {
      assert.equal(error.code, 'NOT_FOUND', transports[i]);
      assert.deepEqual(outputs, all(outputs.length), transports[i]);
    }
    const echoed = await page.evaluate(() => Promise.all(clients.map((client) => client.request('echo', 1))));
    assert.deepEqual(echoed, [1, 1, 1]);
  },
  { lab: ['-drain', '200ms'] },
);

scenario('a server that was killed makes no client hang', async (world) => {
  const page = await world.open('/');
  await begin(page, 100_000, 20);
  await world.service.restart('SIGKILL');
  for (const [i, { outputs, error }] of (await ends(page)).entries()) {
    assert.equal(error.code, 'NOT_FOUND', transports[i]);
    assert.deepEqual(outputs, all(outputs.length), transports[i]);
  }
});

scenario(
  'another request under the same id after a restart is told by a gap, and shown from its start',
  async (world) => {
    const page = await world.open('/');
    await begin(page, 100_000, 20);
    world.wire.down();
    await world.service.restart('SIGKILL');
    for (const transport of transports) {
      const answer = await fetch(`http://127.0.0.1:${world.service.port}/requests`, {
        method: 'POST',
        headers: { authorization: 'Bearer acme:ann', 'content-type': 'application/json', prefer: 'wait=10' },
        body: JSON.stringify({ id: `over-${transport}`, action: 'count', payload: { n: 7 } }),
      });
      assert.equal((await answer.json()).type, 'complete');
    }
    world.wire.up();
    for (const [i, { outputs, story, gaps, result }] of (await ends(page)).entries()) {
      assert.deepEqual(gaps, ['recreated'], transports[i]);
      assert.deepEqual(outputs.slice(-7), all(7), transports[i]);
      assert.deepEqual(outputs.slice(0, -7), all(outputs.length - 7), transports[i]);
      assert.deepEqual(story.slice(story.indexOf('gap')).slice(0, 3), ['gap', 'accepted', 'running'], transports[i]);
      assert.deepEqual(result, { n: 7 });
    }
  },
);
