import { StreamerError } from './error.js';
import type { Transport } from './transport.js';
import type { WebSocketLike } from './types.js';
import { late, type Message } from './wire.js';

/** WebSocket connections to url. */
export function webSocket(url: string, given: WebSocketLike | undefined): Transport {
  const maxSilence = 25_000; // where the server does not say
  const silenceMargin = 10_000; // beyond the server's ping interval
  const probeTime = 5000;
  return {
    _name: 'websocket',
    _dial({ _token: token, _receive, _lost }) {
      const WebSocket = given ?? (globalThis.WebSocket as WebSocketLike | undefined);
      if (!WebSocket) {
        throw new StreamerError('VALIDATION_ERROR', 'no WebSocket: give one with the option WebSocket');
      }
      let silence = 0;
      let timer: ReturnType<typeof setTimeout>;
      const ws = new WebSocket(url.replace(/^http/, 'ws'), ['streamer.v1']);

      const close = () => {
        clearTimeout(timer);
        ws.close();
      };
      const watch = (ms: number) => {
        clearTimeout(timer);
        timer = setTimeout(_lost, ms, new Error(late));
      };
      const send = (m: object, text?: string) => ws.send(text || JSON.stringify(m));

      ws.onopen = () => send({ type: 'hello', v: 1, token, caps: ['batch'], client: 'streamer-ts/2' });
      ws.onmessage = ({ data }: { data: string }) => {
        for (const text of data.split('\n')) {
          if (ws.readyState > 1) return;
          const m: Message = JSON.parse(text);
          silence ||= (m.ping_interval_ms ?? maxSilence) + silenceMargin;
          watch(silence);
          _receive(m, text.length);
        }
      };
      ws.onclose = ({ code, reason }: { code: number; reason: string }) => {
        _lost(
          new Error(`WebSocket closed: ${code} ${reason}`),
          +(code < 4000),
          code < 4000 ? (/^10(0[23789]|10)$/.test(`${code}`) ? 400 : 0) : code - 4000,
          // The reason may say it; 0 to 5 s after 1012, 5 to 10 s after 1013.
          +(/ms=(\d+)/.exec(reason)?.[1] as string) || (code >> 1 === 506 ? (code - 1012 + Math.random()) * 5000 : 0),
        );
      };
      ws.onerror = () => {}; // closing what is not open yet makes some sockets report an error

      return {
        _send(m, text) {
          send(m, text);
          if (m.type === 'ping') watch(probeTime);
        },
        _close: close,
      };
    },
  };
}
