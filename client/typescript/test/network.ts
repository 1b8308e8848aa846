import { setMaxListeners } from 'node:events';
import type { StorageLike, WebSocketLike } from '../src/index.js';
import type { Message } from '../src/wire.js';
import { type At, Service, Viewer } from './service.js';

const encoder = new TextEncoder();

/** The network between a client and a fake service: a class of WebSockets and a fetch, and what can go wrong. */
export class Network {
  readonly service = new Service();
  readonly url = 'ws://service/api/ws';
  sockets = new Set<FakeSocket>();
  streams = new Set<Stream>();
  /** When each connect or call began. */
  connects: number[] = [];
  calls: { method: string; path: string; headers: Headers }[] = [];
  /** Neither WebSockets nor calls come through. */
  offline = false;
  /** WebSockets do not. refuse: at once; hang: never answered. */
  block: 'refuse' | 'hang' | undefined;
  /** Streams show nothing until they end. */
  buffered = false;
  /** Streams and sockets end at once. */
  shortLived = false;
  /** Streams and pages are refused for now. */
  overloaded = false;
  /** Nothing is mounted for HTTP. */
  noHttp = false;
  welcome: Partial<Message> = {};
  /** Called with what a client sends. */
  heard: (m: Record<string, unknown>) => void = () => {};
  /** Called before a message goes to a client; returns false to lose it. */
  pass: (m: Message) => boolean = () => true;
  /** Characters that streams show in one piece. */
  piece = 1 << 20;

  private polls = new Set<() => void>(); // break them

  /** Returns a class of WebSockets for one client, which holds it to one socket at any moment, and another while it moves. */
  webSocket(): WebSocketLike {
    const network = this;
    const mine = new Set<FakeSocket>();
    return class extends FakeSocket {
      constructor(url: string, protocols: string[]) {
        super(network, url, protocols);
        mine.add(this);
        const open = [...mine].filter((s) => s.readyState < 2);
        if (open.length > 1 + open.filter((s) => s.leaving).length) throw new Error('there is another socket already');
      }
    } as unknown as WebSocketLike;
  }

  /** Breaks what is open. */
  cut(): void {
    for (const s of [...this.sockets]) s.end(1006, '');
    for (const s of [...this.streams]) s.fail();
    for (const fail of [...this.polls]) fail();
  }

  open(): FakeSocket[] {
    return [...this.sockets].filter((s) => s.readyState <= 1);
  }

  readonly fetch: typeof globalThis.fetch = (input, init = {}) => {
    const url = new URL(String(input));
    const headers = new Headers(init.headers);
    const { signal, method = 'GET' } = init;
    if (signal) setMaxListeners(0, signal); // as the fetch of Node does
    this.calls.push({ method, path: url.pathname + url.search, headers });
    this.connects.push(Date.now());
    const answer = new Promise<Response>((resolve, reject) => {
      const abort = () => reject(signal?.reason);
      signal?.addEventListener('abort', abort);
      setTimeout(() => {
        signal?.removeEventListener('abort', abort);
        if (this.offline) reject(new TypeError('fetch failed'));
        else if (this.noHttp)
          resolve(new Response('<html>', { status: 404, headers: { 'content-type': 'text/html' } }));
        else
          Promise.resolve(this.answer(url, method, headers, init.body as string, signal ?? undefined)).then(
            resolve,
            reject,
          );
      }, 1);
    });
    return answer;
  };

