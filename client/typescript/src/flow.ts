import type { Call } from './engine.js';
import type { StreamerError } from './error.js';
import type { Connection } from './transport.js';
import type { Progress } from './types.js';
import { type Entry, type Message, toEntry } from './wire.js';

/** Characters of events of one request that are held for iterations that are slower than they come. */
export const maxHeld = 262_144;

/** Whoever reads a flow. */
export interface Reader {
  /** Position of the next entry. Infinity: only progress and the end are of interest. */
  pos: number;
  /** seq of the newest event that was read. */
  seq: number;
  /** Reports of progress that were read. */
  reports: number;
  /** Called when something has come; without it the reader is busy. */
  wake?: (() => void) | undefined;
}

/**
 * Follows one log, over one connection after the other, and holds its newest entries. Positions count
 * entries; unlike seqs they go on at a gap. What a reader still needs is held; when that is too much the
 * log is not shown any more until it has been read.
 */
export class Flow {
  epoch = '';
  /** seq of the newest event. */
  last: number;
  /** There is a log to attach to. */
  known = false;
  /** The server has answered. */
  answered = false;
  /** Handles that have it. */
  users = 1;
  readers = new Set<Reader>();
  /** The request's end, with all events before it. */
  end: Entry | undefined;
  /** Why it is followed no more. */
  failure: StreamerError | undefined;

  /** Where it takes a slot. */
  on: Connection | undefined;
  /** The attach that is to be sent or answered. */
  asked: Call | undefined;
  /** Not shown, since too much is held. */
  paused = false;
  /** The server said that it has ended; just the end itself is missing. */
  ended = false;
  /** Times in a row that events were missing, and that an attach was refused. */
  holes = 0;
  pauses = 0;
  unwait = () => {};

  private window: [Entry, size: number][] = [];
  private base: number; // position of its first entry
  private held = 0;
  private shift = 0; // positions less seqs
  private attempt = 0;
  private progress: Progress | undefined;
  private progressAt = 0;
  private reports = 0;

  constructor(
    readonly id: string,
    after: number,
    public limit: number,
  ) {
    this.last = after;
    this.base = after + 1;
  }

  private get edge(): number {
    return this.base + this.window.length;
  }

  /** Returns a reader of what comes after that seq. */
  reader(after: number): Reader {
    return { pos: after + 1 + this.shift, seq: after, reports: 0 };
  }

  /** Takes the event after the newest one. */
  add(m: Message): void {
    const e = toEntry(this.epoch, m);
    this.last++;
    if (e.type === 'running') {
      this.attempt = e.attempt;
      if ((this.progress?.attempt ?? 0) < e.attempt) this.progress = undefined;
    }
    if (e.failure || e.type === 'complete') this.end = e;
    this.push(e, m.size ?? 0);
  }

  private push(e: Entry, size: number): void {
    this.window.push([e, size + 256]);
    this.held += size + 256;
    if (this.full(this.limit)) {
      this.wake();
      this.full(this.limit);
    }
  }

  /** Forgets what nobody needs, and reports whether there is still more than limit. */
  full(limit: number): boolean {
    const least = Math.min(this.edge - 1, ...[...this.readers].map((r) => r.pos));
    while (this.held > limit && this.base < least) {
      this.held -= this.window.shift()?.[1] ?? 0;
      this.base++;
    }
    return this.held > limit && this.base + 1 < this.edge;
  }

  /** Goes on in another log, or behind events that are lost. */
  skip(m: Message): void {
    const { epoch = '', reason = 'recreated', attempt = 0 } = m;
    const oldest = Math.max(m.oldest ?? 1, 1);
    if (epoch !== this.epoch || oldest > this.last + 1 || (m.last ?? 0) < this.last) {
      this.push({ type: 'gap', reason, after: this.last, oldest, attempt, epoch }, 0);
      this.last = oldest - 1;
      this.shift = this.edge - oldest;
      this.attempt = attempt;
      this.progress = undefined;
    }
    this.epoch = epoch;
  }

  /** Takes progress, unless it is older than what is known. */
  report(m: Message): void {
    const { percentage = 0, message = '', metadata, attempt = 0, timestamp } = m;
    const p = { percentage, message, metadata, attempt, timestamp };
    const old = this.progress;
    if (
      attempt < this.attempt ||
      (old?.attempt === attempt &&
        (percentage < old.percentage ||
          (timestamp ?? '') < (old.timestamp ?? '') ||
          JSON.stringify(p) === JSON.stringify(old)))
    ) {
      return;
    }
    this.progress = p;
    this.progressAt = this.edge;
    this.reports++;
  }

  /** Returns what r reads next; undefined when it has to wait, or has read all. */
  take(r: Reader): Entry | undefined {
    if (r.pos < this.base) {
      const first = this.window[0]?.[0] as { seq?: number; oldest: number } | undefined;
      const oldest = first ? (first.seq ?? first.oldest) : this.last + 1;
      r.pos = this.base;
      return { type: 'gap', reason: 'dropped', after: r.seq, oldest, attempt: this.attempt, epoch: this.epoch };
    }
    if (this.progress && r.reports < this.reports && r.pos >= this.progressAt) {
      r.reports = this.reports;
      return { type: 'progress', ...this.progress };
    }
    const e = this.window[r.pos - this.base]?.[0];
    if (e) {
      r.pos++;
      r.seq = e.type === 'gap' ? e.oldest - 1 : (e as { seq: number }).seq;
    }
    return e;
  }

  /** Reports whether r has read all there will be. */
  read(r: Reader): boolean {
    return !!this.end && r.pos >= this.edge;
  }

  /** Has all readers read on that can. */
  wake(): void {
    for (const r of [...this.readers]) r.wake?.();
  }
}
