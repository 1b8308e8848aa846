import { afterEach, describe, expect, expectTypeOf, test, vi } from 'vitest';
import { type ClientOptions, StreamerClient, StreamerError, type StreamerEvent } from '../src/index.js';
import { createTestServer, type TestContext, type TestServer } from '../src/testing.js';

type Actions = {
  count: { input: { to: number }; output: { sum: number }; chunk: number };
  hold: { input: { name: string }; output: string; chunk: string };
};

const open: StreamerClient<Actions>[] = [];

function connect(server: TestServer<Actions>, options: ClientOptions = {}): StreamerClient<Actions> {
  const client = new StreamerClient<Actions>(server.url, {
    WebSocket: server.WebSocket,
    transport: 'websocket',
    ...options,
  });
  open.push(client);
  return client;
}

/** A server whose action hold runs until next() is called: each call gives the handler one word to put out, and null ends it. */
function holding() {
  const server = createTestServer<Actions>();
  const contexts: TestContext<string>[] = [];
  let give: (word: string | null) => void = () => {};
  server.handle('hold', async ({ name }, context) => {
    contexts.push(context);
    for (;;) {
      const word = await new Promise<string | null>((resolve, reject) => {
        give = resolve;
        context.signal.addEventListener('abort', () => reject(context.signal.reason));
      });
      if (word === null) return `bye ${name}`;
      context.output(word);
    }
  });
  return { server, contexts, next: (word: string | null) => give(word) };
}

const settled = () => new Promise((resolve) => setTimeout(resolve));

async function failure(promise: PromiseLike<unknown>): Promise<StreamerError> {
  try {
    await promise;
  } catch (e) {
    if (StreamerError.is(e)) return e;
    throw e;
  }
  throw new Error('it did not fail');
}

afterEach(() => {
  vi.useRealTimers();
  for (const client of open.splice(0)) client.close();
});

describe('a request', () => {
  test('gives progress, outputs and its result', async () => {
    const server = createTestServer<Actions>();
    server.handle('count', ({ to }, context) => {
      let sum = 0;
      for (let i = 1; i <= to; i++) {
        sum += i;
        context.output(i);
        context.progress((100 * i) / to, `${i} of ${to}`, { i });
      }
      return { sum };
    });
    const percentages: number[] = [];
    const outputs: [number, number][] = [];
    const result = await connect(server).request(
      'count',
      { to: 4 },
      {
        metadata: { trace: 't1' },
        onProgress: (p) => percentages.push(p.percentage),
        onOutput: (data, info) => outputs.push([data, info.index]),
      },
    );
    expect(result).toEqual({ sum: 10 });
    expect(outputs).toEqual([
      [1, 0],
      [2, 1],
      [3, 2],
      [4, 3],
    ]);
    expect(percentages.at(-1)).toBe(100);
    expect(server.requests).toMatchObject([
      { action: 'count', payload: { to: 4 }, metadata: { trace: 't1' }, status: 'completed', attempt: 1 },
    ]);
  });

  test('works with fake timers', async () => {
    vi.useFakeTimers();
    const server = createTestServer<Actions>();
    server.handle('count', ({ to }) => ({ sum: to }));
    const result = connect(server).request('count', { to: 3 });
    await vi.advanceTimersByTimeAsync(10);
    expect(await result).toEqual({ sum: 3 });
  });

  test('shares no objects with its handler', async () => {
    const server = createTestServer<Actions>();
    server.handle('count', (payload) => {
      payload.to = 99;
      return { sum: payload.to };
    });
    const payload = { to: 3 };
    await connect(server).request('count', payload);
    expect(payload).toEqual({ to: 3 });
    expect(server.requests[0]?.payload).toEqual({ to: 3 });
  });

  test('may be named like a property of all objects', async () => {
    const server = createTestServer<Actions>();
    server.handle('count', ({ to }) => ({ sum: to }));
    const client = connect(server);
    expect(await client.request('count', { to: 1 }, { id: '__proto__' })).toEqual({ sum: 1 });
    expect(await client.request('count', { to: 2 }, { id: 'constructor' })).toEqual({ sum: 2 });
  });

  test('fails as its handler says', async () => {
    const server = createTestServer<Actions>();
    server.handle('count', () => {
      throw new StreamerError('OUT_OF_PAPER', 'the printer has no paper', { details: { tray: 2 } });
    });
    const error = await failure(connect(server).request('count', { to: 1 }));
    expect(error).toMatchObject({ code: 'OUT_OF_PAPER', message: 'the printer has no paper', details: { tray: 2 } });
  });

  test('whose handler breaks says so', async () => {
    const server = createTestServer<Actions>();
    server.handle('count', () => {
      throw new TypeError('x is undefined');
    });
    const error = await failure(connect(server).request('count', { to: 1 }));
    expect(error.code).toBe('INTERNAL_ERROR');
    expect(error.message).toContain('x is undefined');
  });

  test('of an action without a handler names those that there are', async () => {
    const server = createTestServer<Actions>();
    server.handle('count', () => ({ sum: 0 }));
    const error = await failure(connect(server).request('hold', { name: 'x' }));
    expect(error.code).toBe('INVALID_ACTION');
    expect(error.message).toContain('count');
  });

  test('that is submitted again is attached to; with another payload it is refused', async () => {
    const { server, contexts, next } = holding();
    const client = connect(server);
    const first = client.submit('hold', { name: 'ada' }, { id: 'r1' });
    await first.accepted;
    const again = connect(server).submit('hold', { name: 'ada' }, { id: 'r1' });
    await again.accepted;
    const error = await failure(client.submit('hold', { name: 'bob' }, { id: 'r1' }));
    expect(error.code).toBe('CONFLICT');
    next(null);
    expect(await Promise.all([first, again])).toEqual(['bye ada', 'bye ada']);
    expect(contexts).toHaveLength(1);
  });
});

