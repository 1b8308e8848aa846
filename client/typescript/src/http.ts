import { takeSlot } from './slots.js';
import type { Transport } from './transport.js';
import { type Failure, late, type Message } from './wire.js';

/** A body of application/problem+json. */
type Problem = Failure & { detail?: string; seq?: number };

/** Calls below base, and a stream or, where these are held up, polls of what is followed. */
export function httpTransport(
  base: string,
  fetch: typeof globalThis.fetch | undefined,
  only?: string | false,
): Transport {
  const firstBytes = 5000; // ms: a stream that shows nothing by then is held up on its way
  const silence = 25_000; // of a stream: the server sends something every 15 s
  const healthy = 5000; // ms: streams that end sooner, strikes times in a row, are of no use
  const strikes = 3;
  const pollWait = 20; // s
  const pollTime = 30_000; // ms for an answer to that
  const callTime = 90_000; // ms for an answer to a call
  const gather = 25; // ms in which changes of what is followed are gathered
  const pollPause = 500; // ms at least, where there is nothing new
  const pollFor = 300_000; // ms that polling goes on before streams are tried again
  let young = 0; // streams in a row that ended too soon
  let pollUntil = only === 'poll' ? Infinity : 0;

  const transport: Transport = {
    get _name() {
      return Date.now() < pollUntil ? 'poll' : 'sse';
    },
    _dial({ _token: token, _receive, _lost, _requests }) {
      const all = new AbortController();
      const { signal } = all;
      let mine = all; // of what shows what is followed
      let free = false; // that may be ended when something else is to be followed
      let changed = false; // it is
      let watching = false;
      let etag: string | null = null; // of the last poll
      let release: (() => void) | undefined; // gives the slot back

      const receive = (m: Message, size = 1) => signal.aborted || _receive(m, size);
      const close = () => {
        release?.();
        all.abort();
        mine.abort();
      };

      // Returns an answer that is good. Another one is an error of these requests, or the end of the connection.
      const ask = async (
        ids: Iterable<string>,
        ref: string | undefined,
        path: string,
        headers: Record<string, string>,
        init?: RequestInit,
      ): Promise<Response | undefined> => {
        const response = await (fetch ?? globalThis.fetch)(base + path, {
          ...init,
          headers: { ...headers, ...(token && { authorization: `Bearer ${token}` }) },
          signal: (ref ? all : mine).signal,
        });
        const { status } = response;
        if (response.ok || status === 304) return response;
        const text = await response.text();
        // Browsers take what is left of an answer that was cut off for all of it, be it half a status.
        if (status < 400 || !(text || response.headers.has('content-length')))
          throw new Error('the answer was cut off');
        const p: Partial<Problem> = text[0] === '{' ? JSON.parse(text) : {};
        const { code, detail: message = '', seq } = p;
        if (code && (ref ? status !== 401 || seq : /^4(?!01|08|25|29)/.test(`${status}`))) {
          for (const request_id of ids) {
            receive({ type: 'error', request_id, ref, seq, error: { ...(p as Problem), message } });
          }
        } else _lost(new Error(`${status} ${message}`), +!code, status, p.retry_after_ms);
        return;
      };

      // What is followed, each request from the earliest place that anybody needs.
      const places = () =>
        new Map(
          [..._requests]
            .filter((r) => r._on && !r._text)
            .sort((a, b) => b._cursor.after - a._cursor.after)
            .map((r) => [r._id, r._cursor]),
        );
      const query = (of: ReturnType<typeof places>) =>
        [...of].map(([id, { epoch = '', after }]) => `r=${id}:${epoch}:${after}`).join('&');

      // Shows what is followed, over one stream or poll after the other.
      const watch = async () => {
        if (watching) return;
        watching = true;
        for (let pause = gather; ; ) {
          await new Promise((resolve) => setTimeout(resolve, pause));
          const asked = places();
          const path = query(asked);
          if (path) release ??= await takeSlot();
          if (!path || signal.aborted) break;
          const poll = transport._name === 'poll' || !release;
          const tag = poll && !changed && etag;
          const began = Date.now();
          let timer: ReturnType<typeof setTimeout> | undefined;
          const c = (mine = new AbortController());
          const wait = (ms: number) => {
            clearTimeout(timer);
            timer = setTimeout(() => c.abort(new Error(late)), ms);
          };
          free = !!tag;
          changed = false;
          wait(poll ? pollTime : firstBytes);
          try {
            const response = await ask(asked.keys(), undefined, `events?${path}`, {
              accept: poll ? 'application/json' : 'text/event-stream',
              ...(tag && { 'if-none-match': tag, ...(release && { prefer: `wait=${pollWait}` }) }),
            });
            if (response?.status === 204) {
              for (const [request_id, { epoch, after: last }] of asked)
                receive({ type: 'attached', request_id, epoch: epoch as string, status: 'completed', last });
            } else if (response && poll) {
              const text = await response.text();
              const events: Message[] = text ? JSON.parse(text).events : [];
              etag = response.headers.get('etag');
              for (const m of events) receive(m, text.length / events.length);
            } else if (response) {
              const decoder = new TextDecoder();
              const reader = (response.body as ReadableStream<Uint8Array>).getReader();
              let rest = '';
              do {
                const { value, done } = await reader.read();
                if (done) throw new Error('the answer was cut off');
                wait(silence);
                free = true;
                const lines = (rest + decoder.decode(value, { stream: true })).split(/[\r\n]+/);
                rest = lines.pop() as string;
                for (const line of lines) {
                  if (!line.startsWith('data:')) continue;
                  const m: Message = JSON.parse(line.slice(5));
                  if (m.request_id) receive(m, line.length);
                }
              } while (!changed);
            }
          } catch (e) {
            if (signal.aborted || (changed && free) || !places().size) {
              // It was ended here, or all has come.
            } else if (!poll && free && Date.now() - began > healthy) young = 0;
            else if (!poll && !only && (young += free ? 1 : c.signal.aborted ? strikes : 0) >= strikes) {
              young = 0;
              pollUntil = Date.now() + pollFor;
            } else _lost(e, +!free);
          }
          clearTimeout(timer);
          c.abort();
          pause = poll && (!release || query(places()) === path) ? pollPause * (1 + Math.random()) : gather;
        }
        release?.();
        release = undefined;
        watching = false;
      };
      const change = () => {
        changed = true;
        if (free) mine.abort();
        watch();
      };

      queueMicrotask(() => receive({ type: 'welcome' }, 0));

      return {
        async _send({ type, id = '', ref, reason = '' }, body) {
          if (!body && type !== 'cancel') return change();
          const timer = setTimeout(_lost, callTime, new Error(late), 1);
          try {
            const path = body ? 'requests' : `requests/${id}?reason=${encodeURIComponent(reason)}`;
            const method = body ? 'POST' : 'DELETE';
            const response = await ask([id], ref, path, { 'content-type': 'application/json' }, { method, body });
            if (response) {
              const text = await response.text();
              const m: Message = body ? JSON.parse(text) : { type: 'canceled' };
              receive({ ...m, request_id: id, ref }, text.length);
              if (m.epoch) change(); // short work has none
            }
          } catch (e) {
            _lost(e, 1);
          }
          clearTimeout(timer);
        },
        _close: close,
      };
    },
  };
  return transport;
}
