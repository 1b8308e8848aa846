import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { later } from '../src/clock.js';

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

const days = 24 * 3600_000;

test('a wait of more than 2^31 ms does not fire at once', () => {
  // What timers of browsers and Node do with such a number.
  const real = globalThis.setTimeout;
  vi.stubGlobal('setTimeout', (f: () => void, ms: number) => real(f, ms > 2 ** 31 - 1 ? 1 : ms));
  const fired = vi.fn();
  later(30 * days, fired);
  vi.advanceTimersByTime(30 * days - 1000);
  expect(fired).not.toHaveBeenCalled();
  vi.advanceTimersByTime(2000);
  expect(fired).toHaveBeenCalledTimes(1);
  vi.unstubAllGlobals();
});

test('time that the machine has slept counts, and a clock that is set back does not', () => {
  const slept = vi.fn();
  later(3600_000, slept);
  vi.advanceTimersByTime(10_000);
  vi.setSystemTime(Date.now() + 2 * 3600_000);
  vi.advanceTimersByTime(30_000);
  expect(slept).toHaveBeenCalledTimes(1);

  const back = vi.fn();
  later(60_000, back);
  vi.setSystemTime(Date.now() - days);
  vi.advanceTimersByTime(61_000);
  expect(back).toHaveBeenCalledTimes(1);
});

test('what is called off never fires', () => {
  const fired = vi.fn();
  const stop = later(100_000, fired);
  vi.advanceTimersByTime(50_000);
  stop();
  vi.advanceTimersByTime(100_000);
  expect(fired).not.toHaveBeenCalled();
  expect(vi.getTimerCount()).toBe(0);
});
