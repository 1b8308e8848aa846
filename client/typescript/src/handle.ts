import { later } from './clock.js';
import type { Call, Engine } from './engine.js';
import { StreamerError } from './error.js';
import { Flow, maxHeld, type Reader } from './flow.js';
import type { AttachOptions, RequestHandle, StreamerEvent } from './types.js';
import { bounded } from './verdict.js';
import type { Entry } from './wire.js';

const submitPause = 100; // ms at least before a submit is repeated that was refused for now, doubled up to submitPauses times
const submitPauses = 5;

/** What a handle is made of. */
export interface Opening {
  id: string;
  /** Encodes the request that is to be submitted; without it the handle attaches. */
  encode?: ((ref: string) => string) | undefined;
  /** Nobody can iterate: no events need to be held. */
  unseen?: boolean | undefined;
  options: AttachOptions<never>;
}

/** Calls a function of the application's. What it throws is an uncaught error, and disturbs nothing here. */
export function callOut<T>(f: ((value: T) => void) | undefined, value: T): void {
  try {
    f?.(value);
  } catch (e) {
    if (globalThis.reportError) globalThis.reportError(e);
    else
      queueMicrotask(() => {
        throw e;
      });
  }
}

// A promise that nobody needs to handle.
function defer<T>() {
  let resolve!: (value: T) => void;
  let reject!: (e: StreamerError) => void;
  const promise = new Promise<T>((yes, no) => {
    resolve = yes;
    reject = no;
  });
  promise.catch(() => {});
  return { promise, resolve, reject };
}

