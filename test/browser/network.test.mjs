import assert from 'node:assert/strict';
import { scenario } from './harness/world.mjs';

const all = (n) => Array.from({ length: n }, (_, i) => i);

const transports = ['websocket', 'sse', 'poll'];

scenario('after a while without a network the client goes on at once, and misses nothing', async (world) => {
  const context = await world.context();
  const page = await world.open('/', context);
  await page.evaluate(async (transports) => {
    globalThis.all = transports.map((transport) => {
      const client = connect({ transport });
      return { client, seen: follow(client.submit('count', { n: 60, every_ms: 20 })) };
    });
    addEventListener('online', () => {
      globalThis.since = performance.now();
    });
    await until(() => all.every(({ seen }) => seen.outputs.length > 5));
  }, transports);
  await context.setOffline(true);
  world.wire.down();
  // A WebSocket is not told that the network is away, as in life.
  await page.waitForFunction(
    () => !navigator.onLine && all.slice(1).every(({ client }) => client.state.phase !== 'open'),
    undefined,
    { polling: 20 },
  );
  world.wire.up();
  await context.setOffline(false);
  const seen = await page.evaluate(async () => {
    const times = all.map(async ({ seen }) => {
      await until(() => seen.over);
      return { ...seen, after: performance.now() - since };
    });
    return Promise.all(times);
  });
  for (const [i, { outputs, result, gaps, after }] of seen.entries()) {
    assert.deepEqual(outputs, all(60), transports[i]);
    assert.deepEqual(result, { n: 60 }, transports[i]);
    assert.deepEqual(gaps, [], transports[i]);
    // Who is offline waits for 20 s at least, unless told that it is over.
    assert.ok(after < 19_000, `${transports[i]}: it took ${after} ms`);
  }
});

scenario('a client that is cut off does not try again and again while the network is away', async (world) => {
  const page = await world.open('/');
  await page.evaluate(async () => {
    globalThis.client = connect();
    globalThis.seen = follow(client.submit('count', { n: 100_000, every_ms: 20 }));
    await until(() => seen.outputs.length > 2);
  });
  world.wire.down();
  const before = world.wire.accepted;
  await page.evaluate(() => until(() => client.state.attempt === 3));
  // Each failure is one connect, two where the browser repeats one by itself.
  assert.ok(world.wire.accepted - before <= 6, `${world.wire.accepted - before} connects in three attempts`);
  world.wire.up();
  await page.evaluate(async () => {
    const n = seen.outputs.length;
    client.reconnect();
    await until(() => seen.outputs.length > n);
  });
});

// Chromium takes these for whole answers, with the status 2, 40 and so on.
const stumps = [
  'HTTP/1.1 2',
  'HTTP/1.1 40',
  'HTTP/1.1 404',
  'HTTP/1.1 404 Not Found\r\nContent-Type: application/problem+json\r\n',
];

for (const transport of ['sse', 'poll']) {
  scenario(`${transport}: an answer that is cut off says nothing, and the client asks again`, async (world) => {
    const page = await world.open('/');
    await page.evaluate(async (transport) => {
      globalThis.client = connect({ transport });
      client.subscribe(({ phase }) => phase === 'reconnecting' && queueMicrotask(() => client.reconnect()));
      globalThis.seen = follow(client.submit('count', { n: 100_000, every_ms: 20 }));
      await until(() => seen.outputs.length > 2);
    }, transport);
    world.site.stumps = [...stumps];
    world.wire.cut();
    await world.until(() => !world.site.stumps.length);
    world.site.stumps = [...stumps];
    const submitted = page.evaluate(() => client.request('echo', 'still here'));
    assert.equal(await submitted, 'still here');
    const seen = await page.evaluate(async () => {
      const n = seen.outputs.length;
      await until(() => seen.outputs.length > n + 3);
      await client.attach(seen.id).cancel();
      await until(() => seen.over);
      return seen;
    });
    assert.equal(seen.error.code, 'CANCELED');
    assert.deepEqual(seen.outputs, all(seen.outputs.length));
  });
}

scenario('where a proxy refuses WebSockets the client goes on with event streams', async (world) => {
  world.site.upgrades = 'refuse';
  const page = await world.open('/');
  const seen = await page.evaluate(async () => {
    const client = connect();
    const seen = follow(client.submit('count', { n: 20, every_ms: 5 }));
    await until(() => seen.over);
    const again = await client.request('echo', 1);
    return { ...seen, again, transport: client.state.transport };
  });
  assert.equal(seen.transport, 'sse');
  assert.deepEqual(seen.outputs, all(20));
  assert.deepEqual(seen.result, { n: 20 });
  assert.equal(seen.again, 1);
  assert.ok(world.site.calls.filter((c) => c.startsWith('UPGRADE')).length <= 2, 'it was not remembered');
});

scenario('where a proxy lets WebSockets hang the client goes on with event streams', async (world) => {
  world.site.upgrades = 'ignore';
  const page = await world.open('/');
  const seen = await page.evaluate(async () => {
    const client = connect();
    const seen = follow(client.submit('count', { n: 20, every_ms: 5 }));
    await until(() => seen.over);
    return { ...seen, transport: client.state.transport };
  });
  assert.equal(seen.transport, 'sse');
  assert.deepEqual(seen.outputs, all(20));
});

scenario('where a proxy keeps event streams back the client goes on with long polls', async (world) => {
  world.site.upgrades = 'refuse';
  world.site.buffering = true;
  const page = await world.open('/');
  await page.evaluate(async () => {
    globalThis.client = connect();
    globalThis.seen = follow(client.submit('count', { n: 100_000, every_ms: 20 }));
    await until(() => seen.outputs.length > 50 && client.state.transport === 'poll');
    await client.attach(seen.id).cancel();
    await until(() => seen.over);
  });
  const seen = await page.evaluate(() => seen);
  assert.deepEqual(seen.outputs, all(seen.outputs.length));
  assert.equal(seen.error.code, 'CANCELED');
});

scenario('a transport that was chosen is never left for another one', async (world) => {
  world.site.upgrades = 'refuse';
  const page = await world.open('/');
  const transports = await page.evaluate(async () => {
    const client = connect({ transport: 'websocket' });
    const handle = client.submit('echo', 1);
    await until(() => client.state.attempt === 4);
    handle.detach();
    return client.states.map((s) => s.transport);
  });
  assert.deepEqual([...new Set(transports)].filter(Boolean), ['websocket']);
  assert.ok(
    world.site.calls.every((c) => c.startsWith('UPGRADE')),
    world.site.calls.join(', '),
  );
});
