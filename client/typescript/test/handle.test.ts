import { setMaxListeners } from 'node:events';
import { describe, expect, test, vi } from 'vitest';
import { StreamerError } from '../src/index.js';
import { maxHeld } from '../src/request.js';
import { keepIn } from '../src/storage.js';
import { FakeStorage } from './network.js';
import { pass, settled, setup, story } from './world.js';

const box = setup();
const connect = (options = {}) => box.world.connect({ transport: 'websocket', ...options });

describe('iterations', () => {
  test('are independent of each other, may start late, and end with break', async () => {
    const { service } = box.world;
    const h = connect().submit('count', null, { id: 'r1' });
    await settled(h.accepted);
    const job = service.job('r1');
    const first = story(h);
    job.start();
    job.output('a');
    await pass(100);
    let broke = 0;
    for await (const e of h) if (e.type === 'output') break;
    broke++;
    job.output('b');
    job.complete('ok');
    await settled(first.over);
    const late = story(h);
    await settled(late.over);
    expect(late.lines).toEqual(first.lines);
    expect(broke).toBe(1);
    expect((await settled(h)).value).toBe('ok');
    expect(job.status).toBe('completed');
  });

  test('return ends a next that waits', async () => {
    const h = connect().submit('sleep');
    const it = h[Symbol.asyncIterator]();
    await settled(it.next());
    const waiting = it.next();
    const waiting2 = it.next();
    await pass(10);
    await it.return?.();
    expect((await settled(waiting)).value).toEqual({ done: true, value: undefined });
    expect((await settled(waiting2)).value).toEqual({ done: true, value: undefined });
    expect((await settled(it.next())).value).toEqual({ done: true, value: undefined });
  });

  test('nexts that are asked for at once come in order', async () => {
    const { service } = box.world;
    const h = connect().submit('count', null, { id: 'r1' });
    await settled(h.accepted);
    const it = h[Symbol.asyncIterator]();
    const nexts = Promise.all([it.next(), it.next(), it.next(), it.next()]);
    service.job('r1').start();
    service.job('r1').complete(1);
    const types = (await settled(nexts)).value?.map((r) => (r.value as { type: string } | undefined)?.type);
    expect(types).toEqual(['accepted', 'running', 'complete', undefined]);
  });

  test('one that is slower than the events holds them back at the server, and loses none', async () => {
    const { service, network } = box.world;
    const sent: string[] = [];
    network.heard = (m) => sent.push(String(m.type));
    network.welcome = { limits: { max_message_bytes: 1 << 20, max_inflight: 32, max_attached: 256 } };
    const h = connect().submit('flood', null, { id: 'r1' });
    await settled(h.accepted);
    const it = h[Symbol.asyncIterator]();
    await settled(it.next());
    const job = service.job('r1');
    job.start();
    const total = 400;
    for (let i = 0; i < total; i++) {
      job.output({ i, pad: 'x'.repeat(maxHeld / 100) });
      if (i % 10 === 0) await pass(1);
    }
    job.complete('ok');
    await pass(1000);
    expect(sent).toContain('detach');
    expect(job.viewers.size).toBe(0);
    let n = 0;
    for (;;) {
      const { value } = await settled(it.next());
      if (!value || value.done) break;
      if (value.value.type === 'output') expect((value.value.data as { i: number }).i).toBe(n++);
    }
    expect(n).toBe(total);
    expect(sent.filter((t) => t === 'attach').length).toBeGreaterThan(2);
    expect((await settled(h)).value).toBe('ok');
  });

  test('one that starts too late is told what is held no more', async () => {
    const { service, network } = box.world;
    network.welcome = { limits: { max_message_bytes: 1 << 20, max_inflight: 32, max_attached: 256 } };
    const h = connect().submit('flood', null, { id: 'r1' });
    await settled(h.accepted);
    const job = service.job('r1');
    job.start();
    for (let i = 0; i < 300; i++) job.output('x'.repeat(maxHeld / 100));
    job.complete('ok');
    expect((await settled(h)).value).toBe('ok');
    const late = story(h);
    await settled(late.over);
    expect(late.lines[0]).toMatch(/^gap dropped 0→2\d\d$/);
    expect(late.lines.length).toBeLessThan(110);
    expect(late.lines.at(-1)).toMatch(/complete/);
  });
});

