import { afterEach, beforeEach, vi } from 'vitest';
import {
  type ClientOptions,
  type HttpOptions,
  type RequestHandle,
  StreamerClient,
  type StreamerEvent,
} from '../src/index.js';
import { Network } from './network.js';

export const transports = ['websocket', 'sse', 'poll'] as const;

/** A fake service, and clients of it that are closed after the test, in fake time. */
export class World {
  network = new Network();
  service = this.network.service;
  clients: StreamerClient[] = [];

  connect(options: ClientOptions & HttpOptions = {}): StreamerClient {
    const { fetch, url } = this.network;
    const c = new StreamerClient(url, { WebSocket: this.network.webSocket(), fetch, ...options });
    this.clients.push(c);
    return c;
  }
}

export function setup(): { world: World } {
  const box = { world: new World() };
  beforeEach(() => {
    vi.useFakeTimers();
    box.world = new World();
  });
  afterEach(() => {
    for (const c of box.world.clients) c.close();
    vi.useRealTimers();
  });
  return box;
}

/** Lets that much time pass. */
export async function pass(ms: number): Promise<void> {
  await vi.advanceTimersByTimeAsync(ms);
}

/** Lets time pass until the promise is settled, and returns what with. */
export async function settled<T>(
  p: PromiseLike<T>,
  ms = 60_000,
): Promise<{ value?: T; error?: unknown; after: number }> {
  let outcome: { value?: T; error?: unknown } | undefined;
  p.then(
    (value) => {
      outcome = { value };
    },
    (error) => {
      outcome = { error };
    },
  );
  const from = Date.now();
  while (!outcome && Date.now() - from < ms) await pass(10);
  if (!outcome) throw new Error(`not settled after ${ms} ms`);
  return { ...outcome, after: Date.now() - from };
}

/** Writes down what an iteration shows, a line an event. */
export function story(handle: RequestHandle<unknown, unknown>): {
  lines: string[];
  over: Promise<void>;
  error?: unknown;
} {
  const s: { lines: string[]; over: Promise<void>; error?: unknown } = { lines: [], over: Promise.resolve() };
  s.over = (async () => {
    try {
      for await (const e of handle) s.lines.push(line(e));
    } catch (e) {
      s.error = e;
    }
  })();
  return s;
}

export function line(e: StreamerEvent): string {
  switch (e.type) {
    case 'gap':
      return `gap ${e.reason} ${e.after}→${e.oldest}`;
    case 'progress':
      return `${e.percentage}% ${e.message}`;
    case 'running':
      return `${e.seq} running${e.outputsFrom ? ` outputs from ${e.outputsFrom}` : ''}`;
    case 'output':
      return `${e.seq} output ${JSON.stringify(e.data)}`;
    case 'complete':
      return `${e.seq} complete ${JSON.stringify(e.result)}`;
    case 'retrying':
    case 'canceling':
      return `${e.seq} ${e.type} ${e.reason}`;
  }
  return `${(e as { seq: number }).seq} ${e.type}`;
}
