import { address } from './address.js';
import { Client } from './client.js';
import { webSocket } from './socket.js';
import type { AnyActions, ClientOptions } from './types.js';

/** The client without what replaces WebSocket where that is blocked, for pages that count bytes. */
export class StreamerClient<A extends object = AnyActions> extends Client<A> {
  constructor(url: string | URL, options: ClientOptions = {}) {
    const socket = webSocket(address(url).href.replace(/^http/, 'ws'), options.WebSocket);
    super(options, { next: () => socket, ended: (_, __, v) => v });
  }
}

export type { Client } from './client.js';
export { type ErrorCode, type ErrorInit, StreamerError } from './error.js';
export type * from './types.js';
