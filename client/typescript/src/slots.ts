/**
 * Takes one of the connections to a server that all tabs together may keep busy: browsers have six
 * for HTTP/1.1, and others need some too. Returns what gives it back, or undefined when all are taken.
 * Where there are no locks, there is nothing to count with, and no limit.
 */
export async function takeSlot(): Promise<(() => void) | undefined> {
  const slots = 3;
  const free = () => {};
  const locks = globalThis.navigator?.locks;
  if (!locks) return free;
  let release: (() => void) | undefined;
  for (let i = 0; i < slots && !release; i++) {
    release = await new Promise<(() => void) | undefined>((resolve) => {
      // Held until the inner promise resolves.
      locks
        .request(`streamer ${i}`, { ifAvailable: true }, (lock) =>
          lock ? new Promise<void>(resolve) : resolve(undefined),
        )
        .catch(() => resolve(free)); // not allowed here
    });
  }
  return release;
}
