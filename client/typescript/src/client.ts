import { createLink } from './link.js';
import { openRequest } from './request.js';
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

/** What clients of all entries have in common. */
export interface Client<A extends object = AnyActions> {
  /** How the connection stands. The object stays the same while nothing changes. */
  readonly state: ConnectionState;

  /**
   * Submits a request and waits for its result. It rejects with a StreamerError when the server refuses or
   * fails the request, when the result says that it did not succeed (PROCESSING_FAILED), or when
   * options.signal aborts (CANCELED); a lost connection is none of these.
   */
  request<K extends ActionName<A>>(
    action: K,
    ...args: CallArgs<InputOf<A, K>, RequestOptions<ChunkOf<A, K>>>
  ): Promise<OutputOf<A, K>>;

  /** Submits a request and returns a handle at once. */
  submit<K extends ActionName<A>>(
    action: K,
    ...args: CallArgs<InputOf<A, K>, RequestOptions<ChunkOf<A, K>>>
  ): RequestHandle<OutputOf<A, K>, ChunkOf<A, K>>;

  /** Returns a handle of a request that was submitted before, here or elsewhere by the same user. */
  attach<Output = unknown, Chunk = unknown>(id: string, options?: AttachOptions<Chunk>): RequestHandle<Output, Chunk>;

  /** Returns the ids of requests that are followed, or that options.storage has from an earlier page. */
  pending(): string[];

  /** Has listener called with each new state; returns what ends that. */
  subscribe(listener: (state: ConnectionState) => void): () => void;

  /** Connects anew at once if something is pending, whatever was to be waited for. */
  reconnect(): void;

  /** Ends the connection and everything that waits, with the code CLOSED. Requests go on at the server. */
  close(): void;
}

/** Makes client one of a service. */
export function createClient(client: object, options: ClientOptions, choice: Choice): void {
  const link = createLink(client, options, choice);
  const submit = (action: string, payload: unknown, options: RequestOptions<never> = {}, unseen?: boolean) => {
    const { id = crypto.getRandomValues(new Uint32Array(4)).join('-'), metadata, timeout } = options;
    return openRequest(
      link,
      id,
      options,
      { action, payload, metadata, timeout_ms: timeout && Math.ceil(timeout) },
      unseen,
    );
  };
  Object.assign(client, {
    request: (action: string, payload: unknown, options?: RequestOptions<never>) =>
      submit(action, payload, options, true).then(),
    submit,
    attach: (id: string, options: AttachOptions<never> = {}) =>
      openRequest(link, id, { ...(options.resume && link._storage.get(id)), ...options }),
  });
}
