const slots = 3;

/**
 * Takes one of the connections to a server that all tabs together may keep busy: browsers have six
 * for HTTP/1.1, and others need some too. Returns what gives it back, or undefined when all are taken.
 * Where there are no locks, there is nothing to count with, and no limit.
 */
export async function takeSlot(origin: string): Promise<(() => void) | undefined> {
  const locks = globalThis.navigator?.locks;
  if (!locks) return () => {};
  for (let i = 0; i < slots; i++) {
    const release = await new Promise<(() => void) | undefined>((resolve) => {
      locks
        .request(`streamer ${origin} ${i}`, { ifAvailable: true }, (lock) =>
          lock ? new Promise<void>((done) => resolve(done)) : resolve(undefined),
        )
        .catch(() => resolve(() => {})); // not allowed here
    });
    if (release) return release;
  }
  return undefined;
}
