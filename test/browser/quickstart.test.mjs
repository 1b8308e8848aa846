import assert from 'node:assert/strict';
import { directories, scenario, startQuickstart } from './harness/world.mjs';

const events = directories + 3; // accepted, running, the outputs, the end

/** Opens the demo page as the quickstart serves it. */
async function open(world, context, path = '/') {
  const page = await world.open(path, context, () => document.querySelector('.viewer'));
  return page;
}

async function start(page, seconds) {
  await page.getByLabel('Spread over').selectOption(`${seconds}`);
  await page.getByRole('button', { name: 'Start' }).click();
}

const viewer = (page, n = 0) => page.locator('.viewer').nth(n);
const fact = (page, name, n = 0) => viewer(page, n).locator(`[data-fact=${name}]`);

/** Waits until a viewer has shown at least that many directories. */
const atLeast = (page, count, n = 0) =>
  page.waitForFunction(
    ([count, n]) => {
      const shown = document.querySelectorAll('.viewer')[n]?.querySelector('[data-fact=directories]');
      return Number(shown?.textContent) >= count;
    },
    [count, n],
    { polling: 50 },
  );

const status = (page, text, n = 0) => viewer(page, n).getByRole('status').filter({ hasText: text }).waitFor();
const done = (page, n) => status(page, 'Done', n);

/** What a viewer shows in the end. */
const shown = async (page, n = 0) => ({
  directories: await fact(page, 'directories', n).textContent(),
  events: await fact(page, 'seq', n).textContent(),
  missed: await fact(page, 'missed', n).textContent(),
  percent: await viewer(page, n)
    .getByRole('progressbar')
    .evaluate((p) => p.value),
});
const complete = { directories: `${directories}`, events: `${events}`, missed: '0', percent: 100 };

/** A scenario of the demo page, on which nothing is to be complained about. */
function demo(name, play, allowed = []) {
  scenario(
    `the demo page ${name}`,
    async (world) => {
      await world.serve(startQuickstart(), {});
      const pages = await play(world);
      for (const page of pages) {
        const bad = [...page.complaints, ...page.failures].filter((text) => !allowed.some((a) => a.test(text)));
        assert.deepEqual(bad, []);
      }
    },
    { lab: false },
  );
}

demo('starts the work, and shows its progress, its outputs and its result', async (world) => {
  const page = await open(world);
  const bar = page.getByRole('progressbar', { name: /progress/i });
  assert.equal(await bar.count(), 1);
  await start(page, 5);
  await atLeast(page, 3);
  const value = await bar.evaluate((p) => p.value);
  assert.ok(value > 0 && value < 100, `the progress is ${value}`);
  await page
    .locator('.viewer .message')
    .filter({ hasText: / of 40 files/ })
    .waitFor();
  await done(page);
  assert.deepEqual(await shown(page), complete);
  assert.match(await page.locator('.viewer .result').textContent(), /40 files with 40 lines/);
  assert.equal(await page.locator('.viewer tbody tr').first().locator('td').nth(1).textContent(), 'd39');
  return [page];
});

const goesOn = async (world) => {
  const page = await open(world);
  await page.getByRole('button', { name: 'Add a second viewer' }).click();
  await start(page, 60);
  for (const transport of ['websocket', 'sse', 'poll']) {
    await viewer(page).getByLabel('Transport').selectOption(transport);
    await page.waitForFunction(() => document.querySelector('.viewer .connection').dataset.phase === 'open');
    const before = Number(await fact(page, 'directories').textContent());
    await viewer(page).getByRole('button', { name: 'Cut connection' }).click();
    await viewer(page).locator('.connection').filter({ hasText: 'Connection cut' }).waitFor();
    await status(page, 'Back after');
    await atLeast(page, before + 1);
  }
  await page.getByRole('button', { name: 'Cancel' }).click();
  await status(page, 'Canceled');
  await status(page, 'Canceled', 1);
  const both = [await shown(page), await shown(page, 1)];
  assert.deepEqual(both[0], both[1]);
  assert.equal(both[0].missed, '0');
  return [page];
};
// Chromium warns when a page closes a WebSocket before it is open.
demo('goes on where it was when its connection is cut, on every transport', goesOn, [/WebSocket is closed before/]);

