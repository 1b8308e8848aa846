import {
  type Context,
  createContext,
  createElement,
  type ReactElement,
  type ReactNode,
  useCallback,
  useContext,
  useState,
  useSyncExternalStore,
} from 'react';
import type { Client } from './client.js';
import { createStore, type RequestState, type Store } from './store.js';
import type {
  ActionName,
  AnyActions,
  CallArgs,
  ChunkOf,
  ConnectionState,
  Cursor,
  InputOf,
  OutputOf,
  RequestHandle,
  RequestOptions,
} from './types.js';

export type { RequestState, RequestStatus } from './store.js';

// biome-ignore lint/suspicious/noExplicitAny: clients of all types of actions are welcome.
type AnyClient = Client<any>;

const ClientContext: Context<AnyClient | undefined> = createContext<AnyClient | undefined>(undefined);

/** Gives the hooks below it their client. The client stays the caller's: the provider never closes it. */
export function StreamerProvider(props: { client: AnyClient; children?: ReactNode }): ReactElement {
  return createElement(ClientContext.Provider, { value: props.client }, props.children);
}

function useClient(): AnyClient {
  const client = useContext(ClientContext);
  if (!client)
    throw new Error('there is no Streamer client here: put <StreamerProvider client={client}> above this component');
  return client;
}

export interface StateOptions {
  /** How many outputs are kept, the newest. Default: 1000. Counts when a request is first followed. */
  maxOutputs?: number | undefined;
}

/** What useAttach returns. */
export interface AttachedRequest<Output = unknown, Chunk = unknown> extends RequestState<Output, Chunk> {
  /** Asks to end the request. A promise that nobody waits for may be ignored. */
  cancel(reason?: unknown): Promise<void>;
}

/** What useRequest returns. */
export interface UsedRequest<Input = unknown, Output = unknown, Chunk = unknown>
  extends AttachedRequest<Output, Chunk> {
  /** Submits a request and shows it instead of the one before, which goes on unseen. The handle may be awaited, or ignored. */
  run(...args: CallArgs<Input, RequestOptions<Chunk>>): RequestHandle<Output, Chunk>;
  /** Shows no request any more. It cancels nothing. */
  reset(): void;
}

interface Held<Output, Chunk> {
  client: AnyClient;
  key: string | null | undefined;
  store: Store<Output, Chunk>;
}

/** Keeps a store for as long as client and key are the same. */
function useStore<Output, Chunk>(
  key: string | null | undefined,
  make: (client: AnyClient) => Store<Output, Chunk>,
): [Store<Output, Chunk>, RequestState<Output, Chunk>] {
  const client = useClient();
  const fresh = (): Held<Output, Chunk> => ({ client, key, store: make(client) });
  let [held, hold] = useState(fresh);
  if (held.client !== client || held.key !== key) {
    held = fresh();
    hold(held);
  }
  const { store } = held;
  return [store, useSyncExternalStore(store.subscribe, store.get, () => store.initial)];
}

/**
 * Runs requests of one action, and shows the newest. When the component is unmounted the request goes
 * on at the server; it is canceled by cancel() only.
 */
export function useRequest<A extends object = AnyActions, K extends ActionName<A> = ActionName<A>>(
  action: K,
  options: StateOptions = {},
): UsedRequest<InputOf<A, K>, OutputOf<A, K>, ChunkOf<A, K>> {
  const [store, state] = useStore(action, (client) =>
    createStore<OutputOf<A, K>, ChunkOf<A, K>>(client, options.maxOutputs),
  );
  const run = useCallback(
    (...[payload, requestOptions]: CallArgs<InputOf<A, K>, RequestOptions<ChunkOf<A, K>>>) =>
      store.submit(action, payload, requestOptions),
    [store, action],
  );
  return { ...state, run, cancel: store.cancel, reset: store.reset };
}

/**
 * Shows a request that exists, from the cursor or from its start; none while id is null or undefined.
 * The cursor counts when the id is first seen.
 */
export function useAttach<Output = unknown, Chunk = unknown>(
  id: string | null | undefined,
  options: StateOptions & Cursor = {},
): AttachedRequest<Output, Chunk> {
  const [store, state] = useStore(id, (client) => {
    const { maxOutputs, ...cursor } = options;
    return createStore<Output, Chunk>(client, maxOutputs, id ?? undefined, cursor);
  });
  return { ...state, cancel: store.cancel };
}

const unknown: ConnectionState = { phase: 'idle', transport: undefined, attempt: 0, error: undefined };

/** What the client's connection is doing. */
export function useConnectionState(): ConnectionState {
  const client = useClient();
  const subscribe = useCallback((listener: () => void) => client.subscribe(listener), [client]);
  return useSyncExternalStore(
    subscribe,
    () => client.state,
    () => unknown,
  );
}
