import { spawn } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { createInterface } from 'node:readline';
import { chromium } from 'playwright-core';

// None of the switches that test tools like to add: pages are throttled, frozen and kept in the
// back/forward cache as they are for users.
const flags = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--disable-dev-shm-usage',
  '--remote-debugging-port=0',
];

/** Starts a Chromium with a profile of its own. Its close ends the process and removes the profile. */
export async function startChromium() {
  const profile = await mkdtemp(join(tmpdir(), 'streamer-chromium-'));
  const child = spawn(find(), [...flags, `--user-data-dir=${profile}`, 'about:blank'], {
    detached: true, // so that it and its helpers are one group
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const gone = new Promise((resolve) => child.once('exit', resolve));
  const kill = () => {
    try {
      process.kill(-child.pid, 'SIGKILL');
    } catch {} // it is gone
  };
  process.once('exit', kill);
  const browser = await chromium.connectOverCDP(await endpoint(child.stderr), { noDefaults: true });
  return {
    browser,
    async close() {
      const session = await browser.newBrowserCDPSession();
      const impatience = setTimeout(kill, 3000);
      await session.send('Browser.close').catch(() => {});
      await gone;
      clearTimeout(impatience);
      kill();
      process.off('exit', kill);
      await rm(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
    },
  };
}

function find() {
  for (const name of [process.env.CHROMIUM, 'chromium', 'chromium-browser', 'google-chrome']) {
    for (const dir of name?.startsWith('/') ? [''] : (process.env.PATH ?? '').split(delimiter)) {
      const file = name && join(dir, name);
      try {
        accessSync(file, constants.X_OK);
        return file;
      } catch {}
    }
  }
  throw new Error('there is no chromium here: run ./install, or name one in the variable CHROMIUM');
}

/** Returns the address that Chromium says it can be driven at. */
async function endpoint(stderr) {
  const said = [];
  for await (const line of createInterface({ input: stderr })) {
    const found = /DevTools listening on (ws:\S+)/.exec(line);
    if (found) {
      stderr.resume();
      return found[1];
    }
    said.push(line);
  }
  throw new Error(`chromium ended before it could be driven. It said:\n${said.join('\n')}`);
}
