// What the tests call from within the page. Everything here is also what an application could write.
import { StreamerClient, StreamerError } from '/client/index.js';
import { keepIn } from '/client/storage.js';

const socket = new URL('/ws', location.href.replace(/^http/, 'ws'));

/** Returns a client of the service behind this page, with the states it goes through. storage: a prefix. */
function connect({ storage, ...options } = {}) {
  const client = new StreamerClient(socket, {
    token: 'acme:ann',
    ...(storage && { storage: keepIn(storage) }),
    ...options,
    onState(state) {
      client.states.push({ phase: state.phase, transport: state.transport, error: state.error?.message });
      for (const look of [...looks]) look();
    },
  });
  client.states = [];
  return client;
}

/** Returns what an application sees of a request, which grows. */
function follow(handle) {
  const seen = { id: handle.id, story: [], outputs: [], percentages: [], gaps: [], over: false };
  const take = async () => {
    for await (const e of handle) {
      if (e.type === 'progress') seen.percentages.push(e.percentage);
      else seen.story.push(e.type);
      if (e.type === 'output') seen.outputs.push(e.data.i);
      if (e.type === 'gap') seen.gaps.push(e.reason);
      for (const look of [...looks]) look();
    }
    seen.result = await handle;
  };
  take()
    .catch((e) => {
      seen.error = failure(e);
    })
    .finally(() => {
      seen.over = true;
      for (const look of [...looks]) look();
    });
  followed.push(seen);
  return seen;
}

const failure = (e) => ({ ours: StreamerError.is(e), code: e.code, name: e.name, message: e.message });

const looks = new Set();
const followed = [];

/** Resolves when test holds, which is looked at with each event and change of state. */
function until(test) {
  return new Promise((resolve) => {
    const look = () => {
      if (!test()) return;
      looks.delete(look);
      resolve();
    };
    looks.add(look);
    look();
  });
}

Object.assign(globalThis, { connect, follow, until, failure, followed });