  private answer(
    url: URL,
    method: string,
    headers: Headers,
    body: string,
    signal?: AbortSignal,
  ): Response | Promise<Response> {
    const { service } = this;
    const token = headers.get('authorization')?.slice(7);
    const problem = (
      status: number,
      error: { code: string; message: string; retry_after_ms?: number },
      seq?: number,
    ) => {
      const { message, ...rest } = error;
      const headers = { 'content-type': 'application/problem+json' };
      return new Response(JSON.stringify({ status, detail: message, ...rest, seq }), { status, headers });
    };
    const json = (status: number, value: unknown, headers = {}) =>
      new Response(JSON.stringify(value), { status, headers: { 'content-type': 'application/json', ...headers } });
    if (!service.admit(token)) return problem(401, { code: 'UNAUTHORIZED', message: 'invalid token' });
    if (method === 'POST') {
      const m = JSON.parse(body);
      this.heard(m);
      const r = service.submit(m);
      if ('error' in r) {
        const status = { RATE_LIMITED: 429, SERVICE_UNAVAILABLE: 503, CONFLICT: 422 }[r.error.code] ?? 400;
        return problem(status, r.error);
      }
      const end = r.job.log[0];
      if (end?.type === 'response') return json(200, end);
      return json(202, service.acknowledgment(r.job, r.duplicate));
    }
    if (method === 'DELETE') {
      const job = service.jobs.get(decodeURIComponent(url.pathname.split('/').pop() ?? ''));
      if (!job) return problem(404, { code: 'NOT_FOUND', message: 'no such request' });
      this.heard({ type: 'cancel', id: job.id, reason: url.searchParams.get('reason') ?? undefined });
      if (!job.ended) job.cancel(url.searchParams.get('reason') ?? '');
      return json(202, { type: 'snapshot', request_id: job.id, seq: job.log.length, status: job.status });
    }
    if (this.overloaded) return problem(503, { code: 'SERVICE_UNAVAILABLE', message: 'full', retry_after_ms: 5000 });
    const at = url.searchParams.getAll('r').map((r): At => {
      const [id = '', epoch, after] = r.split(':');
      return { id, ...(epoch && { epoch }), after: Number(after ?? 0) };
    });
    const list = at.map((a) => service.attach(a));
    if (list.every((l) => !l.job)) return problem(404, { code: 'NOT_FOUND', message: 'no such request' });
    if (headers.get('accept') === 'application/json') return this.page(list, headers, json, signal);
    if (list.every((l) => !l.job || l.over)) return new Response(null, { status: 204 });
    return new Stream(this, list, signal).response;
  }

  // Answers with a page, at once or when there is something new.
  private page(
    list: ReturnType<Service['attach']>[],
    headers: Headers,
    json: (status: number, value: unknown, headers?: object) => Response,
    signal?: AbortSignal,
  ): Response | Promise<Response> {
    const make = () => {
      const events: Message[] = [];
      const put = (m: Message) => this.pass(m) && events.push(m);
      for (const { first, job, after } of list) {
        put(first);
        if (!job) continue;
        const v = new Viewer(job, after, put);
        v.show();
        v.stop();
      }
      const jobs = list.flatMap((l) => l.job ?? []);
      const etag = `"${jobs.map((j) => `${j.epoch}${j.log.length}${j.progress?.percentage}${j.progress?.message}`)}"`;
      const news = events.some((m) => m.type !== 'attached' && m.type !== 'progress');
      const known = headers.get('if-none-match');
      const done = jobs.every((j) => j.ended);
      const ready = news || done || (known !== null && known !== etag);
      return { etag, ready, response: () => json(200, { events, done }, { etag }) };
    };
    const now = make();
    const wait = Number(/wait=(\d+)/.exec(headers.get('prefer') ?? '')?.[1] ?? 0) * 1000;
    const late = () =>
      headers.get('if-none-match') === now.etag
        ? new Response(null, { status: 304, headers: { etag: now.etag } })
        : now.response();
    if (now.ready) return now.response();
    if (!wait) return late();
    return new Promise((resolve, reject) => {
      const watchers = list.flatMap((l) => (l.job ? [new Viewer(l.job, l.job.log.length, () => {})] : []));
      const stop = () => {
        signal?.removeEventListener('abort', fail);
        clearTimeout(timer);
        this.polls.delete(fail);
        for (const w of watchers) w.stop();
      };
      const fail = () => {
        stop();
        reject(new TypeError('terminated'));
      };
      this.polls.add(fail);
      const end = (r: Response) => {
        stop();
        resolve(r);
      };
      for (const w of watchers) {
        w.show = () => {
          const next = make();
          if (next.ready) end(next.response());
        };
      }
      const timer = setTimeout(() => end(late()), wait);
      signal?.addEventListener('abort', fail);
    });
  }
}

