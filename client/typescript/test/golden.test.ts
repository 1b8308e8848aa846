import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { StreamerClient, type WebSocketLike } from '../src/index.js';
import { line, settled, setup } from './world.js';

const folder = new URL('../../../internal/wire/testdata/golden/', import.meta.url);
const box = setup();

interface Line {
  client: boolean;
  m: Record<string, unknown>;
}

/** Returns the messages of a conversation, with values in the place of placeholders. */
function load(name: string): Line[] {
  const values: Record<string, string> = {
    epoch: 'k3f9',
    epoch2: 'e2',
    session: 's7f3k',
    id: 'i1',
    time: '2026-01-02T03:04:05.678Z',
    ms: '1834',
  };
  return readFileSync(new URL(`${name}.txt`, folder), 'utf8')
    .split('\n')
    .filter((l) => /^[<>]/.test(l))
    .map((l) => ({
      client: l.startsWith('>'),
      m: JSON.parse(l.replace(/^[<>]\+? /, '').replace(/\$\{(\w+)\}/g, (_, name) => values[name] ?? '')),
    }));
}

/**
 * Plays the server's side of a conversation, and holds the client to its side. The client may choose its refs.
 */
function play(name: string): { WebSocket: WebSocketLike; heard: number; errors: unknown[] } {
  const lines = load(name);
  const refs = new Map<unknown, unknown>(); // the client's, by the conversation's
  const open = new Map<unknown, unknown>(); // the client's, by the id of a request that is not answered
  const played = { WebSocket: undefined as unknown as WebSocketLike, heard: 0, errors: [] as unknown[] };
  let at = 0;
  played.WebSocket = class {
    readyState = 0;
    onopen: (() => void) | null = null;
    onmessage: ((e: { data: string }) => void) | null = null;
    onclose: (() => void) | null = null;
    onerror: (() => void) | null = null;
    constructor() {
      queueMicrotask(() => {
        this.readyState = 1;
        this.onopen?.();
      });
    }
    send(frame: string) {
      queueMicrotask(() => {
        for (const text of frame.split('\n')) this.hear(JSON.parse(text));
        this.go();
      });
    }
    close() {
      this.readyState = 3;
    }
    private hear(got: Record<string, unknown>) {
      const next = lines[at];
      if (!next?.client || got.type === 'detach' || got.type === 'pong') return;
      at++;
      played.heard++;
      const { ref, client: _, ...want } = next.m;
      const { ref: mine, client: __, ...have } = got;
      refs.set(ref, mine);
      open.set(got.id, mine);
      try {
        expect(have).toEqual(JSON.parse(JSON.stringify(want)));
      } catch (e) {
        played.errors.push(e);
      }
    }
    private go() {
      for (; at < lines.length; at++) {
        const { client, m } = lines[at] as Line;
        if (client) return;
        const { ref, ...reply } = m;
        const answered = ref !== undefined || (m.type !== 'progress' && open.has(m.request_id));
        const mine = ref === undefined ? open.get(m.request_id) : refs.get(ref);
        if (answered) open.delete(m.request_id);
        this.onmessage?.({ data: JSON.stringify(answered && mine !== undefined ? { ...reply, ref: mine } : reply) });
      }
    }
  } as unknown as WebSocketLike;
  return played;
}

function golden(name: string, check: (c: StreamerClient) => Promise<void>, messages: number): void {
  test(`the conversation ${name}`, async () => {
    const played = play(name);
    const c = new StreamerClient('ws://server', { WebSocket: played.WebSocket, transport: 'websocket' });
    box.world.clients.push(c);
    await check(c);
    expect(played.errors).toEqual([]);
    expect(played.heard).toBe(messages);
  });
}

async function lines(handle: AsyncIterable<never>, most = 100): Promise<{ lines: string[]; code?: string }> {
  const all: string[] = [];
  const reading = (async () => {
    for await (const e of handle) {
      all.push(line(e));
      if (all.length === most) break;
    }
  })();
  const { error } = await settled(reading);
  return { lines: all, ...(error !== undefined && { code: (error as { code: string }).code }) };
}