describe('canceling', () => {
  test('tells the handler, and the request rejects', async () => {
    const { server, contexts } = holding();
    const handle = connect(server).submit('hold', { name: 'ada' });
    await handle.accepted;
    await settled();
    await handle.cancel('enough');
    const error = await failure(handle);
    expect(error).toMatchObject({ code: 'CANCELED', message: 'enough' });
    expect(contexts[0]?.signal.aborted).toBe(true);
    expect(() => contexts[0]?.output('late')).toThrow('enough');
    await handle.cancel();
    expect(server.requests[0]?.status).toBe('canceled');
  });

  test('does not keep a handler from succeeding', async () => {
    const server = createTestServer<Actions>();
    server.handle('hold', (_payload, { signal }) => {
      return new Promise((resolve) => signal.addEventListener('abort', () => resolve('done anyway')));
    });
    const handle = connect(server).submit('hold', { name: 'ada' });
    await handle.accepted;
    await settled();
    await handle.cancel();
    await expect(handle).resolves.toBe('done anyway');
  });
});

describe('connections', () => {
  test('that are cut come back, and each output is there once', async () => {
    const { server, next } = holding();
    const client = connect(server);
    const words: string[] = [];
    const result = client.request('hold', { name: 'ada' }, { onOutput: (word) => words.push(word) });
    await vi.waitFor(() => expect(server.requests[0]?.status).toBe('running'));
    for (const word of ['a', 'b', 'c']) {
      next(word);
      await settled();
      server.cut();
      expect(server.connections).toBe(0);
      next(`${word}-unseen`);
      client.reconnect();
      await vi.waitFor(() => expect(client.state.phase).toBe('open'));
    }
    next(null);
    expect(await result).toBe('bye ada');
    expect(words).toEqual(['a', 'a-unseen', 'b', 'b-unseen', 'c', 'c-unseen']);
  });

  test('fail while the server is offline; requests wait', async () => {
    const server = createTestServer<Actions>();
    server.handle('count', ({ to }) => ({ sum: to }));
    server.offline = true;
    const client = connect(server);
    const result = client.request('count', { to: 7 });
    await vi.waitFor(() => expect(client.state.phase).toBe('reconnecting'));
    expect(server.requests).toHaveLength(0);
    server.offline = false;
    client.reconnect();
    expect(await result).toEqual({ sum: 7 });
    expect(server.requests).toHaveLength(1);
  });

  test('are refused where the token is', async () => {
    const server = createTestServer<Actions>({ authenticate: (token) => token === 'good' });
    server.handle('count', ({ to }) => ({ sum: to }));
    expect((await failure(connect(server, { token: 'bad' }).request('count', { to: 1 }))).code).toBe('UNAUTHORIZED');
    expect(await connect(server, { token: 'good' }).request('count', { to: 1 })).toEqual({ sum: 1 });
  });
});