/** An event stream of the fake service. */
export class Stream {
  readonly response: Response;
  private controller!: ReadableStreamDefaultController<Uint8Array>;
  private viewers: Viewer[] = [];
  private text = '';
  private open = true;

  constructor(
    private network: Network,
    list: ReturnType<Service['attach']>[],
    signal?: AbortSignal,
  ) {
    const body = new ReadableStream<Uint8Array>({
      start: (c) => {
        this.controller = c;
      },
      cancel: () => this.close(),
    });
    this.response = new Response(body, { headers: { 'content-type': 'text/event-stream; charset=utf-8' } });
    network.streams.add(this);
    signal?.addEventListener('abort', () => this.fail(signal.reason));
    this.write(':\nretry: 1000\n\n');
    for (const { first, job, after } of list) {
      this.put(first);
      if (!job) continue;
      const v = new Viewer(job, after, (m) => {
        this.put(m);
        if (job.ended && m.seq === job.log.length) {
          v.stop();
          this.viewers.splice(this.viewers.indexOf(v), 1);
          if (!this.viewers.length) this.finish();
        }
      });
      this.viewers.push(v);
    }
    if (network.shortLived) this.close();
    for (const v of [...this.viewers]) v.show();
  }

  put(m: Message): void {
    if (this.network.pass(m)) this.write(`event: ${m.type}\r\ndata: ${JSON.stringify(m)}\r\n\r\n`);
  }

  private finish(): void {
    this.put({ type: 'end' });
    this.close();
  }

  private write(text: string): void {
    if (!this.open) return;
    this.text += text;
    if (!this.network.buffered) this.flush();
  }

  private flush(): void {
    const bytes = encoder.encode(this.text);
    this.text = '';
    for (let i = 0; i < bytes.length && this.open; i += this.network.piece) {
      this.controller.enqueue(bytes.slice(i, i + this.network.piece));
    }
  }

  /** Ends it in order. */
  close(): void {
    if (!this.open) return;
    this.flush();
    this.gone();
    try {
      this.controller.close();
    } catch {
      // The client has canceled it.
    }
  }

  /** Breaks it. */
  fail(reason: unknown = new TypeError('terminated')): void {
    if (!this.open) return;
    this.gone();
    this.controller.error(reason);
  }

  private gone(): void {
    this.open = false;
    this.network.streams.delete(this);
    for (const v of this.viewers) v.stop();
  }
}

/** A WebSocket of the fake service. */
export class FakeSocket {
  readyState = 0;
  onopen: ((e: object) => void) | null = null;
  onmessage: ((e: { data: string }) => void) | null = null;
  onclose: ((e: { code: number; reason: string }) => void) | null = null;
  onerror: ((e: object) => void) | null = null;
  greeted = false;
  /** It was told to go away. */
  leaving = false;
  private viewers = new Map<string, Viewer>();
  private out: Message[] = [];

  constructor(
    readonly network: Network,
    readonly url: string,
    readonly protocols: string[],
  ) {
    network.sockets.add(this);
    network.connects.push(Date.now());
    if (network.block === 'hang') return;
    setTimeout(() => {
      if (this.readyState) return;
      if (network.offline || network.block) this.end(1006, '');
      else {
        this.readyState = 1;
        this.onopen?.({});
        if (network.shortLived) this.end(1006, '');
      }
    }, 1);
  }

  /** Closes it, seen from the server. */
  end(code: number, reason: string): void {
    if (this.readyState === 3) return;
    this.readyState = 3;
    this.forget();
    this.onclose?.({ code, reason });
  }

