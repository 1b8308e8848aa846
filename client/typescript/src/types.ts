import type { StreamerError } from './error.js';

/** What an action takes and gives. Leave out what it does not have. */
export interface ActionShape {
  input?: unknown;
  output?: unknown;
  chunk?: unknown;
}

/** The actions of a client without a type of its own: all are allowed, nothing is checked. */
// biome-ignore lint/suspicious/noExplicitAny: that is what unchecked means.
export type AnyActions = Record<string, { input: any; output: any; chunk: any }>;

/** The names of the actions in A. */
export type ActionName<A> = keyof A & string;

/** What action K is called with; undefined when it takes nothing. */
export type InputOf<A, K extends keyof A> = 'input' extends keyof A[K] ? A[K]['input'] : undefined;

/** What action K returns. */
export type OutputOf<A, K extends keyof A> = 'output' extends keyof A[K] ? A[K]['output'] : undefined;

/** What action K puts out while it runs. */
export type ChunkOf<A, K extends keyof A> = 'chunk' extends keyof A[K] ? Exclude<A[K]['chunk'], undefined> : unknown;

/** Arguments after the action's name: the payload may be left out where the action takes none. */
export type CallArgs<Input, Options> = undefined extends Input
  ? [payload?: Input, options?: Options]
  : [payload: Input, options?: Options];

/** The newest state of the current attempt. */
export interface Progress {
  /** 0 to 100; it never falls within an attempt. */
  percentage: number;
  message: string;
  metadata: Record<string, unknown> | undefined;
  /** From 1. */
  attempt: number;
  /** RFC 3339, when it was reported. */
  timestamp: string | undefined;
}

/** Where an output stands. */
export interface OutputInfo {
  /** From 0, one more with each output. A new attempt may count from a lower index again. */
  index: number;
  attempt: number;
  seq: number;
}

/** Says that events are missing, or that the log is another than before. */
export interface Gap {
  /** expired: older events are gone. recreated: another log. ahead: the log is shorter than it was. */
  reason: 'expired' | 'recreated' | 'ahead' | (string & {});
  /** seq of the last event before the gap. */
  after: number;
  /** seq of the first event after it. */
  oldest: number;
  attempt: number;
  epoch: string;
}

interface Numbered {
  /** Position in the request's log, from 1. */
  seq: number;
  /** Tells logs under the same id apart. With seq it is the cursor to attach with. */
  epoch: string;
  /** RFC 3339, where the server says it. */
  timestamp: string | undefined;
}

/**
 * What happens to a request. Iterations yield these in order; after `complete` they are over. A request
 * that failed or was canceled ends its iterations with the StreamerError. Kinds that this version
 * does not know may come, and are to be ignored.
 */
export type StreamerEvent<Chunk = unknown, Output = unknown> =
  | (Numbered & { type: 'accepted' })
  | (Numbered & {
      type: 'running';
      attempt: number;
      /** Outputs with this or a higher index are void: the attempt makes them anew. */
      outputsFrom: number;
    })
  | (Numbered & { type: 'output'; attempt: number; index: number; data: Chunk })
  | (Numbered & {
      type: 'retrying';
      attempt: number;
      /** error: the handler asked for it. lost: its worker was lost. shutdown: its worker shut down. */
      reason: string;
      /** Milliseconds until the next attempt. */
      delay: number;
      error: StreamerError | undefined;
    })
  | (Numbered & { type: 'canceling'; reason: string })
  | (Numbered & { type: 'complete'; success: boolean; result: Output })
  | (Progress & { type: 'progress' })
  | (Gap & { type: 'gap' });

/** A place in a request's log. */
export interface Cursor {
  epoch?: string | undefined;
  /** seq of the last event that was dealt with; without it the log is shown from its start. */
  after?: number | undefined;
}

/** Functions that are told about a request. What they throw is reported as an uncaught error and disturbs nothing else. */
export interface Callbacks<Chunk = unknown> {
  /** Newest progress; merged when several reports come at once. The last comes before the result. */
  onProgress?: ((progress: Progress) => void) | undefined;
  /** Each output once, in order. */
  onOutput?: ((data: Chunk, info: OutputInfo) => void) | undefined;
  /** A new attempt began: outputs with this or a higher index are void. */
  onRestart?: ((info: { attempt: number; outputsFrom: number }) => void) | undefined;
  /** Events are missing. Without it a gap shows in iterations only. */
  onGap?: ((gap: Gap) => void) | undefined;
}

export interface AttachOptions<Chunk = unknown> extends Callbacks<Chunk>, Cursor {
  /** Goes on behind what an earlier page had seen, where options.storage of the client knows it, instead of showing all again. */
  resume?: boolean | undefined;
  /** Aborting cancels the request at the server and rejects. */
  signal?: AbortSignal | undefined;
}

