import assert from 'node:assert/strict';
import { random, seed } from './harness/random.mjs';
import { scenario } from './harness/world.mjs';

const wanted = 500;

scenario(
  `${wanted} cuts at random bytes: every output comes once, in order, and the result is right`,
  async (world, t) => {
    const number = seed();
    t.diagnostic(`SEED=${number} repeats where it is cut`);
    const next = random(number);
    const page = await world.open('/');
    await page.evaluate(async () => {
      globalThis.enough = false;
      // How long a client waits between attempts is another test's affair: here it is told to go on.
      const restless = (client) =>
        client.subscribe(({ phase }) => {
          if (phase === 'reconnecting') queueMicrotask(() => client.reconnect());
        });
      const work = async (transport, lane) => {
        const client = connect({ transport });
        restless(client);
        const bad = [];
        let requests = 0;
        let outputs = 0;
        for (; !enough; requests++) {
          const n = 20 + ((requests * 7 + lane * 13) % 60);
          const seen = follow(client.submit('count', { n, every_ms: 2, bytes: 40 + ((requests * 131) % 400) }));
          await until(() => seen.over);
          followed.splice(followed.indexOf(seen), 1);
          outputs += seen.outputs.length;
          const right = seen.result?.n === n && seen.outputs.length === n && seen.outputs.every((o, i) => o === i);
          if (!right || seen.gaps.length) bad.push(seen);
        }
        return { transport, requests, outputs, bad };
      };
      globalThis.working = Promise.all(['websocket', 'sse', 'poll'].flatMap((t) => [work(t, 0), work(t, 1)]));
    });
    world.wire.cutAfter(() => (world.wire.cuts < wanted ? Math.floor(100 + next() ** 2 * 8000) : Infinity));
    world.wire.cut();
    await world.until(() => world.wire.cuts >= wanted);
    const all = await page.evaluate(() => {
      globalThis.enough = true;
      return working;
    });
    for (const { transport, requests, outputs, bad } of all) {
      t.diagnostic(`${transport}: ${requests} requests, ${outputs} outputs`);
      assert.deepEqual(bad, []);
      assert.ok(requests > 0);
    }
    assert.deepEqual(
      page.complaints.filter((c) => !c.includes('WebSocket connection to')),
      [],
    );
  },
);
