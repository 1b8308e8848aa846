import { StreamerError } from './error.js';
import type { StreamerEvent } from './types.js';

/** An error as the server writes it. */
export interface Failure {
  code: string;
  message: string;
  details?: Record<string, unknown>;
  retry_after_ms?: number;
}

/** A message of the server. What is not in a message is undefined. */
export interface Message {
  type: string;
  request_id?: string;
  ref?: string;
  seq?: number | undefined;
  epoch?: string;
  status?: string;
  attempt?: number;
  outputs_from?: number;
  reason?: string;
  error?: Failure;
  retry_after_ms?: number;
  index?: number;
  data?: unknown;
  result?: unknown;
  success?: boolean;
  percentage?: number;
  message?: string;
  metadata?: Record<string, unknown>;
  timestamp?: string;
  after?: number;
  oldest?: number;
  last?: number;
  v?: number;
  ping_interval_ms?: number;
  limits?: { max_message_bytes?: number; max_inflight?: number; max_attached?: number };
  caps?: string[];
  reconnect_in_ms?: number;
  /** Of welcome and alive: what the connection is over. Set by the connection. */
  transport?: 'websocket' | 'sse' | 'poll';
  /** Of welcome: nothing has been heard of the server yet. Set by the connection. */
  unproven?: boolean;
  /** Length of the message's text. Set by the connection. */
  size?: number;
}

/** A place in a log, as it is written in hello. */
export interface WireCursor {
  id: string;
  epoch?: string | undefined;
  after: number;
}

/** A message to the server. That of a request is encoded already, in text. */
export type Outgoing =
  | { type: 'request'; id: string; ref: string; text: string }
  | ({ type: 'attach'; ref: string } & WireCursor)
  | { type: 'cancel'; id: string; ref: string; reason?: string | undefined }
  | { type: 'detach'; id: string }
  | { type: 'auth'; token: string }
  | { type: 'pong' };

/** What is held of a log: an event or a gap. All have one shape; what an entry does not have is undefined. */
export type Entry = StreamerEvent & {
  /** Of the end, when the request failed or was canceled. */
  failure?: StreamerError | undefined;
};

export function toError(f: Failure | undefined, requestId: string | undefined): StreamerError {
  return new StreamerError(f?.code ?? 'INTERNAL_ERROR', f?.message ?? 'the server did not say what is wrong', {
    details: f?.details,
    retryAfter: f?.retry_after_ms,
    requestId,
  });
}

const names = new Map([
  ['queued', 'accepted'],
  ['response', 'complete'],
  ['error', 'failed'],
]);

/** What a numbered message says. */
export function toEntry(epoch: string, m: Message): Entry {
  const name = m.type === 'status' ? (m.status ?? '') : m.type;
  const error = m.error && toError(m.error, m.request_id);
  const { seq, timestamp, attempt, index, reason, success } = m;
  return {
    type: names.get(name) ?? name,
    seq,
    epoch,
    timestamp,
    attempt,
    index,
    data: m.type === 'output' ? m.data : undefined,
    outputsFrom: m.outputs_from ?? 0,
    reason,
    delay: m.retry_after_ms ?? 0,
    error,
    success,
    result: m.result ?? m.data,
    failure: m.type === 'error' ? (error ?? toError(undefined, m.request_id)) : undefined,
  } as Entry;
}
