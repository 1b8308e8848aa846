import assert from 'node:assert/strict';
import { join } from 'node:path';
import { directories, scenario, startQuickstart } from './harness/world.mjs';

function example(name, play) {
  scenario(
    `the React example ${name}`,
    async (world) => {
      await world.serve(startQuickstart(), { '/': join(process.env.STREAMER_BUILT, 'react') });
      const page = await world.open('/', undefined, () => document.querySelector('main'));
      await play(page, world);
      assert.deepEqual(page.complaints, []);
    },
    { lab: false },
  );
}

const status = (page, text) =>
  page
    .getByRole('status')
    .filter({ hasText: new RegExp(text, 'i') })
    .waitFor();
const start = (page) => page.getByRole('button', { name: 'Start' }).click();
const value = (page) => page.getByRole('progressbar').evaluate((p) => p.value);

example('shows a request from its start to its result, across a lost connection and a reload', async (page, world) => {
  await start(page);
  await status(page, 'running');
  await page.getByRole('row').filter({ hasText: 'd01' }).waitFor();
  world.wire.cut();
  await page.getByRole('row').filter({ hasText: 'd05' }).waitFor();
  await page.reload();
  await page.getByRole('row').filter({ hasText: 'd10' }).waitFor();
  assert.ok((await value(page)) > 20);
  await status(page, 'completed');
  assert.equal(await value(page), 100);
  await page.getByText(`${directories} files, ${directories} lines.`).waitFor();
  // The newest eight, the newest first.
  const rows = await page.locator('tbody tr td:first-child').allTextContents();
  assert.deepEqual(rows, ['d39', 'd38', 'd37', 'd36', 'd35', 'd34', 'd33', 'd32']);
});

example('cancels, and starts again', async (page) => {
  await start(page);
  await page.getByRole('row').filter({ hasText: 'd00' }).waitFor();
  await page.getByRole('button', { name: 'Cancel' }).click();
  await status(page, 'canceled');
  await start(page);
  await status(page, 'running');
  assert.ok((await value(page)) < 50);
});