demo('shows a second viewer, and another tab, the same', async (world) => {
  const context = await world.context();
  const page = await open(world, context);
  await start(page, 5);
  await atLeast(page, 5);
  await page.getByRole('button', { name: 'Add a second viewer' }).click();
  const [tab] = await Promise.all([
    context.waitForEvent('page'),
    page.getByRole('link', { name: 'Open this request in another tab' }).click(),
  ]);
  world.watch(tab);
  await Promise.all([done(page), done(page, 1), done(tab)]);
  const tables = await Promise.all(
    [page.locator('table').nth(0), page.locator('table').nth(1), tab.locator('table')].map((t) => t.innerText()),
  );
  assert.equal(tables[1], tables[0]);
  assert.equal(tables[2], tables[0]);
  for (const [p, n] of [
    [page, 0],
    [page, 1],
    [tab, 0],
  ]) {
    assert.deepEqual(await shown(p, n), complete);
  }
  return [page, tab];
});

demo('shows a second viewer what was sent just as the transport was changed', async (world) => {
  const page = await open(world);
  await page.getByRole('button', { name: 'Add a second viewer' }).click();
  await page.evaluate(() => {
    const transport = document.querySelector('.viewer select');
    const controls = document.querySelector('#controls');
    controls.elements.seconds.value = '5';
    controls.requestSubmit();
    transport.value = 'sse';
    transport.dispatchEvent(new Event('change'));
  });
  await Promise.all([done(page), done(page, 1)]);
  assert.deepEqual(await shown(page, 1), complete);
  return [page];
});

demo('cancels the work, and can start it again', async (world) => {
  const page = await open(world);
  await start(page, 60);
  await atLeast(page, 1);
  await page.getByRole('button', { name: 'Cancel' }).click();
  await status(page, 'Canceled');
  assert.ok(await page.getByRole('button', { name: 'Cancel' }).isDisabled());
  await start(page, 5);
  await done(page);
  assert.deepEqual(await shown(page), complete);
  return [page];
});

demo('goes on after it was loaded again', async (world) => {
  const page = await open(world);
  await start(page, 5);
  await atLeast(page, 5);
  await page.reload();
  await done(page);
  assert.deepEqual(await shown(page), complete);
  return [page];
});

demo(
  'says what to do when a directory is not there, and when the server forgot the request',
  async (world) => {
    const page = await open(world);
    await page.getByLabel('Directory').fill('nowhere');
    await start(page, 5);
    await viewer(page).getByRole('alert').filter({ hasText: 'There is no directory nowhere.' }).waitFor();
    await page.getByLabel('Directory').fill('.');
    await start(page, 60);
    await atLeast(page, 1);
    await world.service.restart('SIGKILL');
    await viewer(page).getByRole('alert').filter({ hasText: 'Press Start' }).waitFor();
    return [page];
  },
  [/WebSocket connection to .* failed/],
);

demo('can be used by the keyboard alone, on a phone, without sideways scrolling', async (world) => {
  const context = await world.context({ viewport: { width: 360, height: 740 } });
  const page = await open(world, context);
  const named = async () =>
    page.evaluate(() => document.activeElement.closest('label')?.innerText ?? document.activeElement.innerText);
  await page.keyboard.press('Tab');
  assert.match(await named(), /Directory/);
  await page.keyboard.press('Tab');
  await page.keyboard.press('Tab');
  assert.equal(await named(), 'Start');
  await page.keyboard.press('Enter');
  await atLeast(page, 1);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.ok(wide <= 0, `${wide} pixels too wide`);
  return [page];
});

demo('runs nothing but its own scripts', async (world) => {
  const page = await open(world);
  const blocked = await page.evaluate(async () => {
    const violated = new Promise((resolve) => {
      document.addEventListener('securitypolicyviolation', (e) => resolve(e.effectiveDirective));
    });
    const script = document.createElement('script');
    script.textContent = 'globalThis.injected = true';
    document.body.append(script);
    return { directive: await violated, ran: 'injected' in globalThis };
  });
  assert.deepEqual(blocked, { directive: 'script-src-elem', ran: false });
  page.complaints.splice(0);
  return [page];
});
