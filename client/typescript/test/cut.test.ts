import { expect, test } from 'vitest';
import { randomOf } from './random.js';
import { pass, settled, setup, transports } from './world.js';

const box = setup();
const rounds = 12;
const outputs = 40;

test.each(transports)(
  '%s: whatever is cut and when, every output comes once and the result is right',
  async (transport) => {
    const { network, service } = box.world;
    for (let round = 0; round < rounds; round++) {
      const seed = Date.now() + round * 7919;
      const random = randomOf(seed);
      const c = box.world.connect({ transport });
      const seen: unknown[] = [];
      const progress: number[] = [];
      const gaps: unknown[] = [];
      const id = `r${round}`;
      network.piece = 1 + Math.floor(random() * 50);
      let passed = 0;
      let cut = 3 + Math.floor(random() * 20);
      // Cuts after a number of messages, or in the midst of one.
      network.pass = () => {
        if (++passed === cut) {
          passed = 0;
          cut = 2 + Math.floor(random() * 40);
          if (random() < 0.5) network.cut();
          else queueMicrotask(() => network.cut());
        }
        return true;
      };
      service.handlers.set('count', (job) => {
        job.start();
        let i = 0;
        const step = () => {
          for (let n = Math.floor(random() * 4); n > 0 && i < outputs; n--) job.output(i++);
          job.report((100 * i) / outputs);
          if (i < outputs) setTimeout(step, random() * 700);
          else job.complete({ outputs });
        };
        step();
      });
      const result = c.request('count', round, {
        id,
        onOutput: (d) => seen.push(d),
        onProgress: (p) => progress.push(p.percentage),
        onGap: (g) => gaps.push(g),
      });
      const { value } = await settled(result, 3600_000).catch((e) => {
        throw new Error(`seed ${seed}: ${e}`);
      });
      expect(value, `seed ${seed}`).toEqual({ outputs });
      expect(seen, `seed ${seed}`).toEqual(Array.from({ length: outputs }, (_, i) => i));
      expect(gaps, `seed ${seed}`).toEqual([]);
      expect(progress, `seed ${seed}`).toEqual([...progress].sort((a, b) => a - b));
      expect(progress.at(-1), `seed ${seed}`).toBe(100);
      c.close();
      await pass(1000);
    }
    expect(service.submits).toBeGreaterThanOrEqual(rounds);
    expect(service.jobs.size).toBe(rounds);
  },
);
