const longest = 30_000;

/**
 * Calls fn after that many milliseconds, and returns what calls it off. Long waits are made of short
 * ones: timers of more than 24 days would fire at once, and after a sleep of the machine the time that
 * has passed is taken into account.
 */
export function later(ms: number, fn: () => void): () => void {
  let timer: ReturnType<typeof setTimeout>;
  const arm = () => {
    const step = Math.min(ms, longest);
    const from = Date.now();
    timer = setTimeout(() => {
      ms -= Math.max(step, Date.now() - from);
      if (ms > 0) arm();
      else fn();
    }, step);
  };
  arm();
  return () => clearTimeout(timer);
}
