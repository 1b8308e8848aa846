import { StreamerError } from './error.js';
import type { ActionName, AnyActions, ChunkOf, InputOf, OutputOf, WebSocketLike } from './types.js';

/** What a handler of a test server is given beside the payload. */
export interface TestContext<Chunk = unknown> {
  readonly id: string;
  readonly metadata: Record<string, string>;
  /** From 1. */
  readonly attempt: number;
  /** Aborts when the request is canceled or its worker is lost. */
  readonly signal: AbortSignal;
  /** Reports progress. A percentage is kept within 0 to 100 and never falls. */
  progress(percentage: number, message?: string, metadata?: Record<string, unknown>): void;
  /** Puts out a partial result. Throws when signal has aborted. */
  output(data: Chunk): void;
}

/** Does the work of one action. A StreamerError that it throws reaches the client as it is. */
export type TestHandler<Input = unknown, Output = unknown, Chunk = unknown> = (
  payload: Input,
  context: TestContext<Chunk>,
) => Output | Promise<Output>;

/** A request as the test server has it. */
export interface TestRequest {
  readonly id: string;
  readonly action: string;
  readonly payload: unknown;
  readonly metadata: Record<string, string>;
  readonly status: string;
  readonly attempt: number;
}

export interface TestServerOptions {
  /** Refuses connections: false closes with 4401, as for a token that is invalid. Default: all may connect. */
  authenticate?: ((token: string | undefined) => boolean) | undefined;
}

/**
 * A Streamer service in memory. What is in it is kept as a real one does: a log per request, which any
 * number of connections may follow and resume. It sets no timers: with fake ones time passes for the client only.
 */
export interface TestServer<A extends object = AnyActions> {
  /** Give both to the client: `new StreamerClient(server.url, { WebSocket: server.WebSocket, transport: 'websocket' })`. */
  readonly url: string;
  readonly WebSocket: WebSocketLike;
  /** Connections that are open. */
  readonly connections: number;
  /** Oldest first; of those that have ended the newest 1000. */
  readonly requests: readonly TestRequest[];
  /** While true, connecting fails. It leaves open connections alone; cut() ends those. */
  offline: boolean;
  handle<K extends ActionName<A>>(action: K, handler: TestHandler<InputOf<A, K>, OutputOf<A, K>, ChunkOf<A, K>>): void;
  /** Cuts all connections, as a network does. The requests go on. */
  cut(): void;
  /** Loses the workers of all requests that run: each begins another attempt, and makes its outputs anew. */
  loseWorkers(): void;
  /** Cuts all connections and forgets all requests, as a restart does where logs are in memory. Handlers that run are told by their signal. */
  forget(): void;
}

interface Message {
  type?: string;
  id?: string;
  ref?: string | undefined;
  seq?: number;
  [field: string]: unknown;
}

interface Entry {
  id: string;
  action: string;
  payload: unknown;
  metadata: Record<string, string>;
  epoch: string;
  status: string;
  attempt: number;
  outputs: number;
  log: Message[];
  progress: Message | undefined;
  control: AbortController;
  viewers: Set<Connection>;
}

interface Connection {
  send(message: Message): void;
  /** Ends it from the server's side. */
  end(code: number, reason: string): void;
}

const maxEnded = 1000;
const endStatus = new Set(['completed', 'failed', 'canceled']);

