import { later } from './clock.js';
import type { Watcher } from './engine.js';
import type { StorageLike } from './types.js';

const pause = 250; // ms between writes of cursors

export interface Memory extends Watcher {
  ids(): string[];
  cursor(id: string): { epoch: string; after: number } | undefined;
}

/** Keeps which requests are pending for the page that comes after this one, if it may. */
export function createMemory(where: string | StorageLike | undefined): Memory {
  const key = `${typeof where === 'string' ? where : 'streamer'}:pending`;
  let storage: StorageLike | undefined;
  let entries: Map<string, { epoch: string; after: number }> | undefined;
  let waiting = false;

  // Whatever a browser does not allow, or somebody else has written there, is as if there was nothing.
  const load = () => {
    if (entries) return entries;
    entries = new Map();
    try {
      storage = typeof where === 'string' ? globalThis.sessionStorage : where;
      for (const [id, epoch, after] of JSON.parse(storage?.getItem(key) ?? '[]')) {
        entries.set(String(id), { epoch: String(epoch), after: Number(after) || 0 });
      }
    } catch {}
    return entries;
  };
  const save = () => {
    waiting = false;
    try {
      if (load().size) storage?.setItem(key, JSON.stringify([...load()].map(([id, c]) => [id, c.epoch, c.after])));
      else storage?.removeItem(key);
    } catch {}
  };

  return {
    ids: () => (where ? [...load().keys()] : []),
    cursor: (id) => (where ? load().get(id) : undefined),
    moved(id, cursor) {
      if (!where) return;
      const known = load().has(id);
      if (cursor) load().set(id, cursor);
      else load().delete(id);
      if (known !== !!cursor) save();
      else if (cursor && !waiting) {
        waiting = true;
        later(pause, save);
      }
    },
  };
}
