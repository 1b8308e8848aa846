import { later } from './clock.js';
import { StreamerError } from './error.js';
import type { Connection, Setup, Transport } from './transport.js';
import type { WebSocketLike } from './types.js';
import { broken, byClose, type Verdict } from './verdict.js';
import type { Message } from './wire.js';

const maxFrame = 32_768; // bytes of messages that share a frame
const maxSilence = 300_000; // whatever the server says
const silenceMargin = 10_000; // beyond the server's ping interval
const probeTime = 5000;

/** WebSocket connections to url. */
export function webSocket(url: string, given: WebSocketLike | undefined): Transport {
  return {
    name: 'websocket',
    patience: 10_000,
    dial(setup) {
      const WebSocket = given ?? (globalThis.WebSocket as WebSocketLike | undefined);
      if (WebSocket) return dial(url, WebSocket, setup);
      throw new StreamerError('VALIDATION_ERROR', 'there is no WebSocket here: give one with the option WebSocket');
    },
  };
}

function dial(url: string, WebSocket: WebSocketLike, { token, resume, receive, lost }: Setup): Connection {
  let over = false;
  let batch = false;
  let most = 0;
  let queue: string[] = [];
  let silence = 0;
  let heard = 0; // when
  let frames = 0; // that came
  let unwatch = () => {};
  const encoder = new TextEncoder();
  const bytes = (text: string) => encoder.encode(text).length;

  const ws = new WebSocket(url, ['streamer.v1']);

  // Handlers stay in place when it is over: to close what is not open yet makes some sockets
  // report an error, at once or later.
  const shut = (code?: number, reason?: string) => {
    over = true;
    unwatch();
    ws.close(code, reason);
  };
  const end = (v: Verdict) => {
    if (over) return;
    shut();
    lost(v);
  };
  const watch = (ms: number) => {
    unwatch();
    unwatch = later(ms, () => {
      const left = heard + silence - Date.now();
      if (left > 0) watch(left);
      else end({ error: new Error('nothing heard from the server for too long') });
    });
  };
  const flush = () => {
    let frame = '';
    let size = 0;
    for (const text of queue) {
      const n = bytes(text) + 1;
      if (frame && (!batch || size + n > Math.min(most || maxFrame, maxFrame))) {
        ws.send(frame);
        frame = '';
        size = 0;
      }
      frame += frame ? `\n${text}` : text;
      size += n;
    }
    queue = [];
    if (frame) ws.send(frame);
  };
  const put = (text: string) => {
    if (queue.push(text) === 1) queueMicrotask(() => over || flush());
  };

  ws.onopen = () => {
    if (!over)
      put(
        JSON.stringify({
          type: 'hello',
          v: 1,
          token,
          caps: ['batch'],
          client: 'streamer-ts/2',
          resume: resume.length ? resume : undefined,
        }),
      );
  };
  ws.onmessage = ({ data }: { data: unknown }) => {
    if (over) return;
    heard = Date.now();
    frames++;
    let messages: Message[];
    try {
      messages = String(data)
        .split('\n')
        .map((text) => Object.assign(JSON.parse(text) as Message, { size: text.length }));
    } catch {
      end(broken('the server sent a message that makes no sense'));
      return;
    }
    const m = messages[0];
    if (!silence && m?.type === 'welcome') {
      batch = m.caps?.includes('batch') ?? false;
      most = m.limits?.max_message_bytes ?? 0;
      silence = Math.min(m.ping_interval_ms || maxSilence, maxSilence) + silenceMargin;
      m.transport = 'websocket';
      watch(silence);
    }
    receive(messages);
  };
  ws.onclose = ({ code, reason }: { code: number; reason: string }) => end(byClose(code, reason));
  ws.onerror = () => {};

  return {
    send(m) {
      const text = m.type === 'request' ? m.text : JSON.stringify(m);
      const size = most && text.length * 3 > most ? bytes(text) : 0;
      if (size <= most) put(text);
      else if ('ref' in m) {
        const error = { code: 'PAYLOAD_TOO_LARGE', message: `the request is ${size} bytes, the server takes ${most}` };
        queueMicrotask(() => over || receive([{ type: 'error', request_id: m.id, ref: m.ref, error }]));
      }
    },
    probe() {
      put('{"type":"ping"}');
      unwatch();
      const before = frames;
      unwatch = later(probeTime, () => {
        if (frames > before) watch(silence);
        else end({ error: new Error('the server did not answer') });
      });
    },
    close(reason) {
      if (over) return;
      if (ws.readyState === 1) flush();
      shut(1000, reason);
    },
  };
}
