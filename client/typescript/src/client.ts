import { createEngine, type Engine } from './engine.js';
import { callOut, openHandle } from './handle.js';
import { createLink, type Link } from './link.js';
import { createMemory, type Memory } from './memory.js';
import type { Choice } from './transport.js';
import type {
  ActionName,
  AnyActions,
  AttachOptions,
  CallArgs,
  ChunkOf,
  ClientOptions,
  ConnectionState,
  InputOf,
  OutputOf,
  RequestHandle,
  RequestOptions,
} from './types.js';

/** What the client classes of all entries have in common. */
export class Client<A extends object = AnyActions> {
  readonly #engine: Engine;
  readonly #link: Link;
  readonly #memory: Memory;
  readonly #listeners = new Set<(state: ConnectionState) => void>();

  protected constructor(options: ClientOptions, choice: Choice) {
    const { onConnect, onDisconnect, onState } = options;
    this.#memory = createMemory(options.storage);
    let link: Link | undefined;
    this.#engine = createEngine((host) => {
      link = createLink(host, options, choice, (state, old) => {
        const open = state.phase === 'open';
        if (open && old.phase !== 'open') callOut(onConnect, undefined);
        if (!open && old.phase === 'open') {
          callOut(onDisconnect, { error: state.error, reconnecting: /ing$/.test(state.phase) });
        }
        callOut(onState, state);
        for (const listener of [...this.#listeners]) callOut(listener, state);
      });
      return link;
    }, this.#memory);
    this.#link = link as unknown as Link;
  }

  /** How the connection stands. The object stays the same while nothing changes. */
  get state(): ConnectionState {
    return this.#link.state();
  }

  /**
   * Submits a request and waits for its result. It rejects with a StreamerError when the server refuses or
   * fails the request, when the result says that it did not succeed (PROCESSING_FAILED), or when
   * options.signal aborts (CANCELED); a lost connection is none of these.
   */
  request<K extends ActionName<A>>(
    action: K,
    ...[payload, options]: CallArgs<InputOf<A, K>, RequestOptions<ChunkOf<A, K>>>
  ): Promise<OutputOf<A, K>> {
    return this.#submit<OutputOf<A, K>, ChunkOf<A, K>>(action, payload, options, true).finally();
  }

  /** Submits a request and returns a handle at once. */
  submit<K extends ActionName<A>>(
    action: K,
    ...[payload, options]: CallArgs<InputOf<A, K>, RequestOptions<ChunkOf<A, K>>>
  ): RequestHandle<OutputOf<A, K>, ChunkOf<A, K>> {
    return this.#submit(action, payload, options);
  }

  /** Returns a handle of a request that was submitted before, here or elsewhere by the same user. */
  attach<Output = unknown, Chunk = unknown>(
    id: string,
    options: AttachOptions<Chunk> = {},
  ): RequestHandle<Output, Chunk> {
    const stored = options.resume && this.#memory.cursor(id);
    return openHandle(this.#engine, { id, options: { ...stored, ...options } as never });
  }

  /** Returns the ids of requests that are followed, or that options.storage has from an earlier page. */
  pending(): string[] {
    return [...new Set([...this.#memory.ids(), ...this.#engine.ids()])];
  }

  /** Has listener called with each new state; returns what ends that. */
  subscribe(listener: (state: ConnectionState) => void): () => void {
    this.#listeners.add(listener);
    return () => {
      this.#listeners.delete(listener);
    };
  }

  /** Connects anew at once if something is pending, whatever was to be waited for. */
  reconnect(): void {
    this.#link.reconnect();
  }

  /** Ends the connection and everything that waits, with the code CLOSED. Requests go on at the server. */
  close(): void {
    this.#link.close();
  }

  #submit<Output, Chunk = unknown>(
    action: string,
    payload: unknown,
    options: RequestOptions<Chunk> = {},
    unseen = false,
  ): RequestHandle<Output, Chunk> {
    const { id = randomId(), metadata, timeout } = options;
    const encode = (ref: string) =>
      JSON.stringify({
        type: 'request',
        id,
        ref,
        action,
        payload,
        metadata,
        timeout_ms: timeout && Math.ceil(timeout),
      });
    return openHandle(this.#engine, { id, encode, unseen, options: options as never });
  }
}

function randomId(): string {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((b) => b.toString(16).padStart(2, '0')).join('');
}
