import { describe, expect, test, vi } from 'vitest';
import { type ConnectionState, StreamerError } from '../src/index.js';
import { pass, settled, setup, transports } from './world.js';

const box = setup();

describe('connecting again', () => {
  test.each(transports)('%s: a server that accepts and closes at once is not hammered', async (transport) => {
    const { network } = box.world;
    network.shortLived = true;
    const c = box.world.connect({ transport });
    c.submit('sleep', null, { id: 'r1' });
    await pass(transport === 'websocket' ? 0 : 500);
    if (transport === 'poll') network.offline = true;
    const from = network.connects.length;
    await pass(60_000);
    const first = network.connects.length - from;
    await pass(600_000);
    const later = network.connects.length - from - first;
    expect(first).toBeLessThan(40);
    expect(later).toBeLessThan(200);
    expect(later).toBeGreaterThan(10);
  });

  test('waiting starts over only after 5 s of life', async () => {
    vi.spyOn(Math, 'random').mockReturnValue(0.999);
    const { network } = box.world;
    const c = box.world.connect({ transport: 'websocket' });
    c.submit('sleep');
    await pass(100);
    const gaps: number[] = [];
    for (let i = 0; i < 7; i++) {
      const at = Date.now();
      const n = network.connects.length;
      network.cut();
      while (network.connects.length === n) await pass(10);
      gaps.push(Date.now() - at);
      await pass(1000);
    }
    expect(gaps.map((g) => Math.round(g / 500) * 500)).toEqual([500, 1000, 2000, 4000, 8000, 16_000, 20_000]);
    await pass(5000);
    const at = Date.now();
    const n = network.connects.length;
    network.cut();
    while (network.connects.length === n) await pass(10);
    expect(Date.now() - at).toBeLessThan(600);
  });

  test('it never gives up while something is pending, and does nothing when nothing is', async () => {
    const { network } = box.world;
    network.offline = true;
    const c = box.world.connect({ transport: 'websocket' });
    const result = c.request('echo', 1);
    await pass(24 * 3600_000);
    expect(c.state.phase).toBe('reconnecting');
    network.offline = false;
    expect((await settled(result)).value).toBe(1);
    network.cut();
    const n = network.connects.length;
    await pass(60_000);
    expect(network.connects.length).toBe(n);
    expect(c.state.phase).toBe('idle');
  });

  test('a connection that never gets a welcome is given up after a while', async () => {
    const { network } = box.world;
    network.block = 'hang';
    const c = box.world.connect({ transport: 'websocket' });
    const result = c.request('echo', 1);
    await pass(9000);
    expect(c.state.phase).toBe('connecting');
    network.block = undefined;
    expect((await settled(result)).value).toBe(1);
  });

  test('silence beyond the ping interval and 10 s is a lost connection; a ping is answered', async () => {
    const { network } = box.world;
    const heard: unknown[] = [];
    network.heard = (m) => heard.push(m.type);
    const c = box.world.connect({ transport: 'websocket' });
    c.submit('sleep', null, { id: 'r1' });
    await pass(20_000);
    network.open()[0]?.put({ type: 'ping' });
    await pass(34_000);
    expect(heard).toContain('pong');
    expect(network.connects.length).toBe(1);
    await pass(2000);
    expect(network.connects.length).toBe(2);
  });

  test('goaway makes another connection before this one is closed', async () => {
    const { network, service } = box.world;
    const states: string[] = [];
    const c = box.world.connect({ transport: 'websocket', onState: (s) => states.push(s.phase) });
    const h = c.submit('count', null, { id: 'r1' });
    const outputs: unknown[] = [];
    const result = c.attach('r1', { onOutput: (d) => outputs.push(d) });
    await settled(h.accepted);
    const job = service.job('r1');
    job.start();
    const old = network.open()[0];
    old?.goaway(3000);
    await pass(1000);
    const refused = c.request('echo', 1); // waits for the new connection
    job.output('a');
    await pass(2001);
    job.output('b');
    await pass(1000);
    expect(old?.readyState).toBe(3);
    expect(network.open().length).toBe(1);
    job.output('c');
    job.complete('ok');
    expect((await settled(result)).value).toBe('ok');
    expect((await settled(refused)).value).toBe(1);
    expect(outputs).toEqual(['a', 'b', 'c']);
    expect(states).toEqual(['connecting', 'open']);
  });

  test.each([
    [1000, '', true],
    [1001, '', true],
    [1011, '', true],
    [1012, '', true],
    [1013, '', true],
    [1002, '', false],
    [1008, '', false],
    [1009, '', false],
    [4400, 'malformed', false],
    [4403, 'not you', false],
    [4408, 'too slow', true],
    [4429, 'retry_after_ms=30000', true],
    [4500, '', true],
    [4503, '', true],
  ])('close code %i (%s): it connects again: %s', async (code, reason, again) => {
    const { network } = box.world;
    const c = box.world.connect({ transport: 'websocket' });
    const h = c.submit('sleep');
    await settled(h.accepted);
    network.open()[0]?.end(code, reason);
    const from = Date.now();
    let at = 0;
    for (let i = 0; i < 400 && network.connects.length === 1; i++) await pass(100);
    at = Date.now() - from;
    expect(network.connects.length > 1).toBe(again);
    if (code === 4429) expect(at).toBeGreaterThanOrEqual(30_000);
    if (code === 1013) expect(at).toBeGreaterThanOrEqual(5000);
    if (!again) {
      expect(c.state.phase).toBe('closed');
      expect(StreamerError.is((await settled(h)).error)).toBe(true);
    }
  });

  test('reconnect tries at once, whatever was to be waited for', async () => {
    const { network } = box.world;
    const c = box.world.connect({ transport: 'websocket' });
    const h = c.submit('sleep', null, { id: 'r1' });
    await settled(h.accepted);
    network.open()[0]?.end(4429, 'retry_after_ms=3000000');
    await pass(100);
    c.reconnect();
    await pass(100);
    expect(c.state.phase).toBe('open');
    c.reconnect();
    c.reconnect();
    await pass(100);
    expect(network.open().length).toBe(1);
  });

  test('as many messages are unanswered as the server allows, less some that are kept for cancels', async () => {
    const { network } = box.world;
    network.welcome = { limits: { max_message_bytes: 65536, max_inflight: 8, max_attached: 256 } };
    const sent = { request: 0, cancel: 0 };
    network.heard = (m) => {
      if (m.type === 'request') sent.request++;
      if (m.type === 'cancel') sent.cancel++;
    };
    const c = box.world.connect({ transport: 'websocket' });
    const first = c.submit('sleep');
    await settled(first.accepted);
    network.pass = (m) => m.type !== 'acknowledgment';
    for (let i = 0; i < 20; i++) c.submit('sleep');
    await pass(100);
    expect(sent.request).toBe(1 + 6);
    first.cancel();
    await pass(100);
    expect(sent.cancel).toBe(1);
  });

  test('no more requests are followed on one connection than the server allows', async () => {
    const { network, service } = box.world;
    network.welcome = { limits: { max_message_bytes: 65536, max_inflight: 32, max_attached: 3 } };
    const c = box.world.connect({ transport: 'websocket' });
    const handles = Array.from({ length: 5 }, (_, i) => c.submit('count', null, { id: `r${i}` }));
    await pass(100);
    expect(service.jobs.size).toBe(3);
    service.job('r0').complete(0);
    await pass(100);
    expect(service.jobs.size).toBe(4);
    for (const id of ['r1', 'r2']) service.job(id).complete(0);
    await pass(100);
    for (const id of ['r3', 'r4']) service.job(id).complete(0);
    expect((await settled(Promise.all(handles))).value).toEqual([0, 0, 0, 0, 0]);
  });
});