test('progress of an attempt that is over, or that falls, is not shown', async () => {
  const { service, network } = box.world;
  const seen: number[] = [];
  const h = connect().submit('count', null, { id: 'r1', onProgress: (p) => seen.push(p.percentage) });
  await settled(h.accepted);
  const job = service.job('r1');
  const socket = network.open()[0];
  const say = (attempt: number, percentage: number) =>
    socket?.put({ type: 'progress', request_id: 'r1', attempt, percentage, timestamp: new Date().toISOString() });
  job.start();
  say(1, 10);
  await pass(10);
  say(1, 80);
  await pass(10);
  say(1, 70);
  await pass(10);
  job.retry('lost');
  job.start();
  await pass(10);
  say(1, 90);
  await pass(10);
  say(2, 5);
  await pass(10);
  expect(seen).toEqual([10, 80, 5]);
});

describe('promises', () => {
  test('a handle that is ignored, or only iterated, leaves no unhandled rejection', async () => {
    const unhandled = vi.fn();
    process.on('unhandledRejection', unhandled);
    const { service } = box.world;
    service.handlers.set('fail', (job) => job.fail('X', 'x'));
    const c = connect();
    c.submit('fail');
    const s = story(c.submit('fail'));
    await settled(s.over);
    c.attach('nothing');
    c.submit('sleep').detach();
    c.submit('bad', { n: 1n });
    await pass(1000);
    vi.useRealTimers();
    await new Promise((resolve) => setTimeout(resolve, 10));
    process.off('unhandledRejection', unhandled);
    expect(unhandled).not.toHaveBeenCalled();
  });

  test('a thousand requests leave no abort listeners, and no more are taken at once', async () => {
    const stop = new AbortController();
    setMaxListeners(0, stop.signal);
    const add = vi.spyOn(stop.signal, 'addEventListener');
    const remove = vi.spyOn(stop.signal, 'removeEventListener');
    const c = connect();
    const all = Promise.all(Array.from({ length: 1000 }, (_, i) => c.request('echo', i, { signal: stop.signal })));
    const { error } = await settled(c.request('echo', 'one too many', { signal: stop.signal }));
    expect(error).toMatchObject({ code: 'RATE_LIMITED' });
    expect((await settled(all)).value?.length).toBe(1000);
    expect(add.mock.calls.length).toBe(1000);
    expect(new Set(remove.mock.calls.map((call) => call[1])).size).toBeGreaterThanOrEqual(1000);
  });

  test('what cannot be encoded, and ids that are none, reject', async () => {
    const c = connect();
    const loop: Record<string, unknown> = {};
    loop.loop = loop;
    expect((await settled(c.request('echo', loop))).error).toMatchObject({ code: 'VALIDATION_ERROR' });
    for (const id of ['', 'a b', 'ü', '..', 'x'.repeat(129), 'a/b', 'a\n']) {
      expect((await settled(c.attach(id))).error, id).toMatchObject({ code: 'VALIDATION_ERROR' });
    }
    expect(box.world.network.connects).toEqual([]);
  });

  test('a payload is what it was when the request was made', async () => {
    const payload = { n: 1 };
    const result = connect().request('echo', payload);
    payload.n = 2;
    expect((await settled(result)).value).toEqual({ n: 1 });
  });

  test('a request that is larger than the server takes rejects, and disturbs nothing', async () => {
    const { network } = box.world;
    const c = connect();
    const h = c.submit('sleep');
    expect((await settled(c.request('echo', 'ü'.repeat(40_000)))).error).toMatchObject({ code: 'PAYLOAD_TOO_LARGE' });
    expect((await settled(c.request('echo', 1))).value).toBe(1);
    expect(network.connects.length).toBe(1);
    h.detach();
  });

  test('what a callback throws is reported, and disturbs nothing', async () => {
    const reported: unknown[] = [];
    const others = process.listeners('uncaughtException');
    process.removeAllListeners('uncaughtException');
    process.on('uncaughtException', (e) => reported.push(e));
    const { service } = box.world;
    service.handlers.set('count', (job) => {
      job.start();
      job.output('a');
      job.report(50);
      job.output('b');
      job.complete('ok');
    });
    const throws = () => {
      throw new Error('mine');
    };
    const c = connect({ onConnect: throws, onState: throws });
    const seen: unknown[] = [];
    const bad = c.request('count', 1, { onOutput: throws, onProgress: throws });
    const good = c.request('count', 2, { onOutput: (d) => seen.push(d) });
    expect((await settled(bad)).value).toBe('ok');
    expect((await settled(good)).value).toBe('ok');
    expect(seen).toEqual(['a', 'b']);
    expect(reported.length).toBeGreaterThanOrEqual(5);
    c.close();
    await pass(1);
    process.removeAllListeners('uncaughtException');
    for (const f of others) process.on('uncaughtException', f);
  });

  test('a handle may be closed by its own callback', async () => {
    const { service } = box.world;
    const seen: unknown[] = [];
    const h = connect().submit('count', null, {
      id: 'r1',
      onOutput: (d) => {
        seen.push(d);
        h.detach();
      },
    });
    await settled(h.accepted);
    service.job('r1').start();
    service.job('r1').output('a');
    service.job('r1').output('b');
    await pass(100);
    expect(seen).toEqual(['a']);
    expect((await settled(h)).error).toMatchObject({ code: 'CLOSED' });
  });

  test('an abort with an error of its own keeps its name', async () => {
    const result = connect().request('sleep', null, { signal: AbortSignal.timeout(50) });
    vi.useRealTimers();
    const error = await result.catch((e) => e);
    vi.useFakeTimers();
    expect([error.code, error.name]).toEqual(['CANCELED', 'TimeoutError']);
  });

  test('what was aborted already is neither submitted nor followed, and leaves nothing behind', async () => {
    const { network } = box.world;
    const c = connect();
    const signal = AbortSignal.abort();
    const submitted = c.submit('sleep', null, { signal });
    const attached = c.attach('r1', { signal });
    for (const h of [submitted, attached]) {
      expect((await settled(h)).error).toMatchObject({ code: 'CANCELED' });
      await settled(h.cancel());
    }
    await pass(1000);
    expect(network.connects).toEqual([]);
    expect(c.pending()).toEqual([]);
  });

  test('errors are told by brand, also those of another copy of the package', async () => {
    const other = Object.assign(new Error('x'), { [Symbol.for('@streamer/client.error')]: true, code: 'X' });
    expect(StreamerError.is(other)).toBe(true);
    expect(StreamerError.is(new Error('x'))).toBe(false);
    expect(StreamerError.is(null)).toBe(false);
    expect(new StreamerError('X', 'text')).toBeInstanceOf(Error);
  });
});

