import { later } from './clock.js';
import type { Host } from './engine.js';
import { StreamerError } from './error.js';
import type { Choice, Connection, Transport } from './transport.js';
import type { ClientOptions, ConnectionState } from './types.js';
import { bounded, broken, type Verdict } from './verdict.js';
import type { Message } from './wire.js';

const backoffLeast = 500;
const backoffMost = 20_000;
const healthyAfter = 5000; // of life: then backoff starts over
const tokenTime = 10_000;

/** Keeps a connection while something is pending. */
export interface Link {
  /** Something is pending. */
  want(): void;
  /** Something is not pending any more. */
  calm(): void;
  /** The server has asked to move to another connection. */
  moving(): boolean;
  /** Why calls would fail at once. */
  refusal(): StreamerError | undefined;
  state(): ConnectionState;
  reconnect(): void;
  close(): void;
}

/** One connection, or the attempt to make one. Once it is over nothing that comes from it counts. */
interface Attempt {
  over: boolean;
  transport: Transport;
  conn?: Connection;
  resumed: ReturnType<Host['resume']>;
  /** When the server was first heard, in ms; 0: not yet. */
  welcomed: number;
  token?: string | undefined;
  unwait(): void;
}

export function createLink(
  host: Host,
  options: ClientOptions,
  choice: Choice,
  changed: (state: ConnectionState, old: ConnectionState) => void,
): Link {
  let current: Attempt | undefined; // in use
  let coming: Attempt | undefined;
  let unwait: (() => void) | undefined; // calls off the next connect
  let moving = false;
  let failures = 0; // in a row
  let denied = false; // the newest token was refused
  let floor = 0; // when to connect again at the earliest
  let due = 0; // when to connect again
  let refused: StreamerError | undefined;
  let lastError: Error | undefined;
  let away = false; // the page is in the back/forward cache
  let parked = false; // until the page is seen
  let closed: StreamerError | undefined;
  let state: ConnectionState = { phase: 'idle', transport: undefined, attempt: 0, error: undefined };
  let unlisten: (() => void) | undefined;
  let asking: Promise<string | null | undefined> | undefined;

  const setState = (phase: ConnectionState['phase'], error?: Error, transport = state.transport) => {
    const attempt = phase === 'reconnecting' ? failures : 0;
    const old = state;
    if (old.phase === phase && old.transport === transport && old.attempt === attempt && old.error === error) return;
    state = { phase, transport, attempt, error };
    changed(state, old);
  };
  const page = () => globalThis.document as Document | undefined;

  const schedule = (at: number) => {
    unwait?.();
    due = at;
    unwait = later(Math.max(at - Date.now(), 0), () => {
      unwait = undefined;
      if (!host.pending()) rest();
      else if (away || (failures && page()?.hidden)) parked = true;
      else dial();
    });
  };

  // Nothing is pending.
  const rest = () => {
    unwait?.();
    unwait = undefined;
    parked = false;
    if (moving && current) drop(current, 'idle');
    moving = false;
    if (!current && !coming && !closed && state.phase !== 'idle') setState('idle');
  };

  // Ends an attempt without a verdict.
  const drop = (a: Attempt, reason: string) => {
    a.over = true;
    a.unwait();
    a.conn?.close(reason);
    if (a === coming) coming = undefined;
    if (a !== current) return;
    current = undefined;
    moving = false;
    host.orphan();
  };

  // Asks for a token, one question at a time.
  const ask = () => {
    if (!asking && options.getToken) {
      const getToken = options.getToken;
      const stop = new AbortController();
      const mine = new Promise<string | null | undefined>((resolve, reject) => {
        const tooLate = later(tokenTime, () => {
          stop.abort();
          reject(new Error('getToken took longer than 10 s'));
        });
        Promise.resolve(stop.signal).then(getToken).then(resolve, reject).finally(tooLate);
      }).finally(() => {
        asking = undefined;
      });
      asking = mine;
    }
    return asking ?? Promise.resolve(options.token);
  };

  const dial = async () => {
    parked = false;
    const transport = choice.next();
    const a: Attempt = { over: false, transport, resumed: new Map(), welcomed: 0, unwait: () => {} };
    coming = a;
    if (!current) setState(failures ? 'reconnecting' : 'connecting', failures ? lastError : undefined, transport.name);
    try {
      a.token = (await ask()) ?? undefined;
    } catch (e) {
      const error = e instanceof Error ? e : new Error(String(e));
      const stop = StreamerError.is(e) && (e.code === 'UNAUTHORIZED' || e.code === 'FORBIDDEN') ? e : undefined;
      lost(a, { error, stop });
      return;
    }
    if (a.over) return;
    a.unwait = later(transport.patience, () =>
      lost(a, { error: new Error('the server sent no welcome in time'), foreign: true, late: true }),
    );
    a.resumed = host.resume();
    try {
      a.conn = transport.dial({
        token: a.token,
        resume: [...a.resumed.values()],
        receive: (messages) => receive(a, messages),
        lost: (v) => lost(a, v),
      });
    } catch (e) {
      lost(a, StreamerError.is(e) ? { error: e, stop: e } : { error: e as Error, foreign: true });
    }
  };

  const receive = (a: Attempt, messages: Message[]) => {
    for (const m of messages) {
      if (a.over) break;
      if (m.type === 'welcome' && a === coming) adopt(a, m);
      else if (a !== current) continue;
      else if (m.type === 'goaway') move(m);
      else if (m.type === 'auth_expiring') refresh(a);
      else if (m.type === 'alive') {
        a.welcomed ||= Date.now();
        setState('open', undefined, m.transport);
      } else host.dispatch(m);
    }
    if (a === current) host.settle();
  };

  const adopt = (a: Attempt, m: Message) => {
    if (m.v !== 1) {
      lost(a, broken('the server speaks another version of the protocol'));
      return;
    }
    a.unwait();
    if (!m.unproven) a.welcomed = Date.now();
    if (current) drop(current, 'moved');
    coming = undefined;
    current = a;
    host.adopt(a.conn as Connection, m, a.resumed);
    if (m.unproven) return;
    setState('open', undefined, m.transport);
  };

  const lost = (a: Attempt, v: Verdict) => {
    if (a.over) return;
    a.over = true;
    a.unwait();
    const used = a === current;
    v = choice.ended(a.transport, a.welcomed > 0, v);
    drop(a, 'lost');
    if (a.welcomed && Date.now() - a.welcomed >= healthyAfter) {
      failures = 0;
      denied = false;
    }
    lastError = v.error;
    let stop = v.stop;
    if (v.denied && !denied) stop = undefined;
    denied = !!v.denied;
    if (used && (coming || (unwait && !stop))) {
      // The server asked to move, and that is under way.
      setState('reconnecting', v.error);
      return;
    }
    const now = Date.now();
    const offline = globalThis.navigator?.onLine === false;
    const bound = offline ? backoffMost : Math.min(backoffLeast * 2 ** failures, backoffMost);
    floor = now + bounded(v.floor);
    failures++;
    const at = floor + Math.random() * Math.max(bound, v.spread ?? 0) + (offline ? bound : 0);
    if (stop) {
      refused = stop;
      due = at;
      if (current) drop(current, 'gave up');
      host.fail(stop);
      setState('closed', stop);
    } else if (host.pending()) {
      if (!current) setState('reconnecting', v.error);
      schedule(at);
    } else {
      if (failures === 1) failures = 0; // nobody was kept waiting by it
      due = failures ? at : floor;
      rest();
    }
  };

  const move = (m: Message) => {
    if (moving) return;
    moving = true;
    schedule(Date.now() + bounded(m.reconnect_in_ms));
  };

  // Sends a new token on a connection whose token expires. Without one the server ends the
  // connection, and the next one asks again.
  const refresh = (a: Attempt) => {
    if (!options.getToken) return;
    ask().then(
      (token) => {
        if (a.over || !token || token === a.token) return;
        a.token = token;
        a.conn?.send({ type: 'auth', token });
      },
      () => {},
    );
  };

  // Connects without waiting longer than the server has asked for.
  const hurry = () => {
    if (closed || away) return;
    if (current && !moving) current.conn?.probe();
    else if (!coming && host.pending()) schedule(Math.min(Math.max(floor, Date.now()), due));
  };

  const listen = () => {
    const target = globalThis as {
      addEventListener?: typeof addEventListener;
      removeEventListener?: typeof removeEventListener;
    };
    if (unlisten || !target.addEventListener) return;
    const off: (() => void)[] = [];
    const on = (where: Pick<EventTarget, 'addEventListener' | 'removeEventListener'>, type: string, f: () => void) => {
      where.addEventListener(type, f);
      off.push(() => where.removeEventListener(type, f));
    };
    on(globalThis as never, 'online', hurry);
    on(globalThis as never, 'pagehide', () => {
      away = true;
      if (coming) drop(coming, 'page hidden');
      if (current) {
        drop(current, 'page hidden');
        if (host.pending()) setState('reconnecting');
        else setState('idle');
      }
    });
    on(globalThis as never, 'pageshow', () => {
      away = false;
      hurry();
    });
    const doc = page();
    if (doc) {
      on(doc, 'visibilitychange', () => {
        if (doc.hidden) return;
        away = false;
        hurry();
      });
    }
    unlisten = () => {
      for (const f of off) f();
    };
  };

  return {
    want() {
      if (closed || (current && !moving) || coming || unwait || parked) return;
      refused = undefined;
      listen();
      if (due > Date.now()) setState('reconnecting', lastError);
      schedule(due);
    },
    calm() {
      if (!host.pending() && (unwait || parked)) rest();
    },
    moving: () => moving,
    refusal: () => closed ?? (refused && Date.now() < due ? refused : undefined),
    state: () => state,
    reconnect() {
      if (closed) return;
      failures = floor = due = 0;
      refused = undefined;
      away = false;
      if (coming) drop(coming, 'reconnect');
      if (current) drop(current, 'reconnect');
      if (host.pending()) {
        setState('connecting');
        schedule(0);
      } else rest();
    },
    close() {
      if (closed) return;
      closed = new StreamerError('CLOSED', 'the client is closed');
      unwait?.();
      unwait = undefined;
      unlisten?.();
      const old = [coming, current];
      coming = current = undefined;
      host.orphan();
      host.fail(closed);
      for (const a of old) if (a) drop(a, 'done');
      setState('closed', closed);
    },
  };
}
