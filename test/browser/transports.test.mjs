import assert from 'node:assert/strict';
import { scenario } from './harness/world.mjs';

const transports = ['websocket', 'sse', 'poll'];

/** A test that does the same over each transport, at the same time, and looks at what was seen over each. */
function onEach(name, play, look) {
  scenario(`over every transport ${name}`, async (world) => {
    const page = await world.open('/');
    const all = await page.evaluate(
      `Promise.all(${JSON.stringify(transports)}.map(async (transport) => {
        const client = connect({ transport, storage: transport });
        const seen = await (${play})(client, transport);
        return { ...seen, transport: client.state.transport, pending: client.pending() };
      }))`,
    );
    for (const [i, seen] of all.entries()) {
      try {
        assert.equal(seen.transport, transports[i]);
        assert.deepEqual(seen.pending, []);
        look(seen);
      } catch (e) {
        e.message = `${transports[i]}: ${e.message}`;
        throw e;
      }
    }
    assert.deepEqual(page.complaints, []);
  });
}

onEach(
  'a request shows its progress and its outputs, and returns its result',
  async (client) => {
    const called = { outputs: [], percentages: [] };
    const result = await client.request(
      'count',
      { n: 30, every_ms: 10 },
      {
        onProgress: (p) => called.percentages.push(p.percentage),
        onOutput: (chunk, info) => called.outputs.push([chunk.i, info.index]),
      },
    );
    const short = await client.request('echo', { text: 'ü\u2028', n: [1, null] });
    const iterated = follow(client.submit('count', { n: 3, every_ms: 10 }));
    await until(() => iterated.over);
    return { called, result, short, iterated };
  },
  ({ called, result, short, iterated }) => {
    assert.deepEqual(result, { n: 30 });
    assert.deepEqual(
      called.outputs,
      Array.from({ length: 30 }, (_, i) => [i, i]),
    );
    assert.equal(called.percentages.at(-1), 100);
    assert.ok(
      called.percentages.every((p, i, all) => !i || p >= all[i - 1]),
      'progress fell',
    );
    assert.deepEqual(short, { text: 'ü\u2028', n: [1, null] });
    assert.deepEqual(iterated.story, ['accepted', 'running', 'output', 'output', 'output', 'complete']);
  },
);

onEach(
  'a cancel ends the request for all who watch it',
  async (client, transport) => {
    const handle = client.submit('count', { n: 100_000, every_ms: 10 });
    const mine = follow(handle);
    await handle.accepted; // before that there is nothing for others to follow
    const other = follow(connect({ transport }).attach(handle.id));
    await until(() => mine.outputs.length > 2 && other.outputs.length > 2);
    await handle.cancel('seen enough');
    await until(() => mine.over && other.over);
    return { viewers: [mine, other] };
  },
  ({ viewers }) => {
    for (const { error, story } of viewers) {
      assert.equal(error.code, 'CANCELED');
      assert.equal(error.message, 'seen enough');
      assert.ok(error.ours);
      assert.ok(story.includes('canceling'));
    }
  },
);

onEach(
  'an abort cancels at the server and rejects as aborts do',
  async (client, transport) => {
    const stop = new AbortController();
    const id = `aborted-${transport}`;
    const options = { id, signal: stop.signal, onOutput: () => stop.abort() };
    const error = await client.request('count', { n: 100_000, every_ms: 10 }, options).catch(failure);
    const end = await client.attach(id).catch(failure);
    return { error, end };
  },
  ({ error, end }) => {
    assert.equal(error.code, 'CANCELED');
    assert.equal(error.name, 'AbortError');
    assert.equal(end.code, 'CANCELED');
    assert.equal(end.name, 'StreamerError');
  },
);

onEach(
  'who detaches sees nothing more, and the request goes on',
  async (client) => {
    const handle = client.submit('count', { n: 40, every_ms: 10 });
    const left = follow(handle);
    await until(() => left.outputs.length > 2);
    const { cursor } = handle;
    handle.detach();
    await until(() => left.over);
    const before = left.outputs.length;
    const again = follow(client.attach(handle.id, cursor));
    await until(() => again.over);
    return { left, before, again };
  },
  ({ left, before, again }) => {
    assert.equal(left.error.code, 'CLOSED');
    assert.equal(left.outputs.length, before);
    assert.deepEqual(again.result, { n: 40 });
    assert.equal(again.outputs.at(-1), 39);
    assert.ok(again.outputs[0] >= before, 'the cursor was not honoured');
  },
);

onEach(
  'what the server refuses or fails rejects with its code, and the client goes on',
  async (client, transport) => {
    const ask = (...args) => client.request(...args).catch(failure);
    return {
      failed: await ask('fail', { code: 'OUT_OF_PAPER', message: 'tray 2' }),
      unknown: await ask('no_such_action', {}),
      invalid: await ask('count', { n: 'three' }),
      panic: await ask('panic', {}),
      missing: await client.attach('never-was').catch(failure),
      retried: await ask('fail', { code: 'BUSY', message: 'wait', retry_ms: 5, times: 2 }),
      stranger: await connect({ transport, token: 'nonsense' }).request('echo', 1).catch(failure),
      last: await ask('echo', 'still here'),
    };
  },
  (seen) => {
    assert.deepEqual([seen.failed.code, seen.failed.message], ['OUT_OF_PAPER', 'tray 2']);
    assert.equal(seen.unknown.code, 'INVALID_ACTION');
    assert.equal(seen.invalid.code, 'VALIDATION_ERROR');
    assert.equal(seen.panic.code, 'INTERNAL_ERROR');
    assert.equal(seen.missing.code, 'NOT_FOUND');
    assert.deepEqual(seen.retried, { attempt: 3 });
    assert.equal(seen.stranger.code, 'UNAUTHORIZED');
    assert.equal(seen.last, 'still here');
  },
);

onEach(
  'names that objects have already are names like others',
  async (client, transport) => {
    // Each transport is a user of its own here, since the ids are the same.
    const mine = connect({ transport, storage: `names-${transport}`, token: `acme:${transport}` });
    const results = [];
    for (const id of ['__proto__', 'constructor', 'hasOwnProperty']) {
      const metadata = JSON.parse('{"__proto__":"x","constructor":"y"}');
      const seen = follow(mine.submit('count', { n: 2 }, { id, metadata }));
      await until(() => seen.over);
      results.push([seen.id, seen.outputs, seen.result]);
    }
    const payload = JSON.parse('{"__proto__":{"polluted":true},"constructor":{"prototype":{"polluted":true}}}');
    const echoed = JSON.stringify(await client.request('echo', payload));
    const { metadata } = await client.request('whoami', undefined, { metadata: JSON.parse('{"__proto__":"x"}') });
    return { results, echoed, own: Object.hasOwn(metadata, '__proto__'), polluted: {}.polluted, left: mine.pending() };
  },
  (seen) => {
    assert.deepEqual(
      seen.results,
      ['__proto__', 'constructor', 'hasOwnProperty'].map((id) => [id, [0, 1], { n: 2 }]),
    );
    assert.equal(seen.echoed, '{"__proto__":{"polluted":true},"constructor":{"prototype":{"polluted":true}}}');
    assert.ok(seen.own);
    assert.equal(seen.polluted, undefined);
    assert.deepEqual(seen.left, []);
  },
);
