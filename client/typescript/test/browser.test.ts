import { afterEach, describe, expect, test, vi } from 'vitest';
import { pass, settled, setup, transports } from './world.js';

const box = setup();

describe('in a browser', () => {
  const page = { hidden: false };
  const window = new EventTarget();
  const navigator = { onLine: true };
  const fire = (type: string) => window.dispatchEvent(new Event(type));
  const show = (hidden: boolean) => {
    page.hidden = hidden;
    fire('visibilitychange'); // as it bubbles up from the document
  };
  const browser = () => {
    page.hidden = false;
    navigator.onLine = true;
    vi.stubGlobal('document', page);
    vi.stubGlobal('navigator', navigator);
    vi.stubGlobal('addEventListener', window.addEventListener.bind(window));
    vi.stubGlobal('removeEventListener', window.removeEventListener.bind(window));
  };
  afterEach(() => {
    for (const c of box.world.clients) c.close();
    vi.unstubAllGlobals();
  });

  test('online connects at once', async () => {
    browser();
    const { network } = box.world;
    network.offline = true;
    navigator.onLine = false;
    const result = box.world.connect({ transport: 'websocket' }).request('echo', 1);
    await pass(120_000);
    expect(network.connects.length).toBeLessThan(40);
    network.offline = false;
    navigator.onLine = true;
    fire('online');
    expect((await settled(result)).after).toBeLessThan(50);
  });

  test('hidden pages keep their socket and retry nothing until they are seen', async () => {
    browser();
    const { network, service } = box.world;
    const h = box.world.connect({ transport: 'websocket' }).submit('count', null, { id: 'r1' });
    await settled(h.accepted);
    show(true);
    await pass(10_000);
    expect(network.open().length).toBe(1);
    network.cut();
    await pass(600_000);
    expect(network.connects.length).toBe(1);
    service.job('r1').complete('ok');
    show(false);
    expect((await settled(h)).after).toBeLessThan(50);
  });

  test('a page that is seen again finds out whether its connection is alive', async () => {
    browser();
    const { network } = box.world;
    const c = box.world.connect({ transport: 'websocket' });
    await settled(c.submit('sleep', null, { id: 'r1' }).accepted);
    show(true);
    show(false);
    await pass(6000);
    expect(network.connects.length).toBe(1);
    network.pass = (m) => m.type !== 'pong';
    fire('online');
    await pass(6000);
    expect(network.connects.length).toBe(2);
  });

  test.each(transports)(
    '%s: pagehide closes, so that the page may be kept, and pageshow goes on',
    async (transport) => {
      browser();
      const { network, service } = box.world;
      const h = box.world.connect({ transport }).submit('count', null, { id: 'r1' });
      await settled(h.accepted);
      await pass(500);
      fire('pagehide');
      await pass(1);
      expect(network.open()).toEqual([]);
      expect(network.streams.size).toBe(0);
      const n = network.connects.length;
      await pass(100_000);
      expect(network.connects.length).toBe(n);
      service.job('r1').complete('ok');
      fire('pageshow');
      expect((await settled(h)).after).toBeLessThan(200);
    },
  );

  test('close takes its listeners away, and nothing is listened to before the first call', async () => {
    browser();
    const add = vi.spyOn(window, 'addEventListener');
    const remove = vi.spyOn(window, 'removeEventListener');
    vi.stubGlobal('addEventListener', window.addEventListener.bind(window));
    vi.stubGlobal('removeEventListener', window.removeEventListener.bind(window));
    const c = box.world.connect({ transport: 'websocket' });
    expect(add).not.toHaveBeenCalled();
    await settled(c.request('echo', 1));
    c.close();
    expect(add.mock.calls.length).toBe(4);
    expect(remove.mock.calls.length).toBe(4);
    show(true);
    show(false);
    fire('online');
    await pass(10_000);
    expect(box.world.network.open()).toEqual([]);
  });

  test('tabs without a slot poll, so that seven on HTTP/1.1 all make progress', async () => {
    browser();
    const held = new Set<string>();
    const locks = {
      async request(name: string, _: unknown, f: (lock: unknown) => Promise<void> | undefined) {
        if (held.has(name)) return f(null);
        held.add(name);
        await f({});
        held.delete(name);
      },
    };
    vi.stubGlobal('navigator', { ...navigator, locks });
    const { network, service } = box.world;
    service.handlers.set('count', (job) => {
      job.start();
      setTimeout(() => job.complete('ok'), 20_000);
    });
    const clients = Array.from({ length: 7 }, () => box.world.connect({ transport: 'sse' }));
    const results = Promise.all(clients.map((c) => c.request('count')));
    await pass(5000);
    expect(network.streams.size).toBe(3);
    expect(held.size).toBe(3);
    expect((await settled(results)).value).toEqual(Array(7).fill('ok'));
    await pass(2000);
    expect(held.size).toBe(0);
    const polls = network.calls.filter((call) => call.headers.get('accept') === 'application/json');
    expect(polls.length).toBeLessThan(4 * 50);
    expect(polls.every((call) => !call.headers.has('prefer'))).toBe(true);
  });
});
