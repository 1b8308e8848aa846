import { expectTypeOf, test } from 'vitest';
import type { AnyActions, OutputInfo, RequestHandle, StreamerClient, StreamerEvent } from '../src/index.js';

type Actions = {
  export_data: { input: { format: 'csv' | 'json' }; output: { export_url: string }; chunk?: { rows: number } };
  touch: { output: number };
  search: { input?: { text: string }; output: string[] };
};

interface InterfaceActions {
  export_data: { input: { format: string }; output: { export_url: string }; chunk: { rows: number } };
}

// Type checks only: nothing here runs.
const uses = (c: StreamerClient<Actions>, plain: StreamerClient, byInterface: StreamerClient<InterfaceActions>) => {
  const url = c.request(
    'export_data',
    { format: 'csv' },
    {
      onProgress: (p) => expectTypeOf(p.percentage).toEqualTypeOf<number>(),
      onOutput: (chunk, info) => {
        expectTypeOf(chunk).toEqualTypeOf<{ rows: number }>();
        expectTypeOf(info).toEqualTypeOf<OutputInfo>();
      },
    },
  );
  expectTypeOf(url).toEqualTypeOf<Promise<{ export_url: string }>>();
  expectTypeOf(c.request('touch')).toEqualTypeOf<Promise<number>>();
  expectTypeOf(c.request('search')).toEqualTypeOf<Promise<string[]>>();
  expectTypeOf(c.request('search', { text: 'a' })).toEqualTypeOf<Promise<string[]>>();
  const h = c.submit('export_data', { format: 'json' });
  expectTypeOf(h).toEqualTypeOf<RequestHandle<{ export_url: string }, { rows: number }>>();
  expectTypeOf<Awaited<typeof h>>().toEqualTypeOf<{ export_url: string }>();
  const events = async () => {
    for await (const e of h) {
      expectTypeOf(e).toEqualTypeOf<StreamerEvent<{ rows: number }, { export_url: string }>>();
      if (e.type === 'output') expectTypeOf(e.data.rows).toEqualTypeOf<number>();
      if (e.type === 'complete') expectTypeOf(e.result.export_url).toEqualTypeOf<string>();
      if (e.type === 'gap') expectTypeOf(e.oldest).toEqualTypeOf<number>();
    }
  };
  expectTypeOf(c.attach<string>('id')).toEqualTypeOf<RequestHandle<string, unknown>>();
  expectTypeOf(plain.request('anything', { at: 'all' })).toEqualTypeOf<Promise<AnyActions['x']['output']>>();
  expectTypeOf(plain.request('anything')).toEqualTypeOf<Promise<AnyActions['x']['output']>>();
  expectTypeOf(byInterface.request('export_data', { format: 'x' })).toEqualTypeOf<Promise<{ export_url: string }>>();

  // @ts-expect-error: there is no such action.
  c.request('export', { format: 'csv' });
  // @ts-expect-error: not a format.
  c.request('export_data', { format: 'xml' });
  // @ts-expect-error: the payload is missing.
  c.request('export_data');
  // @ts-expect-error: it takes nothing.
  c.request('touch', { a: 1 });
  return events;
};

test('types follow the actions', () => {
  expectTypeOf(uses).toBeFunction();
});