golden(
  'queued',
  async (c) => {
    const h = c.submit(
      'export_data',
      { format: 'csv' },
      { id: 'q1', metadata: { trace: '00-4bf9' }, timeout: 600_000 },
    );
    await settled(h);
    expect(await lines(h as never)).toEqual({
      lines: [
        '1 accepted',
        '2 running',
        '3 output {"text":"Hel"}',
        '4 output {"text":"lo"}',
        '100% Processed 10000/10000 records',
        '5 complete {"url":"https://example.com/export.csv"}',
      ],
    });
  },
  2,
);

golden(
  'short',
  async (c) => {
    const call = async (action: string, payload: unknown, options = {}) => {
      const { value, error } = await settled(c.request(action, payload, options));
      return error ?? value;
    };
    const options = { id: 's1', metadata: { trace: '00-4bf9' }, timeout: 5000 };
    expect(await call('echo', { echo: 'hi' }, options)).toEqual({ echo: 'hi' });
    // JavaScript's numbers have no more digits.
    const big = Number('12345678901234567890.10');
    expect(await call('echo', big, { id: 's2' })).toBe(big);
    expect(await call('echo', null, { id: 's3' })).toBe(null);
    expect(await call('touch', undefined, { id: 's4' })).toBe(undefined);
    expect(await call('check', { path: 'a b' }, { id: 's5' })).toMatchObject({
      code: 'PROCESSING_FAILED',
      details: { result: { missing: ['a b'] } },
    });
    expect(await call('fail', { code: 'OUT_OF_PAPER' }, { id: 's6' })).toMatchObject({
      code: 'OUT_OF_PAPER',
      details: { tray: 2 },
      requestId: 's6',
    });
  },
  7,
);

golden(
  'retry',
  async (c) => {
    const h = c.submit('count', { n: 5 }, { id: 'r1' });
    expect((await settled(h)).error).toMatchObject({ code: 'PROCESSING_FAILED', details: { attempts: 3 } });
    expect(await lines(h as never)).toEqual({
      lines: [
        '1 accepted',
        '2 running',
        '3 output {"i":0}',
        '4 output {"i":1}',
        '5 retrying error',
        '6 running outputs from 1',
        '7 output {"i":1}',
        '8 retrying lost',
        '9 running',
        '10 retrying shutdown',
        '11 running',
      ],
      code: 'PROCESSING_FAILED',
    });
  },
  2,
);

golden(
  'cancel',
  async (c) => {
    const h = c.submit('sleep', { ms: 60_000 }, { id: 'c1' });
    await settled(h.cancel('user pressed stop'));
    expect(await lines(h as never)).toEqual({
      lines: ['1 accepted', '2 running', '3 canceling user pressed stop'],
      code: 'CANCELED',
    });
  },
  3,
);

golden(
  'duplicate',
  async (c) => {
    for (let i = 0; i < 2; i++) {
      expect(await lines(c.submit('count', { n: 1 }, { id: 'd1' }) as never)).toEqual({
        lines: ['1 accepted', '2 running', '3 output {"i":0}', '4 complete {"n":1}'],
      });
    }
    expect((await settled(c.request('count', { n: 2 }, { id: 'd1' }))).error).toMatchObject({ code: 'CONFLICT' });
  },
  4,
);

golden(
  'gap',
  async (c) => {
    const g1 = c.attach('g1', { epoch: 'k0', after: 41 });
    expect((await lines(g1 as never, 2)).lines).toEqual(['gap recreated 41→1', '1 accepted']);
    const g2 = c.attach('g2', { epoch: 'e2', after: 41 });
    expect((await lines(g2 as never, 3)).lines).toEqual(['gap expired 41→90', '90 output "a"', '91 output "b"']);
  },
  3,
);
