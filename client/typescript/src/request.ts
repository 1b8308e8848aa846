import { type ErrorInit, StreamerError } from './error.js';
import type { Link } from './link.js';
import type { AttachOptions, Gap, RequestHandle, StreamerEvent } from './types.js';
import type { Failure, Message } from './wire.js';

/** Characters of events of one handle that are held for iterations that are slower than they come. */
export const maxHeld = 262_144;

/** An event, and what came after it. Who reads keeps the newest one that was read, and thereby all that follow. */
interface Node {
  _event?: StreamerEvent;
  _next?: Node;
  /** seq of the newest event by then. */
  _seq: number;
  /** Characters of all events up to this one. */
  _total: number;
}

/** One request, as one handle follows it. */
export interface Request {
  readonly _id: string;
  readonly _ref: string;
  /** The message that submits it, until the server has it, so that it can be attached to. */
  _text?: string | undefined;
  /** The last event that has come. */
  _cursor: { epoch: string | undefined; after: number };
  /** It takes a slot on the connection in use. */
  _on?: boolean;
  /** What was sent for it is not answered. */
  _asked?: boolean;
  /** It was sent at least once, and may be there. */
  _tried?: boolean;
  /** It is not to be shown until its time has come. */
  _refused?: boolean;
  /** It is not to be shown until its readers have read on. */
  _full?: boolean;
  /** It is to be canceled, and why. */
  _canceled?: Deferred<void> | undefined;
  _reason?: string | undefined;
  /** A cancel was sent, and is not answered. */
  _canceling?: boolean;
  _receive(m: Message, size: number): void;
  /** Ends it here; keep: the page that comes after this one may go on with it. */
  _fail(error: StreamerError, keep?: boolean): void;
}

/** Calls a function of the application's. What it throws is an uncaught error, and disturbs nothing here. */
export function callOut<A extends unknown[]>(f: ((...args: A) => void) | undefined, ...args: A): void {
  try {
    f?.(...args);
  } catch (e) {
    queueMicrotask(() => {
      throw e;
    });
  }
}

type Deferred<T> = ReturnType<typeof defer<T>>;

// A promise that nobody needs to handle.
function defer<T>() {
  let _resolve!: (value: T) => void;
  let _reject!: (e: unknown) => void;
  const _promise = new Promise<T>((yes, no) => {
    _resolve = yes;
    _reject = no;
  });
  _promise.catch(() => {});
  return { _promise, _resolve, _reject };
}

/**
 * Opens a handle. It never throws: what is wrong is what the handle rejects with. With a body it submits,
 * else it attaches. unseen: nobody can iterate, so no events need to be held.
 */
