import assert from 'node:assert/strict';
import { scenario } from './harness/world.mjs';

const all = (n) => Array.from({ length: n }, (_, i) => i);
const transports = ['websocket', 'sse', 'poll'];

scenario('a page that is loaded again finds its requests, and shows every output once', async (world) => {
  const page = await world.open('/');
  await page.evaluate(async (transports) => {
    const all = transports.map((transport) => {
      const client = connect({ transport, storage: transport });
      return follow(client.submit('count', { n: 150, every_ms: 20 }, { id: `kept-${transport}` }));
    });
    // Cursors are stored a few times a second.
    await until(() => all.every((seen) => seen.outputs.length > 30));
  }, transports);
  await page.reload();
  await page.waitForFunction(() => 'connect' in globalThis, undefined, { polling: 20 });
  const seen = await page.evaluate(async (transports) => {
    const seen = transports.map((transport) => {
      const client = connect({ transport, storage: transport });
      const pending = client.pending();
      const [whole, rest] = [follow(client.attach(pending[0])), follow(client.attach(pending[0], { resume: true }))];
      return { client, pending, whole, rest };
    });
    await until(() => seen.every(({ whole, rest }) => whole.over && rest.over));
    return seen.map(({ client, ...others }) => ({ ...others, left: client.pending() }));
  }, transports);

  for (const [i, { pending, whole, rest, left }] of seen.entries()) {
    assert.deepEqual(pending, [`kept-${transports[i]}`]);
    assert.deepEqual(whole.outputs, all(150), transports[i]);
    assert.deepEqual(whole.result, { n: 150 });
    assert.ok(rest.outputs[0] > 0, `${transports[i]}: it was shown from its start`);
    assert.deepEqual(rest.outputs, all(150).slice(rest.outputs[0]), transports[i]);
    assert.deepEqual(left, []);
  }
});

scenario(
  'an application that keeps the cursor beside what it shows has every output once over many reloads',
  async (world) => {
    const page = await world.open('/');
    for (let load = 0; ; load++) {
      const done = await page.evaluate(async () => {
        const kept = JSON.parse(sessionStorage.getItem('kept') ?? '{"outputs":[],"cursor":{}}');
        const client = connect();
        if (!kept.id) {
          const first = client.submit('count', { n: 400, every_ms: 10 });
          kept.id = first.id;
          await first.accepted;
          first.detach();
        }
        const enough = kept.outputs.length + 20;
        for await (const e of client.attach(kept.id, kept.cursor)) {
          if (e.type !== 'output') continue;
          kept.outputs.push(e.data.i);
          kept.cursor = { epoch: e.epoch, after: e.seq };
          sessionStorage.setItem('kept', JSON.stringify(kept));
          if (kept.outputs.length === enough && enough < 100) return;
        }
        return kept.outputs;
      });
      if (done) {
        assert.ok(load >= 4);
        assert.deepEqual(done, all(400));
        return;
      }
      await page.reload();
      await page.waitForFunction(() => 'connect' in globalThis, undefined, { polling: 20 });
    }
  },
);

scenario(
  'a page in the back/forward cache lets its connection go, and goes on when it is shown again',
  async (world) => {
    const page = await world.open('/');
    await page.evaluate(async (transports) => {
      globalThis.shown = [];
      const clients = [];
      addEventListener('pageshow', (e) => shown.push([e.persisted, ...clients.map((c) => c.state.phase)]));
      globalThis.all = transports.map((transport) => {
        const client = connect({ transport });
        clients.push(client);
        return follow(client.submit('count', { n: 120, every_ms: 20 }));
      });
      await until(() => all.every((seen) => seen.outputs.length > 5));
    }, transports);
    await page.goto(new URL('/elsewhere.html', world.origin).href);
    await world.until(() => world.site.held === 0 && world.site.tunnels === 0);
    await page.goBack({ waitUntil: 'commit' });
    const { shown, all: seen } = await page.evaluate(async () => {
      await until(() => all.every((seen) => seen.over));
      return { shown, all };
    });
    // Not loaded again, and the clients let go when the page was left.
    assert.deepEqual(shown, [[true, 'reconnecting', 'reconnecting', 'reconnecting']]);
    for (const [i, { outputs, result, gaps }] of seen.entries()) {
      assert.deepEqual(outputs, all(120), transports[i]);
      assert.deepEqual(result, { n: 120 });
      assert.deepEqual(gaps, []);
    }
  },
);

