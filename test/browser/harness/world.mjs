import { mkdir, mkdtemp, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { startChromium } from './chromium.mjs';
import { freePort, Service } from './process.mjs';
import { Site } from './site.mjs';
import { Wire } from './wire.mjs';

const built = process.env.STREAMER_BUILT;
if (!built) throw new Error('run the tests with "npm test", which builds what they need first');
const pages = fileURLToPath(new URL('../page/', import.meta.url));

const limit = 90_000; // ms: a test takes a few seconds, on a machine that is busy with something else many more

let chromium;
before(async () => {
  chromium = await startChromium();
});
after(() => chromium?.close());

/** The lab, started on a port of its own. */
async function startLab(args) {
  return begin('lab', /"ready":true/, ['-auth', 'dev', ...args]);
}

/** The server whose users are known by a cookie. */
export async function startCookies() {
  return begin('cookies', /ready/, []);
}

/** How many directories the quickstart reads here, with a file of one line in each. */
export const directories = 40;

/** The quickstart, in a folder of its own. */
export async function startQuickstart() {
  const dir = await mkdtemp(join(built, 'inventory-'));
  for (let i = 0; i < directories; i++) {
    const name = join(dir, `d${String(i).padStart(2, '0')}`);
    await mkdir(name);
    await writeFile(join(name, 'file.txt'), `line of ${i}\n`);
  }
  return begin('quickstart', /Watch it in a browser/, ['-dir', dir]);
}

async function begin(name, ready, args) {
  const service = new Service(join(built, name), await freePort(), args, ready, { TMPDIR: built });
  await service.start();
  return service;
}

/** What one test has to itself. */
class World {
  #closers = [];
  #pages = [];

  /** Has close called when the test is over, and returns thing. */
  keep(thing, close) {
    this.#closers.unshift(close);
    return thing;
  }

  /** Starts a service, a site before it, and a wire between that and the browser. */
  async serve(service, folders = { '/client/': join(built, 'client'), '/': pages }) {
    this.service = this.keep(await service, () => this.service.stop('SIGKILL'));
    this.site = await Site.start(folders, this.service.port);
    this.keep(this.site, () => this.site.close());
    this.wire = await Wire.start(this.site.port);
    this.keep(this.wire, () => this.wire.close());
    this.origin = `http://127.0.0.1:${this.wire.port}`;
  }

  /** A browser context of its own: its cookies and its settings are those of nobody else. */
  async context(options) {
    const context = await chromium.browser.newContext(options);
    return this.keep(context, () => context.close());
  }

  /**
   * Opens a page in front of the others and waits until it is ready for the test. Without a context it is
   * a tab of the one window that Chromium has, so the tabs behind it are hidden, and throttled, as in life. Tests
   * have a port each, and so storage and locks of their own.
   */
  async open(url, context = chromium.browser.contexts()[0], ready = () => 'connect' in globalThis) {
    const page = await context.newPage();
    this.keep(page, () => page.close());
    this.watch(page);
    await page.goto(new URL(url, this.origin).href);
    await page.bringToFront();
    await page.waitForFunction(ready, undefined, { polling: 20 });
    return page;
  }

  /** Notes what goes wrong in a page. */
  watch(page) {
    page.setDefaultTimeout(0); // the test's own limit holds
    page.complaints = [];
    page.failures = []; // answers of servers that Chromium itself complains about
    page.on('pageerror', (e) => page.complaints.push(String(e)));
    page.on('console', (m) => {
      if (m.type() !== 'error' && m.type() !== 'warning') return;
      (m.text().startsWith('Failed to load resource') ? page.failures : page.complaints).push(m.text());
    });
    this.#pages.push(page);
  }

  /** Waits for something in the harness itself. */
  async until(test) {
    while (!test()) await new Promise((resolve) => setTimeout(resolve, 5));
  }

  /** What helps to understand why a test failed. */
  async report() {
    const lines = [];
    for (const page of this.#pages) {
      const seen = page.evaluate(() => JSON.stringify(globalThis.followed ?? document.body.innerText));
      const told = await Promise.race([seen, new Promise((resolve) => setTimeout(resolve, 1000, 'no answer'))]).catch(
        String,
      );
      lines.push(`page ${page.url()}: ${told.slice(0, 3000)}`, ...(page.complaints ?? []));
    }
    if (this.site) lines.push(`calls: ${this.site.calls.slice(-20).join(', ')}`);
    if (this.service) lines.push(`server: ${this.service.log.slice(-3000)}`);
    return lines.join('\n');
  }

  async close() {
    for (const close of this.#closers) await close();
  }
}

/** A test with a world of its own, in which the lab is served with these arguments unless lab is false. */
export function scenario(name, play, { lab = [] } = {}) {
  test(name, { timeout: limit + 10_000 }, async (t) => {
    const world = new World();
    let timer;
    const tooLate = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`it took more than ${limit / 1000} s`)), limit);
    });
    try {
      if (lab) await world.serve(startLab(lab));
      await Promise.race([play(world, t), tooLate]);
    } catch (e) {
      t.diagnostic(await world.report());
      throw e;
    } finally {
      clearTimeout(timer);
      await world.close();
    }
  });
}
