// @vitest-environment jsdom
import { act, cleanup, configure, render, renderHook, screen, waitFor } from '@testing-library/react';
import { Activity, type ReactNode, useEffect } from 'react';
import { afterEach, beforeEach, describe, expect, expectTypeOf, test, vi } from 'vitest';
import { StreamerClient, StreamerError } from '../src/index.js';
import { StreamerProvider, useAttach, useRequest } from '../src/react.js';
import { createTestServer, type TestContext, type TestServer } from '../src/testing.js';

type Actions = {
  export_data: { input: { format: string }; output: { url: string }; chunk: { rows: number } };
  ping: { output: string };
};

let server: TestServer<Actions>;
let client: StreamerClient<Actions>;
/** The handlers that run, newest last. */
let contexts: TestContext<{ rows: number }>[];
let finish: (url: string) => void;
let fail: (error: Error) => void;

beforeEach(() => {
  server = createTestServer<Actions>();
  contexts = [];
  server.handle('export_data', (_payload, context) => {
    contexts.push(context);
    return new Promise((resolve, reject) => {
      finish = (url) => resolve({ url });
      fail = reject;
      context.signal.addEventListener('abort', () => reject(context.signal.reason));
    });
  });
  client = new StreamerClient<Actions>(server.url, { WebSocket: server.WebSocket, transport: 'websocket' });
});

afterEach(() => {
  cleanup();
  client.close();
  vi.restoreAllMocks();
});

// Effects run twice only where StrictMode is at the root, so a wrapper with one inside would not do.
configure({ reactStrictMode: true });

function wrapper({ children }: { children: ReactNode }) {
  return <StreamerProvider client={client}>{children}</StreamerProvider>;
}

const settle = () => act(() => new Promise((resolve) => setTimeout(resolve, 5)));
const handlers = (n: number) => waitFor(() => expect(contexts).toHaveLength(n));

function newest(): TestContext<{ rows: number }> {
  const context = contexts.at(-1);
  if (!context) throw new Error('no handler runs');
  return context;
}

const useExport = () => useRequest<Actions, 'export_data'>('export_data');

let shown: ReturnType<typeof useExport> | undefined;

function Export() {
  shown = useExport();
  return <p>{shown.outputs.map((o) => o.rows).join(' ')}</p>;
}

