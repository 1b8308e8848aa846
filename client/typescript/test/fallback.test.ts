import { describe, expect, test, vi } from 'vitest';
import { StreamerClient } from '../src/index.js';
import { StreamerClient as WebSocketClient } from '../src/websocket.js';
import { pass, settled, setup, transports } from './world.js';

const box = setup();

describe('other transports', () => {
  test.each(['refuse', 'hang'] as const)('where WebSocket is blocked (%s) it falls back to streams', async (how) => {
    const { network } = box.world;
    network.block = how;
    const c = box.world.connect();
    const { value, after } = await settled(c.request('echo', 1));
    expect(value).toBe(1);
    expect(after).toBeLessThan(12_000);
    expect(c.state.transport).toBe('sse');
    const n = network.sockets.size;
    await settled(c.request('echo', 2));
    expect(network.sockets.size).toBe(n);
    network.block = undefined;
    await pass(400_000);
    network.cut();
    c.reconnect();
    await settled(c.request('echo', 3));
    expect(c.state.transport).toBe('websocket');
  });

  test('where neither works both are tried again and again', async () => {
    const { network } = box.world;
    network.offline = true;
    const c = box.world.connect();
    const result = c.request('echo', 1);
    await pass(120_000);
    expect(network.calls.length).toBeGreaterThan(1);
    network.offline = false;
    expect((await settled(result)).value).toBe(1);
  });

  test('where nothing is mounted for HTTP it goes on trying WebSocket', async () => {
    const { network } = box.world;
    network.noHttp = true;
    network.block = 'refuse';
    const c = box.world.connect();
    const result = c.request('echo', 1);
    await pass(60_000);
    network.block = undefined;
    expect((await settled(result)).value).toBe(1);
    expect(c.state.transport).toBe('websocket');
  });

  test('streams that are held up on their way are replaced by polling', async () => {
    const { network, service } = box.world;
    network.block = 'refuse';
    network.buffered = true;
    service.handlers.set('count', (job) => {
      job.start();
      setTimeout(() => job.complete('ok'), 8000);
    });
    const c = box.world.connect();
    const { value, after } = await settled(c.request('count'));
    expect(value).toBe('ok');
    expect(after).toBeLessThan(12_000);
    expect(c.state.transport).toBe('poll');
  });

  test('streams that die young again and again are replaced by polling', async () => {
    const { network, service } = box.world;
    network.block = 'refuse';
    network.shortLived = true;
    const c = box.world.connect();
    const h = c.submit('count', null, { id: 'r1' });
    await settled(h.accepted);
    await pass(20_000);
    expect(c.state.transport).toBe('poll');
    service.job('r1').complete('ok');
    expect((await settled(h)).value).toBe('ok');
  });

  test.each(['sse', 'poll'] as const)(
    '%s: a server that refuses for now is asked again when it says',
    async (transport) => {
      const { network, service } = box.world;
      const c = box.world.connect({ transport });
      const handles = Array.from({ length: 20 }, (_, i) => c.submit('count', null, { id: `r${i}` }));
      await settled(Promise.all(handles.map((h) => h.accepted)));
      await pass(1000);
      network.overloaded = true;
      network.cut();
      const n = network.calls.length;
      await pass(30_000);
      expect(network.calls.length - n).toBeLessThan(8);
      network.overloaded = false;
      for (const job of service.jobs.values()) job.complete('ok');
      expect((await settled(Promise.all(handles))).value?.length).toBe(20);
    },
  );

  test.each(transports)('%s: an end that is missing is asked for again', async (transport) => {
    const { network, service } = box.world;
    const c = box.world.connect({ transport });
    const h = c.submit('count', null, { id: 'r1' });
    await settled(h.accepted);
    await pass(1000);
    let lost = 0;
    network.pass = (m) => m.type !== 'complete' || lost++ > 0;
    service.job('r1').start();
    service.job('r1').complete('ok');
    if (transport === 'websocket') {
      await pass(1000);
      network.cut();
    }
    expect((await settled(h)).value).toBe('ok');
  });

  test('streams that the client itself ends before they show anything do not count against streams', async () => {
    const { network } = box.world;
    network.block = 'refuse';
    network.buffered = true;
    const c = box.world.connect();
    await settled(c.submit('count', null, { id: 'r1' }).accepted);
    for (let i = 0; i < 5; i++) {
      await pass(1000);
      c.reconnect();
    }
    network.buffered = false;
    await pass(6000);
    c.reconnect();
    await pass(1000);
    expect(c.state.transport).toBe('sse');
    expect(network.streams.size).toBe(1);
  });

  test('a forced transport never falls back', async () => {
    const { network } = box.world;
    network.block = 'refuse';
    const c = box.world.connect({ transport: 'websocket' });
    const result = c.request('echo', 1);
    result.catch(() => {});
    await pass(60_000);
    expect(network.calls).toEqual([]);
    network.buffered = true;
    const sse = box.world.connect({ transport: 'sse' });
    sse.submit('sleep');
    await pass(60_000);
    expect(sse.state.transport ?? 'sse').toBe('sse');
    expect(network.calls.some((call) => call.headers.get('accept') === 'application/json')).toBe(false);
  });

  test('all requests share one stream, which is replaced without a pause', async () => {
    const { network, service } = box.world;
    const c = box.world.connect({ transport: 'sse' });
    const outputs: unknown[] = [];
    const handles = ['a', 'b', 'c'].map((id) => c.submit('count', null, { id, onOutput: (d) => outputs.push(d) }));
    await pass(200);
    expect(network.streams.size).toBe(1);
    service.job('a').start();
    service.job('a').output(1);
    c.submit('count', null, { id: 'd' });
    for (let i = 2; i < 50; i++) {
      service.job('a').output(i);
      await pass(2);
    }
    service.job('a').complete('ok');
    expect((await settled(handles[0] as PromiseLike<unknown>)).value).toBe('ok');
    expect(outputs).toEqual(Array.from({ length: 49 }, (_, i) => i + 1));
    expect(network.streams.size).toBe(1);
    expect(network.calls.filter((call) => call.method === 'GET').length).toBeLessThanOrEqual(3);
  });

  test('http URLs use HTTP only, below their folder', async () => {
    const { network } = box.world;
    const c = new StreamerClient('http://service/api/', { fetch: network.fetch, WebSocket: network.webSocket() });
    box.world.clients.push(c);
    expect((await settled(c.request('echo', 1))).value).toBe(1);
    expect(network.calls[0]?.path).toBe('/api/requests');
    const d = box.world.connect({ http: 'https://other/streamer', transport: 'sse' });
    await settled(d.request('echo', 1));
    expect(network.calls.at(-1)?.path).toBe('/streamer/requests');
  });

  test('the client without fallbacks uses WebSocket only', async () => {
    const { network } = box.world;
    const c = new WebSocketClient(network.url, { WebSocket: network.webSocket() });
    expect((await settled(c.request('echo', 1))).value).toBe(1);
    expect(network.calls).toEqual([]);
    c.close();
  });

  test('without a WebSocket class a forced WebSocket says what to do', async () => {
    vi.stubGlobal('WebSocket', undefined);
    const c = new StreamerClient('ws://service/ws', { transport: 'websocket' });
    const { error } = await settled(c.request('echo', 1));
    expect(String(error)).toContain('give one with the option WebSocket');
    const d = box.world.connect({ WebSocket: undefined });
    expect((await settled(d.request('echo', 1))).value).toBe(1);
    expect(d.state.transport).toBe('sse');
    vi.unstubAllGlobals();
  });
});
