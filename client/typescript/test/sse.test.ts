import { describe, expect, test } from 'vitest';
import { settled, setup, story } from './world.js';

const box = setup();
const encoder = new TextEncoder();
const text = 'ü€😀\u2028\u0085';
const messages = [
  { type: 'attached', request_id: 'r1', epoch: 'e1', status: 'completed', attempt: 1, oldest: 1, last: 4, after: 0 },
  { type: 'status', request_id: 'r1', seq: 1, status: 'queued' },
  { type: 'status', request_id: 'r1', seq: 2, status: 'running', attempt: 1 },
  { type: 'output', request_id: 'r1', seq: 3, attempt: 1, index: 0, data: text },
  { type: 'complete', request_id: 'r1', seq: 4, success: true, result: text },
];

/** Shows an event stream to a client, in pieces of that many bytes. */
function follow(stream: string, piece: number) {
  const bytes = encoder.encode(stream);
  const body = new ReadableStream<Uint8Array>({
    start(c) {
      for (let i = 0; i < bytes.length; i += piece) c.enqueue(bytes.slice(i, i + piece));
      c.close();
    },
  });
  const headers = { 'content-type': 'text/event-stream' };
  let answers = 0;
  const fetch = async () => (answers++ ? new Response('', { status: 500 }) : new Response(body, { headers }));
  return box.world.connect({ transport: 'sse', fetch: fetch as never }).attach('r1');
}

describe('an event stream', () => {
  test.each([
    ['line feeds', '\n'],
    ['carriage returns', '\r'],
    ['both', '\r\n'],
  ])('is understood with %s as line ends, wherever it is cut', async (_, end) => {
    const lines = messages.flatMap((m) => [`event: ${m.type}`, `data: ${JSON.stringify(m)}`, 'id: e1:1', ': note', '']);
    const stream = ['\ufeff:', 'retry: 1000', '', 'event: ping', 'data: {"type":"ping"}', '', ...lines, ''].join(end);
    for (const piece of [1, 2, 3, 5, 7, 64, 100_000]) {
      const h = follow(stream, piece);
      const s = story(h);
      expect((await settled(h)).value).toBe(text);
      await settled(s.over);
      expect(s.lines).toEqual([
        '1 accepted',
        '2 running',
        `3 output ${JSON.stringify(text)}`,
        `4 complete ${JSON.stringify(text)}`,
      ]);
    }
  });

  test('has data with or without a space after the colon, and other fields that mean nothing', async () => {
    const lines = messages.map((m) => `datax: 1\nfoo\nfoo: bar\ndata:${JSON.stringify(m)}\n\n`);
    expect((await settled(follow(lines.join(''), 100))).value).toBe(text);
  });
});