/** Opens a handle. It never throws: what is wrong is what the handle rejects with. */
export function openHandle<Output, Chunk>(engine: Engine, o: Opening): RequestHandle<Output, Chunk> {
  const { id, encode, unseen, options } = o;
  const { signal, onProgress, onOutput, onRestart, onGap } = options;
  const all = onOutput || onRestart || onGap;
  const after = encode ? 0 : (options.after ?? 0);
  const result = defer<Output>();
  const accepted = defer<void>();
  let flow: Flow;
  let refusal: unknown;
  let watching: Reader | undefined; // for the result and callbacks
  let call: Call | undefined; // that submits
  let unwait: (() => void) | undefined; // calls off its repetition
  let refusals = 0;
  let settled = false;
  let left = false; // the flow
  let gone: StreamerError | undefined;

  const settle = (error: StreamerError | undefined, value?: Output) => {
    if (settled) return;
    settled = true;
    signal?.removeEventListener('abort', abort);
    if (watching) flow.readers.delete(watching);
    if (error) {
      accepted.reject(error);
      result.reject(error);
    } else {
      accepted.resolve();
      result.resolve(value as Output);
    }
    if (unseen) leave();
  };
  const leave = () => {
    if (left) return;
    left = true;
    unwait?.();
    if (call) engine.abandon(call);
    engine.leave(flow);
  };
  const stop = (error: StreamerError) => {
    gone ??= error;
    settle(error);
    leave();
    flow.wake();
  };

  const show = (e: Entry) => {
    if (e.type === 'progress') callOut(onProgress, e);
    else if (e.type === 'output') callOut(() => onOutput?.(e.data as never, e), undefined);
    else if (e.type === 'gap') callOut(onGap, e);
    else if (e.type === 'running' && e.attempt > 1) callOut(onRestart, e);
  };
  const watch = () => {
    if (settled || watching) return;
    const r: Reader = (watching = { ...start, pos: all ? start.pos : Infinity });
    flow.readers.add(r);
    r.wake = () => {
      for (let e: Entry | undefined; !settled && (e = flow.take(r)); ) show(e);
      const end = flow.end as (Entry & { success?: boolean; result?: unknown }) | undefined;
      if (!end || !flow.read(r)) {
        if (flow.failure) settle(flow.failure);
      } else if (end.failure || end.success) settle(end.failure, end.result as Output);
      else {
        const text = 'the result says that the request did not succeed';
        settle(new StreamerError('PROCESSING_FAILED', text, { details: { result: end.result }, requestId: id }));
      }
    };
    r.wake();
  };
  const abort = () => {
    const cause = signal?.reason;
    const error = new StreamerError('CANCELED', 'aborted by the caller', { requestId: id, cause });
    error.name = cause instanceof Error ? cause.name : 'AbortError';
    if (!flow.end && !flow.failure && (call ? call.tried : !unwait)) engine.cancel(id, error.message, () => {});
    stop(error);
  };
  const submit = (text: string, ref: string) => {
    unwait = undefined;
    if (flow.failure) return;
    call = engine.submit(flow, ref, text, (error) => {
      call = undefined;
      if (!error) accepted.resolve();
      else if (error.retryAfter && /^(SERVICE_UNAVAILABLE|RATE_LIMITED)$/.test(error.code)) {
        const pause = bounded(Math.max(error.retryAfter, submitPause << Math.min(refusals++, submitPauses)));
        unwait = later(pause * (1 + Math.random()), () => submit(text, ref));
      } else stop(error);
    });
  };

  const ref = engine.ref();
  let text: string | undefined;
  try {
    if (!/^(?!\.\.?$)[\w.~-]{1,128}$/.test(id)) {
      const message = `id ${JSON.stringify(id)}: must be 1 to 128 of A-Z a-z 0-9 . _ ~ -, and not . or ..`;
      throw new StreamerError('VALIDATION_ERROR', message);
    }
    text = encode?.(ref);
    if (signal?.aborted) throw signal.reason;
    flow = engine.join(id, { after, epoch: encode ? undefined : options.epoch }, unseen ? 0 : maxHeld);
  } catch (e) {
    refusal = StreamerError.is(e) ? e : new StreamerError('VALIDATION_ERROR', `payload: ${e}`, { cause: e });
    flow = new Flow(id, 0, 0);
    flow.failure = refusal as StreamerError;
    left = true;
  }
  const start = flow.reader(after);
  if (signal?.aborted) abort();
  else if (refusal) stop(refusal as StreamerError);
  else {
    signal?.addEventListener('abort', abort);
    if (text) submit(text, ref);
    else {
      const r: Reader = { ...start, pos: Infinity };
      r.wake = () => {
        if (!flow.answered) return;
        flow.readers.delete(r);
        if (flow.failure) accepted.reject(flow.failure);
        else accepted.resolve();
      };
      flow.readers.add(r);
      engine.attach(flow);
      r.wake();
    }
    if (signal || unseen || onProgress || all) watch();
  }

  const outcome = () => {
    watch();
    return result.promise;
  };
  return {
    id,
    accepted: accepted.promise,
    get cursor() {
      return { epoch: flow.epoch || undefined, after: flow.last };
    },
    then: (onFulfilled, onRejected) => outcome().then(onFulfilled, onRejected),
    catch: (onRejected) => outcome().catch(onRejected),
    finally: (onFinally) => outcome().finally(onFinally),
    cancel: (reason) =>
      accepted.promise.then(
        () =>
          new Promise<void>((resolve, reject) => {
            if (flow.end) resolve();
            else engine.cancel(id, reason, (error) => (error ? reject(error) : resolve()));
          }),
        (error) => {
          if (error === gone) throw error;
        },
      ),
    detach: () => stop(new StreamerError('CLOSED', 'detached from the request', { requestId: id })),
    [Symbol.asyncIterator]: () => iterate(engine, flow, { ...start }, () => gone),
  };
}

function iterate<Output, Chunk>(
  engine: Engine,
  flow: Flow,
  r: Reader,
  gone: () => StreamerError | undefined,
): AsyncIterator<StreamerEvent<Chunk, Output>> {
  type Result = IteratorResult<StreamerEvent<Chunk, Output>>;
  let done = false;
  let tail: Promise<unknown> = Promise.resolve();
  flow.readers.add(r);

  const stop = () => {
    done = true;
    flow.readers.delete(r);
    engine.review(flow);
  };
  const step = () =>
    new Promise<Result>((resolve, reject) => {
      r.wake = () => {
        const e = done || gone() ? undefined : flow.take(r);
        const error = done || (e && !e.failure) ? undefined : (gone() ?? e?.failure ?? flow.failure);
        if (!e && !error && !done && !flow.read(r)) return;
        r.wake = undefined;
        if (!e || e.failure || e.type === 'complete') stop();
        else engine.review(flow);
        if (error) reject(error);
        else if (e) resolve({ value: e as StreamerEvent<Chunk, Output> });
        else resolve({ done: true, value: undefined });
      };
      r.wake();
    });

  return {
    next() {
      const result = tail.then(step);
      tail = result.catch(() => {});
      return result;
    },
    async return() {
      stop();
      r.wake?.();
      return { done: true, value: undefined };
    },
  };
}
