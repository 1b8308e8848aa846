import { describe, expect, test, vi } from 'vitest';
import { StreamerError } from '../src/index.js';
import { pass, settled, setup, story, transports } from './world.js';

const box = setup();

describe.each(transports)('over %s', (transport) => {
  const connect = (options = {}) => box.world.connect({ transport, ...options });

  test('short work is answered by its end', async () => {
    const { value } = await settled(connect().request('echo', { text: 'hü' }));
    expect(value).toEqual({ text: 'hü' });
  });

  test('a request shows all its events and progress, in order and once', async () => {
    const { service } = box.world;
    const h = connect().submit('count', { n: 2 }, { id: 'r1' });
    const s = story(h);
    await settled(h.accepted);
    const job = service.job('r1');
    job.start();
    await pass(1500);
    job.output('a');
    job.report(50, 'half');
    await pass(1500);
    job.output('b');
    job.report(100, 'all');
    job.complete({ n: 2 });
    expect((await settled(h)).value).toEqual({ n: 2 });
    await settled(s.over);
    expect(s.lines).toEqual([
      '1 accepted',
      '2 running',
      '3 output "a"',
      '50% half',
      '4 output "b"',
      '100% all',
      '5 complete {"n":2}',
    ]);
  });

  test('callbacks are called before the result, each output once', async () => {
    const { service } = box.world;
    const seen: unknown[] = [];
    service.handlers.set('count', (job) => {
      job.start();
      for (let i = 0; i < 3; i++) job.output(i);
      job.report(100, 'done');
      job.complete('ok');
    });
    const result = connect().request('count', null, {
      onProgress: (p) => seen.push(`${p.percentage}% ${p.message}`),
      onOutput: (data, { index, attempt, seq }) => seen.push([data, index, attempt, seq]),
    });
    expect((await settled(result)).value).toBe('ok');
    expect(seen).toEqual([[0, 0, 1, 3], [1, 1, 1, 4], [2, 2, 1, 5], '100% done']);
  });

  test('a lost connection changes nothing', async () => {
    const { service, network } = box.world;
    const outputs: unknown[] = [];
    const result = connect().request('count', 1, { id: 'r1', onOutput: (d) => outputs.push(d) });
    await pass(100);
    const job = service.job('r1');
    job.start();
    job.output('a');
    await pass(1000);
    network.cut();
    network.offline = true;
    job.output('b');
    await pass(30_000);
    expect(outputs).toEqual(['a']);
    network.offline = false;
    await pass(25_000);
    job.output('c');
    job.complete('ok');
    expect((await settled(result)).value).toBe('ok');
    expect(outputs).toEqual(['a', 'b', 'c']);
    expect(service.submits).toBe(1);
  });

  test('a submit whose acknowledgment was lost is sent again under the same id', async () => {
    const { service, network } = box.world;
    let lost = 0;
    network.pass = (m) => m.type !== 'acknowledgment' || ++lost > 1;
    if (transport !== 'websocket') {
      const fetch = network.fetch;
      Object.assign(network, {
        fetch: async (...a: Parameters<typeof fetch>) => {
          const response = await fetch(...a);
          if (a[1]?.method === 'POST' && !lost++) throw new TypeError('connection reset');
          return response;
        },
      });
    }
    service.handlers.set('once', (job) => {
      job.start();
      job.complete(service.submits);
    });
    const c = connect();
    const result = c.request('once', 1);
    await pass(500);
    network.cut();
    await settled(result);
    expect(service.submits).toBe(2);
    expect(service.jobs.size).toBe(1);
  });

  test('a failure rejects with what the handler said', async () => {
    box.world.service.handlers.set('fail', (job) => {
      job.start();
      job.fail('OUT_OF_PAPER', 'tray 2 is empty');
    });
    const h = connect().submit('fail', null, { id: 'f1' });
    const s = story(h);
    const { error } = await settled(h);
    await settled(s.over);
    expect(StreamerError.is(error) && [error.code, error.message, error.requestId]).toEqual([
      'OUT_OF_PAPER',
      'tray 2 is empty',
      'f1',
    ]);
    expect(s.error).toBe(error);
    expect(s.lines).toEqual(['1 accepted', '2 running']);
  });

  test('a result that says it did not succeed rejects with PROCESSING_FAILED and the result', async () => {
    box.world.service.handlers.set('check', (job) => job.complete({ missing: ['a'] }, false));
    const { error } = await settled(connect().request('check'));
    expect(StreamerError.is(error) && [error.code, error.details]).toEqual([
      'PROCESSING_FAILED',
      { result: { missing: ['a'] } },
    ]);
  });

  test('cancel resolves when it is recorded, and the request ends with CANCELED', async () => {
    const h = connect().submit('sleep', null, { id: 'c1' });
    const s = story(h);
    await settled(h.cancel('user pressed stop'));
    const { error } = await settled(h);
    await settled(s.over);
    expect(StreamerError.is(error) && [error.code, error.message]).toEqual(['CANCELED', 'user pressed stop']);
    expect(s.lines).toContain('2 canceling user pressed stop');
    await settled(h.cancel());
  });

  test('abort cancels at the server and rejects at once', async () => {
    const { service } = box.world;
    const stop = new AbortController();
    const result = connect().request('sleep', null, { id: 'a1', signal: stop.signal });
    await pass(500);
    stop.abort('enough');
    const { error, after } = await settled(result);
    expect(after).toBeLessThan(20);
    expect(StreamerError.is(error) && [error.code, error.name, error.cause]).toEqual([
      'CANCELED',
      'AbortError',
      'enough',
    ]);
    await pass(1000);
    expect(service.job('a1').status).toBe('canceled');
  });

  test('what is aborted before it was sent is never sent', async () => {
    const { service, network } = box.world;
    const before = AbortSignal.abort();
    const c = connect();
    expect((await settled(c.request('sleep', null, { signal: before }))).error).toMatchObject({ code: 'CANCELED' });
    expect(network.connects).toEqual([]);
    network.offline = true;
    const stop = new AbortController();
    const result = c.request('sleep', null, { signal: stop.signal });
    stop.abort();
    expect((await settled(result)).error).toMatchObject({ code: 'CANCELED' });
    network.offline = false;
    await pass(30_000);
    expect(service.jobs.size).toBe(0);
    expect(c.state.phase).toBe('idle');
  });

  test('detach only stops watching', async () => {
    const { service } = box.world;
    const h = connect().submit('sleep', null, { id: 'd1' });
    const s = story(h);
    await settled(h.accepted);
    h.detach();
    expect((await settled(h)).error).toMatchObject({ code: 'CLOSED' });
    await settled(s.over);
    expect(s.error).toMatchObject({ code: 'CLOSED' });
    await pass(1000);
    expect(service.job('d1').status).toBe('queued');
    expect(service.job('d1').viewers.size).toBe(0);
  });

  test('who detaches ends nothing for others that watch the same request', async () => {
    const { service } = box.world;
    const c = connect();
    const first = c.submit('count', null, { id: 'r1' });
    await settled(first.accepted);
    const behind = story(c.attach('r1', { after: 1 }));
    const second = c.attach('r1');
    const whole = story(second);
    await settled(second.accepted);
    const job = service.job('r1');
    job.start();
    job.output('a');
    await pass(1500);
    first.detach();
    expect((await settled(c.request('count', 'other', { id: 'r1' }))).error).toMatchObject({ code: 'CONFLICT' });
    expect(c.pending()).toEqual(['r1']);
    job.output('b');
    await pass(1500);
    job.complete('ok');
    expect((await settled(second)).value).toBe('ok');
    await settled(Promise.all([behind.over, whole.over]));
    const all = ['1 accepted', '2 running', '3 output "a"', '4 output "b"', '5 complete "ok"'];
    expect(whole.lines).toEqual(all);
    expect(behind.lines).toEqual(all.slice(1));
    expect(c.pending()).toEqual([]);
  });

  test('an abort is made known to the server when there is a connection again', async () => {
    const { service, network } = box.world;
    const stop = new AbortController();
    const c = connect();
    const result = c.request('stubborn', null, { id: 'a1', signal: stop.signal });
    await pass(500);
    network.offline = true;
    network.cut();
    await pass(500);
    stop.abort();
    expect((await settled(result)).after).toBeLessThan(20);
    await pass(20_000);
    expect(service.job('a1').status).toBe('queued');
    network.offline = false;
    await pass(30_000);
    expect(service.job('a1').status).toBe('canceling');
    expect(c.pending()).toEqual([]);
  });

  test('close rejects everything that waits, and nothing connects any more', async () => {
    const { network } = box.world;
    const c = connect();
    const h = c.submit('sleep');
    const s = story(h);
    await settled(h.accepted);
    c.close();
    expect((await settled(h)).error).toMatchObject({ code: 'CLOSED' });
    await settled(s.over);
    const before = network.connects.length;
    expect((await settled(c.request('echo', 1))).error).toMatchObject({ code: 'CLOSED' });
    c.reconnect();
    await pass(60_000);
    expect(network.connects.length).toBe(before);
    expect(network.open()).toEqual([]);
    expect(network.streams.size).toBe(0);
    expect(c.state.phase).toBe('closed');
  });

  test('attach shows a request from its start, or behind a cursor', async () => {
    const { service } = box.world;
    await settled(connect().submit('count', null, { id: 'r1' }).accepted);
    const job = service.job('r1');
    job.start();
    job.output('a');
    job.output('b');
    const c = connect();
    const all = story(c.attach('r1'));
    const other = connect();
    const some = story(other.attach('r1', { epoch: job.epoch, after: 3 }));
    await pass(1000);
    job.complete(1);
    await settled(Promise.all([all.over, some.over]));
    expect(all.lines).toEqual(['1 accepted', '2 running', '3 output "a"', '4 output "b"', '5 complete 1']);
    expect(some.lines).toEqual(['4 output "b"', '5 complete 1']);
  });

  test('attaching behind the end gives the result', async () => {
    const { service } = box.world;
    expect((await settled(connect().request('echo', 1, { id: 'x' }))).value).toBe(1);
    const job = service.submit({ id: 'r1', action: 'count' }) as { job: { start(): void; complete(r: unknown): void } };
    job.job.start();
    job.job.complete('done');
    const h = connect().attach('r1', { epoch: service.job('r1').epoch, after: 3 });
    expect((await settled(h)).value).toBe('done');
    expect(story(h).lines).toEqual([]);
  });

  test('attaching to what is not there rejects with NOT_FOUND, and disturbs nothing else', async () => {
    const { service } = box.world;
    const c = connect();
    const h = c.submit('count', null, { id: 'r1' });
    await settled(h.accepted);
    const none = c.attach('nothing');
    expect((await settled(none)).error).toMatchObject({ code: 'NOT_FOUND' });
    expect((await settled(none.accepted)).error).toMatchObject({ code: 'NOT_FOUND' });
    service.job('r1').complete(1);
    expect((await settled(h)).value).toBe(1);
  });

  test.each([
    ['recreated', (j: { recreate(): void }) => j.recreate(), 'gap recreated 4→1'],
    [
      'expired',
      (j: { oldest: number; output(d: unknown): void }) => {
        for (let i = 0; i < 5; i++) j.output(i);
        j.oldest = 8;
      },
      'gap expired 4→8',
    ],
    ['ahead', (j: { log: unknown[] }) => j.log.splice(2), 'gap ahead 4→1'],
  ] as const)('a log that was %s shows as a gap', async (_, happen, expected) => {
    const { service, network } = box.world;
    const gaps: string[] = [];
    const h = connect().submit('count', null, { id: 'r1', onGap: (g) => gaps.push(g.reason) });
    const s = story(h);
    await settled(h.accepted);
    const job = service.job('r1');
    job.start();
    job.output('a');
    job.output('b');
    await pass(1000);
    network.offline = true;
    network.cut();
    await pass(2000);
    happen(job as never);
    network.offline = false;
    await pass(25_000);
    job.start();
    job.complete('ok');
    expect((await settled(h)).value).toBe('ok');
    await settled(s.over);
    expect(s.lines).toContain(expected);
    expect(s.lines.at(-1)).toMatch(/complete "ok"$/);
    expect(gaps.length).toBe(1);
  });

  test('an event that is missing is asked for again, three times in a row at most', async () => {
    const { service, network } = box.world;
    let losses = 2;
    network.pass = (m) => !(m.seq === 3 && losses-- > 0);
    const h = connect().submit('count', null, { id: 'r1' });
    const s = story(h);
    await settled(h.accepted);
    const job = service.job('r1');
    job.start();
    job.output('a');
    job.output('b');
    job.complete(1);
    await settled(s.over);
    expect(s.lines).toEqual(['1 accepted', '2 running', '3 output "a"', '4 output "b"', '5 complete 1']);

    losses = Infinity;
    const bad = connect().submit('count', null, { id: 'r2' });
    await settled(bad.accepted);
    service.job('r2').start();
    service.job('r2').output('a');
    service.job('r2').output('b');
    service.job('r2').complete(1);
    expect((await settled(bad)).error).toMatchObject({ code: 'INTERNAL_ERROR' });
  });

  test('a new attempt says which outputs are void', async () => {
    const { service } = box.world;
    const restarts: unknown[] = [];
    const h = connect().submit('count', null, {
      id: 'r1',
      onRestart: (r) => restarts.push([r.attempt, r.outputsFrom]),
    });
    const s = story(h);
    await settled(h.accepted);
    const job = service.job('r1');
    job.start();
    job.output(0);
    job.output(1);
    job.report(90, 'old');
    await pass(1000);
    job.retry('lost');
    job.start(1);
    job.report(10, 'new');
    await pass(1000);
    job.output(1);
    job.complete(1);
    await settled(s.over);
    await settled(h);
    expect(restarts).toEqual([[2, 1]]);
    expect(s.lines.slice(2)).toEqual([
      '3 output 0',
      '4 output 1',
      '90% old',
      '5 retrying lost',
      '6 running outputs from 1',
      '10% new',
      '7 output 1',
      '8 complete 1',
    ]);
  });

  test('a submit that is refused for now is repeated, another refusal rejects', async () => {
    const { service } = box.world;
    service.refusals = [
      { error: { code: 'RATE_LIMITED', message: 'slow down', retry_after_ms: 1000 } },
      { error: { code: 'SERVICE_UNAVAILABLE', message: 'restarting', retry_after_ms: 500 } },
    ];
    const { value, after } = await settled(connect().request('echo', 1));
    expect(value).toBe(1);
    expect(after).toBeGreaterThanOrEqual(1500);
    service.refusals = [{ error: { code: 'VALIDATION_ERROR', message: 'no' } }];
    expect((await settled(connect().request('echo', 1))).error).toMatchObject({
      code: 'VALIDATION_ERROR',
      message: 'no',
    });
  });

  test('the same id with another payload is a conflict, with the same payload the same request', async () => {
    const { service } = box.world;
    const c = connect();
    const first = c.submit('count', 1, { id: 'r1' });
    await settled(first.accepted);
    expect((await settled(c.request('count', 2, { id: 'r1' }))).error).toMatchObject({ code: 'CONFLICT' });
    const outputs: unknown[] = [];
    const second = c.request('count', 1, { id: 'r1', onOutput: (d) => outputs.push(d) });
    await pass(500);
    const job = service.job('r1');
    job.start();
    job.output('a');
    job.complete('ok');
    expect((await settled(first)).value).toBe('ok');
    expect((await settled(second)).value).toBe('ok');
    expect(outputs).toEqual(['a']);
  });

  test('a token is asked for at each connect; refused twice in a row it stops', async () => {
    const { service, network } = box.world;
    let n = 0;
    const getToken = vi.fn(async () => `t${++n}`);
    service.good = (t) => t === 't2';
    const c = connect({ getToken });
    expect((await settled(c.request('echo', 1))).value).toBe(1);
    expect(getToken).toHaveBeenCalledTimes(2);
    await pass(10_000);
    service.good = () => false;
    network.cut();
    const { error } = await settled(c.request('sleep'));
    expect(error).toMatchObject({ code: 'UNAUTHORIZED' });
    expect(c.state).toMatchObject({ phase: 'closed', error: { code: 'UNAUTHORIZED' } });
    const before = network.connects.length;
    await pass(60_000);
    expect(network.connects.length).toBe(before);
    service.good = () => true;
    expect((await settled(c.request('echo', 2))).value).toBe(2);
  });

  test('many requests at once all end, within the limits of the server', async () => {
    const { service } = box.world;
    let done = 0;
    service.handlers.set('count', (job) => {
      job.start();
      setTimeout(() => job.complete(++done), 50);
    });
    const c = connect();
    const results = await settled(Promise.all(Array.from({ length: 100 }, (_, i) => c.request('count', i))), 120_000);
    expect(results.value?.length).toBe(100);
    expect(done).toBe(100);
  });

  test('names like __proto__ are names like others', async () => {
    const { service } = box.world;
    const payload = JSON.parse('{"__proto__":{"polluted":true}}');
    const c = connect();
    const value = (
      await settled(c.request('echo', payload, { id: '__proto__', metadata: JSON.parse('{"__proto__":"x"}') }))
    ).value as object;
    expect(JSON.stringify(value)).toBe('{"__proto__":{"polluted":true}}');
    expect(({} as { polluted?: boolean }).polluted).toBeUndefined();
    expect((await settled(c.request('echo', 1, { id: 'constructor' }))).value).toBe(1);
    expect(service.jobs.size).toBe(2);
  });
});
