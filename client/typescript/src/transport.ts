import type { TransportName } from './types.js';
import type { Verdict } from './verdict.js';
import type { Message, Outgoing, WireCursor } from './wire.js';

/** One connection, whatever it is made of: messages go in and come out as over a WebSocket. */
export interface Connection {
  /** Sends a message, in order. Only after the welcome. */
  send(m: Outgoing): void;
  /** Finds out whether the server is still there, since the network or the page has slept. */
  probe(): void;
  /** Ends it, after what was sent. Nothing comes out of it any more. */
  close(reason: string): void;
}

/** What a connection is made with. */
export interface Setup {
  token: string | undefined;
  /** Logs to follow from the start on, each as if it was attached without ref. */
  resume: WireCursor[];
  /** Takes what came at once. The first message is a welcome. */
  receive(messages: Message[]): void;
  /** The connection is gone, or could not be made. It is called at most once. */
  lost(v: Verdict): void;
}

/** What makes connections. */
export interface Transport {
  name: TransportName;
  /** Milliseconds that it has until the welcome. */
  patience: number;
  dial(setup: Setup): Connection;
}

/** Picks the transport of each connect. */
export interface Choice {
  next(): Transport;
  /** The connection of a transport ended; welcomed says whether it was of use. */
  ended(transport: Transport, welcomed: boolean, v: Verdict): Verdict;
}
