import { later } from './clock.js';
import { StreamerError } from './error.js';
import { Flow, maxHeld } from './flow.js';
import type { Link } from './link.js';
import type { Connection } from './transport.js';
import { type Message, type Outgoing, toEntry, toError, type WireCursor } from './wire.js';

// What a call asks for, in the order in which calls are sent: a cancel is never to wait for the others.
const CANCEL = 0;
const ATTACH = 1;
const SUBMIT = 2;

const maxPending = 1000; // requests, and as many cancels
const maxHello = 3072; // bytes of requests to resume, before the server's limit is known; others are attached after the welcome
const maxHoles = 3; // times in a row that a log is asked for again when events are missing
const attachPause = 1000; // ms, doubled up to attachPauses times
const attachPauses = 5;

/** A message that is to be answered. It is sent again on the next connection while it is not. */
export interface Call {
  kind: typeof CANCEL | typeof ATTACH | typeof SUBMIT;
  ref: string;
  /** Of an attach or submit. */
  flow?: Flow | undefined;
  message(): Outgoing;
  /** Called with the answer; without error the server did what it asks for. */
  done(error?: StreamerError): void;
  /** It is on the connection in use. */
  sent?: boolean;
  /** It was sent at least once. */
  tried?: boolean;
}

type Done = (error?: StreamerError) => void;

/** Follows requests and has messages answered, whatever becomes of connections. */
export interface Engine {
  /** Returns the flow of that id, with one more user. It throws when there are too many. */
  join(id: string, cursor: { epoch?: string | undefined; after: number }, limit: number): Flow;
  /** Takes one user off a flow. What nobody uses is followed no more. */
  leave(f: Flow): void;
  /** Has a flow shown. */
  attach(f: Flow): void;
  submit(f: Flow, ref: string, text: string, done: Done): Call;
  cancel(id: string, reason: string | undefined, done: Done): void;
  /** Ends the wait for a call. */
  abandon(cl: Call): void;
  /** Asks again for what has been waiting for readers of the flow. */
  review(f: Flow): void;
  ref(): string;
  ids(): string[];
}

/** What the link tells of its connections, and what it asks. */
export interface Host {
  pending(): boolean;
  resume(): Map<Flow, WireCursor>;
  adopt(conn: Connection, welcome: Message, resumed: Map<Flow, WireCursor>): void;
  dispatch(m: Message): void;
  /** Called after the messages that came at once. */
  settle(): void;
  orphan(): void;
  fail(error: StreamerError): void;
}

export interface Watcher {
  /** A flow moved on; cursor undefined: it has come to its end, or is followed no more. */
  moved(id: string, cursor?: { epoch: string; after: number }): void;
}

