/** Codes of the server, and of the client itself: CLOSED. Handlers may use codes of their own. */
export type ErrorCode =
  | 'VALIDATION_ERROR'
  | 'INVALID_ACTION'
  | 'NOT_FOUND'
  | 'UNAUTHORIZED'
  | 'FORBIDDEN'
  | 'CONFLICT'
  | 'PAYLOAD_TOO_LARGE'
  | 'RATE_LIMITED'
  | 'SERVICE_UNAVAILABLE'
  | 'TIMEOUT'
  | 'CANCELED'
  | 'PROCESSING_FAILED'
  | 'INTERNAL_ERROR'
  | 'CLOSED'
  | (string & {});

const brand = Symbol.for('@streamer/client.error');

export interface ErrorInit {
  details?: Record<string, unknown> | undefined;
  /** Milliseconds. */
  retryAfter?: number | undefined;
  requestId?: string | undefined;
  cause?: unknown;
}

/** What requests reject with: the server refused or failed the request, or the client could not go on. */
export class StreamerError extends Error {
  readonly [brand] = true;
  declare readonly code: ErrorCode;
  declare readonly details: Record<string, unknown> | undefined;
  /** Milliseconds to wait before trying again, where the server says so. */
  declare readonly retryAfter: number | undefined;
  declare readonly requestId: string | undefined;

  constructor(code: ErrorCode, message: string, init: ErrorInit = {}) {
    super(message, init);
    Object.assign(this, { name: 'StreamerError', code }, init);
  }

  /** Reports whether e is a StreamerError, also one of another copy of this package. */
  static is(e: unknown): e is StreamerError {
    return !!(e as Record<symbol, unknown> | null | undefined)?.[brand];
  }
}