export interface RequestOptions<Chunk = unknown> extends Callbacks<Chunk> {
  /** 1 to 128 of A-Z a-z 0-9 . _ ~ -; submitting it again attaches to the request that is there. Default: a new UUID. */
  id?: string | undefined;
  /** The server sets user_id and tenant_id itself. */
  metadata?: Record<string, string> | undefined;
  /** Limit of one attempt at the server, in milliseconds. */
  timeout?: number | undefined;
  /** Aborting cancels the request at the server and rejects. */
  signal?: AbortSignal | undefined;
}

/**
 * A request at the server. Await it for the result, iterate over it for its events; any number of
 * times, in any order, or not at all.
 */
export interface RequestHandle<Output = unknown, Chunk = unknown>
  extends PromiseLike<Output>,
    AsyncIterable<StreamerEvent<Chunk, Output>> {
  readonly id: string;
  /** Resolves when the server has stored the request, or has shown that it has it. */
  readonly accepted: Promise<void>;
  /** The last event that has come. */
  readonly cursor: Cursor;
  /** Asks to end the request; resolves when that is recorded, or the request has ended. The handler may take its time to stop, or even succeed. */
  cancel(reason?: string): Promise<void>;
  /** Stops watching: what still waits rejects with the code CLOSED. The request goes on at the server. */
  detach(): void;
  catch<R = never>(onRejected?: ((reason: unknown) => R | PromiseLike<R>) | null): Promise<Output | R>;
  finally(onFinally?: (() => void) | null): Promise<Output>;
}

/**
 * What the connection is doing. idle: there is none, and nothing needs one. closed: given up for the
 * reason in error, or closed by close(); unless it was close(), the next call tries again.
 */
export type Phase = 'idle' | 'connecting' | 'open' | 'reconnecting' | 'closed';

export type TransportName = 'websocket' | 'sse' | 'poll';

export interface ConnectionState {
  readonly phase: Phase;
  /** The one in use, or tried last. */
  readonly transport: TransportName | undefined;
  /** While reconnecting: failures in a row. */
  readonly attempt: number;
  /** While reconnecting or closed: why. */
  readonly error: Error | undefined;
}

/** Why a connection is gone. */
export interface DisconnectInfo {
  /** None when nothing needed the connection any more, or the page was left. */
  error: Error | undefined;
  /** Another one will be made. */
  reconnecting: boolean;
}

/** What is needed of a Storage; sessionStorage and localStorage are some. */
export interface StorageLike {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
  removeItem(key: string): void;
}

/** Requests that are pending, by id, with the place of the last event that was dealt with. A Map is one. */
export type PendingRequests = Pick<Map<string, Cursor>, 'get' | 'set' | 'delete' | 'keys'>;

/** What is needed of a WebSocket. Those of browsers, Deno, Bun, Node 22 and the package ws have it. */
export type WebSocketLike = new (
  url: string,
  protocols: string[],
) => {
  readyState: number;
  onopen: ((event: never) => void) | null;
  onmessage: ((event: never) => void) | null;
  onclose: ((event: never) => void) | null;
  onerror: ((event: never) => void) | null;
  send(data: string): void;
  close(code?: number, reason?: string): void;
};

export interface ClientOptions {
  /** Says who the user is. For tokens that expire use getToken. */
  token?: string | null | undefined;
  /**
   * Asked for a token before each connect and when the server says that one expires, one call at a
   * time; null or undefined means none. When it throws a StreamerError with the code UNAUTHORIZED or
   * FORBIDDEN the client gives up; after any other error it asks again later.
   * The signal aborts when the answer is not waited for any more: token and connection have 10 s.
   */
  getToken?: ((signal: AbortSignal) => string | null | undefined | Promise<string | null | undefined>) | undefined;
  /** A connection is in use. */
  onConnect?: (() => void) | undefined;
  /** A connection that was in use is gone. */
  onDisconnect?: ((info: DisconnectInfo) => void) | undefined;
  onState?: ((state: ConnectionState) => void) | undefined;
  /** WebSocket class to use. Default: the global one, where there is one. */
  WebSocket?: WebSocketLike | undefined;
  /** Where requests that are pending are kept, so that a page that is loaded again can go on: what keepIn() of '@streamer/client/storage' returns. Default: nowhere. */
  storage?: PendingRequests | undefined;
}

export interface HttpOptions {
  /** auto: WebSocket, and where that is blocked server-sent events, and where these are held up polling. A forced one never falls back. */
  transport?: 'auto' | TransportName | undefined;
  /** Where /requests and /events are mounted. Default: the folder of the URL: wss://host/api/ws means https://host/api/. */
  http?: string | undefined;
  /** Default: the global one. */
  fetch?: typeof globalThis.fetch | undefined;
}
