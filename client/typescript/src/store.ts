import type { Client } from './client.js';
import type { StreamerError } from './error.js';
import type { AttachOptions, Gap, Progress, RequestHandle, RequestOptions, StreamerEvent } from './types.js';

/**
 * How a request stands. idle: there is none. pending: the server has not answered yet. queued: it waits
 * for a worker. failed also covers what the client could not follow any more; see error.
 */
export type RequestStatus =
  | 'idle'
  | 'pending'
  | 'queued'
  | 'running'
  | 'retrying'
  | 'canceling'
  | 'completed'
  | 'failed'
  | 'canceled';

/** What a component shows of a request. It is never changed: news come as another one. */
export interface RequestState<Output = unknown, Chunk = unknown> {
  readonly status: RequestStatus;
  readonly id: string | undefined;
  /** Newest of the current attempt. */
  readonly progress: Progress | undefined;
  /** Without those that a later attempt made void; the newest where there are more than maxOutputs. */
  readonly outputs: readonly Chunk[];
  /** What a completed request returned. */
  readonly data: Output | undefined;
  /** Why it failed or was canceled. */
  readonly error: Error | undefined;
  /** The newest gap: outputs before it may be missing. */
  readonly gap: Gap | undefined;
}

export interface Store<Output, Chunk> {
  readonly initial: RequestState<Output, Chunk>;
  get(): RequestState<Output, Chunk>;
  subscribe(listener: () => void): () => void;
  submit(action: string, payload: unknown, options?: RequestOptions<Chunk>): RequestHandle<Output, Chunk>;
  cancel(reason?: unknown): Promise<void>;
  reset(): void;
}

const idle: RequestState<never, never> = {
  status: 'idle',
  id: undefined,
  progress: undefined,
  outputs: [],
  data: undefined,
  error: undefined,
  gap: undefined,
};

/**
 * Keeps what is known of one request, as long as somebody subscribes. Outputs and progress that come
 * together become one change. The last to leave detaches, when the server has stored the request;
 * who subscribes again, goes on.
 */
export function createStore<Output, Chunk>(
  client: Pick<Client, 'submit' | 'attach'>,
  maxOutputs = 1000,
  id?: string,
  start?: AttachOptions<Chunk>,
): Store<Output, Chunk> {
  type State = RequestState<Output, Chunk>;
  const initial: State = id === undefined ? idle : { ...idle, status: 'pending', id };
  const listeners = new Set<() => void>();
  let state = initial;
  let outputs: { index: number; data: Chunk }[] = [];
  let handle: RequestHandle<Output, Chunk> | undefined;
  let over = false;
  let epoch = start?.epoch;
  let after = start?.after;
  let changed = false;
  let progress: Progress | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;

  function set(change?: Partial<State>): void {
    clearTimeout(timer);
    timer = undefined;
    state = { ...state, progress, ...(changed && { outputs: outputs.map((o) => o.data) }), ...change };
    changed = false;
    for (const listener of listeners) listener();
  }

  function keep(these: typeof outputs): void {
    changed ||= these.length !== outputs.length;
    outputs = these;
  }

  /** Outputs and progress come from an attempt: where the cursor skipped its start, this shows that it runs. */
  function soon(): void {
    if (state.status === 'pending' || state.status === 'queued') set({ status: 'running' });
    timer ??= setTimeout(() => set());
  }

  function take(e: StreamerEvent<Chunk, Output>): void {
    if (e.type === 'progress') {
      const { type, ...report } = e;
      progress = report;
      soon();
      return;
    }
    epoch = e.epoch;
    after = e.type === 'gap' ? e.oldest - 1 : e.seq;
    switch (e.type) {
      case 'output':
        outputs.push({ index: e.index, data: e.data });
        if (outputs.length > maxOutputs) outputs.shift();
        changed = true;
        soon();
        break;
      case 'gap': {
        const { type, ...gap } = e;
        if (gap.reason !== 'expired') keep([]);
        progress = undefined;
        set({ gap });
        break;
      }
      case 'running':
        if (e.attempt > 1) keep(outputs.filter((o) => o.index < e.outputsFrom));
        progress = undefined;
        set({ status: 'running' });
        break;
      case 'accepted':
        set({ status: 'queued' });
        break;
      case 'retrying':
      case 'canceling':
        set({ status: e.type });
    }
  }

  async function follow(next: RequestHandle<Output, Chunk>): Promise<void> {
    handle = next;
    over = false;
    const current = () => handle === next;
    const known = () => {
      if (current() && state.status === 'pending') set({ status: 'queued' });
    };
    next.accepted.then(known, () => {});
    let end: Partial<State>;
    try {
      for await (const e of next) {
        if (!current()) return;
        take(e);
      }
      end = { status: 'completed', data: await next };
    } catch (e) {
      const error = e as StreamerError;
      const canceled = error.name === 'AbortError' || error.code === 'CANCELED';
      end = { status: canceled ? 'canceled' : 'failed', error };
    }
    if (!current()) return;
    over = true;
    set(end);
  }

  /** Stops watching a request, but not before the server has it. */
  function detach(left: RequestHandle<Output, Chunk>, still: () => boolean): void {
    const go = () => {
      if (!still()) return;
      if (handle === left) handle = undefined;
      left.detach();
    };
    left.accepted.then(go, go);
  }

  function drop(): void {
    if (handle) detach(handle, () => true);
    handle = progress = epoch = after = undefined;
    keep([]);
  }

  return {
    initial,
    get: () => state,
    subscribe(listener) {
      listeners.add(listener);
      if (!handle && state.id !== undefined) {
        void follow(client.attach<Output, Chunk>(state.id, { ...start, epoch, after }));
      }
      return () => {
        listeners.delete(listener);
        const left = handle;
        if (left && !over) detach(left, () => listeners.size === 0 && handle === left && !over);
      };
    },
    submit(action, payload, options) {
      drop();
      changed = false;
      const next = client.submit(action, payload, options) as RequestHandle<Output, Chunk>;
      set({ ...idle, status: 'pending', id: next.id });
      void follow(next);
      return next;
    },
    cancel(reason) {
      const canceled = handle ? handle.cancel(typeof reason === 'string' ? reason : undefined) : Promise.resolve();
      canceled.catch(() => {});
      return canceled;
    },
    reset() {
      drop();
      changed = false;
      set(initial);
    },
  };
}