/** Makes an in-memory server for tests of what uses a StreamerClient. */
export function createTestServer<A extends object = AnyActions>(options: TestServerOptions = {}): TestServer<A> {
  const handlers = new Map<string, TestHandler>();
  const entries = new Map<string, Entry>();
  const connections = new Set<Connection>();
  let logs = 0;

  function append(entry: Entry, status: string, message: Message): void {
    const event = { ...message, request_id: entry.id, seq: entry.log.length + 1 };
    entry.status = status;
    entry.log.push(event);
    for (const viewer of entry.viewers) viewer.send(event);
    if (endStatus.has(status)) trim();
  }

  function trim(): void {
    const ended = [...entries.values()].filter((entry) => endStatus.has(entry.status));
    for (const entry of ended.slice(0, -maxEnded)) entries.delete(entry.id);
  }

  function fail(entry: Entry, error: Message): void {
    append(entry, error.code === 'CANCELED' ? 'canceled' : 'failed', { type: 'error', error });
  }

  async function attempt(entry: Entry): Promise<void> {
    const handler = handlers.get(entry.action);
    if (!handler) return;
    const control = new AbortController();
    const number = entry.attempt + 1;
    const current = () => entry.control === control && !endStatus.has(entry.status);
    entry.control = control;
    entry.attempt = number;
    entry.progress = undefined;
    append(entry, 'running', {
      type: 'status',
      status: 'running',
      attempt: number,
      ...(number > 1 && { outputs_from: entry.outputs }),
    });
    let percentage = 0;
    const context: TestContext = {
      id: entry.id,
      metadata: { ...entry.metadata },
      attempt: number,
      signal: control.signal,
      progress(value, text = '', metadata) {
        if (!current()) return;
        percentage = Math.min(100, Math.max(percentage, value));
        const timestamp = new Date().toISOString();
        const about = { request_id: entry.id, attempt: number, percentage, message: text, timestamp };
        entry.progress = copy({ type: 'progress', ...about, ...(metadata && { metadata }) });
        for (const viewer of entry.viewers) viewer.send(entry.progress);
      },
      output(data) {
        control.signal.throwIfAborted();
        if (!current()) throw new Error(`the request ${entry.id} has ended: its handler can't put out more`);
        append(entry, entry.status, copy({ type: 'output', attempt: number, index: entry.outputs++, data }));
      },
    };
    try {
      const result = await handler(copy(entry.payload), context);
      if (current()) append(entry, 'completed', copy({ type: 'complete', success: true, result }));
    } catch (error) {
      if (!current()) return;
      if (control.signal.aborted) fail(entry, { code: 'CANCELED', message: String(control.signal.reason.message) });
      else fail(entry, wireError(entry.action, error));
    }
  }

  /** Shows a log from a cursor on, to a connection that then gets what comes. */
  function show(entry: Entry, to: Connection, after: number): void {
    for (const event of entry.log.slice(after)) {
      if (entry.progress && endStatus.has(entry.status) && event === entry.log.at(-1)) to.send(entry.progress);
      to.send(event);
    }
    if (entry.progress && !endStatus.has(entry.status)) to.send(entry.progress);
    entry.viewers.add(to);
  }

  function submit(m: Message, from: Connection): void {
    const { id, action, payload = null, metadata = {} } = m as Message & { action: string };
    if (!id) throw new StreamerError('VALIDATION_ERROR', 'the request has no id');
    if (!handlers.has(action)) {
      const known = [...handlers.keys()].join(', ') || 'none yet';
      throw new StreamerError('INVALID_ACTION', `no handler of "${action}": server.handle() was called for ${known}`);
    }
    let entry = entries.get(id);
    const duplicate = entry !== undefined;
    if (entry && (entry.action !== action || JSON.stringify(entry.payload) !== JSON.stringify(payload))) {
      throw new StreamerError('CONFLICT', `the id ${id} was used before with another action or payload`);
    }
    if (!entry) {
      entry = {
        id,
        action,
        payload,
        metadata: metadata as Record<string, string>,
        epoch: `epoch${++logs}`,
        status: 'queued',
        attempt: 0,
        outputs: 0,
        log: [],
        progress: undefined,
        control: new AbortController(),
        viewers: new Set(),
      };
      entries.set(id, entry);
      append(entry, 'queued', { type: 'status', status: 'queued' });
      const fresh = entry;
      queueMicrotask(() => void (fresh.status === 'queued' && attempt(fresh)));
    }
    from.send({
      type: 'acknowledgment',
      ref: m.ref,
      request_id: id,
      epoch: entry.epoch,
      seq: 1,
      status: entry.status,
      duplicate,
      timestamp: new Date().toISOString(),
    });
    show(entry, from, 1);
  }

  function attach(m: Message, from: Connection): void {
    const entry = entries.get(m.id ?? '');
    if (!entry) throw new StreamerError('NOT_FOUND', `there is no request ${m.id}`);
    const after = Number(m.after ?? 0);
    const about = {
      ref: m.ref,
      request_id: entry.id,
      epoch: entry.epoch,
      after,
      oldest: 1,
      last: entry.log.length,
      status: entry.status,
      attempt: entry.attempt,
    };
    const reason = m.epoch && m.epoch !== entry.epoch ? 'recreated' : after > entry.log.length ? 'ahead' : undefined;
    from.send(reason ? { type: 'gap', reason, ...about } : { type: 'attached', action: entry.action, ...about });
    show(entry, from, reason ? 0 : after);
  }

  function cancel(m: Message, from: Connection): void {
    const entry = entries.get(m.id ?? '');
    if (!entry) throw new StreamerError('NOT_FOUND', `there is no request ${m.id}`);
    const told = endStatus.has(entry.status) ? entry.log.at(-1) : entry.log.find((e) => e.status === 'canceling');
    if (told) {
      from.send({ ...told, ref: m.ref });
      return;
    }
    const reason = typeof m.reason === 'string' && m.reason ? { reason: m.reason } : {};
    const viewed = entry.viewers.delete(from);
    append(entry, 'canceling', { type: 'status', status: 'canceling', ...reason });
    from.send({ ...entry.log.at(-1), ref: m.ref });
    if (viewed) entry.viewers.add(from);
    const message = reason.reason ?? 'canceled by a client';
    if (entry.attempt === 0) fail(entry, { code: 'CANCELED', message });
    else entry.control.abort(new StreamerError('CANCELED', message, { requestId: entry.id }));
  }

  const allowed = (m: Message) => !options.authenticate || options.authenticate(m.token as string | undefined);

  /** Reports whether the connection may go on. */
  function hello(m: Message, from: Connection): boolean {
    if (!allowed(m)) {
      from.end(4401, 'token refused');
      return false;
    }
    from.send({
      type: 'welcome',
      v: 1,
      session: 'test',
      ping_interval_ms: 86_400_000,
      pong_timeout_ms: 10_000,
      retention_ms: 86_400_000,
      limits: { max_message_bytes: 1 << 20, max_inflight: 1000, max_attached: 1000 },
      caps: ['batch'],
    });
    for (const cursor of (m.resume as Message[] | undefined) ?? []) receive({ ...cursor, type: 'attach' }, from);
    return true;
  }

  function receive(m: Message, from: Connection): void {
    const calls = new Map([
      ['request', submit],
      ['attach', attach],
      ['cancel', cancel],
    ]);
    try {
      calls.get(m.type ?? 'request')?.(m, from);
    } catch (e) {
      if (!StreamerError.is(e)) throw e;
      from.send({
        type: 'error',
        ref: m.ref,
        ...(m.id && { request_id: m.id }),
        error: { code: e.code, message: e.message },
      });
    }
    if (m.type === 'detach') entries.get(m.id ?? '')?.viewers.delete(from);
    if (m.type === 'ping') from.send({ type: 'pong', ref: m.ref });
    if (m.type === 'auth') {
      if (allowed(m)) from.send({ type: 'authenticated', ref: m.ref });
      else from.end(4401, 'token refused');
    }
  }

  class TestSocket {
    readyState = 0;
    readonly protocol = 'streamer.v1';
    onopen: ((event: never) => void) | null = null;
    onmessage: ((event: never) => void) | null = null;
    onclose: ((event: never) => void) | null = null;
    onerror: ((event: never) => void) | null = null;
    #welcome = false;
    #out: string[] = [];
    readonly #connection: Connection = {
      send: (message) => {
        if (this.#out.push(JSON.stringify(message)) === 1) queueMicrotask(() => this.#flush());
      },
      end: (code, reason) => {
        this.#flush();
        this.#closed(code, reason);
      },
    };

    constructor(_url: string | URL, _protocols?: string | string[]) {
      queueMicrotask(() => {
        if (this.readyState !== 0) return;
        if (server.offline) {
          this.#tell('onerror', {});
          this.#closed(1006, '');
          return;
        }
        this.readyState = 1;
        connections.add(this.#connection);
        this.#tell('onopen', {});
      });
    }

    send(data: string): void {
      if (this.readyState === 0) throw new DOMException('the WebSocket is not open yet', 'InvalidStateError');
      queueMicrotask(() => {
        for (const line of data.split('\n')) {
          if (this.readyState !== 1) return;
          const m: Message = JSON.parse(line);
          if (this.#welcome) receive(m, this.#connection);
          else if (m.type === 'hello') this.#welcome = hello(m, this.#connection);
          else this.#connection.end(4400, 'hello comes first');
        }
      });
    }

    close(code = 1005, reason = ''): void {
      if (this.readyState > 1) return;
      this.readyState = 2;
      this.#leave();
      queueMicrotask(() => this.#closed(code, reason));
    }

    #flush(): void {
      const data = this.#out.splice(0).join('\n');
      if (data && this.readyState === 1) this.#tell('onmessage', { data });
    }

    #closed(code: number, reason: string): void {
      if (this.readyState === 3) return;
      this.readyState = 3;
      this.#leave();
      this.#tell('onclose', { code, reason, wasClean: code !== 1006 });
    }

    #leave(): void {
      connections.delete(this.#connection);
      for (const entry of entries.values()) entry.viewers.delete(this.#connection);
    }

    #tell(name: 'onopen' | 'onmessage' | 'onclose' | 'onerror', event: object): void {
      this[name]?.(event as never);
    }
  }

  const server: TestServer<A> = {
    url: 'ws://streamer.test/ws',
    WebSocket: TestSocket,
    offline: false,
    get connections() {
      return connections.size;
    },
    get requests() {
      return [...entries.values()].map(({ id, action, payload, metadata, status, attempt }) => {
        return { id, action, payload, metadata, status, attempt };
      });
    },
    handle(action, handler) {
      handlers.set(action, handler as TestHandler);
    },
    cut() {
      for (const connection of connections) connection.end(1006, '');
    },
    loseWorkers() {
      for (const entry of entries.values()) {
        if (entry.attempt === 0 || endStatus.has(entry.status)) continue;
        const { control, attempt: lost } = entry;
        if (entry.status === 'canceling') {
          fail(entry, { code: 'CANCELED', message: String(control.signal.reason.message) });
          continue;
        }
        entry.outputs = 0;
        append(entry, 'retrying', {
          type: 'status',
          status: 'retrying',
          attempt: lost,
          reason: 'lost',
          retry_after_ms: 0,
        });
        void attempt(entry);
        control.abort(new Error(`the worker of attempt ${lost} was lost`));
      }
    },
    forget() {
      for (const entry of entries.values()) {
        const { control } = entry;
        entry.control = new AbortController();
        control.abort(new Error('the request was forgotten'));
      }
      entries.clear();
      server.cut();
    },
  };
  return server;
}

function wireError(action: string, error: unknown): Message {
  if (!StreamerError.is(error)) {
    return { code: 'INTERNAL_ERROR', message: `the test server's handler of "${action}" failed: ${error}` };
  }
  const { code, message, details, retryAfter } = error;
  return {
    code,
    message,
    ...(details && { details }),
    ...(retryAfter !== undefined && { retry_after_ms: retryAfter }),
  };
}

/** What the other side would get: nobody shares objects across a wire. */
function copy<T>(value: T): T {
  return value === undefined ? value : JSON.parse(JSON.stringify(value));
}
