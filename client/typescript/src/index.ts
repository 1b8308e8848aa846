import { address } from './address.js';
import { Client } from './client.js';
import { httpTransport } from './http.js';
import { webSocket } from './socket.js';
import type { Choice } from './transport.js';
import type { AnyActions, ClientOptions, HttpOptions } from './types.js';

const retryAfter = 300_000; // ms without WebSocket before it is tried again
const misses = 2; // in a row, before it ever worked

/** Calls one Streamer service, over WebSocket or what works instead of it. It does nothing before the first call. */
export class StreamerClient<A extends object = AnyActions> extends Client<A> {
  constructor(url: string | URL, options: ClientOptions & HttpOptions = {}) {
    super(options, choose(address(url), options));
  }
}

function choose(url: URL, options: ClientOptions & HttpOptions): Choice {
  const forced = options.transport === 'auto' ? undefined : options.transport;
  const overHttp = url.protocol.startsWith('http');
  const twin = (scheme: string) => url.href.replace(/^(ws|http)/, scheme);
  const base = new URL(options.http?.replace(/\/*$/, '/') ?? '.', twin('http')).href;
  const socket = webSocket(twin('ws'), options.WebSocket);
  const http = httpTransport(base, options.fetch, forced === 'websocket' ? undefined : forced);
  let proven = false; // WebSocket works
  let missed = 0;
  let since = 0; // when HTTP took over; 0: it did not
  let httpWorks = false;

  return {
    next() {
      if (forced) return forced === 'websocket' ? socket : http;
      if (overHttp || !(options.WebSocket ?? globalThis.WebSocket)) return http;
      if (since && Date.now() - since > retryAfter) {
        since = 0;
        missed = misses - 1;
      }
      socket.patience = proven ? 10_000 : 5000;
      return since ? http : socket;
    },
    ended(transport, welcomed, v) {
      if (forced || overHttp) return v;
      if (transport === socket) {
        proven ||= welcomed;
        if (!proven && v.foreign) {
          missed += v.late ? misses : 1;
          if (missed >= misses) {
            since = Date.now();
            httpWorks = false;
          }
        }
        return v;
      }
      httpWorks ||= welcomed;
      if (httpWorks || !v.foreign) return v;
      // It is not there, or not reached either.
      since = missed = 0;
      return { ...v, stop: undefined, denied: false };
    },
  };
}

export type { Client } from './client.js';
export { type ErrorCode, type ErrorInit, StreamerError } from './error.js';
export type * from './types.js';
