import type { Message } from '../src/wire.js';

/** A request of the fake service, with its log. Tests move it on as they like. */
export class Job {
  log: Message[] = [];
  oldest = 1;
  progress: Message | undefined;
  status = 'queued';
  attempt = 0;
  outputs = 0;
  viewers = new Set<Viewer>();

  constructor(
    readonly id: string,
    readonly action: string,
    readonly payload: unknown,
    public epoch: string,
  ) {
    this.append({ type: 'status', status: 'queued' });
  }

  get ended(): boolean {
    return /^(completed|failed|canceled)$/.test(this.status);
  }

  private append(m: Message): void {
    if (this.ended) return;
    this.log.push({ ...m, request_id: this.id, seq: this.log.length + 1 });
    if (m.status) this.status = m.status;
    if (m.type === 'complete' || m.type === 'response') this.status = 'completed';
    if (m.type === 'error') this.status = m.error?.code === 'CANCELED' ? 'canceled' : 'failed';
    for (const v of [...this.viewers]) v.show();
  }

  start(outputsFrom = 0): void {
    this.attempt++;
    this.outputs = outputsFrom;
    this.progress = undefined;
    this.append({
      type: 'status',
      status: 'running',
      attempt: this.attempt,
      ...(this.attempt > 1 && { outputs_from: outputsFrom }),
    });
  }

  output(data: unknown): void {
    this.append({ type: 'output', attempt: this.attempt, index: this.outputs++, data });
  }

  report(percentage: number, message = '', metadata?: Record<string, unknown>): void {
    this.progress = {
      type: 'progress',
      request_id: this.id,
      attempt: this.attempt,
      percentage,
      message,
      ...(metadata && { metadata }),
      timestamp: new Date().toISOString(),
    };
    for (const v of [...this.viewers]) v.show();
  }

  retry(reason: string, delay = 0): void {
    this.append({ type: 'status', status: 'retrying', attempt: this.attempt, reason, retry_after_ms: delay });
  }

  complete(result?: unknown, success = true): void {
    this.append({ type: 'complete', success, result });
  }

  respond(data: unknown): void {
    this.log = [];
    this.append({ type: 'response', success: true, data });
  }

  fail(code: string, message: string): void {
    this.append({ type: 'error', error: { code, message } });
  }

  cancel(reason = ''): void {
    this.append({ type: 'status', status: 'canceling', reason });
    if (this.action !== 'stubborn') this.fail('CANCELED', reason);
  }

  /** The log is lost, and another has the id. */
  recreate(): void {
    this.epoch += 'x';
    this.log = [];
    this.status = 'queued';
    this.attempt = 0;
    this.progress = undefined;
    this.append({ type: 'status', status: 'queued' });
  }
}

/** Shows a job's log to one connection. */
export class Viewer {
  private shown: Message | undefined; // progress

  constructor(
    readonly job: Job,
    private after: number,
    private push: (m: Message) => void,
  ) {
    job.viewers.add(this);
  }

  show(): void {
    const { job } = this;
    for (;;) {
      const m = job.log[this.after];
      const last = m && this.after === job.log.length - 1 && job.ended;
      if (job.progress && job.progress !== this.shown && (!m || last)) {
        this.shown = job.progress;
        this.push(job.progress);
      }
      if (!m) return;
      this.after++;
      this.push(m);
    }
  }

  stop(): void {
    this.job.viewers.delete(this);
  }
}

/** The cursor with which a client attaches. */
export interface At {
  id: string;
  epoch?: string;
  after?: number;
}

export type Refusal = { error: { code: string; message: string; retry_after_ms?: number } };

/** What both transports of the fake service show of it. */
export class Service {
  jobs = new Map<string, Job>();
  /** Called with each job that was accepted. */
  handlers = new Map<string, (job: Job) => void>();
  /** Says which token is good. */
  good: (token: string | undefined) => boolean = () => true;
  tokens: (string | undefined)[] = [];
  /** Taken before anything else by the next submits. */
  refusals: Refusal[] = [];
  submits = 0;
  private count = 0;

  job(id: string): Job {
    const job = this.jobs.get(id);
    if (!job) throw new Error(`there is no job ${id}`);
    return job;
  }

  admit(token: string | undefined): boolean {
    this.tokens.push(token);
    return this.good(token);
  }

  submit(m: { id: string; action: string; payload?: unknown }): { job: Job; duplicate: boolean } | Refusal {
    this.submits++;
    const refusal = this.refusals.shift();
    if (refusal) return refusal;
    const old = this.jobs.get(m.id);
    if (old) {
      if (old.action === m.action && JSON.stringify(old.payload) === JSON.stringify(m.payload)) {
        return { job: old, duplicate: true };
      }
      return { error: { code: 'CONFLICT', message: 'used before' } };
    }
    const job = new Job(m.id, m.action, m.payload, `e${++this.count}`);
    this.jobs.set(m.id, job);
    if (m.action === 'echo') job.respond(m.payload);
    else queueMicrotask(() => this.handlers.get(m.action)?.(job));
    return { job, duplicate: false };
  }

  acknowledgment(job: Job, duplicate: boolean): Message {
    return {
      type: 'acknowledgment',
      request_id: job.id,
      epoch: job.epoch,
      seq: 1,
      status: job.status,
      duplicate,
    } as Message;
  }

  /** Begins to show a job: returns the first message, and from where on to show it. */
  attach(at: At): { first: Message; job?: Job; after: number; over?: boolean } {
    const job = this.jobs.get(at.id);
    const after = at.after ?? 0;
    if (!job) {
      const error = { code: 'NOT_FOUND', message: 'no such request' };
      return { first: { type: 'error', request_id: at.id, error }, after };
    }
    const last = job.log.length;
    const common = {
      request_id: job.id,
      epoch: job.epoch,
      status: job.status,
      attempt: job.attempt,
      oldest: job.oldest,
      last,
      after,
    };
    const reason =
      at.epoch && at.epoch !== job.epoch
        ? 'recreated'
        : after > last
          ? 'ahead'
          : after + 1 < job.oldest
            ? 'expired'
            : undefined;
    if (reason) return { first: { type: 'gap', reason, ...common }, job, after: job.oldest - 1 };
    return { first: { type: 'attached', ...common }, job, after, over: job.ended && after >= last };
  }
}