describe('useRequest', () => {
  test('shows a request from its start to its result', async () => {
    const { result } = renderHook(useExport, { wrapper });
    expect(result.current).toMatchObject({ status: 'idle', id: undefined, outputs: [] });

    act(() => void result.current.run({ format: 'csv' }));
    expect(result.current.status).toBe('pending');
    expect(result.current.id).toMatch(/./);
    await handlers(1);
    await waitFor(() => expect(result.current.status).toBe('running'));

    act(() => {
      newest().output({ rows: 10 });
      newest().progress(50, 'half');
      newest().output({ rows: 20 });
    });
    await waitFor(() => expect(result.current.outputs).toEqual([{ rows: 10 }, { rows: 20 }]));
    expect(result.current.progress).toMatchObject({ percentage: 50, message: 'half', attempt: 1 });

    finish('/a.csv');
    await waitFor(() => expect(result.current.status).toBe('completed'));
    expect(result.current.data).toEqual({ url: '/a.csv' });
    expect(result.current.outputs).toHaveLength(2);
    expect(result.current.error).toBeUndefined();
    expect(server.requests).toHaveLength(1);
  });

  test('run returns a handle to wait for', async () => {
    const { result } = renderHook(useExport, { wrapper });
    let url: Promise<string> | undefined;
    act(() => {
      url = (async () => (await result.current.run({ format: 'csv' })).url)();
    });
    await handlers(1);
    finish('/b.csv');
    expect(await url).toBe('/b.csv');
  });

  test('shows why a request failed, and nothing else breaks', async () => {
    const { result } = renderHook(useExport, { wrapper });
    act(() => void result.current.run({ format: 'csv' }));
    await handlers(1);
    fail(new StreamerError('OUT_OF_PAPER', 'no paper'));
    await waitFor(() => expect(result.current.status).toBe('failed'));
    expect(result.current.error).toMatchObject({ code: 'OUT_OF_PAPER', message: 'no paper' });

    act(() => void result.current.run({ format: 'pdf' }));
    expect(result.current).toMatchObject({ status: 'pending', error: undefined, outputs: [] });
  });

  test('cancels when asked to, also as an event handler that is given the event', async () => {
    const { result } = renderHook(useExport, { wrapper });
    await act(() => result.current.cancel());
    act(() => void result.current.run({ format: 'csv' }));
    await handlers(1);
    await act(() => result.current.cancel(new MouseEvent('click')));
    await waitFor(() => expect(result.current.status).toBe('canceled'));
    expect(result.current.error).toMatchObject({ code: 'CANCELED', message: 'canceled by a client' });
  });

  test('replaces the request before, which goes on unseen', async () => {
    const { result } = renderHook(useExport, { wrapper });
    act(() => {
      result.current.run({ format: 'first' });
      result.current.run({ format: 'second' });
    });
    await handlers(2);
    contexts[0]?.output({ rows: 1 });
    contexts[1]?.output({ rows: 2 });
    await waitFor(() => expect(result.current.outputs).toEqual([{ rows: 2 }]));
    expect(server.requests.map((r) => r.status)).toEqual(['running', 'running']);
    expect(client.pending()).toEqual([result.current.id]);
  });

  test('reset shows nothing any more and cancels nothing', async () => {
    const { result } = renderHook(useExport, { wrapper });
    act(() => void result.current.run({ format: 'csv' }));
    await handlers(1);
    act(() => result.current.reset());
    newest().output({ rows: 1 });
    await settle();
    expect(result.current).toMatchObject({ status: 'idle', id: undefined, outputs: [] });
    expect(server.requests[0]?.status).toBe('running');
    expect(client.pending()).toEqual([]);
  });

  test('drops the outputs that a later attempt makes anew, and its progress', async () => {
    const { result } = renderHook(useExport, { wrapper });
    act(() => void result.current.run({ format: 'csv' }));
    await handlers(1);
    newest().output({ rows: 1 });
    newest().output({ rows: 2 });
    newest().progress(80);
    await waitFor(() => expect(result.current.outputs).toHaveLength(2));
    server.loseWorkers();
    await waitFor(() => expect(result.current.outputs).toEqual([]));
    expect(result.current.progress).toBeUndefined();
    newest().output({ rows: 3 });
    await waitFor(() => expect(result.current.outputs).toEqual([{ rows: 3 }]));
  });

  test('keeps the newest outputs only, as many as asked for', async () => {
    const { result } = renderHook(() => useRequest<Actions, 'export_data'>('export_data', { maxOutputs: 3 }), {
      wrapper,
    });
    act(() => void result.current.run({ format: 'csv' }));
    await handlers(1);
    for (let rows = 0; rows < 10; rows++) newest().output({ rows });
    await waitFor(() => expect(result.current.outputs).toEqual([{ rows: 7 }, { rows: 8 }, { rows: 9 }]));
  });

  test('comes through a cut connection', async () => {
    const { result } = renderHook(useExport, { wrapper });
    act(() => void result.current.run({ format: 'csv' }));
    await handlers(1);
    newest().output({ rows: 1 });
    server.cut();
    newest().output({ rows: 2 });
    act(() => client.reconnect());
    await waitFor(() => expect(result.current.outputs).toEqual([{ rows: 1 }, { rows: 2 }]));
    expect(result.current.status).toBe('running');
  });

  test('draws many outputs at once, not one by one', async () => {
    let renders = 0;
    const { result } = renderHook(
      () => {
        renders++;
        return useExport();
      },
      { wrapper },
    );
    act(() => void result.current.run({ format: 'csv' }));
    await handlers(1);
    await waitFor(() => expect(result.current.status).toBe('running'));
    renders = 0;
    for (let rows = 0; rows < 500; rows++) newest().output({ rows });
    await waitFor(() => expect(result.current.outputs).toHaveLength(500));
    expect(renders).toBeLessThan(20);
  });

  test('functions and what did not change stay the same between renders, with options given inline', async () => {
    const { result, rerender } = renderHook(
      () => useRequest<Actions, 'export_data'>('export_data', { maxOutputs: 10 }),
      { wrapper },
    );
    act(() => void result.current.run({ format: 'csv' }));
    await handlers(1);
    newest().output({ rows: 1 });
    await waitFor(() => expect(result.current.outputs).toHaveLength(1));
    const before = result.current;
    rerender();
    for (const key of ['run', 'cancel', 'reset', 'outputs', 'progress', 'id', 'status'] as const) {
      expect(result.current[key], key).toBe(before[key]);
    }
    newest().progress(10);
    await waitFor(() => expect(result.current.progress).toBeDefined());
    expect(result.current.outputs).toBe(before.outputs);
  });

  test('another action is another request', async () => {
    server.handle('ping', () => 'pong');
    const { result, rerender } = renderHook(({ action }) => useRequest(action), {
      initialProps: { action: 'export_data' },
      wrapper,
    });
    act(() => void result.current.run({ format: 'csv' }));
    await handlers(1);
    rerender({ action: 'ping' });
    expect(result.current.status).toBe('idle');
    act(() => void result.current.run());
    await waitFor(() => expect(result.current.data).toBe('pong'));
  });
});

