import type { Cursor, PendingRequests, StorageLike } from './types.js';

const pause = 250; // ms between writes of cursors

/**
 * Keeps pending requests in a Storage, by default sessionStorage, under a key that starts with prefix. What a browser
 * does not allow, or somebody else has written there, is as if there was nothing.
 */
export function keepIn(prefix: string, storage?: StorageLike): PendingRequests {
  return new Kept(`${prefix}:pending`, storage);
}

class Kept implements PendingRequests {
  readonly #key: string;
  #storage: StorageLike | undefined;
  #entries: Map<string, Cursor> | undefined;
  #waiting = false;

  constructor(key: string, storage: StorageLike | undefined) {
    this.#key = key;
    this.#storage = storage;
  }

  get(id: string): Cursor | undefined {
    return this.#load().get(id);
  }

  keys(): MapIterator<string> {
    return this.#load().keys();
  }

  set(id: string, cursor: Cursor): never {
    const known = this.#load().has(id);
    this.#load().set(id, cursor);
    if (!known) this.#save();
    else if (!this.#waiting) {
      this.#waiting = true;
      setTimeout(() => this.#save(), pause);
    }
    return this as never;
  }

  delete(id: string): boolean {
    const known = this.#load().delete(id);
    if (known) this.#save();
    return known;
  }

  #load(): Map<string, Cursor> {
    if (this.#entries) return this.#entries;
    this.#entries = new Map();
    try {
      this.#storage ??= globalThis.sessionStorage;
      for (const [id, epoch, after] of JSON.parse(this.#storage?.getItem(this.#key) ?? '[]')) {
        this.#entries.set(String(id), { epoch: String(epoch), after: Number(after) || 0 });
      }
    } catch {}
    return this.#entries;
  }

  #save(): void {
    this.#waiting = false;
    const entries = [...this.#load()].map(([id, { epoch, after }]) => [id, epoch, after]);
    try {
      if (entries.length) this.#storage?.setItem(this.#key, JSON.stringify(entries));
      else this.#storage?.removeItem(this.#key);
    } catch {}
  }
}
