import assert from 'node:assert/strict';
import { scenario } from './harness/world.mjs';

scenario(
  'seven tabs with event streams on HTTP/1.1 all make progress, and leave connections for others',
  async (world) => {
    const tabs = [];
    for (let i = 0; i < 7; i++) tabs.push(await world.open('/'));
    await Promise.all(
      tabs.map((tab) =>
        tab.evaluate(async () => {
          globalThis.client = connect({ transport: 'sse' });
          globalThis.seen = follow(client.submit('count', { n: 100_000, every_ms: 50 }));
          await until(() => seen.outputs.length >= 3);
        }),
      ),
    );
    // None of them is over: each goes on while all the others do.
    await Promise.all(
      tabs.map((tab) =>
        tab.evaluate(() => {
          const n = seen.outputs.length;
          return until(() => seen.outputs.length > n + 3);
        }),
      ),
    );
    assert.equal(await tabs[0].evaluate(() => fetch('/elsewhere.html').then((r) => r.status)), 200);
    assert.ok(world.site.mostHeld <= 3, `${world.site.mostHeld} connections were held`);
    const seen = await Promise.all(
      tabs.map((tab) =>
        tab.evaluate(async () => {
          await client.attach(seen.id).cancel();
          await until(() => seen.over);
          return seen;
        }),
      ),
    );
    for (const { outputs, error } of seen) {
      assert.equal(error.code, 'CANCELED');
      assert.ok(outputs.every((o, i) => o === i));
    }
  },
);

scenario('a tab that is closed gives its stream to one that had none', async (world) => {
  const tabs = [];
  for (let i = 0; i < 4; i++) tabs.push(await world.open('/'));
  for (const tab of tabs) {
    await tab.evaluate(async () => {
      globalThis.client = connect({ transport: 'sse' });
      globalThis.seen = follow(client.submit('count', { n: 100_000, every_ms: 50 }));
      await until(() => seen.outputs.length >= 3);
    });
  }
  assert.equal(world.site.held, 3);
  const { opened } = world.site;
  await tabs[0].close();
  await world.until(() => world.site.opened > opened && world.site.held === 3);
  const goesOn = await tabs[3].evaluate(async () => {
    const n = seen.outputs.length;
    await until(() => seen.outputs.length > n + 3);
    return seen.outputs.every((o, i) => o === i);
  });
  assert.ok(goesOn);
});