describe('unmounting', () => {
  test('detaches, cancels nothing and updates nothing', async () => {
    const complaint = vi.spyOn(console, 'error');
    let renders = 0;
    const { result, unmount } = renderHook(
      () => {
        renders++;
        return useExport();
      },
      { wrapper },
    );
    act(() => void result.current.run({ format: 'csv' }));
    await handlers(1);
    expect(client.pending()).toHaveLength(1);
    unmount();
    const before = renders;
    newest().output({ rows: 1 });
    await settle();
    expect(renders).toBe(before);
    expect(client.pending()).toEqual([]);
    expect(newest().signal.aborted).toBe(false);
    expect(server.requests[0]?.status).toBe('running');
    expect(complaint).not.toHaveBeenCalled();
  });

  test('right after run lets the request reach the server', async () => {
    const { result, unmount } = renderHook(useExport, { wrapper });
    act(() => void result.current.run({ format: 'csv' }));
    unmount();
    await handlers(1);
    await vi.waitFor(() => expect(client.pending()).toEqual([]));
    expect(newest().signal.aborted).toBe(false);
  });

  test('and mounting again by StrictMode sends a request with an id once', async () => {
    const submit = vi.spyOn(client, 'submit');
    const { result } = renderHook(
      () => {
        const request = useExport();
        const { run } = request;
        useEffect(() => {
          run({ format: 'csv' }, { id: 'r1' });
        }, [run]);
        return request;
      },
      { wrapper },
    );
    await handlers(1);
    newest().output({ rows: 1 });
    await waitFor(() => expect(result.current.outputs).toEqual([{ rows: 1 }]));
    expect(submit).toHaveBeenCalledTimes(2);
    expect(server.requests).toHaveLength(1);
    expect(contexts).toHaveLength(1);
  });

  test('by Activity goes on where it was when shown again', async () => {
    const attach = vi.spyOn(client, 'attach');
    const page = (mode: 'visible' | 'hidden') => (
      <StreamerProvider client={client}>
        <Activity mode={mode}>
          <Export />
        </Activity>
      </StreamerProvider>
    );
    const { rerender } = render(page('visible'));
    act(() => void shown?.run({ format: 'csv' }));
    await handlers(1);
    newest().output({ rows: 1 });
    await screen.findByText('1');
    rerender(page('hidden'));
    await settle();
    expect(client.pending()).toEqual([]);
    newest().output({ rows: 2 });
    await settle();
    rerender(page('visible'));
    await screen.findByText('1 2');
    expect(attach).toHaveBeenCalledTimes(1);
    expect(attach.mock.calls[0]?.[1]).toMatchObject({ after: 3 });
    finish('/c.csv');
    await waitFor(() => expect(shown?.data).toEqual({ url: '/c.csv' }));
  });
});

