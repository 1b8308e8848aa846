import { createServer, connect as dial, type Server, type Socket } from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { WebSocket } from 'ws';
import { StreamerClient, StreamerError, type StreamerEvent, type WebSocketLike } from '../src/index.js';
import { type Lab, startLab } from './lab.js';
import { randomOf } from './random.js';
import { transports } from './world.js';

let lab: Lab;
let proxy: Proxy;
const clients: StreamerClient[] = [];

beforeAll(async () => {
  lab = await startLab();
  proxy = await startProxy(lab.addr);
}, 180_000);
afterEach(() => {
  proxy.after = Infinity;
  for (const c of clients.splice(0)) c.close();
});
afterAll(async () => {
  proxy?.close();
  await lab?.stop();
});

/** What stands between clients and the lab, and cuts connections. */
interface Proxy {
  port: number;
  /** Bytes that a connection lives for. */
  after: number;
  cut(): void;
  close(): void;
}

async function startProxy(addr: string): Promise<Proxy> {
  const [host, port] = addr.split(':');
  const open = new Set<Socket>();
  const server: Server = createServer((client) => {
    const upstream = dial(Number(port), host);
    let left = p.after;
    const end = () => {
      client.destroy();
      upstream.destroy();
      open.delete(client);
    };
    open.add(client);
    for (const s of [client, upstream]) s.on('error', end).on('close', end);
    client.pipe(upstream);
    upstream.on('data', (bytes) => {
      client.write(bytes.subarray(0, left));
      left -= bytes.length;
      if (left <= 0) client.end(end);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const p: Proxy = {
    port: (server.address() as { port: number }).port,
    after: Infinity,
    cut: () => {
      for (const s of [...open]) s.destroy();
    },
    close: () => {
      p.cut();
      server.close();
    },
  };
  return p;
}

describe.each(transports)('the real server over %s', (transport) => {
  const connect = (options = {}) => {
    const c = new StreamerClient(`ws://127.0.0.1:${proxy.port}/ws`, {
      token: 'acme:ann',
      transport,
      WebSocket: WebSocket as unknown as WebSocketLike,
      ...options,
    });
    clients.push(c);
    return c;
  };

  test('short work, long work, failures and cancel', async () => {
    const c = connect();
    expect(await c.request('echo', { a: [1, 'ü😀', null], '': '\u2028' })).toEqual({
      a: [1, 'ü😀', null],
      '': '\u2028',
    });
    const h = c.submit('count', { n: 5, every_ms: 5 });
    const types: string[] = [];
    for await (const e of h as AsyncIterable<StreamerEvent>) if (e.type !== 'progress') types.push(e.type);
    expect(types).toEqual(['accepted', 'running', ...Array(5).fill('output'), 'complete']);
    expect(await h).toEqual({ n: 5 });
    const failure = await c.request('fail', { code: 'OUT_OF_PAPER', message: 'tray 2' }).catch((e) => e);
    expect(StreamerError.is(failure) && [failure.code, failure.message]).toEqual(['OUT_OF_PAPER', 'tray 2']);
    const sleeping = c.submit('sleep', { ms: 60_000 });
    await sleeping.accepted;
    await sleeping.cancel('enough');
    expect(await Promise.resolve(sleeping).catch((e) => e)).toMatchObject({ code: 'CANCELED' });
    expect(await c.request('nothing').catch((e) => e)).toMatchObject({ code: 'INVALID_ACTION' });
    expect(await Promise.resolve(c.attach('nothing')).catch((e) => e)).toMatchObject({ code: 'NOT_FOUND' });
  });

  test('the same id is the same request, another payload a conflict, another user somebody else', async () => {
    const id = `same-${transport}`;
    const c = connect();
    expect(await c.request('count', { n: 3 }, { id })).toEqual({ n: 3 });
    expect(await connect().request('count', { n: 3 }, { id })).toEqual({ n: 3 });
    expect(await c.request('count', { n: 4 }, { id }).catch((e) => e)).toMatchObject({ code: 'CONFLICT' });
    expect(await connect({ token: 'acme:bob' }).request('whoami', null)).toMatchObject({ user_id: 'bob' });
    expect(
      await connect({ token: 'nobody' })
        .request('echo', 1)
        .catch((e) => e),
    ).toMatchObject({ code: 'UNAUTHORIZED' });
  });

  test('the last progress of a flood comes before the result', async () => {
    const progress: number[] = [];
    await connect().request('flood', { reports: 20_000 }, { onProgress: (p) => progress.push(p.percentage) });
    expect(progress).toEqual([...progress].sort((a, b) => a - b));
    expect(progress.at(-1)).toBe(100);
  });

  test('another attempt goes on from its checkpoint', async () => {
    expect(await connect().request('fail', { code: 'X', message: 'x', retry_ms: 50, times: 1 })).toEqual({
      attempt: 2,
    });
  });

  test('connections that are cut at any byte lose and repeat nothing', async () => {
    const seed = Date.now();
    const random = randomOf(seed);
    vi.spyOn(Math, 'random').mockImplementation(() => random() / 50); // to be back soon
    const c = connect();
    const n = 80;
    proxy.after = 1000;
    const most = transport === 'poll' ? 200_000 : 6000; // a page comes as a whole or not at all
    const cutting = setInterval(() => {
      proxy.after = 200 + Math.floor(random() * most);
      if (random() < 0.3) proxy.cut();
    }, 100);
    const seen = [0, 1, 2].map(() => [] as number[]);
    try {
      const results = await Promise.all(
        seen.map((list) =>
          c.request('count', { n, every_ms: 10, bytes: 60 }, { onOutput: (d) => list.push((d as { i: number }).i) }),
        ),
      );
      expect(results, `seed ${seed}`).toEqual(Array(3).fill({ n }));
    } finally {
      clearInterval(cutting);
      vi.restoreAllMocks();
    }
    for (const list of seen) expect(list, `seed ${seed}`).toEqual(Array.from({ length: n }, (_, i) => i));
  }, 60_000);
});
