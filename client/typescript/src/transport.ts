import type { Request } from './request.js';
import type { TransportName } from './types.js';
import type { Message, Outgoing } from './wire.js';

/** One connection, whatever it is made of: messages go in and come out as over a WebSocket. */
export interface Connection {
  /** Sends a message, in order. text: that of a request which is to be submitted, instead. Only after the welcome. */
  _send(m: Outgoing, text?: string): void;
  /** Ends it. Nothing comes out of it any more. */
  _close(): void;
}

/** What a connection is made with. */
export interface Setup {
  _token: string | undefined;
  /** Takes a message and the length of its text. The first is a welcome; 0: nothing was heard of the server yet. */
  _receive(m: Message, size: number): void;
  /**
   * Is told that the connection is gone, or could not be made, and why. foreign: 1, nothing shows that it was the
   * service that answered, so another transport may fare better; 2, it also took too long. status: one of HTTP, 0
   * where there is none. wait: milliseconds before which not to connect again.
   */
  _lost(error: unknown, foreign?: number, status?: number, wait?: number): void;
  /** What is pending. */
  _requests: Iterable<Request>;
}

/** What makes connections. */
export interface Transport {
  readonly _name: TransportName;
  /** It has worked: since when, in ms. Where there is a choice. */
  _proven?: number | undefined;
  _dial(setup: Setup): Connection;
}

/** Picks the transport of each connect. */
export interface Choice {
  _next(): Transport;
  /** The connection of a transport ended; heard: when it was of use. Returns true when another is to be made in any case. */
  _ended?(transport: Transport, heard: number | undefined, foreign: number): boolean | undefined;
}
