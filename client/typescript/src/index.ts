import { address } from './address.js';
import { type Client, createClient } from './client.js';
import { httpTransport } from './http.js';
import { webSocket } from './socket.js';
import type { Choice } from './transport.js';
import type { AnyActions, ClientOptions, HttpOptions } from './types.js';

/** Calls one Streamer service, over WebSocket or what works instead of it. It does nothing before the first call. */
export const StreamerClient: new <A extends object = AnyActions>(
  url: string | URL,
  options?: ClientOptions & HttpOptions,
) => Client<A> = class {
  constructor(url: string | URL, options: ClientOptions & HttpOptions = {}) {
    createClient(this, options, choose(url, options));
  }
} as never;
export type StreamerClient<A extends object = AnyActions> = Client<A>;

function choose(url: string | URL, { transport, http: mount, WebSocket, fetch }: ClientOptions & HttpOptions): Choice {
  const retryAfter = 300_000; // ms without WebSocket before it is tried again
  const misses = 2; // in a row, before it ever worked
  const full = address(url);
  const forced = transport !== 'auto' && transport;
  const only = forced || (/^http/.test(full) && 'sse');
  const socket = webSocket(full, WebSocket);
  const http = httpTransport(
    new URL(mount ?? '.', full.replace(/^ws/, 'http')).href.replace(/\/*$/, '/'),
    fetch,
    forced,
  );
  let missed = 0; // by WebSocket
  let until = 0; // when to try it again

  return {
    _next: () =>
      (only ? only === 'websocket' : Date.now() > until && (WebSocket ?? globalThis.WebSocket)) ? socket : http,
    _ended(t, heard, foreign) {
      if (only || (t._proven ||= heard) || !foreign) return;
      // HTTP is not there, or not reached either.
      if (t === http) missed = 0;
      else missed += foreign;
      until = missed < misses ? 0 : Date.now() + retryAfter;
      return t === http;
    },
  };
}

export type { Client } from './client.js';
export { type ErrorCode, type ErrorInit, StreamerError } from './error.js';
export type * from './types.js';