describe('tokens', () => {
  test('a token that is long in coming is not waited for, and asked for again', async () => {
    let n = 0;
    const signals: AbortSignal[] = [];
    const c = box.world.connect({
      transport: 'websocket',
      getToken: (signal) => {
        signals.push(signal);
        return ++n === 1 ? new Promise<string>(() => {}) : Promise.resolve('good');
      },
    });
    expect((await settled(c.request('echo', 1))).value).toBe(1);
    expect(signals.map((s) => s.aborted)).toEqual([true, false]);
    expect(box.world.service.tokens).toEqual(['good']);
  });

  test('an error of getToken is retried, UNAUTHORIZED stops, null means no token', async () => {
    let n = 0;
    const c = box.world.connect({
      transport: 'websocket',
      getToken: () => {
        if (++n < 3) throw new Error('no network');
        return null;
      },
    });
    expect((await settled(c.request('echo', 1))).value).toBe(1);
    expect(box.world.service.tokens).toEqual([undefined]);
    const out = new StreamerError('UNAUTHORIZED', 'logged out');
    const stopped = box.world.connect({ getToken: () => Promise.reject(out) });
    expect((await settled(stopped.request('echo', 1))).error).toBe(out);
  });

  test('auth_expiring sends a new token on the same connection, asked for once', async () => {
    const { network } = box.world;
    const sent: unknown[] = [];
    network.heard = (m) => m.type === 'auth' && sent.push(m.token);
    let n = 0;
    const c = box.world.connect({ transport: 'websocket', getToken: async () => `t${++n}` });
    c.submit('sleep');
    await pass(100);
    network.open()[0]?.put({ type: 'auth_expiring' });
    network.open()[0]?.put({ type: 'auth_expiring' });
    await pass(100);
    expect(sent).toEqual(['t2']);
    expect(network.connects.length).toBe(1);
  });
});

describe('state', () => {
  test('shows what the connection does, and the snapshot stays the same while nothing changes', async () => {
    const { network } = box.world;
    const states: ConnectionState[] = [];
    const log: unknown[] = [];
    const c = box.world.connect({
      transport: 'websocket',
      onConnect: () => log.push('connect'),
      onDisconnect: ({ reconnecting }) => log.push(reconnecting),
    });
    const stop = c.subscribe((s) => states.push(s));
    expect(c.state).toBe(c.state);
    const h = c.submit('sleep', null, { id: 'r1' });
    await settled(h.accepted);
    network.cut();
    await pass(1000);
    h.detach();
    network.cut();
    await pass(100);
    stop();
    c.close();
    expect(states.map((s) => s.phase)).toEqual(['connecting', 'open', 'reconnecting', 'open', 'idle']);
    expect(log).toEqual(['connect', true, 'connect', false]);
  });
});