scenario('a hidden tab keeps its connection and misses nothing', async (world) => {
  const tab = await world.open('/');
  await tab.evaluate((transports) => {
    globalThis.all = transports.map((transport) => {
      const client = connect({ transport });
      return { client, seen: follow(client.submit('count', { n: 100, every_ms: 20 })) };
    });
    return until(() => all.every(({ seen }) => seen.outputs.length > 5));
  }, transports);
  await world.open('/elsewhere.html', undefined, () => true);
  const seen = await tab.evaluate(async () => {
    await until(() => all.every(({ seen }) => seen.over));
    const states = all.map(({ client }) => client.states.map((s) => s.phase));
    return { visibility: document.visibilityState, states, all: all.map(({ seen }) => seen) };
  });
  assert.equal(seen.visibility, 'hidden');
  for (const [i, { outputs, result }] of seen.all.entries()) {
    assert.deepEqual(outputs, all(100), transports[i]);
    assert.deepEqual(result, { n: 100 });
    assert.ok(!seen.states[i].includes('reconnecting'), `${transports[i]}: ${seen.states[i]}`);
  }
});

scenario('a hidden tab without a network tries nothing until it is seen again, and then at once', async (world) => {
  const tab = await world.open('/');
  await tab.evaluate(() => {
    globalThis.client = connect();
    globalThis.seen = follow(client.submit('count', { n: 100_000, every_ms: 20 }));
    return until(() => seen.outputs.length > 5);
  });
  await world.open('/elsewhere.html', undefined, () => true);
  await tab.waitForFunction(() => document.hidden, undefined, { polling: 50 });
  // From here on timers come when the test says so.
  await tab.evaluate(() => {
    // Real timers are slow in a hidden tab: what is to come before the next round comes by a message.
    const { setTimeout, clearTimeout, WebSocket } = globalThis;
    const timers = new Map();
    let count = 0;
    globalThis.dials = 0;
    globalThis.setTimeout = (f) => timers.set(++count, f) && count;
    globalThis.clearTimeout = (id) => timers.delete(id) || clearTimeout(id);
    globalThis.WebSocket = class extends WebSocket {
      constructor(...args) {
        super(...args);
        dials++;
      }
    };
    globalThis.elapse = async () => {
      for (let round = 0; round < 20; round++) {
        const due = [...timers.values()];
        timers.clear();
        for (const f of due) f();
        await new Promise((resolve) => {
          const { port1, port2 } = new MessageChannel();
          port1.onmessage = resolve;
          port2.postMessage(0);
        });
      }
    };
    globalThis.flow = () => Object.assign(globalThis, { setTimeout, clearTimeout });
  });
  world.wire.down();
  const phase = await tab.evaluate(async () => {
    await until(() => client.state.phase === 'reconnecting');
    await elapse();
    flow();
    return client.state.phase;
  });
  assert.equal(phase, 'reconnecting');
  assert.equal(await tab.evaluate(() => dials), 0, 'it tried while hidden');
  world.wire.up();
  await tab.bringToFront();
  const seen = await tab.evaluate(async () => {
    const n = seen.outputs.length;
    await until(() => seen.outputs.length > n + 5);
    await client.attach(seen.id).cancel();
    await until(() => seen.over);
    return seen;
  });
  assert.deepEqual(seen.outputs, all(seen.outputs.length));
});

scenario('a tab that was frozen goes on when it is woken, and misses nothing', async (world) => {
  const tab = await world.open('/');
  await tab.evaluate((transports) => {
    globalThis.all = transports.map((transport) =>
      follow(connect({ transport }).submit('count', { n: 100, every_ms: 20 })),
    );
    return until(() => all.every((seen) => seen.outputs.length > 5));
  }, transports);
  const devtools = await tab.context().newCDPSession(tab);
  await devtools.send('Page.setWebLifecycleState', { state: 'frozen' });
  // All of it ends while the tab sleeps.
  const other = await world.open('/');
  const ids = await tab.evaluate(() => all.map((seen) => seen.id));
  await other.evaluate((ids) => Promise.all(ids.map((id) => connect({ transport: 'sse' }).attach(id))), ids);
  world.wire.cut();
  await devtools.send('Page.setWebLifecycleState', { state: 'active' });
  await world.open('/elsewhere.html', undefined, () => true);
  await tab.bringToFront();
  const seen = await tab.evaluate(() => until(() => all.every((seen) => seen.over)).then(() => all));
  for (const [i, { outputs, result, gaps }] of seen.entries()) {
    assert.deepEqual(outputs, all(100), transports[i]);
    assert.deepEqual(result, { n: 100 });
    assert.deepEqual(gaps, []);
  }
});