describe('storage', () => {
  test('a page that is loaded again goes on where the last one was', async () => {
    const { service } = box.world;
    const storage = new FakeStorage();
    const c = connect({ storage: keepIn('streamer', storage) });
    const h = c.submit('count', null, { id: 'r1' });
    await settled(h.accepted);
    const job = service.job('r1');
    job.start();
    job.output('a');
    await pass(1000);
    c.close();
    job.output('b');

    const reloaded = connect({ storage: keepIn('streamer', storage) });
    expect(reloaded.pending()).toEqual(['r1']);
    const rest = story(reloaded.attach('r1', { resume: true }));
    const all = story(reloaded.attach('r1'));
    await pass(1000);
    job.complete('ok');
    await settled(rest.over);
    expect(rest.lines).toEqual(['4 output "b"', '5 complete "ok"']);
    await settled(all.over);
    expect(all.lines.at(-1)).toBe('5 complete "ok"');
    expect(reloaded.pending()).toEqual([]);
    expect(storage.items.size).toBe(0);
  });

  test('a storage that is not allowed, or holds nonsense, is as if there was none', async () => {
    const storage = new FakeStorage();
    storage.setItem('streamer:pending', '{"__proto__":1}');
    const c = connect({ storage: keepIn('streamer', storage) });
    expect(c.pending()).toEqual([]);
    expect((await settled(c.request('echo', 1))).value).toBe(1);
    const broken = {
      getItem: () => {
        throw new Error('denied');
      },
      setItem: () => {
        throw new Error('denied');
      },
      removeItem: () => {
        throw new Error('denied');
      },
    };
    const d = connect({ storage: keepIn('streamer', broken) });
    const h = d.submit('sleep', null, { id: 's1' });
    await settled(h.accepted);
    expect(d.pending()).toEqual(['s1']);
    const e = connect({ storage: keepIn('mine') });
    expect(e.pending()).toEqual([]);
  });
});
