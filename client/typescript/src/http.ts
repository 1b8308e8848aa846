import { later } from './clock.js';
import { takeSlot } from './slots.js';
import { eventParser } from './sse.js';
import type { Connection, Setup, Transport } from './transport.js';
import { bounded, broken, byStatus, isTransient, type Verdict } from './verdict.js';
import type { Failure, Message, Outgoing } from './wire.js';

const firstBytes = 5000; // ms: a stream that shows nothing by then is held up on its way
const silence = 25_000; // of a stream: the server sends something every 15 s
const youngAge = 1000; // ms: streams that end sooner, youngDeaths times in a row, are of no use
const youngDeaths = 3;
const healthyAge = 5000; // ms: a stream that ends later is opened again at once
const pollWait = 20; // s
const callTime = 90_000; // ms for an answer
const gather = 25; // ms in which changes of what is followed are gathered
const pollFor = 300_000; // ms that polling goes on before streams are tried again
const limits = { max_inflight: 8, max_attached: 64 };

interface Followed {
  epoch: string;
  after: number;
  /** Of an attach that is to be answered. */
  ref?: string | undefined;
}

type Fetch = typeof globalThis.fetch;

/** A body of application/problem+json. */
type Problem = Failure & { detail?: string; seq?: number };

/** Calls below base, and streams or, where these are held up, polls for what is followed. */
export function httpTransport(base: string, fetch: Fetch | undefined, only?: 'sse' | 'poll'): Transport {
  let young = 0;
  let pollUntil = only === 'poll' ? Infinity : 0;
  const polls = () => Date.now() < pollUntil;
  const giveUpStreams = () => {
    if (!only) pollUntil = Date.now() + pollFor;
    return !only;
  };

  const dial = ({ token, resume, receive, lost }: Setup): Connection => {
    const get = fetch ?? globalThis.fetch;
    const followed = new Map<string, Followed>();
    const calls = new Set<AbortController>();
    let over = false;
    let stream: AbortController | undefined; // which shows what happens
    let opening: AbortController | undefined; // which is to replace it
    let changed = false; // since opening began
    let uncount: (() => void) | undefined; // calls off what is to open
    let release: (() => void) | undefined; // gives the slot back

    const shut = () => {
      over = true;
      uncount?.();
      stream?.abort();
      opening?.abort();
      release?.();
    };
    const end = (v: Verdict) => {
      if (over) return;
      shut();
      for (const c of calls) c.abort();
      lost(v);
    };
    const unreachable = (e: unknown) => end({ error: e instanceof Error ? e : new Error(String(e)), foreign: true });
    const alive = () => receive([{ type: 'alive', transport: polls() ? 'poll' : 'sse' }]);

    const ask = (path: string, signal: AbortSignal, headers: Record<string, string>, init?: RequestInit) =>
      get(new URL(path, base).href, {
        ...init,
        headers: { ...headers, ...(token && { authorization: `Bearer ${token}` }) },
        signal,
      });

    // Judges an answer that is no success. Returns the problem if it is about the request.
    const problem = async (response: Response, aboutAll: boolean): Promise<Problem | undefined> => {
      const text = await response.text();
      if (over) return;
      let p: Problem = { code: '', message: '' };
      try {
        p = JSON.parse(text);
      } catch {}
      const { code, detail, retry_after_ms } = p;
      const { status } = response;
      // Browsers take what is left of an answer that was cut off for all of it, be it half a status.
      if (status < 400 || !(text || response.headers.has('content-length'))) throw new Error('the answer was cut off');
      if (code && !(status === 401 && !p.seq) && !(aboutAll && isTransient(status))) {
        return { ...p, message: detail ?? '' };
      }
      const wait = retry_after_ms ?? Number(response.headers.get('retry-after')) * 1000;
      end({ ...byStatus(status, `${status} ${detail ?? ''}`, wait, code), foreign: !code });
      return;
    };

    // Makes a call, and returns the message that answers it.
    const call = async (m: Outgoing & { id: string; ref: string }, method: string, path: string, body?: string) => {
      const tooLate = later(callTime, () => unreachable(new Error('the server did not answer in time')));
      const mine = new AbortController();
      calls.add(mine);
      const headers: Record<string, string> = body
        ? { 'content-type': 'application/json', prefer: 'respond-async' }
        : {};
      try {
        const response = await ask(path, mine.signal, headers, { method, ...(body && { body }) });
        let reply: Message;
        if (response.ok) {
          const text = await response.text();
          reply = JSON.parse(text);
          if (over) return;
          if (!body) reply = { type: 'canceled' };
          else if (reply.type === 'acknowledgment') {
            followed.set(m.id, { epoch: reply.epoch ?? '', after: 1 });
            change();
          }
          reply.size = text.length;
        } else {
          const error = await problem(response, false);
          if (!error) return;
          reply = { type: 'error', error, seq: error.seq };
        }
        alive();
        receive([{ ...reply, request_id: m.id, ref: m.ref }]);
      } catch (e) {
        unreachable(e);
      } finally {
        tooLate();
        calls.delete(mine);
      }
    };

    const change = (ms = gather) => {
      if (over) return;
      if (opening) changed = true;
      else {
        uncount?.();
        uncount = later(ms, open);
      }
    };

    // Opens a stream of all that is followed, which replaces the one there is.
    const open = async () => {
      uncount = undefined;
      changed = false;
      const mine = new AbortController();
      opening = mine;
      if (followed.size && !release) {
        release = await takeSlot(new URL(base).origin);
        if (over) return release?.();
      }
      if (!followed.size) {
        opening = undefined;
        stream?.abort();
        stream = undefined;
        release?.();
        release = undefined;
        if (changed) change();
      } else if (polls() || !release) poll(mine);
      else watch(mine);
    };
    const opened = (mine: AbortController) => {
      if (opening !== mine) return;
      opening = undefined;
      if (stream !== mine) stream?.abort();
      stream = mine;
      alive();
      if (changed) change();
    };
    const query = () =>
      `events?${[...followed].map(([id, f]) => `r=${encodeURIComponent(`${id}:${f.epoch}:${f.after}`.replace(/::0$/, ''))}`).join('&')}`;

    // Hands over what a stream brought of what it was opened for.
    const take = (messages: Message[], asked: Map<string, Followed>) => {
      const shown: Message[] = [];
      for (const m of messages) {
        const id = m.request_id ?? '';
        const f = followed.get(id);
        if (!f || asked.get(id) !== f) continue;
        const refusal = m.type === 'error' && !m.seq;
        if (f.ref && (refusal || m.type === 'attached' || m.type === 'gap')) {
          m.ref = f.ref;
          f.ref = undefined;
        }
        if (m.epoch) f.epoch = m.epoch;
        if (m.type === 'gap') f.after = Math.max(m.oldest ?? 1, 1) - 1;
        if (m.seq) f.after = m.seq;
        if (refusal || (m.seq && /^(complete|response|error)$/.test(m.type))) followed.delete(id);
        shown.push(m);
      }
      if (shown.length) receive(shown);
    };
    // Nothing more is to come of what was asked for.
    const finished = (asked: Map<string, Followed>) => {
      for (const [id, f] of asked) {
        const { epoch, after } = f;
        take([{ type: 'attached', request_id: id, epoch, status: 'completed', last: after, after }], asked);
        if (followed.get(id) === f) followed.delete(id);
      }
      if (!over) change();
    };

    // Handles an answer that shows nothing. One that refuses all says so of the first; the others are
    // asked for again.
    const refused = async (response: Response, asked: Map<string, Followed>) => {
      const p = await problem(response, true);
      const id = asked.keys().next().value;
      if (p && id !== undefined) take([{ type: 'error', request_id: id, error: p }], asked);
    };

    const watch = async (mine: AbortController) => {
      const asked = new Map(followed);
      const began = Date.now();
      let done = false;
      let first = false;
      let stuck = false;
      let left: Message[] = [];
      let unwait = later(firstBytes, () => {
        stuck = true;
        mine.abort();
      });
      const parse = eventParser((data) => left.push(Object.assign(JSON.parse(data) as Message, { size: data.length })));
      try {
        const response = await ask(query(), mine.signal, { accept: 'text/event-stream' });
        if (response.status === 204 || !response.ok) {
          unwait();
          if (response.ok) finished(asked);
          else await refused(response, asked);
          if (over) return;
          opened(mine);
          stream = undefined;
          change(0);
          return;
        }
        if (!response.headers.get('content-type')?.startsWith('text/event-stream') || !response.body) {
          throw new Error('the server answered with something else than an event stream');
        }
        const reader = response.body.getReader();
        for (;;) {
          const chunk = await reader.read();
          if (over || mine.signal.aborted || chunk.done) break;
          unwait();
          unwait = later(silence, () => {
            stuck = true;
            mine.abort();
          });
          if (!first) {
            first = true;
            opened(mine);
          }
          left = [];
          parse(chunk.value);
          for (const m of left) {
            if (m.type === 'end') done = true;
            if (m.type === 'goaway') change(bounded(m.reconnect_in_ms));
          }
          take(left, asked);
        }
      } catch (e) {
        if (over) return;
        if (e instanceof SyntaxError) end(broken('the server sent a message that makes no sense'));
        else if (!mine.signal.aborted) left = [{ type: 'failed', message: String(e) }];
      } finally {
        unwait();
      }
      if (over || (mine !== stream && mine !== opening)) return;
      const error = left[0]?.type === 'failed' ? left[0].message : undefined;
      if (mine === stream) stream = undefined;
      if (done) {
        young = 0;
        change();
        return;
      }
      const age = Date.now() - began;
      young = age < youngAge ? young + 1 : stuck ? young : 0;
      if (((stuck && !first) || young >= youngDeaths) && giveUpStreams()) {
        young = 0;
        opening = undefined;
        change(0);
      } else if (first && age >= healthyAge && !stuck && !error) change(0);
      else
        end({
          error: new Error(error ?? (stuck ? 'nothing heard from the server for too long' : 'the stream ended early')),
          foreign: !first,
        });
    };

    const poll = async (mine: AbortController) => {
      const asked = new Map(followed);
      let etag = '';
      try {
        while (!over && followed.size) {
          const began = Date.now();
          const wait = release && etag;
          const tooLate = later(pollWait * 1000 + 10_000, () =>
            unreachable(new Error('the server did not answer in time')),
          );
          let response: Response;
          let text: string;
          try {
            response = await ask(query(), mine.signal, {
              accept: 'application/json',
              ...(wait && { prefer: `wait=${pollWait}` }),
              ...(etag && { 'if-none-match': etag }),
            });
            if (response.status !== 304 && !response.ok) {
              await refused(response, asked);
              break;
            }
            text = await response.text();
          } finally {
            tooLate();
          }
          if (over || mine.signal.aborted) return;
          opened(mine);
          etag = response.headers.get('etag') ?? '';
          let news = false;
          if (response.status !== 304) {
            const page: { events: Message[]; done: boolean } = JSON.parse(text);
            for (const m of page.events) m.size = 256;
            // A log that goes on after the cursor is news as well, whatever became of it on the way.
            news = page.events.some((m) =>
              m.type === 'attached' ? (m.last ?? 0) > (m.after ?? 0) : m.type !== 'progress',
            );
            take(page.events, asked);
            if (page.done && !news) {
              finished(asked);
              break;
            }
          }
          if (over || changed || opening) return;
          const rest = 500 + Math.random() * 500;
          if (!news && Date.now() - began < rest) await new Promise<void>((resolve) => later(rest, resolve));
          if (over || mine !== stream) return;
          if (!release || (!polls() && !only)) break;
        }
        if (over || mine.signal.aborted) return;
        opened(mine);
        stream = undefined;
        change(0);
      } catch (e) {
        if (!over && !mine.signal.aborted) unreachable(e);
      }
    };

    for (const { id, epoch, after } of resume) followed.set(id, { epoch: epoch ?? '', after });
    queueMicrotask(() => {
      if (over) return;
      receive([{ type: 'welcome', v: 1, limits, unproven: true }]);
      if (followed.size) change(0);
    });

    return {
      send(m) {
        if (m.type === 'request') call(m, 'POST', 'requests', m.text);
        else if (m.type === 'cancel') {
          call(
            m,
            'DELETE',
            `requests/${encodeURIComponent(m.id)}${m.reason ? `?reason=${encodeURIComponent(m.reason)}` : ''}`,
          );
        } else if (m.type === 'attach') {
          followed.set(m.id, { epoch: m.epoch ?? '', after: m.after, ref: m.ref });
          change();
        } else if (m.type === 'detach' && followed.delete(m.id)) change();
      },
      probe: () => change(0),
      close: () => over || shut(),
    };
  };
  return { name: only ?? 'sse', patience: firstBytes, dial };
}