  close(code = 1005, reason = ''): void {
    if (this.readyState >= 2) return;
    this.readyState = 2;
    this.forget();
    queueMicrotask(() => this.end(code, reason));
  }

  private forget(): void {
    this.network.sockets.delete(this);
    for (const v of this.viewers.values()) v.stop();
  }

  send(frame: string): void {
    if (this.readyState !== 1) return;
    for (const text of frame.split('\n')) setTimeout(() => this.readyState === 1 && this.hear(JSON.parse(text)), 0);
  }

  /** Has the client move to another socket. */
  goaway(ms: number): void {
    this.leaving = true;
    this.put({ type: 'goaway', reconnect_in_ms: ms });
  }

  /** Sends a message; those of one turn go out in one frame. */
  put(m: Message): void {
    if (!this.network.pass(m)) return;
    if (this.out.push(m) === 1) {
      queueMicrotask(() => {
        const frame = this.out.map((o) => JSON.stringify(o)).join('\n');
        this.out = [];
        if (this.readyState === 1) this.onmessage?.({ data: frame });
      });
    }
  }

  private follow(at: At, ref?: string): void {
    const { first, job, after } = this.network.service.attach(at);
    this.put({ ...first, ...(ref && { ref }) });
    this.viewers.get(at.id)?.stop();
    if (job) this.watch(new Viewer(job, after, (m) => this.put(m)));
  }

  private watch(v: Viewer): void {
    this.viewers.set(v.job.id, v);
    v.show();
  }

  private hear(
    m: { type: string; id: string; ref?: string; token?: string; resume?: At[]; action: string; reason?: string } & At,
  ): void {
    const { service, welcome } = this.network;
    this.network.heard(m as never);
    const ref = m.ref !== undefined && { ref: m.ref };
    if (m.type === 'hello') {
      if (!service.admit(m.token)) {
        this.end(4401, 'invalid token');
        return;
      }
      this.greeted = true;
      const limits = { max_message_bytes: 65536, max_inflight: 32, max_attached: 256 };
      this.put({ type: 'welcome', v: 1, ping_interval_ms: 25_000, limits, caps: ['batch'], ...welcome });
      for (const at of m.resume ?? []) this.follow(at);
    } else if (m.type === 'request') {
      const r = service.submit(m);
      if ('error' in r) this.put({ type: 'error', request_id: m.id, ...r, ...ref });
      else if (r.job.log[0]?.type === 'response') this.put({ ...r.job.log[0], ...ref });
      else {
        this.put({ ...service.acknowledgment(r.job, r.duplicate), ...ref });
        this.viewers.get(m.id)?.stop();
        this.watch(new Viewer(r.job, 1, (e) => this.put(e)));
      }
    } else if (m.type === 'attach') this.follow(m, m.ref);
    else if (m.type === 'detach') {
      this.viewers.get(m.id)?.stop();
      this.viewers.delete(m.id);
    } else if (m.type === 'cancel') {
      const job = service.jobs.get(m.id);
      if (!job)
        this.put({ type: 'error', request_id: m.id, error: { code: 'NOT_FOUND', message: 'no such request' }, ...ref });
      else {
        const before = job.log.length;
        if (!job.ended) job.cancel(m.reason);
        // The event that records it is the direct reply.
        const e = job.log[job.ended && before === job.log.length ? before - 1 : before];
        if (e) this.put({ ...e, ...ref });
      }
    } else if (m.type === 'ping') this.put({ type: 'pong' });
    else if (m.type === 'auth') this.put({ type: 'authenticated' });
  }
}

/** A Storage in memory. */
export class FakeStorage implements StorageLike {
  items = new Map<string, string>();
  getItem(key: string): string | null {
    return this.items.get(key) ?? null;
  }
  setItem(key: string, value: string): void {
    this.items.set(key, value);
  }
  removeItem(key: string): void {
    this.items.delete(key);
  }
}
