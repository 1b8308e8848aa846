import { StreamerError } from './error.js';
import { callOut, type Request } from './request.js';
import type { Choice, Connection, Transport } from './transport.js';
import type { ClientOptions, ConnectionState, Cursor } from './types.js';
import { late, type Message } from './wire.js';

/** One connection, or the attempt to make one. Once it is over nothing that comes from it counts. */
interface Attempt {
  _over?: boolean;
  /** Aborts when it is over. */
  _stop: AbortController;
  _transport: Transport;
  _conn?: Connection;
  /** When the server was first heard, in ms. */
  _heard?: number;
  _token?: string | undefined;
  _timer?: ReturnType<typeof setTimeout>;
}

export type Link = ReturnType<typeof createLink>;

/** Keeps a connection while something is pending, and has requests shown on it. */
export function createLink(client: object, options: ClientOptions, choice: Choice) {
  const maxPending = 1000;
  const backoffLeast = 500;
  const backoffMost = 20_000;
  const patience = 10_000; // for a token and a welcome
  const healthyAfter = 5000; // of life: then backoff starts over
  const maxWait = 3_600_000; // whatever the server says
  const { storage = new Map<string, Cursor>() } = options;
  const listeners = new Set([options.onState]);
  const requests = new Set<Request>();
  const page = globalThis.document;
  let limits: NonNullable<Message['limits']> = {}; // of the connection in use
  let current: Attempt | undefined; // in use
  let coming: Attempt | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined; // of the next connect
  let moving = false; // the server has asked to
  let failures = 0; // in a row
  let denied = false; // the newest token was refused
  let floor = 0; // when to connect again at the earliest
  let due = 0; // when to connect again
  let closed: StreamerError | undefined;
  let shown = 'idle,,0,'; // all of the state
  let open = false;
  let asking: Promise<string | null | undefined> | undefined;
  let lastError: Error | undefined;

  // What the client has of it.
  const face = Object.assign(client, {
    state: { phase: 'idle', transport: undefined, attempt: 0, error: undefined } as ConnectionState,
    pending: () => [...storage.keys()],
    subscribe(listener: (state: ConnectionState) => void) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    reconnect() {
      if (closed) return;
      failures = floor = due = 0;
      drop(coming);
      drop(current);
      schedule(0);
    },
    close() {
      closed = new StreamerError('CLOSED', 'the client is closed');
      clearTimeout(timer);
      listen('removeEventListener');
      drop(coming);
      drop(current);
      setState('closed', closed);
      for (const r of requests) r._fail(closed, true);
    },
  });
  const setState = (phase: ConnectionState['phase'], error?: Error, transport = face.state.transport) => {
    const attempt = phase === 'reconnecting' ? failures : 0;
    const all = `${[phase, transport, attempt, error]}`;
    if (shown === (shown = all)) return;
    face.state = { phase, transport, attempt, error };
    if (open !== (open = phase === 'open')) {
      callOut(open ? options.onConnect : options.onDisconnect, { error, reconnecting: /ing$/.test(phase) });
    }
    for (const listener of listeners) callOut(listener, face.state);
  };

  // Sends what waits, as far as the server's limits allow.
  const pump = () => {
    const conn = current?._conn;
    if (!conn) return;
    const { max_inflight: inflight = 32, max_attached: slots = 64, max_message_bytes: most = Infinity } = limits;
    let sent = 0;
    let taken = 0;
    for (const r of requests) {
      if (r._asked) sent++;
      if (r._canceling) sent++;
      if (r._on) taken++;
    }
    for (const r of requests) {
      if (r._canceled && !r._text && !r._canceling && sent < inflight) {
        sent++;
        r._canceling = true;
        conn._send({ type: 'cancel', id: r._id, ref: `-${r._ref}`, reason: r._reason });
      }
    }
    for (const r of requests) {
      // Some room is left, so that a cancel need not wait.
      if (moving || sent >= inflight - (inflight >> 2) || taken >= slots) return;
      if (r._on || r._full || r._refused) continue;
      const { _id: id, _ref: ref, _text: text = '' } = r;
      const { size } = new Blob([text]);
      if (size > most)
        r._fail(new StreamerError('PAYLOAD_TOO_LARGE', `${size} bytes, the server takes ${most}`, { requestId: id }));
      else {
        sent++;
        taken++;
        r._on = r._asked = r._tried = true;
        conn._send({ type: 'attach', id, ref, ...r._cursor }, text);
      }
    }
  };
  // Ends showing it. Other handles of the same request are attached anew.
  const off = (r: Request) => {
    if (!r._on) return;
    r._on = false;
    current?._conn?._send({ type: 'detach', id: r._id });
    for (const other of requests) {
      if (other._id === r._id) other._on = other._asked = false;
    }
  };

  const schedule = (at: number) => {
    clearTimeout(timer);
    due = at;
    timer = setTimeout(
      () => {
        timer = undefined;
        if (!requests.size) current || setState('idle');
        else if (!failures || !page?.hidden) dial();
      },
      Math.min(Math.max(at - Date.now(), 0), maxWait),
    );
  };

  // Ends an attempt without a verdict.
  const drop = (a: Attempt | undefined) => {
    if (!a) return;
    a._over = true;
    a._stop.abort();
    asking = undefined;
    clearTimeout(a._timer);
    a._conn?._close();
    if (a === coming) coming = undefined;
    if (a !== current) return;
    current = undefined;
    moving = false;
    for (const r of requests) r._on = r._asked = r._canceling = false;
  };

  // Asks for a token, one question at a time.
  const ask = (a: Attempt) =>
    (asking ??= Promise.resolve(a._stop.signal)
      .then(options.getToken ?? (() => options.token))
      .finally(() => {
        asking = undefined;
      }));

  const dial = async () => {
    const transport = choice._next();
    const a: Attempt = { _transport: transport, _stop: new AbortController() };
    const gone = (...why: [unknown, number?, number?, number?]) => lost(a, ...why);
    coming = a;
    if (!current) setState(failures ? 'reconnecting' : 'connecting', failures ? lastError : undefined, transport._name);
    let foreign = 0;
    a._timer = setTimeout(() => gone(new Error(late), foreign * 2), patience);
    try {
      a._token = (await ask(a)) ?? undefined;
      if (a._over) return;
      foreign = 1;
      a._conn = transport._dial({
        _token: a._token,
        _receive: (m, size) => receive(a, m, size),
        _lost: gone,
        _requests: requests,
      });
    } catch (e) {
      gone(e, foreign, /^(UNAUTHORIZED|FORBIDDEN|VALIDATION_ERROR)$/.test((e as StreamerError)?.code) ? 400 : 0);
    }
  };

  const receive = (a: Attempt, m: Message, size: number) => {
    const { type } = m;
    if (type === 'welcome') {
      clearTimeout(a._timer);
      drop(current);
      coming = undefined;
      current = a;
      limits = m.limits ?? {};
    }
    if (a !== current) return;
    if (size) {
      a._heard ??= Date.now();
      setState('open', undefined, a._transport._name);
    }
    if (type === 'ping') (a._conn as Connection)._send({ type: 'pong' });
    else if (type === 'goaway') {
      moving = true;
      schedule(Date.now() + (m.reconnect_in_ms as number));
    } else if (type === 'auth_expiring') {
      // Without another token the server ends the connection, and the next one asks again.
      ask(a).then(
        (token) => {
          if (!a._over && token && token !== a._token)
            (a._conn as Connection)._send({ type: 'auth', token: (a._token = token) });
        },
        () => {},
      );
    } else for (const r of requests) if (r._id === m.request_id) r._receive(m, size);
    pump();
  };

  const lost = (a: Attempt, error: unknown, foreign = 0, status = 0, wait = 0) => {
    if (a._over) return;
    const used = a === current;
    drop(a);
    const other = choice._ended?.(a._transport, a._heard, foreign);
    if (Date.now() - (a._heard as number) >= healthyAfter) {
      failures = 0;
      denied = false;
    }
    lastError = error as Error;
    const refused = status === 401;
    const stop = !other && (refused ? denied : /^4(?!08|25|29)/.test(`${status}`));
    denied = refused;
    // The server asked to move, and that is under way.
    if (used && (coming || (timer && !stop))) return setState('reconnecting', lastError);
    floor = Date.now() + wait;
    due = floor + Math.random() * Math.min(backoffLeast * 2 ** failures++, backoffMost);
    if (stop) {
      const failure = StreamerError.is(error)
        ? error
        : new StreamerError(
            refused ? 'UNAUTHORIZED' : status === 403 ? 'FORBIDDEN' : 'SERVICE_UNAVAILABLE',
            `connection refused: ${lastError.message}`,
          );
      drop(current);
      setState('closed', failure);
      for (const r of requests) r._fail(failure, true);
    } else if (requests.size) {
      if (!current) setState('reconnecting', lastError);
      schedule(due);
    } else {
      // Nobody was kept waiting by it.
      failures = 0;
      due = floor;
      setState('idle');
    }
  };

  // Connects without waiting longer than the server has asked for.
  const hurry = () => {
    if (page?.hidden) return;
    if (current && !moving) (current._conn as Connection)._send({ type: 'ping' });
    else if (!coming && requests.size) schedule(floor);
  };
  const hide = () => {
    clearTimeout(timer);
    timer = undefined;
    drop(coming);
    drop(current);
    setState(requests.size ? 'reconnecting' : 'idle');
  };
  const listen = (how: 'addEventListener' | 'removeEventListener') => {
    for (const type of ['online', 'pageshow', 'visibilitychange']) globalThis[how]?.(type, hurry);
    globalThis[how]?.('pagehide', hide);
  };

  return {
    _storage: storage,
    _count: 0, // of requests until now
    _pump: pump,
    _off: off,
    /** Takes a request. It throws when that can not be. */
    _join(r: Request) {
      if (closed) throw closed;
      if (requests.size >= maxPending) throw new StreamerError('RATE_LIMITED', `${maxPending} requests are pending`);
      requests.add(r);
      if (!storage.get(r._id)) storage.set(r._id, r._cursor);
      pump();
      if ((current && !moving) || coming || timer) return;
      listen('addEventListener'); // what listens already is not added again
      schedule(due);
    },
    /** Lets go of a request; keep: it is still pending for the page that comes after this one. */
    _leave(r: Request, keep?: boolean) {
      requests.delete(r);
      if (!keep && ![...requests].some((other) => other._id === r._id)) storage.delete(r._id);
      off(r);
      pump();
    },
  };
}
