import { describe, expect, test } from 'vitest';
import { eventParser } from '../src/sse.js';
import { randomOf } from './random.js';

const encoder = new TextEncoder();

function parse(...chunks: (string | Uint8Array)[]): string[] {
  const events: string[] = [];
  const push = eventParser((data) => events.push(data));
  for (const c of chunks) push(typeof c === 'string' ? encoder.encode(c) : c);
  return events;
}

describe('the parser of event streams', () => {
  test.each([
    ['line feeds', 'data: a\n\ndata: b\n\n', ['a', 'b']],
    ['carriage returns', 'data: a\r\rdata: b\r\r', ['a', 'b']],
    ['both', 'data: a\r\n\r\ndata: b\r\n\r\n', ['a', 'b']],
    ['a mixture', 'data: a\r\n\ndata: b\n\rdata: c\r\n\r', ['a', 'b', 'c']],
    ['a byte order mark', '\ufeffdata: a\n\n', ['a']],
    ['a byte order mark that is not at the start', '\n\ufeffdata: a\n\n', []],
    ['no space after the colon', 'data:a\n\n', ['a']],
    ['two spaces after the colon', 'data:  a\n\n', [' a']],
    ['data without a colon', 'data\n\n', ['']],
    ['data on two lines', 'data: a\ndata: b\n\n', ['a\nb']],
    ['data that is empty twice', 'data\ndata\n\n', ['\n']],
    ['comments', ':\n: hello\ndata: a\n:\n\n', ['a']],
    ['an event without data', 'event: x\n\n', []],
    ['names and times', 'event: x\nretry: 100\nretry: abc\nid: 1\ndata: a\n\n', ['a']],
    ['an id with NUL', 'id: 1\u00002\ndata: a\n\n', ['a']],
    ['unknown fields', 'datax: b\nfoo\nfoo: bar\ndata: a\n\n', ['a']],
    [
      'characters that only JavaScript takes for line breaks',
      'data: a\u2028b\u2029c\u0085d\n\n',
      ['a\u2028b\u2029c\u0085d'],
    ],
    ['an event that is cut off', 'data: a\n\ndata: b\n', ['a']],
    ['a line that is cut off', 'data: a\n\ndata: b', ['a']],
    ['blank lines', '\n\n\r\n\r\n', []],
  ])('takes %s', (_, text, expected) => {
    expect(parse(text)).toEqual(expected);
    expect(parse(...[...encoder.encode(text)].map((b) => Uint8Array.of(b)))).toEqual(expected);
  });

  test('takes CRLF that is cut in the middle for one line end', () => {
    expect(parse('data: a\r', '\ndata: b\r', '\n\r', '\n')).toEqual(['a\nb']);
    expect(parse('data: a\n\r', '', '\ndata: b\n\n')).toEqual(['a', 'b']);
  });

  test('takes characters that are cut in the middle', () => {
    const bytes = encoder.encode('data: ü€😀\n\n');
    for (let i = 0; i < bytes.length; i++) {
      expect(parse(bytes.slice(0, i), bytes.slice(i))).toEqual(['ü€😀']);
    }
  });

  test('takes a stream cut at random like one that is whole', () => {
    const seed = Date.now();
    const random = randomOf(seed);
    const pick = (list: string[]) => list[Math.floor(random() * list.length)] ?? '';
    const lines = ['data: x', 'data:ü😀', ': c', '', 'event: e', 'data', 'id: \u0000', '\u2028', 'data: {"a":1}'];
    for (let round = 0; round < 300; round++) {
      let text = '';
      for (let i = 0; i < 30; i++) {
        text += pick(lines) + pick(['\n', '\r', '\r\n']);
      }
      const bytes = encoder.encode(text);
      const chunks: Uint8Array[] = [];
      for (let at = 0; at < bytes.length; ) {
        const next = at + Math.floor(random() * 6);
        chunks.push(bytes.slice(at, next));
        at = next;
      }
      expect(parse(...chunks), `seed ${seed}, round ${round}`).toEqual(parse(text));
    }
  });

  test('refuses to hold an event without end', () => {
    const push = eventParser(() => {});
    const chunk = encoder.encode('x'.repeat(1 << 20));
    expect(() => {
      for (let i = 0; i < 40; i++) push(chunk);
    }).toThrow('too large');
  });
});