export function openRequest<Output, Chunk>(
  link: Link,
  id: string,
  options: AttachOptions<Chunk>,
  body?: object,
  unseen?: boolean,
): RequestHandle<Output, Chunk> {
  const overhead = 256; // characters that an event counts for beside its own
  const maxHoles = 3; // times in a row that a log is asked for again when events are missing
  const leastPause = 500; // ms before what was refused for now is sent again, where the server does not say
  const { signal, onProgress, onOutput, onRestart, onGap, after = 0 } = options;
  const ref = `${++link._count}`;
  const result = defer<Output>();
  const accepted = defer<void>();
  const readers = new Set<{ _at: Node }>();
  const waiting: (() => void)[] = []; // readers that have read all
  let { epoch } = options;
  let last = after; // seq of the newest event
  let over = true; // the link does not have it
  let failure: StreamerError | undefined; // what iterations end with
  let holes = 0; // times in a row that events were missing
  let timer: ReturnType<typeof setTimeout> | undefined; // until it is sent again
  let attempt = 0;
  let progress: Message | undefined; // the newest of the attempt
  let reported = 0; // where that stands among the events
  let tail: Node = { _seq: after, _total: 0 };
  let head = tail; // what follows is held for iterations to come

  const fail = (code: string, text: string, more?: ErrorInit) =>
    new StreamerError(code, text, { requestId: id, ...more });
  const toError = ({ code, message, details, retry_after_ms: retryAfter }: Failure) =>
    fail(code, message, { details, retryAfter });
  const wake = () => {
    for (const f of waiting.splice(0)) f();
  };
  // Says how it ends before it does. What has come already is not shown any more either.
  const mute = (error: StreamerError) => {
    for (const r of readers) r._at = tail;
    progress = undefined;
    failure ??= error;
    accepted._reject(error);
    result._reject(error);
    wake();
  };
  // Lets go of it.
  const leave = (keep?: boolean) => {
    over = true;
    clearTimeout(timer);
    signal?.removeEventListener('abort', abort);
    link._leave(request, keep);
  };
  const stop = (error: StreamerError, keep?: boolean) => {
    mute(error);
    request._canceled?._reject(error);
    leave(keep);
  };
  const cancel = async (reason?: string) => {
    if (over) return;
    request._reason = reason;
    const { _promise } = (request._canceled ??= defer());
    link._pump();
    await _promise;
  };
  const recorded = (f?: Failure) => {
    if (f) request._canceled?._reject(toError(f));
    else request._canceled?._resolve();
    request._canceled = undefined;
  };
  const abort = () => {
    const { reason: cause } = signal as AbortSignal;
    const error = fail('CANCELED', 'aborted', { cause });
    error.name = cause?.name ?? 'AbortError';
    mute(error);
    if (!request._text || request._tried) cancel(error.message).then(leave as () => void, () => leave());
    else leave();
  };

  const show = (e: StreamerEvent<Chunk>) => {
    if (failure) return;
    if (e.type === 'progress') callOut(onProgress, e);
    else if (e.type === 'output') callOut(onOutput, e.data, e);
    else if (e.type === 'gap') callOut(onGap, e);
    else if (e.type === 'running' && e.attempt > 1) callOut(onRestart, e);
  };
  const push = (e: StreamerEvent, size: number) => {
    tail = tail._next = { _event: e, _seq: last, _total: tail._total + size + overhead };
    while (tail._total - head._total > (unseen ? 0 : maxHeld)) head = head._next as Node;
    show(e as StreamerEvent<Chunk>);
  };
  const makeGap = (reason: string, after: number, oldest: number): Gap & { type: 'gap' } => ({
    type: 'gap',
    reason,
    after,
    oldest,
    attempt,
    epoch: epoch as string,
  });
  // Has it shown again from where it is.
  const again = () => {
    request._on = request._asked = false;
  };
  const lack = () => {
    again();
    if (++holes > maxHoles) stop(fail('INTERNAL_ERROR', 'the server leaves out events'));
  };
  // Stops it when too much is held, and lets it go on when that has been read.
  const review = () => {
    const most = request._full ? maxHeld / 2 : maxHeld;
    const full = [...readers].some((r) => tail._total - r._at._total > most);
    if (full !== !!request._full) {
      request._full = full;
      if (full) link._off(request);
      else link._pump();
    }
  };
  const event = (m: Message, size: number) => {
    const { type, seq, success, result: data = m.data } = m;
    last = seq as number;
    holes = 0;
    const error = m.error && toError(m.error);
    if (type !== 'error') {
      const e = {
        ...m,
        type: success !== undefined ? 'complete' : seq === 1 ? 'accepted' : (m.status ?? type),
        epoch,
        outputsFrom: m.outputs_from ?? 0,
        delay: m.retry_after_ms ?? 0,
        error,
        result: data,
      };
      push(e as StreamerEvent, size);
    }
    if (success !== undefined || type === 'error') {
      recorded();
      accepted._resolve();
      failure ??= error;
      if (success) result._resolve(data as Output);
      else
        result._reject(
          failure ?? fail('PROCESSING_FAILED', 'the result is not a success', { details: { result: data } }),
        );
      request._on = false;
      leave();
    }
  };

  const request: Request = {
    _id: id,
    _ref: ref,
    _cursor: { epoch, after },
    _fail: stop,
    _receive(m, size) {
      const { type, seq = 0, attempt: number = 0 } = m;
      const mine = m.ref === ref;
      if (m.ref === `-${ref}`) {
        request._canceling = false;
        recorded(seq ? undefined : m.error);
      }
      if (!request._on) return;
      if (type === 'error' && !seq) {
        if (m.ref && !mine) return;
        const error = toError(m.error as Failure);
        again();
        if (/^(SERVICE_UNAVAILABLE|RATE_LIMITED)$/.test(error.code)) {
          request._refused = true;
          request._tried = false;
          timer = setTimeout(
            () => {
              request._refused = false;
              link._pump();
            },
            (error.retryAfter || leastPause) * (1 + Math.random()),
          );
        } else stop(error);
        return;
      }
      if (mine) request._text = undefined;
      if (request._text) return;
      if (mine || type === 'attached' || type === 'gap') {
        request._asked = false;
        accepted._resolve();
      }
      if (m.epoch) {
        const { epoch: other, reason = 'recreated', oldest = 1 } = m;
        const before = last;
        const gap = type === 'gap';
        if ((epoch !== other && (epoch || gap)) || (gap && (oldest > last + 1 || (m.last as number) < last))) {
          last = oldest - 1;
          attempt = number;
          progress = undefined;
          epoch = other;
          push(makeGap(reason, before, oldest), 0);
        }
        epoch = other;
      }
      if (number > attempt) {
        attempt = number;
        progress = undefined;
      }
      if (type === 'progress') {
        if (
          number < attempt ||
          (progress &&
            ((m.percentage as number) < (progress.percentage as number) ||
              JSON.stringify(m) === JSON.stringify(progress)))
        )
          return;
        progress = m;
        reported = tail._total;
        show(m as StreamerEvent<Chunk>);
      } else if (type === 'attached') {
        if (/[tl]ed$/.test(m.status as string) && (m.last as number) <= last) {
          // It is over: just the end itself is missing.
          last = (m.last as number) - 1;
          lack();
        }
      } else if (seq === last + 1) event(m, size);
      else if (seq > last && !request._asked) lack();
      request._cursor = handle.cursor = { epoch, after: last };
      if (!over) link._storage.set(id, request._cursor);
      review();
      wake();
    },
  };

  const handle = Object.assign(result._promise, {
    id,
    accepted: accepted._promise,
    cursor: request._cursor,
    cancel,
    detach: () => stop(fail('CLOSED', 'detached')),
    [Symbol.asyncIterator]() {
      const r = { _at: head };
      let seen: typeof progress;
      let done = false;
      const events = (async function* () {
        if (r._at._total) yield makeGap('dropped', after, r._at._seq + 1);
        while (!done) {
          const next = r._at._next;
          if (progress && progress !== seen && reported <= r._at._total) {
            seen = progress;
            yield seen;
          } else if (next) {
            r._at = next;
            review();
            yield next._event;
          } else if (failure) throw failure;
          else if (over) return;
          else await new Promise<void>((resolve) => waiting.push(resolve));
        }
      })() as AsyncGenerator<StreamerEvent<Chunk, Output>>;
      const { return: back } = events;
      readers.add(r);
      // The generator's own would wait for what a next waits for.
      events.return = (value) => {
        done = true;
        readers.delete(r);
        review();
        wake();
        return back.call(events, value);
      };
      return events;
    },
  });

  try {
    if (!/^(?!\.\.?$)[\w.~-]{1,128}$/.test(id))
      throw fail('VALIDATION_ERROR', `id ${id}: use 1 to 128 of A-Z a-z 0-9 . _ ~ -`);
    if (body) request._text = JSON.stringify({ type: 'request', id, ref, ...body });
    if (signal?.aborted) abort();
    else {
      over = false;
      link._join(request);
      if (!over) signal?.addEventListener('abort', abort);
    }
  } catch (e) {
    stop(StreamerError.is(e) ? e : fail('VALIDATION_ERROR', `payload: ${e}`, { cause: e }), true);
  }
  return handle;
}
