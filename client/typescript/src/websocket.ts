import { address } from './address.js';
import { type Client, createClient } from './client.js';
import { webSocket } from './socket.js';
import type { AnyActions, ClientOptions } from './types.js';

/** The client without what replaces WebSocket where that is blocked, for pages that count bytes. */
export const StreamerClient: new <A extends object = AnyActions>(
  url: string | URL,
  options?: ClientOptions,
) => Client<A> = class {
  constructor(url: string | URL, options: ClientOptions = {}) {
    const socket = webSocket(address(url), options.WebSocket);
    createClient(this, options, { _next: () => socket });
  }
} as never;
export type StreamerClient<A extends object = AnyActions> = Client<A>;

export type { Client } from './client.js';
export { type ErrorCode, type ErrorInit, StreamerError } from './error.js';
export type * from './types.js';