export function createEngine(makeLink: (host: Host) => Link, watcher: Watcher): Engine {
  const flows = new Map<string, Flow>();
  const calls = new Map<string, Call>(); // by ref, in order
  const changed = new Set<Flow>();
  let conn: Connection | undefined;
  let inflight = 0; // limits of conn
  let attached = 0;
  let count = 0;

  const ref = () => (++count).toString(36);
  const inner = (f: Flow, text: string) => new StreamerError('INTERNAL_ERROR', text, { requestId: f.id });

  // Sends the calls that wait, as far as the server's limits allow.
  const pump = () => {
    if (!conn) return;
    let sent = 0;
    let slots = 0;
    for (const cl of calls.values()) if (cl.sent) sent++;
    for (const f of flows.values()) if (f.on) slots++;
    for (const kind of [CANCEL, ATTACH, SUBMIT]) {
      if (kind === SUBMIT && link.moving()) return;
      const room = inflight - (kind ? inflight >> 2 : 0); // so that a cancel need not wait
      for (const cl of [...calls.values()]) {
        if (cl.kind !== kind || cl.sent) continue;
        const f = cl.flow;
        if (sent >= room || (f && !f.on && slots >= attached)) break;
        if (f && !f.on) slots++;
        if (f) f.on = conn;
        cl.sent = cl.tried = true;
        sent++;
        conn.send(cl.message());
      }
    }
  };
  const enqueue = (kind: Call['kind'], cl: Omit<Call, 'kind'>) => {
    const call: Call = { kind, ...cl };
    calls.set(cl.ref, call);
    pump();
    return call;
  };
  const answer = (cl: Call, error?: StreamerError) => {
    calls.delete(cl.ref);
    if (error && cl.flow && !cl.flow.known) cl.flow.on = undefined;
    cl.done(error);
    link.calm();
  };
  const detach = (id: string) => conn?.send({ type: 'detach', id });

  const place = (f: Flow): WireCursor => ({
    id: f.id,
    epoch: f.epoch || undefined,
    after: Math.max(f.last - (f.ended ? 1 : 0), 0),
  });
  const unask = (f: Flow) => {
    if (f.asked) calls.delete(f.asked.ref);
    f.asked = undefined;
  };
  // Attaches a flow, as soon as there is a connection with a slot for it.
  const ask = (f: Flow) => {
    unask(f);
    f.known = true;
    f.paused = false;
    const r = ref();
    const message = () => ({ type: 'attach' as const, ref: r, ...place(f) });
    f.asked = { kind: ATTACH, ref: r, flow: f, message, done: () => {} };
    calls.set(r, f.asked);
    pump();
  };
  const finish = (f: Flow, failure?: StreamerError, keep = false) => {
    if (flows.get(f.id) !== f) return;
    flows.delete(f.id);
    f.failure = failure;
    f.answered = true;
    f.on = undefined;
    unask(f);
    f.unwait();
    if (!keep) watcher.moved(f.id);
    f.wake();
    link.calm();
    pump();
  };

  // Stops a flow of which too much is held, and lets one go on that was stopped.
  const review = (f: Flow) => {
    if (flows.get(f.id) !== f || f.asked) return;
    if (f.paused) {
      if (!f.full(maxHeld / 2)) ask(f);
    } else if (f.on && f.full(maxHeld)) {
      detach(f.id);
      f.on = undefined;
      f.paused = true;
      pump();
    }
  };

  // Says that the connection goes on with what follows the flow's newest event.
  const begin = (f: Flow, epoch: string | undefined) => {
    unask(f);
    f.epoch = epoch ?? '';
    f.known = f.answered = true;
    f.paused = false;
    f.pauses = 0;
    changed.add(f);
  };
  const event = (f: Flow, m: Message) => {
    const seq = m.seq as number;
    changed.add(f);
    if (f.ended && seq === f.last) f.end = toEntry(f.epoch, m);
    // An acknowledgment stands for the first event.
    if (seq === 2 && !f.last) f.add({ type: 'status', status: 'queued', seq: 1 });
    if (seq > f.last + 1) {
      if (!f.asked && ++f.holes > maxHoles) finish(f, inner(f, 'the server leaves out events'));
      else if (!f.asked) ask(f);
    } else if (seq > f.last) {
      f.holes = 0;
      f.add(m);
    }
    if (f.end) finish(f);
    else review(f);
  };

  const acknowledged = (f: Flow, m: Message) => {
    if (f.epoch && f.epoch !== m.epoch) f.skip({ ...m, reason: 'recreated', oldest: 1 });
    begin(f, m.epoch);
    if (!f.last) f.add({ ...m, type: 'status', status: 'queued' });
  };
  const attachedTo = (f: Flow, m: Message) => {
    if (f.epoch && f.epoch !== m.epoch) {
      // The log was recreated between gap and now.
      f.skip({ ...m, reason: 'recreated', oldest: 1 });
      ask(f);
      return;
    }
    begin(f, m.epoch);
    if (!/ed$/.test(m.status ?? '') || m.status === 'queued' || (m.last ?? 0) > (m.after ?? 0)) return;
    if (f.ended) return finish(f, inner(f, 'the server does not show the end of the request'));
    f.ended = true;
    ask(f);
  };
  const refused = (f: Flow, error: StreamerError) => {
    unask(f);
    f.on = undefined;
    if (!/^(SERVICE_UNAVAILABLE|RATE_LIMITED)$/.test(error.code)) return finish(f, error);
    f.unwait();
    f.unwait = later(Math.max(error.retryAfter ?? 0, attachPause << Math.min(f.pauses++, attachPauses)), () => {
      if (flows.get(f.id) === f && !f.on && !f.asked) ask(f);
    });
  };

  const link = makeLink({
    pending: () => flows.size > 0 || [...calls.values()].some((cl) => cl.kind === CANCEL),
    resume() {
      const resumed = new Map<Flow, WireCursor>();
      let size = 0;
      for (const f of flows.values()) {
        size += 48 + f.id.length + f.epoch.length;
        if (f.known && !f.paused && size < maxHello) resumed.set(f, place(f));
      }
      return resumed;
    },
    adopt(c, { limits }, resumed) {
      conn = c;
      inflight = limits?.max_inflight || 32;
      attached = limits?.max_attached || 256;
      for (const f of flows.values()) {
        if (resumed.has(f)) {
          unask(f);
          f.asked = { kind: ATTACH, ref: '', message: () => ({ type: 'pong' }), done: () => {} };
          f.on = c;
        } else if (f.known && !f.paused && !f.asked) ask(f);
      }
      pump();
    },
    dispatch(m) {
      const { type, seq } = m;
      const cl = calls.get(m.ref ?? '');
      const f = flows.get(m.request_id ?? '');
      const error = m.error && !seq && toError(m.error, m.request_id);
      if (type === 'ping') conn?.send({ type: 'pong' });
      else if (error) {
        if (cl && cl.kind !== ATTACH) answer(cl, error);
        else if (f?.on && (cl || !m.ref)) refused(f, error);
      } else if (type === 'acknowledgment') {
        if (cl) answer(cl);
        if (cl?.flow) acknowledged(cl.flow, m);
        else if (!f) detach(m.request_id ?? '');
      } else if (cl && cl.kind !== ATTACH) {
        // Canceling is answered by an event, and short work by its end.
        answer(cl);
        if (cl.flow) begin(cl.flow, '');
      }
      if (!f?.on || !f.known) return;
      if (type === 'progress') {
        f.report(m);
        changed.add(f);
      } else if (type === 'attached' || type === 'gap') {
        if (f.asked ? f.asked.ref !== (m.ref ?? '') : type === 'attached') return;
        if (type === 'attached') return attachedTo(f, m);
        f.skip(m);
        begin(f, m.epoch);
      } else if (seq && type !== 'acknowledgment' && !(cl?.kind === CANCEL && seq !== f.last + 1)) event(f, m);
    },
    settle() {
      const now = [...changed];
      changed.clear();
      for (const f of now) {
        if (flows.get(f.id) === f && f.epoch) watcher.moved(f.id, { epoch: f.epoch, after: f.last });
        f.wake();
        review(f);
      }
      pump();
    },
    orphan() {
      conn = undefined;
      for (const cl of [...calls.values()]) {
        cl.sent = false;
        if (cl.kind === ATTACH) calls.delete(cl.ref);
      }
      for (const f of flows.values()) f.on = f.asked = undefined;
    },
    fail(error) {
      for (const f of [...flows.values()]) finish(f, error, true);
      for (const cl of [...calls.values()]) answer(cl, error);
    },
  });

  return {
    ref,
    review,
    ids: () => [...flows.keys()],
    join(id, { epoch = '', after }, limit) {
      const refusal = link.refusal();
      if (refusal) throw refusal;
      let f = flows.get(id);
      if (f) {
        f.users++;
        f.limit = Math.max(f.limit, limit);
      } else {
        if (flows.size >= maxPending)
          throw new StreamerError('RATE_LIMITED', `${maxPending} requests are pending already`);
        f = new Flow(id, after, limit);
        f.epoch = epoch;
        flows.set(id, f);
      }
      link.want();
      return f;
    },
    leave(f) {
      if (--f.users) {
        // Nobody submits it any more, but somebody wants to see it.
        if (!f.known && ![...calls.values()].some((cl) => cl.flow === f)) ask(f);
        return;
      }
      if (f.end || f.failure) return;
      if (f.on) detach(f.id);
      finish(f, new StreamerError('CLOSED', 'detached from the request', { requestId: f.id }));
    },
    attach(f) {
      if (f.users === 1) ask(f);
    },
    submit: (flow, r, text, done) =>
      enqueue(SUBMIT, { ref: r, flow, done, message: () => ({ type: 'request', id: flow.id, ref: r, text }) }),
    cancel(id, reason, done) {
      if (calls.size > 2 * maxPending)
        return done(new StreamerError('RATE_LIMITED', 'too many calls are pending already'));
      const r = ref();
      enqueue(CANCEL, { ref: r, done, message: () => ({ type: 'cancel', id, ref: r, reason }) });
      link.want();
    },
    abandon(cl) {
      calls.delete(cl.ref);
      link.calm();
    },
  };
}