describe('useAttach', () => {
  async function started(id: string): Promise<TestContext<{ rows: number }>> {
    const other = new StreamerClient<Actions>(server.url, { WebSocket: server.WebSocket, transport: 'websocket' });
    const handle = other.submit('export_data', { format: 'csv' }, { id });
    await handle.accepted;
    other.close();
    await vi.waitFor(() => expect(contexts.some((c) => c.id === id)).toBe(true));
    return contexts.find((c) => c.id === id) as TestContext<{ rows: number }>;
  }

  test('shows a request that others submitted, and attaches once', async () => {
    const attach = vi.spyOn(client, 'attach');
    const context = await started('r1');
    context.output({ rows: 1 });
    context.progress(10, 'some');
    const { result, rerender } = renderHook(() => useAttach<{ url: string }, { rows: number }>('r1', {}), {
      wrapper,
    });
    expect(result.current).toMatchObject({ status: 'pending', id: 'r1' });
    await waitFor(() => expect(result.current).toMatchObject({ status: 'running', outputs: [{ rows: 1 }] }));
    expect(result.current.progress?.message).toBe('some');
    rerender();
    rerender();
    finish('/a.csv');
    await waitFor(() => expect(result.current.data).toEqual({ url: '/a.csv' }));
    expect(attach).toHaveBeenCalledTimes(1);
  });

  test('with another id shows that, and nothing of the one before', async () => {
    const [one, two] = [await started('r1'), await started('r2')];
    one.output({ rows: 1 });
    two.output({ rows: 2 });
    const seen: string[] = [];
    const { result, rerender } = renderHook(
      ({ id }: { id: string | null }) => {
        const request = useAttach<unknown, { rows: number }>(id);
        seen.push(`${id}: ${request.id} ${request.outputs.map((o) => o.rows)}`);
        return request;
      },
      { initialProps: { id: 'r1' as string | null }, wrapper },
    );
    await waitFor(() => expect(result.current.outputs).toEqual([{ rows: 1 }]));
    rerender({ id: 'r2' });
    await waitFor(() => expect(result.current.outputs).toEqual([{ rows: 2 }]));
    expect(client.pending()).toEqual(['r2']);
    rerender({ id: null });
    expect(result.current).toMatchObject({ status: 'idle', id: undefined, outputs: [] });
    await settle();
    expect(client.pending()).toEqual([]);
    expect(seen.filter((line) => /^r1: (r2|undefined)|^r2: r1|^r2: r2 1|^null: r/.test(line))).toEqual([]);
    expect(server.requests.map((r) => r.status)).toEqual(['running', 'running']);
  });

  test('starts after the cursor', async () => {
    const context = await started('r1');
    for (let rows = 0; rows < 3; rows++) context.output({ rows });
    const { result } = renderHook(() => useAttach('r1', { after: 4 }), { wrapper });
    await waitFor(() => expect(result.current.outputs).toEqual([{ rows: 2 }]));
    expect(result.current.status).toBe('running');
  });

  test('tells of a gap, and forgets the outputs of another log', async () => {
    await started('r1');
    const { result } = renderHook(() => useAttach('r1', { epoch: 'another', after: 7 }), { wrapper });
    await waitFor(() => expect(result.current.gap).toMatchObject({ reason: 'recreated', oldest: 1 }));
    await waitFor(() => expect(result.current.status).toBe('running'));
  });

  test('shows that there is no such request', async () => {
    const { result } = renderHook(() => useAttach('r1'), { wrapper });
    await waitFor(() => expect(result.current.status).toBe('failed'));
    expect(result.current.error).toMatchObject({ code: 'NOT_FOUND' });
  });
});

test('without a provider the hooks say what to do', () => {
  vi.spyOn(console, 'error').mockImplementation(() => {});
  expect(() => renderHook(useExport)).toThrow('<StreamerProvider client={client}>');
});

test('the hooks have the types of the actions', () => {
  const use = () => {
    const { run, data, outputs } = useRequest<Actions, 'export_data'>('export_data');
    expectTypeOf(run).parameter(0).toEqualTypeOf<{ format: string }>();
    expectTypeOf(data).toEqualTypeOf<{ url: string } | undefined>();
    expectTypeOf(outputs).toEqualTypeOf<readonly { rows: number }[]>();
    // @ts-expect-error: there is no such action.
    useRequest<Actions, 'exprot_data'>('exprot_data');
    expectTypeOf(useRequest<Actions, 'ping'>('ping').run).toBeCallableWith();
  };
  expectTypeOf(use).toBeFunction();
});
