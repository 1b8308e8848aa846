import { StreamerError } from './error.js';

/** What the end of a connection, or of the attempt to make one, means. */
export interface Verdict {
  error: Error;
  /** What pending calls fail with; without it there is another connection. */
  stop?: StreamerError | undefined;
  /** The token was refused: stop when that happens twice in a row. */
  denied?: boolean;
  /** Milliseconds before which not to connect again. */
  floor?: number;
  /** Milliseconds over which to connect again, at least. */
  spread?: number;
  /** Nothing shows that it was the service that answered, so another transport may fare better. */
  foreign?: boolean;
  /** It took too long. */
  late?: boolean;
}

const maxFloor = 3_600_000;

/** Bounds what a server can make a client wait, in milliseconds. */
export function bounded(ms: number | undefined): number {
  return Math.min(Math.max(Number(ms) || 0, 0), maxFloor);
}

export function broken(what: string): Verdict {
  const error = new StreamerError('INTERNAL_ERROR', what);
  return { error, stop: error };
}

/** Reports whether a status says to try again later. */
export function isTransient(status: number): boolean {
  return status === 408 || status === 425 || status === 429 || status >= 500;
}

const codes = new Map([
  [400, 'VALIDATION_ERROR'],
  [401, 'UNAUTHORIZED'],
  [403, 'FORBIDDEN'],
]);

/** Applies the rule of HTTP, which close codes from 4000 on follow too. */
export function byStatus(status: number, text: string, retryAfter?: number, code = codes.get(status)): Verdict {
  return {
    error: new Error(text),
    floor: bounded(retryAfter),
    denied: status === 401,
    stop: isTransient(status)
      ? undefined
      : new StreamerError(code || 'SERVICE_UNAVAILABLE', `connection refused: ${text}`),
  };
}

/** Judges the close of a WebSocket. */
export function byClose(code: number, reason: string): Verdict {
  const text = `WebSocket closed: ${code}${reason && ` ${reason}`}`;
  if (code >= 4000) {
    return byStatus(code - 4000, text, Number(/retry_after_ms\W*(\d+)/.exec(reason)?.[1]));
  }
  const error = new Error(text);
  if (code === 1012 || code === 1013) return { error, floor: code === 1013 ? 5000 : 0, spread: 5000 };
  const stop =
    code === 1009
      ? 'PAYLOAD_TOO_LARGE'
      : code === 1008
        ? 'FORBIDDEN'
        : code === 1002 || code === 1003 || code === 1007 || code === 1010
          ? 'INTERNAL_ERROR'
          : '';
  return stop ? { error, stop: new StreamerError(stop, text) } : { error, foreign: true };
}
