import assert from 'node:assert/strict';
import { scenario, startCookies } from './harness/world.mjs';

// A page on another port of the same host is the worst case: to cookies it is the same site, so the
// browser sends them along, whatever their SameSite says.
scenario(
  'a page of another origin can do nothing in the name of a user who is known by a cookie',
  async (world) => {
    await world.serve(startCookies());
    const context = await world.context();
    const own = await world.open('/', context);
    const id = await own.evaluate(async () => {
      await fetch('/login');
      globalThis.client = connect({ token: undefined });
      globalThis.seen = follow(client.submit('wait', {}, { id: 'secret' }));
      await until(() => seen.story.includes('running'));
      return seen.id;
    });

    const foreign = await context.newPage();
    world.watch(foreign);
    await foreign.goto(`http://127.0.0.1:${world.site.port}/elsewhere.html`);
    const tried = await foreign.evaluate(
      async ([origin, id]) => {
        const call = (path, init) =>
          fetch(origin + path, { credentials: 'include', ...init }).then(
            (r) => `${r.type} ${r.status}`,
            () => 'nothing',
          );
        const body = (id) => JSON.stringify({ id, action: 'wait', payload: {} });
        const post = (id, type, mode) =>
          call('/requests', { method: 'POST', mode, headers: { 'content-type': type }, body: body(id) });
        const socket = () =>
          new Promise((resolve) => {
            const ws = new WebSocket(`${origin.replace('http', 'ws')}/ws`, 'streamer.v1');
            ws.onmessage = (m) => resolve(m.data);
            ws.onopen = () => ws.send(`{"type":"hello","v":1,"resume":[{"id":"${id}"}]}`);
            ws.onclose = () => resolve('nothing');
          });
        const source = (path) =>
          new Promise((resolve) => {
            const events = new EventSource(origin + path, { withCredentials: true });
            events.onmessage = (m) => resolve(m.data);
            events.onerror = () => resolve('nothing');
          });
        // What cannot be read is seen by what it leaves at the server.
        await post('blind-text', 'text/plain', 'no-cors');
        await post('blind-form', 'application/x-www-form-urlencoded', 'no-cors');
        return {
          state: await call(`/requests/${id}`),
          page: await call(`/requests/${id}/events`, { headers: { accept: 'application/json' } }),
          json: await post('json', 'application/json'),
          text: await post('text', 'text/plain'),
          cancel: await call(`/requests/${id}`, { method: 'DELETE' }),
          ticket: await call('/tickets', { method: 'POST' }),
          socket: await socket(),
          one: await source(`/requests/${id}/events`),
          many: await source(`/events?r=${id}`),
        };
      },
      [world.origin, id],
    );
    assert.deepEqual([...new Set(Object.values(tried))], ['nothing'], JSON.stringify(tried));

    for (const [type, name] of [
      ['text/plain', '{"id":"by-form","action":"wait","ignored":"'],
      ['application/x-www-form-urlencoded', 'action'],
      ['multipart/form-data', 'action'],
    ]) {
      const answered = foreign.waitForResponse((r) => r.request().method() === 'POST');
      await foreign.evaluate(
        ([action, type, name]) => {
          document.body.innerHTML = '<iframe name="answer"></iframe><form method="post" target="answer"><input></form>';
          const form = document.querySelector('form');
          Object.assign(form, { action, enctype: type });
          Object.assign(form.querySelector('input'), { name, value: '"}' });
          form.submit();
        },
        [`${world.origin}/requests`, type, name],
      );
      assert.equal((await answered).status(), 403, type);
    }

    const after = await own.evaluate(async () => {
      const ids = ['blind-text', 'blind-form', 'json', 'text', 'by-form'];
      const found = await Promise.all(ids.map((id) => fetch(`/requests/${id}`).then((r) => r.status)));
      const { status } = await fetch('/requests/secret').then((r) => r.json());
      await client.attach('secret').cancel();
      await until(() => seen.over);
      return { found, status, end: seen.error.code };
    });
    assert.deepEqual(after, { found: [404, 404, 404, 404, 404], status: 'running', end: 'CANCELED' });
  },
  { lab: false },
);

scenario('a page of another origin can not use the service, not even with a token', async (world) => {
  const own = await world.open('/');
  const foreign = await world.open(`http://localhost:${world.wire.port}/elsewhere.html`, undefined, () => true);
  const told = await foreign.evaluate(async (origin) => {
    const call = (init) =>
      fetch(`${origin}/requests`, init).then(
        (r) => r.status,
        () => 'nothing',
      );
    return call({
      method: 'POST',
      headers: { authorization: 'Bearer acme:ann', 'content-type': 'application/json' },
      body: '{"id":"stolen","action":"echo","payload":1}',
    });
  }, world.origin);
  assert.equal(told, 'nothing');
  const missing = await own.evaluate(() => connect().attach('stolen').catch(failure));
  assert.equal(missing.code, 'NOT_FOUND');
});