describe('another viewer', () => {
  async function seen(handle: AsyncIterable<StreamerEvent<string, string>>): Promise<string[]> {
    const list: string[] = [];
    for await (const e of handle) list.push('seq' in e ? `${e.seq} ${e.type}` : e.type);
    return list;
  }

  test('sees all events, or those after its cursor', async () => {
    const { server, next } = holding();
    const handle = connect(server).submit('hold', { name: 'ada' }, { id: 'r1' });
    await handle.accepted;
    await settled();
    next('a');
    await settled();
    const all = seen(connect(server).attach<string, string>('r1'));
    const { epoch } = handle.cursor;
    const some = seen(connect(server).attach<string, string>('r1', { epoch, after: 2 }));
    await settled();
    next(null);
    expect(await all).toEqual(['1 accepted', '2 running', '3 output', '4 complete']);
    expect(await some).toEqual(['3 output', '4 complete']);
  });

  test('with the cursor of another log is told of the gap', async () => {
    const server = createTestServer<Actions>();
    server.handle('hold', () => 'x');
    await connect(server).request('hold', { name: 'ada' }, { id: 'r1' });
    const other = seen(connect(server).attach<string, string>('r1', { epoch: 'other', after: 2 }));
    expect(await other).toEqual(['gap', '1 accepted', '2 running', '3 complete']);
  });

  test('of an unknown request learns that', async () => {
    const server = createTestServer<Actions>();
    expect((await failure(connect(server).attach('r1'))).code).toBe('NOT_FOUND');
  });
});

describe('servers', () => {
  test('lose workers: another attempt makes the outputs anew', async () => {
    const { server, contexts, next } = holding();
    const handle = connect(server).submit('hold', { name: 'ada' });
    const events: string[] = [];
    const over = (async () => {
      for await (const e of handle) {
        if (e.type === 'running') events.push(`attempt ${e.attempt} from ${e.outputsFrom}`);
        if (e.type === 'output') events.push(`${e.index} ${e.data}`);
        if (e.type === 'retrying') events.push(e.reason);
      }
    })();
    await vi.waitFor(() => expect(contexts).toHaveLength(1));
    next('a');
    await settled();
    server.loseWorkers();
    expect(contexts[0]?.signal.aborted).toBe(true);
    contexts[0]?.progress(99);
    next('b');
    await settled();
    next(null);
    await over;
    expect(events).toEqual(['attempt 1 from 0', '0 a', 'lost', 'attempt 2 from 0', '0 b']);
    expect(server.requests[0]).toMatchObject({ status: 'completed', attempt: 2 });
  });

  test('that forget a request cancel nothing and know it no more', async () => {
    const { server, contexts } = holding();
    const client = connect(server);
    const handle = client.submit('hold', { name: 'ada' });
    await vi.waitFor(() => expect(contexts).toHaveLength(1));
    server.forget();
    expect(contexts[0]?.signal.aborted).toBe(true);
    client.reconnect();
    expect((await failure(handle)).code).toBe('NOT_FOUND');
    expect(server.requests).toEqual([]);
  });

  test('keep the newest 1000 of the requests that ended', async () => {
    const server = createTestServer<Actions>();
    server.handle('count', ({ to }) => ({ sum: to }));
    const client = connect(server);
    for (let i = 0; i < 1005; i++) await client.request('count', { to: i }, { id: `r${i}` });
    expect(server.requests).toHaveLength(1000);
    expect(server.requests[0]?.id).toBe('r5');
  });
});

test('handlers have the types of their action', () => {
  const server = createTestServer<Actions>();
  server.handle('count', (payload, context) => {
    expectTypeOf(payload).toEqualTypeOf<{ to: number }>();
    expectTypeOf(context.output).toBeCallableWith(1);
    return { sum: payload.to };
  });
  // @ts-expect-error: the action has another output.
  server.handle('count', () => 'ten');
  // @ts-expect-error: there is no such action.
  server.handle('cuont', () => ({ sum: 1 }));
});
