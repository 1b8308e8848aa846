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
  ref?: string | undefined;
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
}

/** A message to the server. What is not in a message is undefined. */
export interface Outgoing {
  type: 'attach' | 'cancel' | 'detach' | 'auth' | 'ping' | 'pong';
  id?: string;
  ref?: string;
  epoch?: string | undefined;
  after?: number;
  reason?: string | undefined;
  token?: string;
}

/** What a connection fails with when the other side is slow. */
export const late = 'nothing heard in time';
